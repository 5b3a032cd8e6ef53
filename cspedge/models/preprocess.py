"""The preprocessing contract: a model's own timm data configuration, executed by timm's own evaluation transform."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from cspedge.errors import InputError
from cspedge.types import Preprocess

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

INTERPOLATIONS = ("bicubic", "bilinear", "box", "hamming", "lanczos", "nearest")
# Pillow's own figure, a quarter of a gibibyte at three bytes a pixel; it only warns there and raises at twice that.
MAX_PIXELS = 89_478_485
CROP_MODES = ("border", "center", "squash")


def resolve(
    pretrained_cfg: Mapping[str, Any],
    *,
    in_chans: int | None = None,
    img_size: int | None = None,
    use_test_size: bool = False,
) -> Preprocess:
    """The contract of a model from its timm `pretrained_cfg`, by timm's `resolve_data_config`.

    `in_chans` and `img_size` override the configuration as timm's model arguments do; `use_test_size` prefers the
    configuration's `test_input_size` and `test_crop_pct`, which belong together: an `img_size` that is the test size
    takes the test crop too, any other keeps `crop_pct`. Raises InputError for a model that does not take RGB, and for
    an interpolation or crop mode that evaluation does not know (`random` is for training).
    """
    from timm.data import resolve_data_config

    test_size = pretrained_cfg.get("test_input_size")
    config = resolve_data_config(
        {} if img_size is None else {"img_size": img_size},
        pretrained_cfg=dict(pretrained_cfg) or {"input_size": None},
        use_test_size=use_test_size or (test_size is not None and tuple(test_size[1:]) == (img_size, img_size)),
    )
    channels, height, width = _numbers("input_size", config["input_size"])
    if (channels if in_chans is None else in_chans) != 3:
        raise InputError(f"the model takes {in_chans or int(channels)} input channels; cspedge feeds RGB and needs 3")
    _known("interpolation", str(config["interpolation"]), INTERPOLATIONS)
    _known("crop mode", str(config["crop_mode"]), CROP_MODES)
    mean, std = _numbers("mean", config["mean"]), _numbers("std", config["std"])
    crop_pct = _numbers("crop_pct", [config["crop_pct"]] * 3)[0]
    if min(height, width, crop_pct, *std) <= 0:
        raise InputError("input_size, crop_pct and std in the model's configuration must be above 0")
    return Preprocess(
        input_size=(3, int(height), int(width)),
        crop_pct=crop_pct,
        crop_mode=str(config["crop_mode"]),
        interpolation=str(config["interpolation"]),
        mean=mean,
        std=std,
    )


def transform(preprocess: Preprocess) -> Callable[[Image.Image], NDArray[np.uint8]]:
    """A function from an RGB Pillow image to uint8 [3, H, W], pixel for pixel timm's evaluation transform.

    Normalisation is left out (it is inside the graph). The function keeps no state and may be called from threads.
    """
    import numpy as np
    from timm.data import create_transform

    steps = create_transform(
        input_size=preprocess.input_size,
        is_training=False,
        interpolation=preprocess.interpolation,
        crop_pct=preprocess.crop_pct,
        crop_mode=preprocess.crop_mode,
        mean=preprocess.mean,  # `border` pads with it
        std=preprocess.std,
        normalize=False,
    )

    def apply(image: Image.Image) -> NDArray[np.uint8]:
        return np.asarray(steps(image).numpy(), dtype=np.uint8)

    return apply


def too_oblong(size: tuple[int, int], preprocess: Preprocess) -> bool:
    """Whether resizing an image (width, height) by its shorter edge would make one of more than 89 million pixels.

    A file of some bytes can be one pixel high and millions wide: small itself, and terabytes after the resize.
    """
    if preprocess.crop_mode in {"squash", "border"}:
        return False
    scale = max(preprocess.input_size[1:]) / preprocess.crop_pct / min(size)
    return max(1.0, scale) ** 2 * size[0] * size[1] > MAX_PIXELS


def shrinkage(size: tuple[int, int], preprocess: Preprocess) -> tuple[float, float]:
    """How many pixels of an image (width, height) become one pixel of the model's input: across, down."""
    height, width = (math.floor(side / preprocess.crop_pct) for side in preprocess.input_size[1:])
    across, down = size[0] / width, size[1] / height
    if preprocess.crop_mode == "squash":
        return across, down
    same = max(across, down) if preprocess.crop_mode == "border" else min(across, down)
    return same, same


def to_float(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 [n, 3, H, W] to float32 in [0, 1]: x / 255, the same bits as torchvision's `ToTensor`."""
    import numpy as np

    if images.dtype != np.uint8:
        raise TypeError(f"expected uint8 images, got {images.dtype}")
    return np.divide(images, np.float32(255), dtype=np.float32)


def manifest(preprocess: Preprocess) -> dict[str, Any]:
    """The contract as it stands in an artifact's manifest and in report.json: plain JSON values."""
    return {
        "input_size": list(preprocess.input_size),
        "layout": "NCHW",
        "color": "RGB",
        "range": [0, 1],
        "from": {  # what Pillow's `convert("RGB")` does, which timm's data sets call
            "alpha": "dropped",
            "grey": "repeated in R, G and B",
            "grey above 8 bit": "clipped to 255",
            "palette": "looked up",
            "cmyk": "converted without a colour profile",
            "animation": "first frame",
        },
        "resize": {
            **_resize_in_pixels(preprocess),
            "crop_pct": preprocess.crop_pct,
            "crop_mode": preprocess.crop_mode,
            "interpolation": preprocess.interpolation,
            "antialias": True,  # Pillow's resize always filters when it shrinks; many mobile resizers do not
        },
        "exif_orientation": "ignored",
        "normalization": {
            "mean": list(preprocess.mean),
            "std": list(preprocess.std),
            "where": "in the graph",
        },
    }


def _resize_in_pixels(preprocess: Preprocess) -> dict[str, Any]:
    """The resize rule in numbers: timm scales to floor(input size / crop_pct) and takes the middle.

    Source: `transforms_imagenet_eval` in timm/data/transforms_factory.py, 1.0.31.
    """
    height, width = preprocess.input_size[1:]
    scaled = [math.floor(height / preprocess.crop_pct), math.floor(width / preprocess.crop_pct)]
    crop: dict[str, Any] = {"crop": [height, width], "crop_at": "center"}
    if preprocess.crop_mode == "squash":
        return {"resize_to": scaled, **crop}
    if preprocess.crop_mode == "border":
        return {"resize_to_fit": scaled, "pad": [round(255 * v) for v in preprocess.mean], **crop}
    if scaled[0] == scaled[1]:
        return {"resize_shorter_edge": scaled[0], **crop}
    return {"resize_to_cover": scaled, **crop}


def _numbers(what: str, values: Any) -> tuple[float, float, float]:
    try:
        a, b, c = (float(v) for v in values)
    except (TypeError, ValueError) as error:
        raise InputError(f"{what} is {values!r} in the model's configuration; numbers are needed") from error
    if not all(math.isfinite(v) for v in (a, b, c)):
        raise InputError(f"{what} is {values!r} in the model's configuration; finite numbers are needed")
    return a, b, c


def _known(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InputError(f"unknown {what} {value!r} in the model's configuration; known: {', '.join(known)}")
