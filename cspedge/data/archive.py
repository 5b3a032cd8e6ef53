"""Images inside a .zip or .tar file: listed by strict rules, read member by member, never unpacked as a tree.

timm's tar reader was looked at and left: it knows plain .tar only, goes into nested archives, and keeps its listing in
a pickle.
"""

from __future__ import annotations

import lzma
import os
import re
import stat
import tarfile
import tempfile
import threading
import unicodedata
import weakref
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from cspedge.atomic import translate_errors
from cspedge.errors import InputError
from cspedge.models.preprocess import MAX_PIXELS

ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
OTHER_ENDINGS = (".7z", ".bz2", ".gz", ".rar", ".tzst", ".xz", ".zst")
# No encoding of an image that `decode` accepts needs more than its pixels do.
MAX_BYTES = 3 * MAX_PIXELS
# Images hardly shrink: a compressed tar that grows more than this is made to fill the disk.
_GROWTH, _GROWTH_FREE = 200, 64 << 20
_DAMAGE = (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError, ValueError)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One member as the archive declares it. name: as written there; kind: file, folder, link or other; size: bytes."""

    name: str
    kind: str
    size: int
    encrypted: bool = False


class Archive(ABC):
    """An opened archive. `names`: its images, sorted POSIX paths; `folders`: every folder; `ignored`: other files.

    `read` may be called from threads and from forked processes. Opening raises InputError for what is no archive, is
    damaged, or breaks a rule: absolute paths, `..`, backslashes, links, devices, names that are equal or differ only in
    case or Unicode form, encrypted images, and images above `MAX_BYTES`. Files that are no images (nested archives are
    none) and hidden ones are ignored.
    """

    def __init__(self, path: Path, extensions: frozenset[str]) -> None:
        self.path, self._extensions = path, extensions
        self.folders: set[str] = set()
        self.ignored = 0
        self._spelling: dict[str, str] = {}
        self._files: set[str] = set()
        try:
            self._open()
        except _DAMAGE as error:
            raise InputError(
                f"the archive {str(path)!r} cannot be read ({error}); it is damaged, or not of the format its "
                "name says: pack it again, or give the unpacked folder"
            ) from error
        self.names: tuple[str, ...] = tuple(sorted(self._files))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self._extensions)  # file handles do not travel to another process

    @abstractmethod
    def _open(self) -> None: ...

    @abstractmethod
    def read(self, name: str) -> bytes:
        """The bytes of one image; OSError where they are damaged, so that a file and a member fail alike."""

    def _admit(self, entry: Entry) -> str | None:
        """The clean name of an image to be kept, None for what is ignored; InputError where a rule is broken."""
        name = self._clean(entry)
        if entry.kind == "folder":
            self.folders.add(name)
            return None
        path = PurePosixPath(name)
        if path.suffix.lower() not in self._extensions or any(part.startswith(".") for part in path.parts):
            self.ignored += 1
            return None
        if entry.encrypted:
            raise self._refused(entry, "is encrypted; make the archive again without a password")
        if entry.size > MAX_BYTES:
            raise self._refused(entry, f"declares {entry.size:,} bytes, and an image has {MAX_BYTES:,} at most")
        self._files.add(name)
        self.folders.update(parent.as_posix() for parent in path.parents if parent.parts)
        return name

    def _clean(self, entry: Entry) -> str:
        path = PurePosixPath(entry.name)
        if path.is_absolute() or ".." in path.parts or "\\" in entry.name or re.match(r"[A-Za-z]:", entry.name):
            raise self._refused(entry, "is no plain relative path with '/'; make the archive again from its folder")
        if entry.kind not in {"file", "folder"}:
            raise self._refused(entry, "is a link or a device; make the archive again with the files themselves")
        name = path.as_posix()
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise self._refused(entry, "is not valid UTF-8; rename it") from error
        for part in (path, *path.parents):
            spelled = part.as_posix()
            twin = self._spelling.setdefault(unicodedata.normalize("NFC", spelled).casefold(), spelled)
            if twin != spelled or (part is path and entry.kind == "file" and name in self._files):
                raise self._refused(entry, f"stands there twice (or as {twin!r}, which some disks take for it)")
        return name

    def _refused(self, entry: Entry, why: str) -> InputError:
        return InputError(f"the member {entry.name!r} of the archive {str(self.path)!r} {why}")


class ZipArchive(Archive):
    """A .zip file; its directory is held, its members are decompressed when they are read."""

    def _open(self) -> None:
        self._members: dict[str, zipfile.ZipInfo] = {}
        self._lock = threading.Lock()
        self._handle: tuple[int, zipfile.ZipFile] | None = None
        for info in self._zip().infolist():
            mode = info.external_attr >> 16
            kind = "folder" if info.is_dir() else "link" if stat.S_ISLNK(mode) else "file"
            name = self._admit(
                Entry(name=info.filename, kind=kind, size=info.file_size, encrypted=bool(info.flag_bits & 1))
            )
            if name is not None:
                self._members[name] = info

    def _zip(self) -> zipfile.ZipFile:
        """The handle of this process: `ZipFile` is safe between threads, but forked processes share a file's offset."""
        with self._lock:
            if self._handle is None or self._handle[0] != os.getpid():
                self._handle = (os.getpid(), zipfile.ZipFile(self.path))
            return self._handle[1]

    def read(self, name: str) -> bytes:
        try:
            return self._zip().read(self._members[name])  # never more than the declared size
        except OSError:
            raise
        except (*_DAMAGE, NotImplementedError, RuntimeError) as error:
            raise OSError(f"damaged in the archive: {error}") from error


