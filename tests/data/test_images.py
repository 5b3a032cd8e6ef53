"""Folders in, labels, decoding, and every kind of bad image, made for real."""

from __future__ import annotations

import dataclasses
import io
import os
import struct
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cspedge.data.images import (
    ImageList,
    check_disjoint,
    decode,
    labels_for,
    load,
    overlap,
    scan,
)
from cspedge.digest import sha256_bytes
from cspedge.errors import InputError, UsageError
from cspedge.models.preprocess import MAX_PIXELS
from cspedge.types import Preprocess

CONTRACT = Preprocess(
    input_size=(3, 16, 16),
    crop_pct=1.0,
    crop_mode="center",
    interpolation="bilinear",
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)


def picture(seed: int, size: tuple[int, int] = (24, 20)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def tree(folder: Path, classes: tuple[str, ...] = ("ant", "bee"), per_class: int = 4) -> Path:
    for c, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for k in range(per_class):
            picture(100 * c + k).save(folder / name / f"{k}.png")
    return folder


# --- scan ---


def test_scan_reads_an_image_folder(tmp_path: Path) -> None:
    root = tree(tmp_path / "photos")
    (root / "ant" / "notes.txt").write_text("no image")
    (root / "bee" / "._0.png").write_bytes(b"a resource fork")
    (root / "bee" / "deep").mkdir()
    picture(7).save(root / "bee" / "deep" / "X.JPEG")
    images = scan(root)
    assert images.source == "photos"
    assert images.class_names == ("ant", "bee")
    assert list(images.names) == sorted(images.names)
    assert "bee/deep/X.JPEG" in images.names
    assert images.class_of[images.names.index("bee/deep/X.JPEG")] == "bee"
    assert (len(images), images.ignored) == (9, 2)
    assert images.digests[0] == sha256_bytes((root / images.names[0]).read_bytes())
    assert str(tmp_path) not in repr(images)


def test_scan_reads_a_flat_folder(tmp_path: Path) -> None:
    picture(1).save(tmp_path / "b.png")
    picture(2).save(tmp_path / "a.jpg")
    images = scan(tmp_path)
    assert images.names == ("a.jpg", "b.png")
    assert images.class_names == ()
    assert images.class_of == (None, None)


def test_scan_survives_links_in_a_loop_and_pipes(tmp_path: Path) -> None:
    root = tree(tmp_path / "photos")
    (root / "ant" / "again").symlink_to(root)
    os.mkfifo(root / "bee" / "pipe.png")
    assert len(scan(root)) == 8


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", "no such folder: '.*nothing'"),
        ("file", "is a file; give a folder"),
        ("archive", "the archive .* cannot be read"),
        ("empty", r"no images in .*\(it is empty\)"),
        ("other files", r"no images in .*\(only 2 other files\).*\.jpg"),
        ("mixed", "both in itself .'loose.png'.* and in subfolders"),
    ],
)
def test_scan_refuses(kind: str, words: str, tmp_path: Path) -> None:
    folder = tmp_path / "nothing"
    if kind == "file":
        folder = tmp_path / "image.png"
        picture(1).save(folder)
    elif kind == "archive":
        folder = tmp_path / "images.zip"
        folder.write_bytes(b"PK")
    elif kind in {"empty", "other files"}:
        folder.mkdir()
        for k in range(2 if kind == "other files" else 0):
            (folder / f"{k}.txt").write_text("text")
    elif kind == "mixed":
        tree(folder)
        picture(1).save(folder / "loose.png")
    with pytest.raises(InputError, match=words):
        scan(folder)


# --- labels ---


def listed(*classes: str) -> ImageList:
    return ImageList(
        source="val",
        names=tuple(f"{name}/0.png" for name in classes),
        digests=tuple(classes),
        class_names=tuple(sorted(set(classes))),
        class_of=classes,
    )


