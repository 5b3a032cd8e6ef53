"""The hidden folder beside `--out` in which a training lies until it is done, so that it can be taken up again."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from cspedge import atomic
from cspedge.errors import CspedgeError, UsageError, WorkspaceError

STATE, KEY = "state.pt", "run.json"


def folder_for(out: Path) -> Path:
    """`.NAME.training` beside the folder NAME."""
    return out.parent / f".{out.name}.training"


def check_out(out: Path, *, overwrite: bool) -> None:
    """Raises UsageError where `out` exists and may not be replaced: only a checkpoint or an empty folder ever is."""
    if out.exists() and not overwrite:
        raise UsageError(f"{str(out)!r} exists already; choose another --out, or replace it with --overwrite")
    if out.exists() and not (out / "config.json").is_file() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{str(out)!r} is no checkpoint folder and is not replaced; choose another --out")


@contextmanager
def work_folder(out: Path, key: Mapping[str, Any], *, overwrite: bool) -> Iterator[Path]:
    """The work folder of the training that `key` describes (plain JSON values): new, or the one a killed run left.

    It is removed when the block ends well, when a new training fails, and where no state was written yet; a training
    that was interrupted, or could not write, keeps it. Raises UsageError where one of another key lies there (replaced
    with `overwrite`) or another process works in it, WorkspaceError where it cannot be made.
    """
    folder = folder_for(out)
    atomic.make_folder(folder)
    with _locked(folder):
        if not overwrite:
            _refuse_other(folder, key)
        elif _differences(folder, key):
            _empty(folder)
        new = not (folder / STATE).exists()
        atomic.write_json(folder / KEY, dict(key))
        try:
            yield folder
        except BaseException as error:
            failed = isinstance(error, CspedgeError) and not isinstance(error, WorkspaceError)
            if not (folder / STATE).exists() or (new and failed):
                atomic.remove(folder)
            raise
        atomic.remove(folder)


def write_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Writes tensors and plain values, whole or not at all, behind their SHA-256. Raises WorkspaceError."""
    import torch

    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    data = buffer.getvalue()
    atomic.write_bytes(folder / STATE, hashlib.sha256(data).digest() + data)


def read_state(folder: Path) -> dict[str, Any] | None:
    """What `write_state` wrote, on the CPU; None where nothing was. Raises WorkspaceError for other bytes."""
    import torch

    path = folder / STATE
    try:
        with atomic.translate_errors(path, "read"):
            raw = path.read_bytes()
    except FileNotFoundError:
        return None
    if hashlib.sha256(raw[32:]).digest() != raw[:32]:
        raise WorkspaceError(f"the interrupted training {str(path)!r} is damaged; delete its folder and train again")
    state: dict[str, Any] = torch.load(io.BytesIO(raw[32:]), map_location="cpu", weights_only=True)
    return state


def publish(result: Path, out: Path) -> None:
    """Makes the finished folder `result` readable for everyone, durable, and `out`. Raises WorkspaceError."""
    with atomic.translate_errors(result):
        for path in result.iterdir():
            path.chmod(0o644)  # safetensors makes its files private
    atomic.publish(result, out)


def _refuse_other(folder: Path, key: Mapping[str, Any]) -> None:
    other = _differences(folder, key)
    if other:
        more = f" and {len(other) - 4} more" if len(other) > 4 else ""
        raise UsageError(
            f"an interrupted training lies in {str(folder)!r} and differs from this one in "
            f"{', '.join(other[:4])}{more}; repeat its command to finish it, or discard it with --overwrite"
        )


def _differences(folder: Path, key: Mapping[str, Any]) -> list[str]:
    """What differs between this training and the one that lies there; nothing where none does."""
    path = folder / KEY
    if not path.is_file() or not (folder / STATE).is_file():
        return []
    try:
        before = _flat(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise WorkspaceError(f"{str(path)!r} is damaged ({error}); delete its folder and train again") from error
    now = _flat(json.loads(json.dumps(key)))
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, item in value.items():
        found |= _flat(item, f"{prefix}{name}.") if isinstance(item, dict) else {f"{prefix}{name}": item}
    return found


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name != "lock":
            atomic.remove(path)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keeps a second process out; the lock goes with the process, however that ends. Nothing on Windows."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with atomic.translate_errors(folder):
        handle: IO[bytes] = (folder / "lock").open("wb")
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"another process is training into {str(folder)!r}; wait for it, or choose another --out"
            ) from error
        yield
