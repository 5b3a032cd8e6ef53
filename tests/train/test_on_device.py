"""Augmentation by tensor operations, run on the CPU and compared with Pillow, timm and torchvision."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from timm.data import auto_augment as timm_ops

from cspedge.data import ImageList, scan
from cspedge.data.images import decode_listed
from cspedge.train import RECIPES, Augment, Recipe
from cspedge.train.batches import Source, batches, posterize
from cspedge.train.cache import Pixels
from cspedge.train.dataset import check_images
from cspedge.train.on_device import Draw, OnDevice, Padded

CFG = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
SIZE = 96
PLAIN = Draw(box=(0, 0, SIZE, SIZE), flip=False, steps=(), erase=None)


@pytest.fixture(scope="module")
def photos(caltech: Any) -> ImageList:
    images = scan(caltech / "val")
    return images.subset(range(0, len(images), len(images) // 12))


@pytest.fixture(scope="module")
def squares(photos: ImageList) -> list[Image.Image]:
    """Photographs of 96 x 96 pixels."""
    return [decode_listed(photos, i).image.resize((SIZE, SIZE)) for i in range(6)]


def recipe(**changes: Any) -> Recipe:
    return dataclasses.replace(RECIPES["default"], img_size=SIZE, **changes)


def augmented(images: list[Image.Image], draws: list[Draw]) -> np.ndarray:
    """uint8 [n, H, W, 3]."""
    items = [(np.asarray(image), 0, draw) for image, draw in zip(images, draws, strict=True)]
    pixels, _, drawn = Padded.collate(items)
    return OnDevice(recipe(), CFG).augmented(pixels, drawn).permute(0, 2, 3, 1).numpy()


def difference(found: np.ndarray, expected: list[Image.Image]) -> float:
    """Mean absolute difference in grey levels."""
    return float(np.abs(found.astype(int) - np.stack([np.asarray(image) for image in expected]).astype(int)).mean())


@pytest.mark.parametrize(
    ("name", "arguments", "tolerance"),
    [
        ("AutoContrast", (0.0, 0.0), 0.6),
        ("Equalize", (0.0, 0.0), 1.5),
        ("Invert", (0.0, 0.0), 0.0),
        ("Posterize", (4, 1), 0.0),
        ("Posterize", (2, 8), 0.0),
        ("Solarize", (128, 256), 0.0),
        ("SolarizeAdd", (60, 110), 0.0),
        ("Brightness", (0.4, 1.6), 0.6),
        ("Contrast", (0.4, 1.6), 1.0),
        ("Color", (0.4, 1.6), 1.0),
        ("Sharpness", (0.2, 1.8), 1.0),
        ("Rotate", (-25.0, 10.0), 1.2),  # Pillow does not blend the edges with the fill
        ("ShearX", (0.3, -0.2), 0.6),
        ("ShearY", (0.3, -0.2), 0.6),
        ("TranslateXRel", (0.25, -0.125), 0.6),  # 24 and 12 whole pixels
        ("TranslateYRel", (0.25, -0.125), 0.6),
    ],
)
def test_operations_are_pillows(
    name: str, arguments: tuple[float, float], tolerance: float, squares: list[Image.Image]
) -> None:
    """Within rounding of what timm does with Pillow, with an argument of its own for each image of a batch."""
    values = [arguments[i % 2] for i in range(len(squares))]
    found = augmented(squares, [dataclasses.replace(PLAIN, steps=((name, float(v)),)) for v in values])
    options = {"fillcolor": tuple(round(255 * v) for v in CFG["mean"]), "resample": Image.Resampling.BILINEAR}
    given = [() if name in {"AutoContrast", "Equalize", "Invert"} else (v,) for v in values]
    expected = [timm_ops.NAME_TO_OP[name](image, *a, **options) for image, a in zip(squares, given, strict=True)]
    assert difference(found, expected) <= tolerance
    assert difference(found, squares) > 2


def test_posterize_takes_what_timm_draws(photos: ImageList, squares: list[Image.Image]) -> None:
    """0 to 8 bits alike in both paths, and a recipe at the magnitude that draws 0 bits trains."""
    for bits in range(9):
        found = augmented(squares, [dataclasses.replace(PLAIN, steps=(("Posterize", float(bits)),))] * len(squares))
        assert difference(found, [posterize(image, bits) for image in squares]) == 0
    assert posterize(squares[0], 3).tobytes() == ImageOps.posterize(squares[0], 3).tobytes()
    change = recipe(auto_augment="rand-m10-n8-p1-inc1", batch_size=6, epochs=8)
    pixels = Pixels(photos, check_images(photos, 1), change)
    place = torch.device("cpu")
    source = Source(
        pixels=pixels, labels=np.arange(12), recipe=change, cfg=CFG, workers=0, place=place, augment=Augment.CPU
    )
    assert sum(len(labels) for _, labels in batches(source)) == 8 * 12


def test_crops_are_resized_without_aliases(photos: ImageList) -> None:
    """A box of any size becomes what Pillow's antialiased bilinear makes of it, flipped where drawn."""
    images = [decode_listed(photos, i).image for i in range(6)]
    boxes = [(10 * i, 5 * i, image.width - 20, image.height) for i, image in enumerate(images)]
    boxes[0], boxes[1] = (20, 30, 70, 80), (0, 0, *images[1].size)  # enlarged; and to every edge
    draws = [dataclasses.replace(PLAIN, box=box, flip=i % 2 == 1) for i, box in enumerate(boxes)]
    found = augmented(images, draws)
    expected = []
    for image, draw in zip(images, draws, strict=True):
        small = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=draw.box)
        expected.append(small.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if draw.flip else small)
    coarse = [image.resize((SIZE, SIZE), Image.Resampling.NEAREST) for image in images]
    assert difference(found, expected) < 4 < 10 < difference(found, coarse)


