"""The section "Preprocessing: from RGB to tensor" of docs/bundle.md in numpy, whatever Pillow is installed.

The arithmetic is that of Pillow's `Image.resize` for 8-bit RGB (libImaging/Resample.c: weights in double precision,
rounded to 22 bits, sums in integers) behind the size and crop rules of timm's evaluation transform.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from cspedge.bundle.refusal import Kind, Refusal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BITS = 22  # of a resize weight


def tensor(rgb: NDArray[np.uint8], preprocess: Mapping[str, Any], what: str = "the image") -> NDArray[np.uint8]:
    """uint8 [h, w, 3] RGB -> uint8 [3, H, W]; preprocess: the manifest's.

    Raises Refusal: `image-empty` for a side of 0, `image-too-large` above `max_pixels` before or after the resize.
    """
    import numpy as np

    rule, window = preprocess["resize"], preprocess["crop"]
    height, width = rgb.shape[:2]
    check_size(height, width, preprocess, what)
    new = resized_size(rule, height, width)
    check_size(*new, preprocess, f"{what}, resized")
    image = resize(rgb, *new, rule["interpolation"], rule["first_pass"])
    return np.ascontiguousarray(crop(image, window["height"], window["width"], preprocess["pad"]).transpose(2, 0, 1))


def check_size(height: int, width: int, preprocess: Mapping[str, Any], what: str) -> None:
    """Raises Refusal for a size that no image may have."""
    if min(height, width) < 1:
        raise Refusal(Kind.IMAGE_EMPTY, f"{what} is {width} x {height} pixels; both sides must be 1 or more")
    if height * width > preprocess["max_pixels"]:
        raise Refusal(
            Kind.IMAGE_TOO_LARGE,
            f"{what} is {width} x {height} pixels, above the limit of {preprocess['max_pixels']:,}; give a smaller one",
        )


def resized_size(rule: Mapping[str, Any], height: int, width: int) -> tuple[int, int]:
    """(height, width) after the resize."""
    to_h, to_w = rule["height"], rule["width"]
    if rule["rule"] == "exact":
        return to_h, to_w
    if rule["rule"] == "shorter-edge":
        return (to_h * height // width, to_h) if width <= height else (to_h, to_h * width // height)
    ratios = height / to_h, width / to_w
    ratio = min(ratios) if rule["rule"] == "cover" else max(ratios)
    return round(height / ratio), round(width / ratio)


def resize(
    pixels: NDArray[np.uint8], height: int, width: int, interpolation: str, first_pass: str
) -> NDArray[np.uint8]:
    """uint8 [h, w, 3] to uint8 [height, width, 3] in two passes."""
    old_h, old_w = pixels.shape[:2]
    tall = old_h > height and old_h - height > 2 * (old_w - width)
    axes = [(0, height), (1, width)] if first_pass == "width-unless-tall" and tall else [(1, width), (0, height)]
    for axis, new in axes:
        pixels = _pass(pixels.swapaxes(0, axis), new, interpolation).swapaxes(0, axis)
    return pixels


def crop(pixels: NDArray[np.uint8], height: int, width: int, pad: list[int]) -> NDArray[np.uint8]:
    """The middle of uint8 [h, w, 3]; where it is smaller than that, padded with the color `pad`."""
    import numpy as np

    missing = [max(0, height - pixels.shape[0]), max(0, width - pixels.shape[1])]
    if any(missing):
        shape = (pixels.shape[0] + missing[0], pixels.shape[1] + missing[1], 3)
        canvas = np.broadcast_to(np.array(pad, np.uint8), shape).copy()
        top, left = (m // 2 for m in missing)
        canvas[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
        pixels = canvas
    top, left = round((pixels.shape[0] - height) / 2), round((pixels.shape[1] - width) / 2)
    return pixels[top : top + height, left : left + width]


def _pass(pixels: NDArray[np.uint8], new: int, interpolation: str) -> NDArray[np.uint8]:
    """One pass along the first axis."""
    import numpy as np

    old = len(pixels)
    if new == old:
        return pixels
    if interpolation == "nearest":
        steps = np.full(new, old / new)
        steps[0] /= 2
        return pixels[np.cumsum(steps).astype(np.int64)]
    out = np.empty((new, *pixels.shape[1:]), np.uint8)
    for index in range(new):
        first, weights = _weights(index, old, new, interpolation)
        window = pixels[first : first + len(weights)].astype(np.int32)
        summed = np.tensordot(np.array(weights, np.int32), window, axes=1) + (1 << (BITS - 1))
        out[index] = np.clip(summed >> BITS, 0, 255)
    return out


def _weights(index: int, old: int, new: int, interpolation: str) -> tuple[int, list[int]]:
    """The first sample that output sample `index` reads, and the integer weights from there on."""
    size, kernel = KERNELS[interpolation]
    scale = old / new
    factor = max(scale, 1.0)
    support, inverse, center = size * factor, 1.0 / factor, (index + 0.5) * scale
    first = max(0, int(center - support + 0.5))
    last = min(old, int(center + support + 0.5))
    weights = [kernel((j + first - center + 0.5) * inverse) for j in range(last - first)]
    total = 0.0
    for weight in weights:  # in this order: `sum` adds with compensation from Python 3.12 on
        total += weight
    return first, [math.trunc(w / total * (1 << BITS) + (0.5 if w >= 0 else -0.5)) for w in weights]


def _sinc(x: float) -> float:
    return 1.0 if x == 0.0 else math.sin(x * math.pi) / (x * math.pi)


def _hamming(x: float) -> float:
    import numpy as np

    x = abs(x)
    if x >= 1.0:
        return 0.0
    a, b = float(np.float32(0.54)), float(np.float32(0.46))  # Pillow's constants are C floats
    return _sinc(x) * (a + b * math.cos(x * math.pi))


def _bicubic(x: float) -> float:
    x, a = abs(x), -0.5
    if x < 1.0:
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * a if x < 2.0 else 0.0


def _lanczos(x: float) -> float:
    return _sinc(x) * _sinc(x / 3) if -3.0 <= x < 3.0 else 0.0


# name: support and kernel
KERNELS: dict[str, tuple[float, Callable[[float], float]]] = {
    "box": (0.5, lambda x: 1.0 if -0.5 < x <= 0.5 else 0.0),
    "bilinear": (1.0, lambda x: max(0.0, 1.0 - abs(x))),
    "hamming": (1.0, _hamming),
    "bicubic": (2.0, _bicubic),
    "lanczos": (3.0, _lanczos),
}
