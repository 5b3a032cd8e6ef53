"""Evaluations of the accuracy loop as they come, so that an interrupted search goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cspedge import atomic
from cspedge.digest import sha256_json

if TYPE_CHECKING:
    from cspedge.quantize.measure import Measured

SCHEMA = 1


class Journal:
    """Measurements by the tensors in float, in one file that is replaced whole after each.

    path: None to keep nothing. What stands there belongs to one set of numbers, one placement and one set of images:
    the file's name must say which. A file that cannot be read is as good as none.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._entries: dict[str, dict[str, Any]] = {}
        if path is not None:
            atomic.make_folder(path.parent)
            atomic.remove_stale(path.parent)
            self._entries = _read(path)

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, tensors: Collection[str]) -> tuple[Measured, float] | None:
        """What these tensors in float gave, and the seconds that it took."""
        from cspedge.quantize.measure import Measured

        found = self._entries.get(_key(tensors))
        return None if found is None else (Measured(**found["measured"]), float(found["seconds"]))

    def put(self, tensors: Collection[str], measured: Measured, seconds: float) -> None:
        """Keeps one evaluation. Raises WorkspaceError where the file cannot be written."""
        self._entries[_key(tensors)] = {
            "tensors": sorted(tensors),
            "measured": measured.to_dict(),
            "seconds": seconds,
        }
        if self.path is not None:
            atomic.write_json(self.path, {"schema": SCHEMA, "evaluations": self._entries})


def _key(tensors: Collection[str]) -> str:
    return sha256_json(sorted(tensors))


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        with atomic.translate_errors(path, "read"):
            data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:  # no JSON, or no UTF-8: not written by us
        return {}
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        return {}
    found = data["evaluations"]
    return {key: entry for key, entry in found.items() if _key(entry["tensors"]) == key}
