"""The built-in digits: real scans, a fixed split, the same bytes everywhere."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from cspedge.data import digits, labels_for, load, sample, scan, write_digits
from cspedge.digest import sha256_json
from cspedge.models.preprocess import resolve

VAL_SHA256 = "5e7248c495284c358bdc7899e3b216a6afbe73951e1c9ebd49982fd87f279827"
CFG = {"input_size": (3, 64, 64), "crop_pct": 1.0, "interpolation": "bilinear"}


def test_the_split_is_what_it_always_was() -> None:
    train, val = digits("train"), digits("val")
    assert (len(train), len(val)) == (1347, 450)
    assert not set(train.digests) & set(val.digests)
    assert len({*train.digests, *val.digests}) == 1797
    assert set(Counter(val.class_of).values()) == {44, 45, 46}
    assert (train.source, val.source) == ("digits/train", "digits/val")
    assert sha256_json(val.digests) == VAL_SHA256


def test_the_pixels_are_scikit_learns() -> None:
    data = load_digits()
    for images in (digits("train"), digits("val")):
        for i in range(0, len(images), 50):
            with Image.open(io.BytesIO(images.read(i))) as image:
                assert (image.mode, image.format) == ("L", "PNG")
                pixels = np.asarray(image)
            row = int(Path(images.names[i]).stem)
            np.testing.assert_array_equal(pixels, np.rint(data.images[row] * 255 / 16))
            assert images.class_of[i] == str(data.target[row])


def test_digits_load_and_sample_as_a_folder_does(tmp_path: Path) -> None:
    write_digits(tmp_path)
    inside, outside = digits("val"), scan(tmp_path / "val")
    assert (inside.names, inside.digests, inside.class_of) == (outside.names, outside.digests, outside.class_of)
    chosen = sample(inside, 40, seed=3)
    assert chosen == sample(outside, 40, seed=3)
    assert set(Counter(inside.class_of[i] for i in chosen).values()) == {4}
    labels = labels_for(inside, inside.class_names, num_classes=10)
    a, b = (load(images, chosen, resolve(CFG), labels=labels) for images in (inside, outside))
    np.testing.assert_array_equal(a.images, b.images)
    assert a.sha256 == b.sha256
    assert a.images.shape == (40, 3, 64, 64)


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match="test"):
        digits("test")
