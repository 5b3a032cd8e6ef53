"""The store: each stage's result under the SHA-256 of everything it depends on.

    objects/<2 digits>/<key>/manifest.json, files/...    results, never changed once they are there
    refs/<name>.json                                     keys a run used: `gc` keeps these
    quarantine/<key>-<unique>/object, reason.txt         damage found on read
    tmp/                                                 results being built

A stage is done when an object under its key verifies: every file's size and SHA-256 against the manifest,
the manifest against its own digest. Objects appear by one rename, so no lock is needed; processes that build
the same key at once both work, and the first object stands. Files inside an object are for reading: a tool
that writes beside its input (a cache, say) damages it, and the object is built again.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from cspedge import atomic
from cspedge.digest import pretty_json, sha256_file, sha256_json
from cspedge.errors import CspedgeError, TargetError, WorkspaceError

_log = logging.getLogger(__name__)

SCHEMA = 1
_KEY = re.compile(r"[0-9a-f]{64}")
_REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_MANIFEST_FIELDS = frozenset({"schema", "key", "stage", "inputs", "files", "meta", "sha256"})
_VOLATILE = "seconds"  # the one entry of `meta` that differs between two builds of the same result
_MANIFEST = "manifest.json"
_ATTEMPTS = 8
_FULL = 4096  # a disk with fewer free bytes than a block is full


class State(StrEnum):
    """What is known of an object."""

    OK = "ok"
    DAMAGED = "damaged"
    UNVERIFIED = "unverified"  # its manifest is sound, its files were not read


@dataclass(frozen=True, kw_only=True)
class StoredObject:
    """A verified result. `path` is the folder of its files; `meta` and `inputs` are JSON values."""

    key: str
    stage: str
    path: Path
    inputs: dict[str, Any]
    meta: dict[str, Any]
    bytes: int
    files: dict[str, str]  # relative POSIX name to SHA-256

    @property
    def digest(self) -> str:
        """SHA-256 of what the result is: its stage, files and `meta` without `seconds`.

        Equal for two builds that gave the same bytes, however long they took: the value to put into the
        inputs of a later stage.
        """
        meta = {name: value for name, value in self.meta.items() if name != _VOLATILE}
        return sha256_json({"stage": self.stage, "files": self.files, "meta": meta})

    @property
    def seconds(self) -> float | None:
        """How long the original build took; None where `put` was told no time."""
        value = self.meta.get(_VOLATILE)
        return None if value is None else float(value)

    def file(self, name: str) -> Path:
        """Path of a file, or of a folder with files in it; KeyError for a name the object does not hold."""
        if name not in self.files and not any(known.startswith(f"{name}/") for known in self.files):
            raise KeyError(f"the {self.stage} result {self.key[:12]} holds no {name!r}, only {sorted(self.files)}")
        return self.path / name


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """What `Store.stage` found or built. `seconds` is the time of this call, `object.seconds` that of the build."""

    object: StoredObject
    cached: bool
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A line of `Store.ls`. `stage` is None where the manifest cannot be read; `created` is in POSIX seconds."""

    key: str
    stage: str | None
    bytes: int
    files: int
    created: float
    state: State


@dataclass(frozen=True, kw_only=True)
class Removed:
    """Something `Store.gc` removed: its path relative to the store, its size and why."""

    path: str
    bytes: int
    reason: str


class _Damage(Exception):
    """An object that is not what its manifest says; the message becomes `reason.txt`."""


