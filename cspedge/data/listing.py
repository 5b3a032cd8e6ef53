"""What a folder or an archive of images holds, which labels its subfolders give, and whether two share images."""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cspedge.data import archive as archives
from cspedge.digest import sha256_bytes
from cspedge.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

EXTENSIONS = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})


@dataclass(frozen=True, kw_only=True)
class ImageList:
    """Encoded images by name and content digest, in a folder (`root`), an archive (`members`) or in memory (`blobs`).

    names: POSIX paths relative to the source, sorted; digests: SHA-256 of each encoded file; class_names: sorted,
    () for a flat folder; class_of: class of each image or None; ignored: number of other files, hidden ones included
    (in an archive, those of the whole archive); empty: class folders without an image, which are no classes.
    """

    source: str
    names: tuple[str, ...]
    digests: tuple[str, ...]
    class_names: tuple[str, ...] = ()
    class_of: tuple[str | None, ...] = ()
    root: Path | None = field(default=None, repr=False, compare=False)
    blobs: tuple[bytes, ...] | None = field(default=None, repr=False, compare=False)
    members: archives.ArchiveFolder | None = field(default=None, repr=False, compare=False)
    ignored: int = 0
    empty: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> bytes:
        """The encoded bytes of one image; OSError where the file cannot be read."""
        if self.blobs is not None:
            return self.blobs[index]
        if self.members is not None:
            return self.members.read(self.names[index])
        if self.root is None:
            raise ValueError("an ImageList needs a root, members or blobs")
        return (self.root / self.names[index]).read_bytes()

    def subset(self, indices: Iterable[int], *, source: str | None = None) -> ImageList:
        """These images in this order, with the whole list's `class_names`."""
        chosen = tuple(indices)
        return ImageList(
            source=self.source if source is None else source,
            names=tuple(self.names[i] for i in chosen),
            digests=tuple(self.digests[i] for i in chosen),
            class_names=self.class_names,
            class_of=tuple(self.class_of[i] for i in chosen),
            root=self.root,
            blobs=None if self.blobs is None else tuple(self.blobs[i] for i in chosen),
            members=self.members,
            empty=self.empty,
        )


def scan(folder: Path) -> ImageList:
    """Lists and hashes the images of a folder: one subfolder per class (torchvision's ImageFolder), or flat.

    folder: a folder, an archive (`photos.zip`, `photos.tar.gz`, ...), or a folder inside one (`photos.zip/train`); of
    an archive a single top folder is looked through (`cspedge.data.archive`). The same images give the same names and
    digests from either. Images are known by their extension (`EXTENSIONS`, any case); other files and hidden ones are
    counted in `ignored`. A file that cannot be read stays in the list, for `load` to count and name. `source` is the
    folder's name only. Raises InputError for a missing path, a file, an archive that breaks the rules, a folder without
    images, or images both in the folder itself and in subfolders (nobody can say which are labelled).
    """
    found = None if folder.is_dir() else archives.find(folder)
    if found is not None:
        return scan_archive(archives.open_archive(found[0], EXTENSIONS), found[1])
    _refuse_non_folder(folder)
    names: list[str] = []
    ignored = 0
    for path in _files(folder):
        if path.suffix.lower() in EXTENSIONS and not path.name.startswith(".") and _may_be_file(path):
            names.append(_utf8(path.relative_to(folder)))
        else:
            ignored += 1
    below = [path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    listed = _listed(str(folder), names, below, ignored, lambda name: (folder / name).read_bytes())
    return dataclasses.replace(listed, source=folder.resolve().name, root=folder)


def scan_archive(archive: archives.Archive, inner: str = "") -> ImageList:
    """`scan` of a folder inside an archive that is open already; InputError where there is no image in it."""
    members = archives.folder_in(archive, inner)
    if members is None:
        raise InputError(f"no images below {inner!r} in the archive {str(archive.path)!r}; give a folder that it holds")
    listed = _listed(str(members), list(members.names), list(members.folders), archive.ignored, members.read)
    return dataclasses.replace(listed, source=members.source, members=members)


def _listed(place: str, names: list[str], folders: list[str], ignored: int, read: Callable[[str], bytes]) -> ImageList:
    if not names:
        found = f"only {ignored} other files" if ignored else "it is empty"
        raise InputError(f"no images in {place!r} ({found}); images are files ending in {_extensions()}")
    names.sort()
    tops = [name.split("/", 1)[0] if "/" in name else None for name in names]
    class_names = tuple(sorted({top for top in tops if top is not None}))
    if class_names and None in tops:
        loose = names[tops.index(None)]
        raise InputError(
            f"{place!r} holds images both in itself ({loose!r} and {tops.count(None) - 1} more) and in "
            f"subfolders ({class_names[0]!r}, ...); use one subfolder per class, or no subfolders"
        )
    return ImageList(
        source="",
        names=tuple(names),
        digests=tuple(_digest(read, name) for name in names),
        class_names=class_names,
        class_of=tuple(tops),
        ignored=ignored,
        empty=tuple(sorted(set(folders) - set(class_names))),
    )


def labels_for(images: ImageList, label_names: Sequence[str], *, num_classes: int) -> NDArray[np.int64]:
    """Class index of each image, int64 [n], from its folder's name.

    With `label_names` (the model's, in class order) folder names must be among them, exactly. Without, folders are
    decimal class indices (`0`, `17`, `0003`), or there are exactly `num_classes` of them and their sorted order counts
    (torchvision's ImageFolder rule). Raises InputError where neither holds.
    """
    import numpy as np

    if not images.class_names:
        raise InputError(
            f"the images of {images.source!r} have no labels; validation needs one subfolder per class, "
            f"{_naming(label_names, num_classes)}"
        )
    index = _class_index(images, tuple(label_names), num_classes)
    return np.array([index[str(name)] for name in images.class_of], dtype=np.int64)


def overlap(a_digests: Iterable[str], b_digests: Iterable[str]) -> tuple[str, ...]:
    """Content digests that stand in both, sorted."""
    return tuple(sorted(set(a_digests) & set(b_digests)))


def check_disjoint(
    calibration: ImageList,
    validation: ImageList,
    *,
    allow: bool,
    what: str = "calibration",
    remedy: str = "take them out of one, or allow (and record) it: --allow-overlap",
) -> int:
    """How many distinct images (by content) both lists hold; InputError naming a few where that is not allowed.

    what: the use of the first list; remedy: what the error tells to do.
    """
    shared = overlap(calibration.digests, validation.digests)
    if shared and not allow:
        a = dict(zip(reversed(calibration.digests), reversed(calibration.names), strict=True))
        b = dict(zip(reversed(validation.digests), reversed(validation.names), strict=True))
        pairs = sorted(f"{a[digest]!r} = {b[digest]!r}" for digest in shared)
        more = f" and {len(pairs) - 3} more" if len(pairs) > 3 else ""
        raise InputError(
            f"{what} ({calibration.source!r}) and validation ({validation.source!r}) share {len(shared)} images "
            f"by content: {', '.join(pairs[:3])}{more}; {remedy}"
        )
    return len(shared)


def _refuse_non_folder(folder: Path) -> None:
    if not folder.exists():
        raise InputError(f"no such folder: {str(folder)!r}; give a folder of images, or of one subfolder per class")
    if folder.is_dir():
        return
    raise InputError(
        f"{str(folder)!r} is a file; give a folder of images, or of one subfolder per class, or an archive of it "
        f"({', '.join(archives.ENDINGS)})"
    )


def _files(folder: Path) -> Iterator[Path]:
    """Files below a folder, through links to folders, each real folder once (links may form a loop)."""
    seen: set[str] = set()
    for base, folders, files in os.walk(folder, followlinks=True, onerror=_unreadable_folder):
        real = os.path.realpath(base)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(base, name) for name in sorted(files))


