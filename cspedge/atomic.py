"""Files and folders that are either there whole or not there at all.

Every write goes the same way: a unique temporary name in the folder of the destination, fsync of the
content, rename, fsync of the folder. A process that is killed leaves nothing but temporary names, and
those say which process made them, so that `remove_stale` can tell a dead writer's from a live one's.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import re
import secrets
import shutil
import socket
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cspedge.digest import pretty_json
from cspedge.errors import WorkspaceError

_ELSEWHERE = "choose another folder"
_REASONS: dict[int, tuple[str, str]] = {
    errno.ENOSPC: ("the disk is full", "free some space or choose a folder on another disk"),
    errno.EDQUOT: ("the disk quota is used up", "free some space or choose a folder on another disk"),
    errno.EROFS: ("the file system is read-only", "choose a folder that can be written"),
    errno.EACCES: ("permission is denied", "change its permissions or choose another folder"),
    errno.EPERM: ("the operation is not permitted", "change its permissions or choose another folder"),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", f"move that file away or {_ELSEWHERE}"),
    errno.EEXIST: ("a file is in the way of a folder", f"move that file away or {_ELSEWHERE}"),
    errno.EISDIR: ("a folder is in the way of a file", f"move that folder away or {_ELSEWHERE}"),
    errno.EFBIG: ("the file is larger than the limit of this process or file system", _ELSEWHERE),
    errno.ENAMETOOLONG: ("the name is too long for the file system", _ELSEWHERE),
    errno.EIO: ("the device reported an input/output error", f"check the disk or {_ELSEWHERE}"),
}

# `.tmp-<pid>-<start time of the process>-<machine>-<unique>`: a pid alone is given out again, and a
# workspace on a network disk is shared by machines whose pids mean nothing to each other.
_TEMPORARY = re.compile(r"\.tmp-(?P<pid>\d+)-(?P<start>\d+)-(?P<machine>[0-9a-f]{8})-[0-9a-f]{16}")
_FOREIGN_SECONDS = 86_400.0


def workspace_error(path: Path, error: OSError, verb: str = "write") -> WorkspaceError | None:
    """The sentence for an OSError of the file system at `path`; None where the error is of another kind."""
    known = None if error.errno is None else _REASONS.get(error.errno)
    if known is None:
        return None
    reason, remedy = known
    return WorkspaceError(f"cannot {verb} {str(path)!r}: {reason}; {remedy}")


@contextmanager
def translate_errors(path: Path, verb: str = "write") -> Iterator[None]:
    """Raises WorkspaceError, naming `path`, for the OSErrors a full, read-only or misplaced folder causes."""
    try:
        yield
    except OSError as error:
        translated = workspace_error(path, error, verb)
        if translated is None:
            raise
        raise translated from error


def _start_time(pid: int) -> str:
    """Start time of a process in clock ticks since boot; "0" where the system does not tell (no /proc)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return "0"
    # A zombie is dead: its parent has merely not asked for the exit status yet.
    return "gone" if fields[0] in "ZX" else fields[19]