def test_labels_are_the_models_names() -> None:
    labels = labels_for(listed("bee", "ant", "bee"), ["cat", "bee", "ant"], num_classes=3)
    assert labels.dtype == np.int64
    assert labels.tolist() == [1, 2, 1]


def test_labels_are_decimal_indices_where_the_model_has_no_names() -> None:
    assert labels_for(listed("10", "2", "007"), [], num_classes=11).tolist() == [10, 2, 7]


def test_labels_are_sorted_folders_where_their_count_is_the_models() -> None:
    assert labels_for(listed("bee", "ant"), (), num_classes=2).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("classes", "names", "count", "words"),
    [
        (("ant", "wasp", "fly"), ("ant", "bee"), 2, "2 of 3 class folders.*'fly', 'wasp'; name.*'ant', 'bee'"),
        (("Ant",), ("ant",), 1, "'Ant'"),
        (("ant", "bee"), (), 3, "2 of 2 class folders.*0 to 2.*exactly 3"),
        (("1", "2"), (), 2, "1 of 2 class folders.*'2'"),  # 1-based folders must not pass as sorted ones
        (("1", "01"), (), 2, "two folders for one class"),
        (("ant",), ("ant", "bee"), 3, "3 classes and 2 label names"),
        (("ant",), ("ant", "ant"), 2, "'ant'"),
    ],
)
def test_labels_that_do_not_fit(classes: tuple[str, ...], names: tuple[str, ...], count: int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        labels_for(listed(*classes), names, num_classes=count)


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    picture(1).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="have no labels"):
        labels_for(scan(tmp_path), (), num_classes=2)


# --- decode: readable ones are converted as timm does ---


def frames(kind: str) -> bytes:
    return encoded(picture(1), kind, save_all=True, append_images=[picture(2)])


READABLE = {
    "cmyk": lambda: encoded(picture(1).convert("CMYK"), "JPEG"),
    "rgba": lambda: encoded(picture(1).convert("RGBA")),
    "grey": lambda: encoded(picture(1).convert("L"), "JPEG"),
    "palette": lambda: encoded(picture(1).quantize(9)),
    "bilevel": lambda: encoded(picture(1).convert("1"), "TIFF"),
    "bmp": lambda: encoded(picture(1), "BMP"),
    "webp": lambda: encoded(picture(1), "WEBP"),
    "animated gif": lambda: frames("GIF"),
    "animated webp": lambda: frames("WEBP"),
    "animated png": lambda: frames("PNG"),
}


@pytest.mark.parametrize("kind", READABLE)
def test_readable_images_become_rgb_as_in_timm(kind: str) -> None:
    data = READABLE[kind]()
    decoded = decode(data)
    assert decoded.image.mode == "RGB"
    assert decoded.notes == ()
    with Image.open(io.BytesIO(data)) as image:
        assert getattr(image, "is_animated", False) == kind.startswith("animated")
        assert decoded.image.tobytes() == image.convert("RGB").tobytes()


@pytest.mark.parametrize(("dtype", "kind", "mode"), [(np.uint16, "PNG", "I;16"), (np.int32, "TIFF", "I")])
def test_wide_grey_is_converted_as_in_timm_and_noted(dtype: type, kind: str, mode: str) -> None:
    data = encoded(Image.fromarray(np.full((4, 4), 40_000, dtype)), kind)
    decoded = decode(data)
    assert decoded.notes == (f"converted: {mode}",)
    assert set(decoded.image.tobytes()) == {255}


def test_exif_orientation_is_ignored_as_in_timm() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(encoded(picture(1, (30, 20)), "JPEG", exif=exif)).image.size == (30, 20)


# --- decode: unreadable ones are named ---


def bomb(side: int) -> bytes:
    """A PNG of a few bytes that says it is `side` pixels high and wide."""
    chunk = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    header = struct.pack(">I", 13) + b"IHDR" + chunk + struct.pack(">I", zlib.crc32(b"IHDR" + chunk))
    data = zlib.compress(b"\0" * 100)
    body = struct.pack(">I", len(data)) + b"IDAT" + data + struct.pack(">I", zlib.crc32(b"IDAT" + data))
    return b"\x89PNG\r\n\x1a\n" + header + body + b"\0\0\0\0IEND\xaeB`\x82"


