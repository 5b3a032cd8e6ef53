"""Real Skia against `phone_pixels.py`, and its JPEG decoder against Pillow's, on photographs.

    make skia    # once: skia-python, in an environment of its own
    .venv-skia/bin/python benchmarks/skia_pixels.py ../shared/data/caltech101/val [--every 1]

Prints a JSON object: of each comparison the images, those that are not equal in every byte, the largest difference in
8-bit steps and what is allowed of it. Exit code 1 where it is larger.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import skia
from phone_pixels import DCT_FACTORS, Pixels, bilinear, sampled, skia_bilinear, skia_nearest  # of this folder
from PIL import Image

SRGB = skia.ColorSpace.MakeSRGB()  # of every bitmap that does not say otherwise
SIDES = ((128, 128), (96, 171), (224, 300), (37, 61), (500, 600))  # height, width


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="JPEG files, in subfolders too")
    parser.add_argument("--every", type=int, default=1, help="take each n-th file")
    arguments = parser.parse_args()
    if arguments.every < 1:
        parser.error(f"--every is {arguments.every}; allowed is 1 and above")
    files = sorted(arguments.folder.rglob("*.jpg"))[:: arguments.every]
    if not files:
        parser.error(f"no *.jpg in {str(arguments.folder)!r}; name a folder of JPEG photographs")
    found: dict[str, dict[str, int]] = {}
    for file in files:
        for name, ours, skias, allowed in comparisons(file.read_bytes()):
            row = found.setdefault(name, {"images": 0, "differ": 0, "largest": 0, "allowed": allowed})
            largest = int(np.abs(ours.astype(int) - skias).max())
            row["images"] += 1
            row["differ"] += largest > 0
            row["largest"] = max(row["largest"], largest)
    print(json.dumps({"skia-python": skia.__version__, **found}, indent=1))
    sys.exit(any(row["largest"] > row["allowed"] for row in found.values()))


def comparisons(jpeg: bytes) -> Iterator[tuple[str, Pixels, Pixels, int]]:
    """What is compared, ours, Skia's, and the steps by which they may differ."""
    rgb = np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))
    yield "decoded", rgb, decoded(jpeg, 1), 0
    for factor in DCT_FACTORS:
        yield f"decoded, inSampleSize {factor}", sampled(jpeg, factor), decoded(jpeg, factor), 0
    for sides in SIDES:
        yield "createScaledBitmap(filter=true)", skia_bilinear(rgb, *sides), drawn(rgb, *sides), 0
        yield "createScaledBitmap(filter=false)", skia_nearest(rgb, *sides), drawn(rgb, *sides, linear=False), 0
        yield "ImageDecoder's draw", bilinear(rgb, *sides), drawn(rgb, *sides, mode=skia.BlendMode.kSrc), 1


def drawn(
    rgb: Pixels, height: int, width: int, *, linear: bool = True, mode: skia.BlendMode = skia.BlendMode.kSrcOver
) -> Pixels:
    """The calls behind Android's `Bitmap.createBitmap` with a matrix; behind `ImageDecoder` with the mode kSrc.

    BGRA is how a Skia built for Linux keeps its 32-bit pixels, as RGBA is Android's: that order alone takes the path
    that bitmaps take there, and which channel is which does not matter to it.
    """
    pixels = np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)])
    image = skia.Image.fromarray(pixels, skia.kBGRA_8888_ColorType, skia.kPremul_AlphaType, SRGB)
    result = np.zeros((height, width, 4), np.uint8)
    canvas = skia.Canvas(result, skia.kBGRA_8888_ColorType, skia.kPremul_AlphaType, SRGB)
    matrix = skia.Matrix()
    matrix.setScale(width / rgb.shape[1], height / rgb.shape[0])
    canvas.concat(matrix)
    whole = skia.Rect.MakeWH(rgb.shape[1], rgb.shape[0])
    sampling = skia.SamplingOptions(skia.FilterMode.kLinear if linear else skia.FilterMode.kNearest)
    paint = skia.Paint(BlendMode=mode)
    canvas.drawImageRect(image, whole, whole, sampling, paint, skia.Canvas.kFast_SrcRectConstraint)
    return result[..., :3]


def decoded(jpeg: bytes, factor: int) -> Pixels:
    """What `BitmapFactory` gives for this `inSampleSize` of 1, 2, 4 or 8."""
    data = skia.Data.MakeWithCopy(jpeg)  # must outlive the codec, which does not hold it in this binding
    codec = skia.Codec.MakeFromData(data)
    sides = codec.getScaledDimensions(1 / factor)
    result = np.zeros((sides.height(), sides.width(), 4), np.uint8)
    info = skia.ImageInfo.Make(sides, skia.kRGBA_8888_ColorType, skia.kOpaque_AlphaType)
    outcome = codec.getPixels(info, result, result.strides[0])
    if outcome != skia.Codec.kSuccess:
        raise RuntimeError(f"Skia does not decode this file: {outcome}")
    return result[..., :3]


if __name__ == "__main__":
    main()
