"""The contract of preprocessing against timm's transform on Pillow, byte for byte."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cspedge.bundle import pixels
from cspedge.bundle.manifest import preprocess_entry
from cspedge.bundle.refusal import Kind, Refusal
from cspedge.models.preprocess import INTERPOLATIONS, transform
from cspedge.types import Preprocess

MEAN = (0.485, 0.456, 0.406)


def contract(
    mode: str = "center", interpolation: str = "bilinear", size: Any = (3, 32, 32), crop: float = 0.875
) -> Any:
    return Preprocess(
        input_size=size,
        crop_pct=crop,
        crop_mode=mode,
        interpolation=interpolation,
        mean=MEAN,
        std=(0.229, 0.224, 0.225),
    )


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@settings(max_examples=8)
@given(
    height=st.integers(4, 120),
    width=st.integers(4, 120),
    size=st.sampled_from([(3, 32, 32), (3, 24, 40)]),
    crop=st.sampled_from([1.0, 0.887, 0.875]),
    seed=st.integers(0, 999),
)
def test_every_rule_gives_timms_pixels(
    mode: str, interpolation: str, height: int, width: int, size: Any, crop: float, seed: int
) -> None:
    preprocess = contract(mode, interpolation, size, crop)
    rgb = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    expected = transform(preprocess)(Image.fromarray(rgb))
    np.testing.assert_array_equal(pixels.tensor(rgb, preprocess_entry(preprocess)), expected)


def test_a_real_photograph(caltech: Any) -> None:
    path = sorted((caltech / "val").rglob("*.jpg"))[0]
    image = Image.open(path).convert("RGB")
    for interpolation, crop in (("bicubic", 0.875), ("bilinear", 0.95)):
        preprocess = contract(interpolation=interpolation, size=(3, 224, 224), crop=crop)
        expected = transform(preprocess)(image)
        np.testing.assert_array_equal(pixels.tensor(np.asarray(image), preprocess_entry(preprocess)), expected)


@pytest.mark.parametrize(
    ("shape", "kind"),
    [((0, 5, 3), Kind.IMAGE_EMPTY), ((5, 0, 3), Kind.IMAGE_EMPTY), ((1, 4_000_000, 3), Kind.IMAGE_TOO_LARGE)],
)
def test_sizes_that_no_image_may_have(shape: Any, kind: Kind) -> None:
    image = np.zeros(shape, np.uint8)  # one pixel high: within the limit itself, above it after the resize
    with pytest.raises(Refusal) as refused:
        pixels.tensor(image, preprocess_entry(contract()))
    assert refused.value.kind is kind


def test_a_hundred_megapixels_are_refused_before_any_work() -> None:
    image = np.broadcast_to(np.zeros(3, np.uint8), (10_000, 10_000, 3))
    with pytest.raises(Refusal, match="10000 x 10000 pixels, above the limit of 89,478,485") as refused:
        pixels.tensor(image, preprocess_entry(contract()))
    assert refused.value.kind is Kind.IMAGE_TOO_LARGE


def test_the_order_of_passes_matters_for_tall_images() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (120, 40, 3), dtype=np.uint8)
    one, other = (pixels.resize(rgb, 60, 20, "bicubic", order) for order in ("width", "width-unless-tall"))
    assert not np.array_equal(one, other)
    assert math.isclose(float(one.mean()), float(other.mean()), abs_tol=0.1)
