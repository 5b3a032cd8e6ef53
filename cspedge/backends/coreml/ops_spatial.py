"""MIL operations that change an image's size: upsampling and pixel shuffle (coremltools' MIL op reference)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cspedge.backends.coreml.call import Call, Kernel


def _size(call: Call, x: str) -> tuple[int, ...]:
    """Height and width of the result: floor(size * factor), as the program has to declare it."""
    factors = (call.value("scale_factor_height", 1), call.value("scale_factor_width", 1))
    wanted = tuple(int(n * f) for n, f in zip(call.shape(x)[-2:], factors, strict=True))
    if len(call.shape(x)) != 4 or call.out.shape[-2:] != wanted:
        raise call.refuse(f"upsampling of {call.shape(x)} by {factors} declared as {call.out.shape}")
    return wanted


def upsample_nearest_neighbor(call: Call) -> Kernel:
    """Whole factors only: where two pixels are equally near, the documentation does not say which is taken."""
    import torch

    x = call.tensor("x")
    size = _size(call, x)
    if any(new % old for new, old in zip(size, call.shape(x)[-2:], strict=True)):
        raise call.refuse(f"nearest-neighbour upsampling of {call.shape(x)} to {size}")
    return lambda env: torch.nn.functional.interpolate(env[x], size, mode="nearest")


def upsample_bilinear(call: Call) -> Kernel:
    """The grid's spacing is input size / output size, or (input - 1) / (output - 1) with `align_corners`."""
    import torch

    x = call.tensor("x")
    size, align = _size(call, x), bool(call.value("align_corners", True))
    return lambda env: torch.nn.functional.interpolate(env[x], size, mode="bilinear", align_corners=align)


def pixel_shuffle(call: Call) -> Kernel:
    """[C * r * r, H, W] to [C, H * r, W * r], as torch's."""
    import torch

    x, factor = call.tensor("x"), call.value("upscale_factor")
    return lambda env: torch.nn.functional.pixel_shuffle(env[x], factor)


# upsample_bilinear calculates; the others move values
SPATIAL: dict[str, Callable[[Call], Any]] = {
    "pixel_shuffle": pixel_shuffle,
    "upsample_nearest_neighbor": upsample_nearest_neighbor,
}