class _WholeTar(tarfile.TarInfo):
    """A header reader for which only the end mark is the end; tarfile takes a cut or a damaged header for it, too."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> _WholeTar:
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # the stubs leave it out
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error} at byte {tar.offset}, and no end mark before it") from error


class TarArchive(Archive):
    """A .tar file, read at its members' offsets; a compressed one's images are first copied to an unnamed file.

    Compressed tar has no random access. The copy lies in the system's folder for temporary files (`TMPDIR`), has no
    name, and is gone with the process, however that ends.
    """

    def _open(self) -> None:
        self._places: dict[str, tuple[int, int]] = {}
        try:
            with tarfile.open(self.path, "r:", tarinfo=_WholeTar) as tar:
                self._list(tar, None)
            self._file: IO[bytes] = self.path.open("rb")
        except tarfile.ReadError:
            self.__dict__.update(folders=set(), ignored=0, _spelling={}, _files=set(), _places={})
            self._file = tempfile.TemporaryFile()  # noqa: SIM115
            weakref.finalize(self, self._file.close)
            tar = tarfile.open(self.path, "r:*", tarinfo=_WholeTar)  # noqa: SIM115
            with tar, translate_errors(Path(tempfile.gettempdir())):
                self._list(tar, self._file)
            self._file.flush()
        else:
            weakref.finalize(self, self._file.close)

    def _list(self, tar: tarfile.TarFile, copy: IO[bytes] | None) -> None:
        allowed = max(_GROWTH_FREE, _GROWTH * self.path.stat().st_size)
        for member in tar:
            plain = member.isreg() and not member.issparse()
            kind = "folder" if member.isdir() else "file" if plain else "link" if member.issym() else "other"
            name = self._admit(Entry(name=member.name, kind=kind, size=member.size))
            if name is None:
                continue
            if copy is None:
                self._places[name] = (member.offset_data, member.size)
                continue
            self._places[name] = (copy.tell(), member.size)
            if copy.tell() + member.size > allowed:
                raise InputError(
                    f"the archive {str(self.path)!r} grows to more than {_GROWTH} times its size, which images do not; "
                    "unpack it and give the folder, if you trust it"
                )
            source = tar.extractfile(member)
            assert source is not None
            copy.write(source.read())

    def read(self, name: str) -> bytes:
        offset, size = self._places[name]
        data = os.pread(self._file.fileno(), size, offset)  # no shared offset: threads and forks do not disturb it
        if len(data) < size:
            raise OSError("the archive ends before the image does")
        return data


def find(path: Path) -> tuple[Path, str] | None:
    """(archive file, path inside it) for `photos.zip` or `photos.zip/train`; None where no part of it is an archive.

    Raises InputError for kinds of archives that cannot be read.
    """
    for part in (path, *path.parents):
        name = part.name.lower()
        if name.endswith((*ENDINGS, *OTHER_ENDINGS)) and part.is_file():
            if not name.endswith(ENDINGS):
                raise InputError(
                    f"{str(part)!r} is an archive of a kind that cannot be read; allowed: {', '.join(ENDINGS)}; "
                    "pack it so, or unpack it and give the folder"
                )
            inner = path.relative_to(part).as_posix()
            return part, "" if inner == "." else inner
    return None


def open_archive(path: Path, extensions: frozenset[str]) -> Archive:
    """Opens a .zip or (compressed) .tar file for images with these endings. Raises InputError."""
    kind = ZipArchive if path.name.lower().endswith(".zip") else TarArchive
    return kind(path, extensions)


def stem(path: Path) -> str:
    """The file's name without its archive ending: `photos` for `photos.tar.gz`."""
    name = path.name
    ending = max((end for end in ENDINGS if name.lower().endswith(end)), key=len, default="")
    return name[: len(name) - len(ending)]


@dataclass(frozen=True, kw_only=True)
class ArchiveFolder:
    """A folder inside an archive, which `ImageList` reads its images from. prefix: "" or a path ending in a slash."""

    archive: Archive
    prefix: str

    def read(self, name: str) -> bytes:
        return self.archive.read(self.prefix + name)

    @property
    def names(self) -> Iterator[str]:
        """Image names below the folder, relative to it."""
        return (name.removeprefix(self.prefix) for name in self.archive.names if name.startswith(self.prefix))

    @property
    def folders(self) -> Iterator[str]:
        """Folders directly in this one."""
        below = (name.removeprefix(self.prefix) for name in self.archive.folders if name.startswith(self.prefix))
        return (name for name in below if name and "/" not in name and not name.startswith((".", "__MACOSX")))

    @property
    def source(self) -> str:
        return self.prefix.rstrip("/").rpartition("/")[2] or stem(self.archive.path)

    def __str__(self) -> str:
        return f"{self.archive.path}/{self.prefix}".rstrip("/")


def folder_in(archive: Archive, inner: str) -> ArchiveFolder | None:
    """The folder `inner` of an archive ("": the whole); None where it is not there.

    A single top folder is looked through: where every image lies two folders deep or more below one and the same top
    folder, `inner` counts from there, too.
    """
    tops = {name.partition("/")[0] for name in archive.names}
    wrapped = len(tops) == 1 and all(name.count("/") >= 2 for name in archive.names)
    top = f"{next(iter(tops))}/" if wrapped else ""
    if not inner:
        return ArchiveFolder(archive=archive, prefix=top)
    for prefix in (f"{inner}/", f"{top}{inner}/"):
        if any(name.startswith(prefix) for name in archive.names):
            return ArchiveFolder(archive=archive, prefix=prefix)
    return None


__all__ = ["ENDINGS", "MAX_BYTES", "Archive", "ArchiveFolder", "Entry", "find", "folder_in", "open_archive", "stem"]