class Store:
    """Results of stages under `root`, which is made on the first write; reading never needs write access.

    Every method raises WorkspaceError where the file system refuses (full disk, read-only, not a folder).
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @staticmethod
    def key(stage: str, code_version: int, inputs: Mapping[str, object]) -> str:
        """SHA-256 of the canonical JSON of stage, code version and inputs, in hexadecimal digits.

        `inputs` are JSON values (digests for anything large). Names that are not strings raise TypeError:
        JSON would write 1 and "1" the same. NaN and infinities raise ValueError.
        """
        _check_names(inputs, "inputs")
        return sha256_json({"stage": stage, "code_version": code_version, "inputs": inputs})

    def get(self, key: str) -> StoredObject | None:
        """The object under `key`, verified to the last byte, or None.

        A damaged object goes to `quarantine/` (where the store can be written) and is a miss, as is one
        that another process removes meanwhile.
        """
        return self._lookup(key)[0]

    def put(
        self, key: str, stage: str, inputs: Mapping[str, object], source_dir: Path, meta: Mapping[str, object]
    ) -> StoredObject:
        """Stores a copy of the files below `source_dir` (empty folders are dropped) under `key`.

        If a sound object is there already, it stays and is returned. Raises ValueError where `source_dir`
        holds links or devices or `meta` holds NaN, TypeError for names in `meta` that are not strings.
        """
        with self._staging() as folder:
            return self._publish(folder, key, stage, inputs, source_dir, meta, shutil.copyfile)

    def stage(
        self,
        name: str,
        code_version: int,
        inputs: Mapping[str, object],
        build: Callable[[Path], Mapping[str, object]],
    ) -> StageResult:
        """The stored result of stage `name`, or that of `build`, which is then stored.

        `build` writes files into the empty folder it is given and returns `meta`, JSON values that belong
        to the result. The build's time is added as `meta["seconds"]`; it is covered by the manifest's own
        digest (so that damage shows) and left out of `StoredObject.digest` (so that results are reproducible).
        An error of `build` leaves nothing behind and is passed on, as WorkspaceError where the disk was full.
        """
        start = time.perf_counter()
        key = self.key(name, code_version, inputs)
        found = self.get(key)
        if found is not None:
            return StageResult(object=found, cached=True, seconds=time.perf_counter() - start)
        with self._staging() as folder:
            result = folder / "result"
            with atomic.translate_errors(result):
                result.mkdir()
            built = time.perf_counter()
            with _build_errors(folder):
                meta = dict(build(result))
            meta[_VOLATILE] = round(time.perf_counter() - built, 3)
            stored = self._publish(folder, key, name, inputs, result, meta, os.replace)
        return StageResult(object=stored, cached=False, seconds=time.perf_counter() - start)

    def ref(self, name: str, keys: Collection[str]) -> None:
        """Records that `name` (a run) uses `keys`, in place of what it used before: `gc` keeps them.

        Written before the objects are built, it also keeps a `gc` at the same moment from taking them away.
        """
        if _REF.fullmatch(name) is None:
            raise ValueError(f"a reference is named with letters, digits, '.', '_' and '-', not {name!r}")
        value = {"schema": SCHEMA, "name": name, "keys": sorted({_checked(key) for key in keys})}
        atomic.write_json(self.root / "refs" / f"{name}.json", value)

    def referenced(self) -> set[str]:
        """Keys that any reference names; WorkspaceError for a reference that cannot be read."""
        keys: set[str] = set()
        for path in _children(self.root / "refs"):
            if path.suffix != ".json" or path.name.startswith("."):
                continue
            try:
                with atomic.translate_errors(path, "read"):
                    keys.update(_checked(key) for key in json.loads(path.read_bytes())["keys"])
            except FileNotFoundError:
                continue
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                raise WorkspaceError(
                    f"cannot read the reference {str(path)!r}, so nobody knows what it keeps; "
                    f"run the command that wrote it again, or delete it"
                ) from error
        return keys

    def ls(self, *, check: bool = False) -> list[Entry]:
        """The objects, sorted by key. With `check` every byte is read; nothing is moved to quarantine."""
        entries = []
        for key, folder in self._objects():
            try:
                created = folder.lstat().st_mtime
            except FileNotFoundError:
                continue
            try:
                found = _read(folder, key, check=check)
            except _Damage:
                size, count = _measure(folder)
                if not os.path.lexists(folder):
                    continue
                entry = Entry(key=key, stage=None, bytes=size, files=count, created=created, state=State.DAMAGED)
            else:
                state = State.OK if check else State.UNVERIFIED
                size, count = found.bytes, len(found.files)
                entry = Entry(key=key, stage=found.stage, bytes=size, files=count, created=created, state=state)
            entries.append(entry)
        return entries

    def verify(self) -> list[tuple[str, str | None]]:
        """Reads every object; (key, None) for a sound one, (key, problem) for one that went to quarantine."""
        results = []
        for key, _ in self._objects():
            found, problem = self._lookup(key)
            if found is not None or problem is not None:  # neither: it vanished meanwhile
                results.append((key, problem))
        return results

    def gc(
        self, keep: Collection[str] | None = None, older_than_days: float | None = None, dry_run: bool = False
    ) -> list[Removed]:
        """Removes what no run needs, and says what: leftovers of killed processes, quarantine, unused objects.

        An object is used when a reference or `keep` names its key. `older_than_days` spares younger objects
        and quarantine; leftovers go at any age, once their process is dead. Files the store does not know stay.
        """
        used = self.referenced() | {_checked(key) for key in keep or ()}
        newest = None if older_than_days is None else time.time() - older_than_days * 86_400
        removed: list[Removed] = []
        folders = [self.root / name for name in ("", "tmp", "refs", "quarantine")]
        folders += _folders(self.root / "objects")
        for path in (path for folder in folders for path in _children(folder)):
            if atomic.is_stale(path):
                self._remove(path, "left by a process that ended", removed, dry_run)
        for path in _children(self.root / "quarantine"):
            if not atomic.is_temporary(path) and _is_older(path, newest):
                self._remove(path, "quarantine", removed, dry_run)
        for key, path in self._objects():
            if key not in used and _is_older(path, newest):
                self._remove(path, "no reference", removed, dry_run)
        return removed

    def _folder(self, key: str) -> Path:
        return self.root / "objects" / _checked(key)[:2] / key

    def _objects(self) -> Iterator[tuple[str, Path]]:
        for prefix in _folders(self.root / "objects"):
            for folder in _children(prefix):
                if _KEY.fullmatch(folder.name) and folder.name[:2] == prefix.name:
                    yield folder.name, folder

    def _staging(self) -> AbstractContextManager[Path]:
        return atomic.staging(self.root / "tmp")

    def _lookup(self, key: str) -> tuple[StoredObject | None, str | None]:
        """The object under `key`, or the problem for which it went to quarantine, or neither for a miss."""
        folder = self._folder(key)
        with atomic.translate_errors(folder, "read"):
            try:
                judged = folder.lstat()
            except FileNotFoundError:
                return None, None
            try:
                return _read(folder, key, check=True), None
            except _Damage as damage:
                problem = str(damage)
        # "A file is missing" is also how an object looks that another process is just taking away.
        return None, problem if self._quarantine(key, judged, problem) else None

    def _quarantine(self, key: str, judged: os.stat_result, reason: str) -> bool:
        """Moves the damaged object away; False where it is gone already (another process was first)."""
        folder = self._folder(key)
        place = self.root / "quarantine" / f"{key}-{secrets.token_hex(4)}"
        moved = place / "object"
        try:
            place.mkdir(parents=True)
            os.rename(folder, moved)
        except FileNotFoundError:
            shutil.rmtree(place, ignore_errors=True)
            return False
        except OSError as error:
            # Serving reads matters more: in a read-only store a damaged object is a miss each time.
            shutil.rmtree(place, ignore_errors=True)
            _log.warning("damaged object %s (%s) cannot be moved to quarantine: %s", key, reason, error.strerror)
            return True
        try:
            now = moved.lstat()
        except FileNotFoundError:  # a `gc` has emptied the quarantine
            return True
        if (now.st_dev, now.st_ino) != (judged.st_dev, judged.st_ino):
            # Another process was first and has put a sound object in its place: that one goes back. Where
            # a third one has filled the place meanwhile, ours is a duplicate.
            with suppress(OSError):
                os.rename(moved, folder)
            shutil.rmtree(place, ignore_errors=True)
            return False
        _log.warning("object %s is damaged (%s) and was moved to %s", key, reason, place)
        with suppress(OSError):  # a full disk: the move is what counts
            (place / "reason.txt").write_text(reason + "\n", encoding="utf-8")
        return True

    def _publish(
        self,
        folder: Path,
        key: str,
        stage: str,
        inputs: Mapping[str, object],
        source: Path,
        meta: Mapping[str, object],
        transfer: Callable[[Path, Path], object],
    ) -> StoredObject:
        """Lays the object out in the staging `folder`, makes it durable and renames it into place."""
        destination = self._folder(key)
        _check_names(inputs, "inputs")
        _check_names(meta, "meta")
        draft = folder / "object"
        with atomic.translate_errors(destination):
            files: dict[str, dict[str, object]] = {}
            for name in _payload(source):
                target = draft / "files" / name
                target.parent.mkdir(parents=True, exist_ok=True)
                transfer(source / name, target)
                files[name] = {"bytes": target.stat().st_size, "sha256": sha256_file(target)}
            (draft / "files").mkdir(parents=True, exist_ok=True)
            rest = {
                "schema": SCHEMA,
                "key": key,
                "stage": stage,
                "inputs": dict(inputs),
                "files": files,
                "meta": dict(meta),
            }
            (draft / "manifest.json").write_bytes(pretty_json({**rest, "sha256": sha256_json(rest)}).encode())
            atomic.make_folder(destination.parent)
            atomic.fsync_tree(draft)
        ours = _read(draft, key, check=False)
        for _ in range(_ATTEMPTS):
            with atomic.translate_errors(destination):
                if _rename_new(draft, destination):
                    atomic.fsync_folder(destination.parent)
                    return replace(ours, path=destination / "files")
            theirs = self.get(key)
            if theirs is not None:
                if theirs.digest != ours.digest:
                    _log.warning("two builds of the %s result %s differ; the first one stands", stage, key)
                return theirs
        raise WorkspaceError(
            f"cannot store {str(destination)!r}: a damaged object is in its place and cannot be moved away; delete it"
        )

    def _remove(self, path: Path, reason: str, removed: list[Removed], dry_run: bool) -> None:
        size, _ = _measure(path)
        if not dry_run:
            # Out of sight by one rename first: no process ever sees an object that is half removed. In the
            # same folder, because a full disk may have no room for another one.
            doomed = path.with_name(atomic.temporary_name())
            with atomic.translate_errors(path, "remove"):
                try:
                    os.rename(path, doomed)
                except FileNotFoundError:  # another process removed it
                    return
            atomic.remove(doomed)
        removed.append(Removed(path=path.relative_to(self.root).as_posix(), bytes=size, reason=reason))


@contextmanager
def _build_errors(folder: Path) -> Iterator[None]:
    """Errors of a build that are the workspace's, not the build's, become WorkspaceError; others pass."""
    try:
        yield
    except OSError as error:
        # A failed write carries no name; a failed open does, and may be of an input elsewhere.
        place = folder if error.filename is None else Path(os.fsdecode(error.filename))
        ours = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS) or place.is_relative_to(folder)
        translated = atomic.workspace_error(place, error) if ours else None
        if translated is None and error.errno is None:  # numpy: "786432 requested and 249728 written"
            translated = _full_disk(folder)
        if translated is None:
            raise
        raise translated from error
    except Exception as error:
        # Writers in C++ say "failed to write" at best; an error cspedge itself raised knows its cause,
        # except that of a target, which may have such a writer behind it.
        if isinstance(error, CspedgeError) and not isinstance(error, TargetError):
            raise
        full = _full_disk(folder)
        if full is None:
            raise
        raise full from error


def _full_disk(folder: Path) -> WorkspaceError | None:
    """The error of a full disk, where there is next to no room; None where there is."""
    if shutil.disk_usage(folder).free >= _FULL:
        return None
    return atomic.workspace_error(folder, OSError(errno.ENOSPC, "no space left"))


def _read(folder: Path, key: str, *, check: bool) -> StoredObject:
    """The object in `folder`; raises _Damage. Without `check` the files' sizes are compared, not their content."""
    try:
        if not stat.S_ISDIR(folder.lstat().st_mode):
            raise _Damage("the object is not a folder")
        found = atomic.plain_files(folder)
        if _MANIFEST not in found:
            raise _Damage(f"{_MANIFEST} is missing")
        manifest = _parse((folder / _MANIFEST).read_bytes(), key)
        files: dict[str, dict[str, Any]] = manifest["files"]
        expected = {_MANIFEST, *(f"files/{name}" for name in files)} | (set() if files else {"files/"})
        for name in sorted(expected ^ found.keys()):
            raise _Damage(f"{name!r} is {'missing' if name in expected else 'not in the manifest'}")
        for name, entry in files.items():
            if found[f"files/{name}"].st_size != entry["bytes"]:
                raise _Damage(f"'files/{name}' has {found[f'files/{name}'].st_size} bytes, not {entry['bytes']}")
            if check and sha256_file(folder / "files" / name) != entry["sha256"]:
                raise _Damage(f"'files/{name}' does not have its SHA-256")
    except ValueError as error:
        raise _Damage(str(error)) from error
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EIO):
            raise
        raise _Damage(f"{str(error.filename or folder)!r} cannot be read: {error.strerror}") from error
    return StoredObject(
        key=key,
        stage=manifest["stage"],
        path=folder / "files",
        inputs=manifest["inputs"],
        meta=manifest["meta"],
        bytes=sum(entry["bytes"] for entry in files.values()),
        files={name: entry["sha256"] for name, entry in files.items()},
    )


