"""The built-in data: scikit-learn's `load_digits`, 1,797 real handwritten digits (8 x 8 pixels, 17 grey levels).

Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998,
doi:10.24432/C50P49 (CC BY 4.0); scikit-learn ships its test part, so that no download is needed. No two scans are
equal. The same 13 people wrote both splits: accuracy on `val` says nothing about other people's handwriting.
"""

from __future__ import annotations

import struct
import zlib
from enum import StrEnum
from functools import cache
from pathlib import Path

from cspedge.data.images import ImageList
from cspedge.data.sampling import split as split_images
from cspedge.digest import sha256_bytes

VAL_SHARE = 0.25
CLASS_NAMES = tuple("0123456789")


class Split(StrEnum):
    """Which part of a data set: weights and encodings see `train` only, accuracy is taken on `val` only."""

    TRAIN = "train"
    VAL = "val"


def digits(split: Split | str) -> ImageList:
    """One split of the digits, in memory as PNG files: 1,347 images in train, 450 in val, ten classes.

    Grey levels 0 to 16 become round(level * 255 / 16). Which split an image is in follows from its content.
    """
    images = _all_digits()
    train, val = split_images(images, VAL_SHARE)
    chosen = Split(split)
    return images.subset(train if chosen is Split.TRAIN else val, source=f"digits/{chosen}")


def write_digits(folder: Path) -> None:
    """Writes both splits as PNG files, one folder per class: `train/0/0000.png`, `val/7/1234.png`, ..."""
    for part in Split:
        images = digits(part)
        for index, name in enumerate(images.names):
            path = folder / part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(images.read(index))


@cache
def _all_digits() -> ImageList:
    import numpy as np
    from sklearn.datasets import load_digits

    data = load_digits()
    grey = np.rint(data.images * (255 / 16)).astype(np.uint8)
    items = sorted(
        (f"{target}/{index:04d}.png", str(target), _png(image.tobytes(), 8, 8))
        for index, (image, target) in enumerate(zip(grey, data.target, strict=True))
    )
    return ImageList(
        source="digits",
        names=tuple(name for name, _, _ in items),
        digests=tuple(sha256_bytes(blob) for _, _, blob in items),
        class_names=CLASS_NAMES,
        class_of=tuple(label for _, label, _ in items),
        blobs=tuple(blob for _, _, blob in items),
    )


def _png(grey: bytes, width: int, height: int) -> bytes:
    """An 8-bit grey PNG (RFC 2083) with one stored deflate block (RFC 1950, 1951).

    Written by hand because digests, and by them the split, must not depend on which zlib Pillow was built with.
    """
    rows = b"".join(b"\0" + grey[y * width : (y + 1) * width] for y in range(height))
    stored = struct.pack("<BHH", 1, len(rows), len(rows) ^ 0xFFFF) + rows
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        (b"IDAT", b"\x78\x01" + stored + struct.pack(">I", zlib.adler32(rows))),
        (b"IEND", b""),
    )
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body
