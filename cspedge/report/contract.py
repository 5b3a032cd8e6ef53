"""The preprocessing contract (`models.preprocess.manifest`) in sentences an app's developer can follow."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

from cspedge.report.facts import flatten, spoken, value_text

_Leaves = dict[str, Any]


def steps(preprocess: Mapping[str, Any]) -> list[str]:
    """One sentence per step, in the order an app does them; what no sentence covers follows as `name: value`."""
    left = flatten(preprocess)
    told = [*_decode(left), *_resize(left), *_hand_over(left), *_normalize(left)]
    return told + [f"{spoken(key)}: {value_text(value)}" for key, value in left.items()]


def _decode(left: _Leaves) -> list[str]:
    told = []
    if left.get("color") == "RGB":
        told.append("Decode the image to 8-bit RGB.")
        del left["color"]
    if left.get("exif_orientation") == "ignored":
        told.append("Do not turn it by its EXIF orientation: the figures here were measured without that.")
        del left["exif_orientation"]
    kinds = sorted(key for key in left if key.startswith("from.") and isinstance(left[key], str))
    if kinds:
        said = "; ".join(f"{key.removeprefix('from.')}: {left.pop(key)}" for key in kinds)
        told.append(f"Other kinds of files: {said}.")
    return told


def _resize(left: _Leaves) -> list[str]:
    """timm's rule: the crop's sides over crop_pct, rounded down (timm.data.transforms_factory)."""
    size, mode = left.get("input_size"), left.get("resize.crop_mode")
    pct, kind = left.get("resize.crop_pct"), left.get("resize.interpolation")
    rule = {"center": _shorter, "squash": _squash, "border": _longer}.get(mode) if isinstance(mode, str) else None
    if rule is None or not _is_size(size) or not _number(pct) or pct <= 0 or not isinstance(kind, str):
        return []
    height, width = size[1:]
    scaled = (math.floor(height / pct), math.floor(width / pct))
    told = [f"{rule(*scaled)}, with {kind} interpolation."]
    if left.get("resize.antialias") is True:
        told.append("Filter while shrinking (antialias), as Pillow's resize does; many mobile resizers leave that out.")
        del left["resize.antialias"]
    if scaled != (height, width) or mode != "squash":
        pad = " Fill what is missing with the mean colour of the normalization, rounded to bytes." * (mode == "border")
        told.append(f"Take the {width} \u00d7 {height} px in the middle.{pad}")
    for key in ("resize.crop_mode", "resize.crop_pct", "resize.interpolation"):
        del left[key]
    for key, value in _in_pixels(scaled, (height, width), left.get("normalization.mean")).items():
        if f"resize.{key}" in left and left[f"resize.{key}"] == value:  # said above; another number is listed
            del left[f"resize.{key}"]
    return told


def _in_pixels(scaled: tuple[int, int], size: tuple[int, int], mean: Any) -> dict[str, Any]:
    """The same rule as the manifest spells it out."""
    pad = [round(255 * v) for v in mean] if _all(mean, _number) else None
    sides = {key: list(scaled) for key in ("resize_to", "resize_to_fit", "resize_to_cover")}
    return {"resize_shorter_edge": scaled[0], **sides, "crop": list(size), "crop_at": "center", "pad": pad}


def _shorter(height: int, width: int) -> str:
    if height == width:
        return f"Resize so that the shorter side is {height} px, keeping the proportions"
    return f"Resize, keeping the proportions, until it just covers {width} \u00d7 {height} px"


def _longer(height: int, width: int) -> str:
    if height == width:
        return f"Resize so that the longer side is {height} px, keeping the proportions"
    return f"Resize, keeping the proportions, until it just fits into {width} \u00d7 {height} px"


def _squash(height: int, width: int) -> str:
    return f"Resize to {width} \u00d7 {height} px, without keeping the proportions"


def _hand_over(left: _Leaves) -> list[str]:
    size = left.get("input_size")
    if left.get("layout") != "NCHW" or left.get("range") != [0, 1] or not _is_size(size):
        return []
    for key in ("layout", "range", "input_size"):
        del left[key]
    shape = f"[1, {size[0]}, {size[1]}, {size[2]}]"
    return [f"Hand over float32 of shape {shape}, channels first: red, green, blue, each byte divided by 255 (0 to 1)."]


def _normalize(left: _Leaves) -> list[str]:
    mean, std = left.get("normalization.mean"), left.get("normalization.std")
    if left.get("normalization.where") != "in the graph" or not _all(mean, _number) or not _all(std, _number):
        return []
    for key in ("normalization.mean", "normalization.std", "normalization.where"):
        del left[key]
    told = f"subtracts the mean ({value_text(mean)}) and divides by the standard deviation ({value_text(std)})"
    return [f"Nothing else: the graph itself {told}."]


def _number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_size(value: Any) -> TypeGuard[list[int]]:
    """[channels, height, width]."""
    return _all(value, lambda v: isinstance(v, int) and not isinstance(v, bool) and v > 0) and len(value) == 3


def _all(value: Any, fits: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and all(fits(item) for item in value)