def padded(photos: ImageList, change: Recipe) -> Padded:
    pixels = Pixels(photos, check_images(photos, 1), change)
    return Padded(pixels, np.arange(len(photos)), change, CFG)


def test_draws_are_a_function_of_seed_epoch_and_index(photos: ImageList) -> None:
    change = recipe(erase=0.5)
    images = padded(photos, change)
    before = torch.random.get_rng_state()
    first, again, later = (images[key][2] for key in ((3, 5), (3, 5), (4, 5)))
    assert (first.box, first.flip, first.steps) == (again.box, again.flip, again.steps)
    assert first.box != later.box
    assert padded(photos, recipe(seed=1, erase=0.5))[3, 5][2].box != first.box
    assert torch.equal(before, torch.random.get_rng_state())
    batch = Padded.collate([images[3, i] for i in range(8)])
    shifted = Padded.collate([images[3, i] for i in (5, 2)])  # other neighbours, other padding
    done, other = (OnDevice(change, CFG)(pixels, draws) for pixels, _, draws in (batch, shifted))
    torch.testing.assert_close(done[5], other[0], rtol=0, atol=0)
    assert (done.shape, done.dtype) == ((8, 3, SIZE, SIZE), torch.float32)


def test_what_is_drawn_is_timms_policy(photos: ImageList) -> None:
    """RandAugment: two operations with probability a half each, of all fifteen, around the magnitude."""
    images = padded(photos, recipe(auto_augment="rand-m9-mstd0.5-inc1", hflip=0.25))
    draws = [images[epoch, 0][2] for epoch in range(600)]
    names = Counter(name for draw in draws for name, _ in draw.steps)
    assert len(names) == 15
    assert set(names) <= {name.removesuffix("Increasing") for name in timm_ops.NAME_TO_OP}
    assert sum(names.values()) / len(draws) == pytest.approx(1.0, abs=0.12)
    assert np.mean([draw.flip for draw in draws]) == pytest.approx(0.25, abs=0.06)
    turns = [abs(value) for draw in draws for name, value in draw.steps if name == "Rotate"]
    assert np.mean(turns) == pytest.approx(27, abs=1)
    jittered = padded(photos, recipe(auto_augment=None, color_jitter=0.4))
    steps = [jittered[epoch, 0][2].steps for epoch in range(50)]
    assert all({name for name, _ in step} == {"Brightness", "Contrast", "Color"} for step in steps)
    assert all(0.6 <= value <= 1.4 for step in steps for _, value in step)
    assert padded(photos, recipe(auto_augment=None, color_jitter=0.0))[0, 0][2].steps == ()


def test_erasing_puts_noise_into_a_rectangle(photos: ImageList) -> None:
    change = recipe(erase=1.0, auto_augment=None, color_jitter=0.0)
    pixels, _, draws = Padded.collate([padded(photos, change)[0, i] for i in range(6)])
    erased = OnDevice(change, CFG)(pixels, draws)
    clean = OnDevice(change, CFG)(pixels, [dataclasses.replace(draw, erase=None) for draw in draws])
    for image, plain, draw in zip(erased, clean, draws, strict=True):
        assert draw.erase is not None
        top, left, noise = draw.erase
        where = (slice(None), slice(top, top + noise.shape[1]), slice(left, left + noise.shape[2]))
        assert torch.equal(image[where], noise)
        assert (image != plain).any(0).sum() <= noise.shape[1] * noise.shape[2]
        assert abs(float(noise.mean())) < 0.5 < float(noise.std())
