"""What the resizers of Android and Apple do to pixels, in numpy: for measuring, never for an app.

Images are uint8 [h, w, 3], RGB. `skia_bilinear`, `skia_nearest` and `sampled` give Skia's own bytes (`skia_pixels.py`
compares them with the real one). Apple's code is closed: `lanczos` follows what its documentation says, and what is
assumed stands there. docs/preprocessing.md has the sources.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]

# Skia computes a filtered row in spans of so many pixels: a span's first position by multiplying, the others by adding.
BILINEAR_SPAN = 127
DCT_FACTORS = (8, 4, 2)  # by which libjpeg shrinks while it decodes
LANCZOS_LOBES, LANCZOS_LOBES_HIGH = 3, 5  # vImage's default, and with kvImageHighQualityResampling


def skia_bilinear(image: Pixels, height: int, width: int) -> Pixels:
    """Android's `createScaledBitmap(filter=true)`: the 2 x 2 pixels around a point, however far the image shrinks.

    Skia's raster code for opaque images of four 8-bit channels (SkBitmapProcState): weights of 4 bits, sums in
    integers, their last 8 bits dropped. Sides up to 16,383 pixels.
    """
    half = 1 << 31
    down = _positions(image.shape[0], height, 1, half)
    across = _positions(image.shape[1], width, BILINEAR_SPAN, half)
    wide, y, x = image.astype(np.int32), (down >> 12 & 15)[:, None, None], (across >> 12 & 15)[:, None]
    rows = _at(wide, 0, down >> 16) * (16 - y) + _at(wide, 0, (down >> 16) + 1) * y
    both = _at(rows, 1, across >> 16) * (16 - x) + _at(rows, 1, (across >> 16) + 1) * x
    return (both >> 8).astype(np.uint8)


def skia_nearest(image: Pixels, height: int, width: int) -> Pixels:
    """Android's `createScaledBitmap(filter=false)`: the pixel under a point, the lower one where two touch there."""
    least = 1 << 16
    rows = _at(image, 0, _positions(image.shape[0], height, 1, least) >> 16)
    return _at(rows, 1, _positions(image.shape[1], width, width, least) >> 16)


def bilinear(image: Pixels, height: int, width: int) -> Pixels:
    """The same 2 x 2 pixels with exact weights: torch's `interpolate(antialias=False)`.

    It is within one step of what Skia draws with the blend mode `src`, as Android's ImageDecoder and AndroidX do.
    """
    return _rounded(_through(image.astype(np.float64), height, width, _triangle, 1, stretch=False))


def lanczos(
    image: Pixels, height: int, width: int, *, lobes: int = LANCZOS_LOBES, linear_light: bool = False
) -> Pixels:
    """Apple's `vImageScale_ARGB8888` (documented: Lanczos of 3 lobes, 5 with kvImageHighQualityResampling).

    Assumed: the kernel is as much wider as the image shrinks, edge pixels repeat, one rounding at the end.
    linear_light: on intensities instead of sRGB values, as Core Image's default working space is.
    """
    values = _to_linear(image) if linear_light else image.astype(np.float64)
    resized = _through(values, height, width, lambda x: np.sinc(x) * np.sinc(x / lobes), lobes, stretch=True)
    return _rounded(_to_srgb(resized) if linear_light else resized)


