"""A bundle as it comes: a folder or a zip, listed by strict rules before a byte of it is read."""

from __future__ import annotations

import hashlib
import stat
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from cspedge import atomic
from cspedge.bundle.manifest import NAME, SIGNATURE
from cspedge.bundle.names import check_paths
from cspedge.bundle.refusal import Kind, Refusal

MAX_FILES, MAX_BYTES, MAX_TEXT = 4096, 2 << 30, 4 << 20
# as for archives of images: what grows more than this when it is unpacked is made to fill the disk
GROWTH, GROWTH_FREE = 200, 64 << 20
_CHUNK = 1 << 20
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError)


class Container:
    """The files of a bundle: `sizes` by path. Read each once, with `read` or `copy`, and use those bytes."""

    def __init__(self, path: Path) -> None:
        """Raises Refusal: `not-a-bundle`, `archive-damaged`, `path-unsafe`, `link`, `name-collision`, `too-large`."""
        self.path = path
        self._stack = ExitStack()
        self._zip: zipfile.ZipFile | None = None
        self._members: Mapping[str, zipfile.ZipInfo] = {}
        with self._stack:  # closes the file where the bundle is refused
            self.sizes = self._open_all()
            self._check_limits()
            self._stack = self._stack.pop_all()

    def __enter__(self) -> Container:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def read(self, name: str) -> bytes:
        """All bytes of one file, which `sizes` limits; Refusal where it gives more or fewer."""
        return b"".join(self._chunks(name))

    def copy(self, name: str, destination: Path) -> str:
        """Writes one file to `destination` and returns the SHA-256 of exactly what was written."""
        digest = hashlib.sha256()
        destination.parent.mkdir(parents=True, exist_ok=True)
        with destination.open("xb") as file:
            for chunk in self._chunks(name):
                digest.update(chunk)
                file.write(chunk)
        return digest.hexdigest()

    def _chunks(self, name: str) -> Iterator[bytes]:
        left = self.sizes[name]
        try:
            with self._open(name) as file:
                while chunk := file.read(min(_CHUNK, left + 1)):
                    left -= len(chunk)
                    if left < 0:
                        raise Refusal(Kind.TOO_LARGE, f"{name!r} gives more bytes than it declares; do not use it")
                    yield chunk
        except _DAMAGE as error:
            raise _damaged(self.path, error) from error
        if left:
            raise Refusal(Kind.ARCHIVE_DAMAGED, f"{name!r} ends {left} bytes early; take the bundle again")

    def _open_all(self) -> Mapping[str, int]:
        """Sizes by path."""
        if self.path.is_dir():
            sizes = _folder_sizes(self.path)
        elif self.path.is_file():
            try:
                self._zip = self._stack.enter_context(zipfile.ZipFile(self.path))
                self._members = _zip_members(self._zip)
            except _DAMAGE as error:
                raise _damaged(self.path, error) from error
            sizes = {name: member.file_size for name, member in self._members.items()}
        else:
            raise Refusal(
                Kind.NOT_A_BUNDLE, f"{str(self.path)!r} does not exist; give the folder or the zip of a bundle"
            )
        if NAME not in sizes:
            raise Refusal(
                Kind.NOT_A_BUNDLE, f"{str(self.path)!r} holds no {NAME}; give the folder or the zip of a bundle"
            )
        return sizes

    def _open(self, name: str) -> IO[bytes]:
        return (self.path / name).open("rb") if self._zip is None else self._zip.open(self._members[name])

    def _check_limits(self) -> None:
        total = sum(self.sizes.values())
        if len(self.sizes) > MAX_FILES or total > MAX_BYTES:
            raise Refusal(
                Kind.TOO_LARGE,
                f"the bundle has {len(self.sizes):,} files and {total:,} bytes; at most {MAX_FILES:,} and "
                f"{MAX_BYTES:,} are allowed",
            )
        if self._zip is not None and total > GROWTH * self.path.stat().st_size + GROWTH_FREE:
            raise Refusal(
                Kind.TOO_LARGE,
                f"the zip of {self.path.stat().st_size:,} bytes declares {total:,}; that is made to fill the disk",
            )
        for name in (NAME, SIGNATURE):
            if self.sizes.get(name, 0) > MAX_TEXT:
                raise Refusal(
                    Kind.TOO_LARGE, f"{name} has {self.sizes[name]:,} bytes; at most {MAX_TEXT:,} are allowed"
                )


def _folder_sizes(folder: Path) -> dict[str, int]:
    try:
        found = atomic.plain_files(folder)
    except ValueError as error:
        raise Refusal(Kind.LINK, f"the bundle holds a link: {error}; take the bundle from its source again") from error
    empty = [name for name in found if name.endswith("/")]
    check_paths(name for name in found if name not in empty)
    if empty:
        raise Refusal(Kind.FILE_EXTRA, f"the bundle holds the empty folder {empty[0]!r}; remove it")
    return {name: status.st_size for name, status in found.items()}


def _zip_members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The files of a zip by their path in the bundle; the one folder that may hold everything is left out of it."""
    infos = archive.infolist()
    if len(infos) > 2 * MAX_FILES:
        raise Refusal(Kind.TOO_LARGE, f"the zip has {len(infos):,} members; at most {MAX_FILES:,} files are allowed")
    for info in infos:
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise Refusal(Kind.LINK, f"the zip's {info.filename!r} is a link or a device; take the bundle again")
        if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise Refusal(
                Kind.ARCHIVE_DAMAGED,
                f"the zip's {info.filename!r} is encrypted or not plainly deflated; pack it again with an ordinary zip",
            )
    # orig_filename: what stands in the file; ZipFile itself cuts names at a NUL and turns backslashes around
    files = {info.orig_filename: info for info in infos if not info.orig_filename.endswith("/")}
    names = [info.orig_filename for info in infos]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise Refusal(Kind.NAME_COLLISION, f"the zip holds {twice!r} twice; take the bundle again")
    check_paths(files)
    check_paths(name.rstrip("/") for name in names if name.endswith("/"))
    tops = {name.split("/", 1)[0] for name in files}
    if NAME in files or len(tops) != 1:
        return dict(sorted(files.items()))
    return {name.split("/", 1)[1]: info for name, info in sorted(files.items()) if "/" in name}


def _damaged(path: Path, error: Exception) -> Refusal:
    return Refusal(
        Kind.ARCHIVE_DAMAGED, f"{str(path)!r} cannot be read ({error}); it is truncated or damaged, take it again"
    )