def spoiled(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(40) + data[middle + 40 :]


UNREADABLE = {
    "zero-byte": (lambda: b"", "is empty"),
    "text": (lambda: b"<html>not found</html>", "is not a readable JPEG"),
    "truncated jpeg": (lambda: encoded(picture(1, (90, 90)), "JPEG")[:-900], "truncated"),
    "truncated png": (lambda: encoded(picture(1, (90, 90)))[:-9000], "cannot be decoded"),
    "truncated gif": (lambda: encoded(picture(1, (90, 90)), "GIF")[:-2000], "cannot be decoded"),
    "corrupt png": (lambda: spoiled(encoded(picture(1))), "cannot be decoded"),
    "png without pixels": (lambda: encoded(picture(1)).replace(b"IDAT", b"IDAX", 1), "is not a readable"),
    "header only": (lambda: encoded(picture(1), "JPEG")[:11], "readable|decoded"),
    "bomb (Pillow warns)": (lambda: bomb(10_000), "89,478,485 pixels"),
    "bomb (Pillow raises)": (lambda: bomb(60_000), "89,478,485 pixels"),
    "another format": (lambda: encoded(picture(1), "PPM"), "is not a readable JPEG"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
@pytest.mark.filterwarnings("error")
def test_unreadable_images_say_why(kind: str) -> None:
    make, words = UNREADABLE[kind]
    with pytest.raises(InputError, match=words):
        decode(make())


def test_a_bomb_is_refused_where_warnings_are_ignored() -> None:
    assert MAX_PIXELS < 10_000**2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(InputError, match="pixels"):
            decode(bomb(10_000))


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be read .No such file"):
        decode(tmp_path / "gone.png")


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "BMP"]),
    at=st.integers(0, 10_000),
    flip=st.binary(min_size=1, max_size=6),
)
@pytest.mark.filterwarnings("ignore")  # Pillow warns of damaged metadata and goes on
def test_damaged_bytes_decode_or_raise_input_error(kind: str, at: int, flip: bytes) -> None:
    data = bytearray(encoded(picture(3), kind))
    at %= len(data)
    data[at : at + len(flip)] = flip
    try:
        assert decode(bytes(data)).image.mode == "RGB"
    except InputError:
        return


# --- load ---


def test_load_keeps_the_order_whatever_the_workers(tmp_path: Path) -> None:
    images = scan(tree(tmp_path / "photos", per_class=8))
    order = [9, 0, 15, 3, 3, 7]
    labels = labels_for(images, ("bee", "ant"), num_classes=2)
    seen: list[tuple[int, int]] = []
    one = load(images, order, CONTRACT, labels=labels, workers=1, progress=lambda a, b: seen.append((a, b)))
    four = load(images, order, CONTRACT, labels=labels, workers=4)
    assert one.names == tuple(images.names[i] for i in order) == four.names
    assert one.digests == tuple(images.digests[i] for i in order)
    assert one.images.shape == (6, 3, 16, 16)
    assert one.images.dtype == np.uint8
    np.testing.assert_array_equal(one.images, four.images)
    assert one.labels is not None
    assert one.labels.tolist() == [0, 1, 0, 1, 1, 1]
    assert one.sha256 == four.sha256
    assert seen == [(k, 6) for k in range(1, 7)]
    np.testing.assert_array_equal(load(images, [9], CONTRACT).images[0], one.images[0])