@functools.cache
def _machine() -> str:
    """Short name of this boot of this machine, and of the pid namespace within it (containers)."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
    with suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def temporary_name() -> str:
    """A name no other writer uses, which says what process made it."""
    pid = os.getpid()
    return f".tmp-{pid}-{_start_time(pid)}-{_machine()}-{secrets.token_hex(8)}"


def is_temporary(path: Path) -> bool:
    """Whether `path` has a temporary name, of a living writer or a dead one."""
    return _TEMPORARY.fullmatch(path.name) is not None


def is_stale(path: Path) -> bool:
    """Whether `path` is a temporary file or folder whose writer is dead.

    The writer of another machine cannot be asked: its temporaries are stale when nothing in them was
    written for a day. Names that are not temporary names are never stale.
    """
    match = _TEMPORARY.fullmatch(path.name)
    if match is None:
        return False
    if match["machine"] != _machine() or sys.platform == "win32":
        return time.time() - _newest(path) > _FOREIGN_SECONDS
    pid = int(match["pid"])
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:  # another user's, so alive
        return False
    return _start_time(pid) != match["start"]


def _newest(path: Path) -> float:
    """Latest modification time at or below `path`, without following links; 0 where it vanished."""
    newest = 0.0
    for place in (path, *path.rglob("*")):
        with suppress(OSError):
            newest = max(newest, place.lstat().st_mtime)
    return newest


def remove_stale(folder: Path, *, dry_run: bool = False) -> list[Path]:
    """Removes what killed processes left directly in `folder`; the paths removed (or to be removed), sorted.

    Raises WorkspaceError where the folder cannot be read; a folder that is not there has nothing stale.
    """
    try:
        with translate_errors(folder, "read"):
            stale = sorted(path for path in folder.iterdir() if is_stale(path))
    except FileNotFoundError:
        return []
    if not dry_run:
        for path in stale:
            remove(path)
    return stale


def remove(path: Path) -> None:
    """Removes a file, a link or a whole folder; one that is gone already is no error.

    Raises WorkspaceError where the file system forbids it.
    """
    with translate_errors(path, "remove"):
        try:
            if stat.S_ISDIR(path.lstat().st_mode):
                shutil.rmtree(path)
            else:
                path.unlink()
        except FileNotFoundError:
            # Another process removes the same tree: finish what it may have left.
            shutil.rmtree(path, ignore_errors=True)


def fsync_folder(folder: Path) -> None:
    """Makes the names in `folder` durable, where the system can (Windows and some network disks cannot)."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def fsync_tree(path: Path) -> None:
    """Makes a file, or every file and folder of a tree, durable."""
    if path.is_dir():
        for child in sorted(path.iterdir()):
            if not child.is_symlink():
                fsync_tree(child)
        fsync_folder(path)
        return
    # Windows flushes only handles open for writing; elsewhere any will do, even of a read-only file.
    descriptor = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Makes `folder` and its missing parents durably; WorkspaceError where that cannot be."""
    with translate_errors(folder):
        if folder.is_dir():
            return
        if folder.parent != folder:
            make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        fsync_folder(folder.parent)


def write_bytes(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Writes `data` to `path`, replacing a file that is there; parents are made. mode: less the process's umask.

    A reader sees the old content or the new one, never a part. Raises WorkspaceError (full disk, read-only,
    not permitted, a part of the path is a file); the old content then stands and no temporary file remains.
    """
    make_folder(path.parent)
    temporary = path.with_name(temporary_name())
    with translate_errors(path):
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        fsync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of UTF-8 text; line ends stay as they are."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """`write_bytes` of `cspedge.digest.pretty_json`; ValueError for NaN and infinities, before anything is written."""
    write_text(path, pretty_json(value))


@contextmanager
def staging(parent: Path) -> Iterator[Path]:
    """A new, empty folder in `parent` (so on its file system), removed with what is left in it on any exit.

    Raises WorkspaceError where it cannot be made; errors of the body are passed on as they are.
    """
    make_folder(parent)
    folder = parent / temporary_name()
    with translate_errors(folder):
        folder.mkdir()
    try:
        yield folder
    finally:
        # A leftover has a temporary name and goes with `remove_stale`; the body's own error matters more.
        shutil.rmtree(folder, ignore_errors=True)


def plain_files(folder: Path) -> dict[str, os.stat_result]:
    """The files below `folder` by relative POSIX name, sorted, each with its status.

    Raises ValueError for anything that is neither a file nor a folder (links, sockets, devices): its
    content is not in the tree. Empty folders are listed with a slash at the end.
    """
    found: dict[str, os.stat_result] = {}
    pending = [""]
    while pending:
        prefix = pending.pop()
        with os.scandir(folder / prefix) as entries:
            children = list(entries)
        if prefix and not children:
            found[prefix] = (folder / prefix).lstat()
        for child in children:
            name = prefix + child.name
            status = child.stat(follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                pending.append(name + "/")
            elif stat.S_ISREG(status.st_mode):
                found[name] = status
            else:
                raise ValueError(f"{name!r} is neither a file nor a folder (a link, a socket or a device)")
    return dict(sorted(found.items()))


def publish(temporary: Path, path: Path) -> None:
    """Makes the file or folder `temporary` durable and renames it to `path`, replacing what is there.

    Both must be on one file system (`staging(path.parent)`). A file is replaced in one step. A folder in the
    way is renamed aside first, which is two steps: killed between them, `path` is missing, never mixed.
    A folder never replaces a file, nor a file a folder. Raises WorkspaceError; `path` then is as it was.
    """
    with translate_errors(path):
        make_folder(path.parent)
        fsync_tree(temporary)
        if not (temporary.is_dir() and path.is_dir() and not path.is_symlink()):
            os.replace(temporary, path)
            fsync_folder(path.parent)
            return
        aside = path.with_name(temporary_name())
        os.rename(path, aside)
        try:
            os.rename(temporary, path)
        except BaseException:
            os.rename(aside, path)
            raise
        fsync_folder(path.parent)
    remove(aside)


def replace_tree(src_dir: Path, dst_dir: Path) -> None:
    """Makes `dst_dir` an exact copy of the folder `src_dir`: what was in it before is gone.

    Raises ValueError where `src_dir` holds links or devices, WorkspaceError where `dst_dir` cannot be
    written; it then is as it was, and nothing temporary remains.
    """
    names = plain_files(src_dir)
    with staging(dst_dir.parent) as folder, translate_errors(dst_dir):
        copy = folder / "tree"
        copy.mkdir()
        for name in names:
            target = copy / name
            if name.endswith("/"):
                target.mkdir(parents=True, exist_ok=True)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(src_dir / name, target)
        publish(copy, dst_dir)