def _unreadable_folder(error: OSError) -> None:
    raise InputError(f"cannot list {error.filename!r} ({error.strerror}); make it readable or leave it out") from error


def _may_be_file(path: Path) -> bool:
    """False for pipes and devices (reading one may never end); true for a dangling link, which `load` names."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return True


def _utf8(path: Path) -> str:
    name = path.as_posix()
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"the file name {name!r} is not valid UTF-8; rename it") from error
    return name


def _digest(read: Callable[[str], bytes], name: str) -> str:
    try:
        return sha256_bytes(read(name))
    except OSError:
        return sha256_bytes(f"unreadable:{name}".encode())


def _class_index(images: ImageList, label_names: tuple[str, ...], num_classes: int) -> dict[str, int]:
    folders = images.class_names
    if label_names:
        if len(label_names) != num_classes:
            raise InputError(f"the model has {num_classes} classes and {len(label_names)} label names; they must agree")
        index = {name: i for i, name in enumerate(label_names) if label_names.count(name) == 1}
        bad = [name for name in folders if name not in index]
    elif all(name.isascii() and name.isdigit() for name in folders):
        index = {name: int(name) for name in folders}
        bad = [name for name in folders if index[name] >= num_classes]
        if len(set(index.values())) < len(index):
            raise InputError(f"{images.source!r} has two folders for one class index: {', '.join(folders)}")
    else:
        index = {name: i for i, name in enumerate(folders)}
        bad = [] if len(folders) == num_classes else list(folders)
    if bad:
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise InputError(
            f"{len(bad)} of {len(folders)} class folders in {images.source!r} are no class of the model: "
            f"{', '.join(map(repr, bad[:3]))}{more}; name the folders {_naming(label_names, num_classes)}"
        )
    return index


def _naming(label_names: Sequence[str], num_classes: int) -> str:
    if label_names:
        shown = ", ".join(map(repr, label_names[:3]))
        return f"as the model's {len(label_names)} labels are named ({shown}{', ...' if len(label_names) > 3 else ''})"
    without = "the model has no label names; --labels FILE gives them"
    return f"0 to {num_classes - 1} ({without}), or have exactly {num_classes} folders"


def _extensions() -> str:
    return ", ".join(sorted(EXTENSIONS))
