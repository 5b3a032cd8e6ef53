"""Mild corruptions of decoded photographs: what a lens, a messenger app or the light does before preprocessing.

The kinds are of ImageNet-C (Hendrycks and Dietterich, "Benchmarking neural network robustness to common corruptions
and perturbations", ICLR 2019), at the strength of its mildest level where it has one: Gaussian blur of one pixel, JPEG
of quality 25. Brightness is a gain, as another exposure is, a third of a stop either way; ImageNet-C adds to HSV's
value instead. Nothing is drawn at random: the same image gives the same bytes with the same Pillow.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from cspedge.errors import InputError
from cspedge.models.preprocess import shrinkage
from cspedge.types import Preprocess

if TYPE_CHECKING:
    from PIL import Image


class Kind(StrEnum):
    """What is done to an image."""

    BLUR = "gaussian-blur"
    JPEG = "jpeg"
    BRIGHTNESS = "brightness"


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """One corruption of an RGB image.

    value: of a blur its standard deviation in pixels of the model's input, of JPEG libjpeg's quality (1 to 95, 4:2:0),
    of brightness the factor of every byte, clipped at 255.
    """

    name: str
    kind: Kind
    value: float


MILD = (
    Corruption(name="blur", kind=Kind.BLUR, value=1.0),
    Corruption(name="JPEG", kind=Kind.JPEG, value=25.0),
    Corruption(name="brighter", kind=Kind.BRIGHTNESS, value=1.25),
    Corruption(name="darker", kind=Kind.BRIGHTNESS, value=0.8),
)


def corrupter(corruption: Corruption, preprocess: Preprocess) -> Callable[[Image.Image], Image.Image]:
    """A function from a decoded RGB image to the corrupted one, of the same size; it may be called from threads.

    preprocess: what follows, because a blur is measured where the model sees it: a large photograph is blurred by more
    of its own pixels. The function raises InputError, the reason alone, for an image that JPEG cannot hold.
    """
    from PIL import ImageEnhance, ImageFilter

    def apply(image: Image.Image) -> Image.Image:
        if corruption.kind is Kind.JPEG:
            return _through_jpeg(image, round(corruption.value))
        if corruption.kind is Kind.BRIGHTNESS:
            return ImageEnhance.Brightness(image).enhance(corruption.value)
        across, down = shrinkage(image.size, preprocess)
        return image.filter(ImageFilter.GaussianBlur((corruption.value * across, corruption.value * down)))

    return apply


def _through_jpeg(image: Image.Image, quality: int) -> Image.Image:
    from PIL import Image

    buffer = io.BytesIO()
    try:
        image.save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    except OSError as error:  # 65,500 pixels on a side are libjpeg's most
        raise InputError(f"cannot be written as JPEG ({error})") from error
    with Image.open(buffer, formats=("JPEG",)) as found:
        return found.convert("RGB")
