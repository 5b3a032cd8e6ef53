"""Mild corruptions: what each does to a real photograph, in the model's own pixels, and to one it cannot be done to."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from cspedge.data.corrupt import MILD, Corruption, Kind, corrupter
from cspedge.data.images import load, scan
from cspedge.errors import InputError
from cspedge.models.preprocess import shrinkage, transform
from cspedge.types import Preprocess


def contract(crop_mode: str = "center", crop_pct: float = 0.875, size: tuple[int, int] = (224, 224)) -> Preprocess:
    return Preprocess(
        input_size=(3, *size),
        crop_pct=crop_pct,
        crop_mode=crop_mode,
        interpolation="bilinear",
        mean=(0.0, 0.0, 0.0),  # what `border` pads with
        std=(0.5, 0.5, 0.5),
    )


@pytest.fixture(scope="module")
def photograph() -> Image.Image:
    """640 x 427 pixels."""
    return Image.fromarray(load_sample_image("china.jpg"))


@pytest.mark.parametrize("corruption", MILD, ids=lambda c: c.name)
def test_each_changes_the_photograph_and_always_alike(photograph: Image.Image, corruption: Corruption) -> None:
    apply = corrupter(corruption, contract())
    before = np.asarray(photograph).copy()
    first, second = apply(photograph), apply(photograph)
    assert first.size == photograph.size
    assert first.mode == "RGB"
    assert first.tobytes() == second.tobytes()
    assert (np.asarray(photograph) == before).all()
    gone = np.abs(np.asarray(first).astype(float) - before).mean()
    assert 1 < gone < 40


@pytest.mark.parametrize(("mode", "size"), [("center", (224, 224)), ("border", (224, 224)), ("squash", (160, 224))])
def test_a_blur_is_in_pixels_of_the_models_input(mode: str, size: tuple[int, int]) -> None:
    """The standard deviation of a blurred square, seen through timm's own transform, is what was asked for.

    The square and the transform have a width of their own, so variances are subtracted.
    """
    preprocess = contract(mode, size=size)
    square = Image.new("RGB", (1200, 900))
    square.paste((255, 255, 255), (590, 440, 610, 460))
    blurred = corrupter(Corruption(name="blur", kind=Kind.BLUR, value=3.0), preprocess)(square)
    before, after = (_variances(transform(preprocess)(image)[0].astype(float)) for image in (square, blurred))
    assert np.sqrt(np.subtract(after, before)) == pytest.approx([3.0, 3.0], rel=0.07)


def _variances(values: np.ndarray) -> tuple[float, float]:
    weights = values / values.sum()
    found = []
    for axis in (0, 1):
        along = weights.sum(axis=1 - axis)
        place = np.arange(len(along))
        found.append(float((along * place**2).sum() - (along * place).sum() ** 2))
    return found[0], found[1]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("center", (2.0, 2.0)), ("border", (4.0, 4.0)), ("squash", (4.0, 2.0))],
)
def test_shrinkage_follows_the_crop_mode(mode: str, expected: tuple[float, float]) -> None:
    assert shrinkage((1024, 512), contract(mode)) == expected  # 224 / 0.875 = 256


def test_jpeg_and_light_are_pillows(photograph: Image.Image) -> None:
    buffer = io.BytesIO()
    photograph.save(buffer, "JPEG", quality=40, subsampling=2)
    found = corrupter(Corruption(name="JPEG", kind=Kind.JPEG, value=40.0), contract())(photograph)
    assert (np.asarray(found) == np.asarray(Image.open(buffer))).all()
    lit = corrupter(Corruption(name="brighter", kind=Kind.BRIGHTNESS, value=1.25), contract())(photograph)
    expected = np.minimum(np.asarray(photograph) * 1.25, 255)
    assert np.abs(np.asarray(lit) - expected).max() <= 1


def test_what_jpeg_cannot_hold_is_left_out_by_name(tmp_path: Path, photograph: Image.Image) -> None:
    Image.new("RGB", (66_000, 2), (9, 90, 200)).save(tmp_path / "wide.png")
    photograph.resize((64, 64)).save(tmp_path / "fine.png")
    preprocess = contract("squash")
    change = corrupter(MILD[1], preprocess)
    with pytest.raises(InputError, match="cannot be written as JPEG"):
        change(Image.new("RGB", (66_000, 2)))
    found = load(scan(tmp_path), None, preprocess, max_unreadable=0.5, change=change)
    assert found.names == ("fine.png",)
    assert found.skipped[0].name == "wide.png"
    assert "cannot be written as JPEG" in found.skipped[0].reason