def sample_size(old: tuple[int, int], wanted: tuple[int, int]) -> int:
    """The `inSampleSize` that `ImageDecoder.setTargetSize` decodes a JPEG with; sides as (height, width).

    The largest whose result is no smaller than wanted on either side (SkAndroidCodec::computeSampleSize).
    """
    size = max(1, min(old[0] // wanted[0], old[1] // wanted[1]))
    sides = sampled_sides(old, size)
    if size == 1 or min(np.subtract(sides, wanted)) == 0:
        return size
    while True:
        smaller = sampled_sides(old, size + 1)  # libjpeg rounds sides up, so there may be one more
        if smaller == sides or not covers(smaller, wanted):
            return size
        size, sides = size + 1, smaller


def power_of_two(old: tuple[int, int], wanted: tuple[int, int]) -> int:
    """The `inSampleSize` of Android's guide (`calculateInSampleSize`): the largest power of two that leaves enough."""
    size = 1
    while covers((old[0] // (2 * size), old[1] // (2 * size)), wanted):
        size *= 2
    return size


def covers(sides: tuple[int, int], wanted: tuple[int, int]) -> bool:
    return sides[0] >= wanted[0] and sides[1] >= wanted[1]


def sampled_sides(old: tuple[int, int], size: int) -> tuple[int, int]:
    """(height, width) of a JPEG of sides `old` that was decoded with this `inSampleSize`."""
    factor = _dct_factor(size)
    height, width = (max(1, -(-side // factor) // (size // factor)) for side in old)
    return height, width


def sampled(jpeg: bytes, size: int) -> Pixels:
    """A JPEG decoded with this `inSampleSize`: by 2, 4 or 8 in libjpeg's DCT, the rest by leaving pixels out.

    Pillow's `draft` is the same call of libjpeg. Leaving out takes the middle one, rounded down, of each `rest` pixels
    (SkSampledCodec).
    """
    with Image.open(io.BytesIO(jpeg)) as image:
        factor, old = _dct_factor(size), (image.height, image.width)
        if factor > 1:
            image.draft(None, (max(1, image.width // factor), max(1, image.height // factor)))
        pixels = np.asarray(image.convert("RGB"))
    (height, width), rest = sampled_sides(old, size), size // factor
    return pixels[rest // 2 :: rest, rest // 2 :: rest][:height, :width]


def _dct_factor(size: int) -> int:
    return next((factor for factor in DCT_FACTORS if size % factor == 0), 1)


def _positions(old: int, new: int, span: int, offset: int) -> NDArray[np.int64]:
    """Where the centres of `new` samples lie among `old` ones, less `offset` / 2^32, in units of 2^-16."""
    step = np.float32(1) / (np.float32(new) / np.float32(old))
    index = np.arange(new)
    start = index // span * span
    first = ((start.astype(np.float32) + np.float32(0.5)) * step).astype(np.float64) * 2**32
    return (first.astype(np.int64) - offset + (index - start) * int(float(step) * 2**32)) >> 16


def _at(values: NDArray[np.generic], axis: int, index: NDArray[np.int64]) -> NDArray[np.generic]:
    return values.take(np.clip(index, 0, values.shape[axis] - 1), axis)


def _through(
    values: NDArray[np.float64],
    height: int,
    width: int,
    kernel: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    support: int,
    *,
    stretch: bool,
) -> NDArray[np.float64]:
    """[h, w, 3] to [height, width, 3] by a separable kernel on [-support, support], `stretch`ed as it shrinks."""
    down = _weights(values.shape[0], height, kernel, support, stretch)
    across = _weights(values.shape[1], width, kernel, support, stretch)
    return np.einsum("ij,jwc->iwc", down, np.einsum("kw,jwc->jkc", across, values, optimize=True), optimize=True)


def _weights(
    old: int,
    new: int,
    kernel: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    support: int,
    stretch: bool,
) -> NDArray[np.float64]:
    """[new, old], rows that sum to 1; beyond the edge the edge's sample counts."""
    wider = max(1.0, old / new) if stretch else 1.0
    centre = (np.arange(new) + 0.5) * old / new - 0.5
    reach = int(np.ceil(support * wider)) + 1
    sample = np.floor(centre).astype(np.int64)[:, None] + np.arange(-reach, reach + 1)
    away = (sample - centre[:, None]) / wider
    values = np.where(np.abs(away) < support, kernel(away), 0.0)
    weights = np.zeros((new, old))
    np.add.at(weights, (np.arange(new)[:, None], np.clip(sample, 0, old - 1)), values)
    return weights / weights.sum(1, keepdims=True)


def _triangle(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1.0 - np.abs(x)


def _rounded(values: NDArray[np.float64]) -> Pixels:
    return np.clip(np.floor(values + 0.5), 0, 255).astype(np.uint8)


def _to_linear(image: Pixels) -> NDArray[np.float64]:
    """0 to 255 by sRGB's curve (IEC 61966-2-1) to intensities, 0 to 1."""
    value = np.arange(256) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)[image]


def _to_srgb(intensity: NDArray[np.float64]) -> NDArray[np.float64]:
    light = np.clip(intensity, 0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