def _parse(data: bytes, key: str) -> dict[str, Any]:
    """The manifest in `data`; raises _Damage for anything `_publish` would not have written, to the byte."""
    try:
        manifest = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _Damage(f"{_MANIFEST} is not JSON: {error}") from error
    if not isinstance(manifest, dict) or manifest.keys() != _MANIFEST_FIELDS:
        raise _Damage(f"{_MANIFEST} does not have the fields {sorted(_MANIFEST_FIELDS)}")
    if manifest["schema"] != SCHEMA:
        raise _Damage(f"{_MANIFEST} has schema {manifest['schema']!r}, not {SCHEMA}")
    if manifest["key"] != key:
        raise _Damage(f"{_MANIFEST} has the key {manifest['key']!r}")
    rest = {name: value for name, value in manifest.items() if name != "sha256"}
    if manifest["sha256"] != sha256_json(rest) or pretty_json(manifest).encode() != data:
        raise _Damage(f"{_MANIFEST} does not have its own SHA-256")
    files = manifest["files"]
    if not (
        isinstance(manifest["stage"], str)
        and all(isinstance(manifest[name], dict) for name in ("inputs", "meta", "files"))
        and all(isinstance(entry, dict) and entry.keys() == {"bytes", "sha256"} for entry in files.values())
        and all(isinstance(entry["bytes"], int) and isinstance(entry["sha256"], str) for entry in files.values())
    ):
        raise _Damage(f"{_MANIFEST} has a field of the wrong type")
    for name in files:
        if not _is_contained(name):
            raise _Damage(f"{_MANIFEST} names a path outside the object, {name!r}")
    return manifest


