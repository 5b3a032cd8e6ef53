"""Archives: the same images as from the folder, and every member that must not be read."""

from __future__ import annotations

import io
import pickle
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from cspedge import api
from cspedge.data import ImageList, check_disjoint, digits, load, overlap, scan
from cspedge.data.archive import ENDINGS, MAX_BYTES, find, stem
from cspedge.errors import InputError
from cspedge.types import Preprocess

CONTRACT = Preprocess(
    input_size=(3, 16, 16),
    crop_pct=1.0,
    crop_mode="center",
    interpolation="bilinear",
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)
IMAGE = digits("val").read(0)


def pack(archive: Path, files: dict[str, bytes] | list[tuple[str, bytes]]) -> Path:
    """An archive of these files, in this order; a list may hold a name twice."""
    members = list(files.items()) if isinstance(files, dict) else files
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
            for name, data in members:
                file.writestr(name, data)
        return archive
    kind = {".tar": "", ".tgz": "gz", ".gz": "gz", ".bz2": "bz2", ".tbz2": "bz2", ".xz": "xz", ".txz": "xz"}
    with tarfile.open(archive, f"w:{kind[archive.suffix]}") as file:  # type: ignore[call-overload]
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
    return archive


def real(part: str = "train", count: int = 12) -> dict[str, bytes]:
    """Some digits by name; every class has one."""
    images = digits(part)
    chosen = range(0, len(images), len(images) // count)
    return {images.names[i]: images.read(i) for i in chosen}


def unpacked(folder: Path, members: dict[str, bytes]) -> Path:
    for name, data in members.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def same(a: ImageList, b: ImageList) -> bool:
    return (a.names, a.digests, a.class_names, a.class_of) == (b.names, b.digests, b.class_names, b.class_of)


@pytest.mark.parametrize("top", ["", "pictures/"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_an_archive_is_the_folder_that_it_holds(ending: str, top: str, tmp_path: Path) -> None:
    members = real()
    folder = unpacked(tmp_path / "photos", members)
    path = pack(tmp_path / f"photos{ending}", {f"{top}{name}": data for name, data in members.items()})
    inside, outside = scan(path), scan(folder)
    assert same(inside, outside)
    assert len(inside.class_names) == 10
    assert inside.source == (top.rstrip("/") or "photos")
    assert str(tmp_path) not in repr(inside)
    a, b = (load(images, None, CONTRACT, workers=4) for images in (inside, outside))
    np.testing.assert_array_equal(a.images, b.images)
    assert a.sha256 == b.sha256
    few = inside.subset([3, 1])
    assert few.read(0) == members[few.names[0]]


@pytest.mark.parametrize("ending", [".zip", ".tgz"])
@pytest.mark.parametrize("top", ["", "caltech/"])
def test_a_folder_inside_an_archive_has_a_path(ending: str, top: str, tmp_path: Path) -> None:
    parts = {part: real(part) for part in ("train", "val")}
    members = {f"{top}{part}/{name}": data for part, files in parts.items() for name, data in files.items()}
    path = pack(tmp_path / f"all{ending}", members)
    for part, files in parts.items():
        images = scan(path / part)
        assert same(images, scan(unpacked(tmp_path / part, files)))
        assert images.source == part
    assert scan(path).class_names == ("train", "val")
    with pytest.raises(InputError, match=r"no images below 'test' in the archive '.*all"):
        scan(path / "test")


def test_calibration_and_validation_take_archives(tmp_path: Path) -> None:
    reference = api.load_reference()
    parts = {part: real(part) for part in ("train", "val")}
    path = pack(
        tmp_path / "all.tgz", {f"{part}/{name}": data for part, files in parts.items() for name, data in files.items()}
    )
    folders = {part: unpacked(tmp_path / part, files) for part, files in parts.items()}
    calibration = [api.collect_calibration(reference, place, count=10) for place in (path / "train", folders["train"])]
    assert calibration[0].sha256 == calibration[1].sha256
    np.testing.assert_array_equal(calibration[0].images, calibration[1].images)
    validation = [api.collect_validation(reference, place) for place in (path / "val", folders["val"])]
    assert validation[0].sha256 == validation[1].sha256


def test_images_are_compared_across_folders_and_archives(tmp_path: Path) -> None:
    folder = scan(unpacked(tmp_path / "folder", real("val")))
    archive = scan(pack(tmp_path / "archive.tar.xz", real("val")))
    assert len(overlap(folder.digests, archive.digests)) == len(folder)
    with pytest.raises(InputError, match=r"training \('folder'\) and validation \('archive'\) share \d+ .*; leave it"):
        check_disjoint(folder, archive, allow=False, what="training", remedy="leave it")


def contents(images: ImageList) -> list[bytes]:
    return [images.read(i) for i in range(len(images))]


def check_in_child(images: ImageList, expected: list[bytes]) -> None:
    for _ in range(20):
        assert contents(images) == expected


@pytest.mark.parametrize("ending", [".zip", ".tar", ".tgz"])
def test_other_processes_read_the_same_members(ending: str, tmp_path: Path) -> None:
    images = scan(pack(tmp_path / f"photos{ending}", real()))
    expected = contents(images)
    assert contents(pickle.loads(pickle.dumps(images))) == expected  # as a spawned loader process gets it
    # a forked loader process inherits the open file; four of them read in turns from it
    children = [get_context("fork").Process(target=check_in_child, args=(images, expected)) for _ in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0] * 4


def test_what_is_no_image_is_ignored(tmp_path: Path) -> None:
    inner = pack(tmp_path / "inner.zip", real()).read_bytes()
    others = {
        "notes.txt": b"text",
        "more.zip": inner,
        "3/.hidden.png": IMAGE,
        ".git/4.png": IMAGE,
        "__MACOSX/3/._0.png": b"a resource fork",
    }
    images = scan(pack(tmp_path / "photos.zip", real() | others))
    assert same(images, scan(pack(tmp_path / "plain.tar", real())))
    assert images.ignored == len(others)
    with pytest.raises(InputError, match=r"no images in '.*none.zip' \(only 1 other files\)"):
        scan(pack(tmp_path / "none.zip", {"more.zip": inner}))


@pytest.mark.parametrize("ending", [".zip", ".tar", ".tgz"])
@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["/a/1.png"], "member '/a/1.png' of the archive .* is no plain relative path"),
        (["a/../../1.png"], "is no plain relative path"),
        (["a\\1.png"], "is no plain relative path"),
        (["C:/a/1.png"], "is no plain relative path"),
        (["a/1.png", "b/1.png", "a/1.png"], "stands there twice"),
        (["a/1.png", "./a/1.png"], "stands there twice"),
        (["a/1.png", "a/1.PNG"], r"stands there twice \(or as 'a/1.png'"),
        (["Ant/1.png", "ant/2.png"], r"stands there twice \(or as 'Ant'"),
        (["caf\u00e9/1.png", "cafe\u0301/2.png"], "stands there twice"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_names_that_are_refused(names: list[str], words: str, ending: str, tmp_path: Path) -> None:
    path = pack(tmp_path / f"photos{ending}", [(name, IMAGE) for name in names])
    with pytest.raises(InputError, match=words):
        scan(path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(kind: bytes, tmp_path: Path) -> None:
    path = pack(tmp_path / "photos.tar", real())
    with tarfile.open(path, "a") as file:
        member = tarfile.TarInfo("3/link.png")
        member.type, member.linkname = kind, "/etc/passwd"
        file.addfile(member)
    with pytest.raises(InputError, match=r"member '3/link.png' .* is a link or a device; make the archive again"):
        scan(path)


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    path = pack(tmp_path / "photos.zip", real())
    info = zipfile.ZipInfo("3/link.png")
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(info, "/etc/passwd")
    with pytest.raises(InputError, match="is a link or a device"):
        scan(path)


def in_directory(path: Path, change: Callable[[bytearray, int], None]) -> None:
    """Changes the first entry of a zip file's central directory."""
    data = bytearray(path.read_bytes())
    change(data, data.index(b"PK\x01\x02"))
    path.write_bytes(data)


def test_encrypted_images_are_refused(tmp_path: Path) -> None:
    path = pack(tmp_path / "photos.zip", real())
    in_directory(path, lambda data, at: struct.pack_into("<H", data, at + 8, 1))
    with pytest.raises(InputError, match="is encrypted; make the archive again without a password"):
        scan(path)


def test_declared_sizes_above_an_image_are_refused(tmp_path: Path) -> None:
    path = pack(tmp_path / "photos.zip", real())
    in_directory(path, lambda data, at: struct.pack_into("<I", data, at + 24, MAX_BYTES + 1))
    with pytest.raises(InputError, match=r"declares [\d,]+ bytes, and an image has 268,435,455 at most"):
        scan(path)
    member = tarfile.TarInfo("a/1.png")
    member.size = MAX_BYTES + 1
    (tmp_path / "photos.tar").write_bytes(member.tobuf() + bytes(10_240))
    with pytest.raises(InputError, match=r"declares [\d,]+ bytes"):
        scan(tmp_path / "photos.tar")


def test_a_compressed_tar_that_explodes_is_refused(tmp_path: Path) -> None:
    path = pack(tmp_path / "photos.tgz", {"a/1.png": IMAGE, "a/2.png": bytes(68 << 20)})
    assert path.stat().st_size < 100_000
    with pytest.raises(InputError, match="grows to more than 200 times its size"):
        scan(path)


@pytest.mark.parametrize("ending", [".zip", ".tar", ".tgz", ".txz"])
def test_damaged_archives_say_so(ending: str, tmp_path: Path) -> None:
    path = pack(tmp_path / f"photos{ending}", real(count=40))
    whole = path.read_bytes()
    for cut in (len(whole) - 2000,) if ending != ".tar" else (1024, 1100, 1600):  # between, in a header, in an image
        path.write_bytes(whole[:cut])
        with pytest.raises(InputError, match=r"the archive '.*photos.* cannot be read \(.*it is damaged"):
            scan(path)
    path.write_bytes(b"no archive")
    with pytest.raises(InputError, match="cannot be read"):
        scan(path)


def test_a_damaged_header_is_not_the_end(tmp_path: Path) -> None:
    path = pack(tmp_path / "photos.tar", real())
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"ustar", 2000) - 200] ^= 0xFF
    path.write_bytes(raw)
    with pytest.raises(InputError, match=r"cannot be read \(bad checksum at byte \d+"):
        scan(path)


def test_a_damaged_member_is_one_unreadable_image(tmp_path: Path) -> None:
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as file:  # stored, so that the image is there byte for byte
        for name, data in real().items():
            file.writestr(name, data)
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"IDAT") + 20] ^= 0xFF
    path.write_bytes(raw)
    images = scan(path)
    found = load(images, None, CONTRACT, max_unreadable=0.2)
    assert (len(images), len(found.skipped)) == (len(real()), 1)
    assert "Bad CRC-32" in found.skipped[0].reason


def test_other_archives_and_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "photos.7z").write_bytes(b"7z")
    with pytest.raises(InputError, match=r"'.*photos.7z' is an archive of a kind that cannot be read; allowed: .zip, "):
        scan(tmp_path / "photos.7z")
    assert find(tmp_path / "missing.zip") is None
    assert stem(Path("a/photos.TAR.gz")) == "photos"
    with pytest.raises(InputError, match="no such folder"):
        scan(tmp_path / "missing.zip")