def test_load_counts_and_names_unreadable_images(tmp_path: Path) -> None:
    root = tree(tmp_path / "photos", per_class=10)
    (root / "ant" / "3.png").write_bytes(b"")
    (root / "bee" / "5.png").write_bytes((root / "bee" / "5.png").read_bytes()[:-700])
    (root / "bee" / "gone.png").symlink_to(root / "nowhere")
    images = scan(root)
    labels = labels_for(images, (), num_classes=2)
    with pytest.raises(InputError, match=r"3 of 21 images of 'photos' \(14.3%\).*1.0% may be: 'ant/3.png' is empty"):
        load(images, None, CONTRACT, labels=labels)
    loaded = load(images, None, CONTRACT, labels=labels, max_unreadable=0.2)
    assert [item.name for item in loaded.skipped] == ["ant/3.png", "bee/5.png", "bee/gone.png"]
    assert "truncated" in loaded.skipped[1].reason
    assert len(loaded) == len(loaded.images) == 18
    assert loaded.labels is not None
    assert loaded.labels.tolist() == [0] * 9 + [1] * 9
    healthy = [i for i, name in enumerate(images.names) if name in loaded.names]
    np.testing.assert_array_equal(load(images, healthy, CONTRACT).images, loaded.images)


def test_load_refuses_an_image_that_resizing_would_blow_up(tmp_path: Path) -> None:
    Image.new("L", (65_000, 1)).save(tmp_path / "a line.png")
    images = scan(tmp_path)
    with pytest.raises(InputError, match=r"'a line.png' is too narrow \(65000 x 1 pixels\)"):
        load(images, None, dataclasses.replace(CONTRACT, input_size=(3, 128, 128)))
    assert len(load(images, None, CONTRACT)) == 1


def test_load_refuses_when_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"text")
    with pytest.raises(InputError, match=r"1 of 1 images .*\(100.0%\)"):
        load(scan(tmp_path), None, CONTRACT, max_unreadable=1.0)


def test_load_notices_a_file_that_changed_after_the_scan(tmp_path: Path) -> None:
    root = tree(tmp_path / "photos", per_class=1)
    images = scan(root)
    picture(99).save(root / "ant" / "0.png")
    loaded = load(images, None, CONTRACT, max_unreadable=0.5)
    assert loaded.names == ("bee/0.png",)
    assert loaded.skipped[0].reason == "has changed since the folder was scanned"


def test_load_passes_notes_on_and_checks_its_share(tmp_path: Path) -> None:
    Image.fromarray(np.full((9, 9), 700, np.uint16)).save(tmp_path / "wide.png")
    notes: list[tuple[str, str]] = []
    load(scan(tmp_path), None, CONTRACT, on_note=lambda name, note: notes.append((name, note)))
    assert notes == [("wide.png", "converted: I;16")]
    with pytest.raises(UsageError, match=r"max_unreadable is 3"):
        load(scan(tmp_path), None, CONTRACT, max_unreadable=3)


def test_load_leaves_no_thread_behind_when_it_is_stopped(tmp_path: Path) -> None:
    images = scan(tree(tmp_path / "photos", per_class=20))

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        load(images, None, CONTRACT, progress=stop)
    assert threading.active_count() == before


# --- overlap ---


def test_shared_images_are_an_error_unless_allowed(tmp_path: Path) -> None:
    cal, val = tree(tmp_path / "cal"), tree(tmp_path / "val", classes=("cow", "dog"), per_class=2)
    for k in range(4):
        (val / "dog" / f"copy{k}.png").write_bytes((cal / "bee" / f"{k}.png").read_bytes())
    a, b = scan(cal), scan(val)
    shared = overlap(a.digests, b.digests)
    # ant and cow were made with the same seeds: equal content under other names counts too
    assert len(shared) == 8 - 2
    assert check_disjoint(a, b, allow=True) == len(shared)
    with pytest.raises(
        InputError, match=r"share 6 images by content: 'ant/0.png' = 'cow/0.png'.*3 more.*--allow-overlap"
    ):
        check_disjoint(a, b, allow=False)


def test_disjoint_lists_share_nothing() -> None:
    assert overlap(["a", "b"], ["c"]) == ()
    assert check_disjoint(listed("ant"), listed("bee"), allow=False) == 0