def _is_contained(name: str) -> bool:
    """Whether `name` is a plain relative POSIX path: no root, no drive, no '.', no '..'."""
    return "\\" not in name and ":" not in name and all(part not in ("", ".", "..") for part in name.split("/"))


def _payload(source: Path) -> list[str]:
    names = [name for name in atomic.plain_files(source) if not name.endswith("/")]
    for name in names:
        if not _is_contained(name):
            raise ValueError(f"a result cannot hold a file named {name!r}")
    return names


def _rename_new(draft: Path, destination: Path) -> bool:
    """Renames a folder to a place that is free; False where it is not."""
    try:
        os.rename(draft, destination)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            return False
        raise
    return True


def _checked(key: object) -> str:
    if not isinstance(key, str) or _KEY.fullmatch(key) is None:
        raise ValueError(f"a key has 64 hexadecimal digits, unlike {key!r}")
    return key


def _check_names(value: object, where: str) -> None:
    """Refuses names that JSON would turn into strings, so that different inputs never look the same."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            if not isinstance(name, str):
                raise TypeError(f"{where} has the name {name!r}, which is not a string")
            _check_names(item, f"{where}.{name}")
    elif isinstance(value, list | tuple):
        for item in value:
            _check_names(item, where)


def _children(folder: Path) -> list[Path]:
    """What is directly in `folder`, sorted; nothing where it does not exist."""
    try:
        with atomic.translate_errors(folder, "read"):
            return sorted(folder.iterdir())
    except FileNotFoundError:
        return []


def _folders(folder: Path) -> list[Path]:
    """The folders directly in `folder`, sorted, without links to folders."""
    with atomic.translate_errors(folder, "read"):
        return [path for path in _children(folder) if path.is_dir() and not path.is_symlink()]


def _measure(path: Path) -> tuple[int, int]:
    """Bytes and number of the files at or below `path`, links not followed; what vanishes counts nothing."""
    size = count = 0
    for place in (path, *path.rglob("*")):
        with suppress(FileNotFoundError):
            status = place.lstat()
            if not stat.S_ISDIR(status.st_mode):
                size, count = size + status.st_size, count + 1
    return size, count


def _is_older(path: Path, newest: float | None) -> bool:
    try:
        return newest is None or path.lstat().st_mtime <= newest
    except FileNotFoundError:
        return False
