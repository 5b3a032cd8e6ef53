"""Names of files, bundles and versions, by the rules of docs/bundle.md."""

from __future__ import annotations

import re
from collections.abc import Iterable

from cspedge.bundle.refusal import Kind, Refusal
from cspedge.errors import UsageError

MAX_LENGTH = 240
_PART = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_-])?")
_VERSION = re.compile(r"(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})")

Version = tuple[int, int, int]


def is_safe(path: str) -> bool:
    """Whether a path may stand in a bundle."""
    return len(path) <= MAX_LENGTH and all(_PART.fullmatch(part) for part in path.split("/"))


def check_paths(paths: Iterable[str]) -> None:
    """Raises Refusal for the first unsafe path, and for two that a file system or a reader could take for one."""
    files: dict[str, str] = {}
    folders: dict[str, str] = {}
    for path in paths:
        if not is_safe(path):
            raise Refusal(
                Kind.PATH_UNSAFE,
                f"the bundle holds {path!r}, a name that leads outside or is read differently elsewhere; allowed are "
                "relative paths of ASCII letters, digits, '.', '_' and '-' that do not begin with '.'",
            )
        if path.lower() in files:
            raise _collision(files[path.lower()], path)
        files[path.lower()] = path
        parts = path.split("/")
        for depth in range(1, len(parts)):
            folder = "/".join(parts[:depth])
            if folders.setdefault(folder.lower(), folder) != folder:
                raise _collision(folders[folder.lower()], folder)
    for name in files.keys() & folders.keys():
        raise _collision(files[name], folders[name])


def _collision(one: str, other: str) -> Refusal:
    return Refusal(
        Kind.NAME_COLLISION,
        f"the bundle holds both {one!r} and {other!r}, which are one name to some file systems; take one away",
    )


def parse_version(text: str, what: str = "version") -> Version:
    """MAJOR.MINOR.PATCH as three integers; UsageError for anything else."""
    found = _VERSION.fullmatch(text)
    if found is None:
        raise UsageError(f"the {what} is {text!r}; give MAJOR.MINOR.PATCH, three whole numbers, as 1.4.0")
    return int(found[1]), int(found[2]), int(found[3])


def safe_name(text: str) -> str:
    """The text as a file name that every bundle may hold: other characters become '-'."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:90].strip("-._")
    return name or "model"
