"""The sources of the sample apps, and projects made of them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cspedge import atomic
from cspedge.resources import data_folder

# What builds leave behind, and what belongs to one user's editor.
_BUILT = frozenset({".build", "build", ".gradle", ".kotlin", ".swiftpm", "DerivedData", "xcuserdata"})


def app_sources(name: str) -> dict[str, bytes]:
    """The files of `apps/<name>` by POSIX path, sorted, without what builds left there."""
    return files_of(data_folder("apps") / name)


def files_of(root: Path) -> dict[str, bytes]:
    """The files below a folder by POSIX path, sorted, without what builds left there."""
    found = {}
    for path in sorted(root.rglob("*")):
        place = path.relative_to(root)
        if path.is_file() and not _BUILT.intersection(place.parts):
            found[place.as_posix()] = path.read_bytes()
    return found


def requirements(manifest: Mapping[str, Any], **besides: str) -> bytes:
    """requirements.txt of a bundle: its runtimes in their very versions, and other packages by version."""
    needed = {**besides, **{a["runtime"]["name"]: a["runtime"]["version"] for a in manifest["artifacts"]}}
    return "".join(f"{name}=={found}\n" for name, found in sorted(needed.items())).encode()


def set_line(text: str, start: str, value: str) -> str:
    """`text` with another value on the one line that begins with `start`."""
    changed, count = re.subn(rf"^{re.escape(start)}.*$", lambda _: start + value, text, flags=re.MULTILINE)
    assert count == 1, f"{count} lines begin with {start!r}"
    return changed


def write_project(out: Path, name: str, files: Mapping[str, bytes], folders: Mapping[str, Path]) -> Path:
    """Writes the folder `out/name`, whole or not at all, in place of one that is there.

    files: content by POSIX path; folders: copied into the project, by the POSIX path that they get there. A project is
    made of sources, bundle and key alone, so the same ones give the same bytes. Raises WorkspaceError.
    """
    final = out / name
    with atomic.staging(out) as staging, atomic.translate_errors(final):
        draft = staging / name
        for path, data in files.items():
            (draft / path).parent.mkdir(parents=True, exist_ok=True)
            (draft / path).write_bytes(data)
        for path, folder in folders.items():
            shutil.copytree(folder, draft / path)
        atomic.publish(draft, final)
    return final
