"""The resize and crop of both cores and of the C++ example: byte for byte what cspedge feeds to the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cspedge.bundle.manifest import preprocess_entry
from cspedge.data.digits import digits
from cspedge.data.images import decode, decode_listed
from cspedge.models.preprocess import CROP_MODES, INTERPOLATIONS, transform
from cspedge.types import Preprocess


def contract(mode: str, interpolation: str, size: tuple[int, int] = (64, 64), crop_pct: float = 0.875) -> Preprocess:
    return Preprocess(
        input_size=(3, *size),
        crop_pct=crop_pct,
        crop_mode=mode,
        interpolation=interpolation,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )


# every mode with every filter; other sizes, and a crop that is larger than the resized image (padding)
CONTRACTS = [
    *(contract(mode, interpolation) for mode in CROP_MODES for interpolation in INTERPOLATIONS),
    *(contract(mode, "bicubic", (48, 80), 0.9) for mode in CROP_MODES),
    *(contract(mode, "bilinear", (57, 57), 1.3) for mode in CROP_MODES),
]


def agree(resizer: Any, images: list[Image.Image], contracts: list[Preprocess], folder: Path) -> None:
    """Every image through every contract there and in Python."""
    jobs, expected = [], []
    for number, image in enumerate(images):
        rgb = folder / f"{number}.rgb"
        rgb.write_bytes(np.asarray(image).tobytes())
        for preprocess in contracts:
            job = {"do": "preprocess", "rgb": str(rgb), "width": image.width, "height": image.height}
            jobs.append({**job, "preprocess": preprocess_entry(preprocess), "out": str(folder / f"{len(jobs)}.tensor")})
            expected.append(transform(preprocess)(image))
    resizer.run(jobs)
    for job, tensor in zip(jobs, expected, strict=True):
        found = np.fromfile(job["out"], np.uint8).reshape(tensor.shape)
        what = f"{job['width']} x {job['height']} by {job['preprocess']['resize']}"
        np.testing.assert_array_equal(found, tensor, err_msg=what)


def test_digits_enlarged(resizer: Any, tmp_path: Path) -> None:
    scans = digits("val")
    agree(resizer, [decode_listed(scans, index).image for index in (0, 44, 101)], CONTRACTS, tmp_path)


def test_photographs_wide_tall_and_narrow(resizer: Any, caltech: Path, tmp_path: Path) -> None:
    """Tall ones reach Pillow 13's other order of passes; the narrow ones are strips of a photograph."""
    paths = sorted((caltech / "val").glob("*/*.jpg"))
    photos = [decode(path).image for path in paths[:: len(paths) // 4]]
    wide = max(photos, key=lambda photo: photo.width)
    strips = [wide.crop((20, 0, 20 + width, wide.height)) for width in (9, 60)]
    agree(resizer, [*photos, *strips, wide.crop((0, 50, wide.width, 61))], CONTRACTS, tmp_path)


def test_the_usual_contracts_of_timm_at_full_size(resizer: Any, caltech: Path, tmp_path: Path) -> None:
    photos = [decode(path).image for path in sorted((caltech / "val").glob("*/*.jpg"))[::300]]
    usual = [contract("center", name, (224, 224), crop) for name, crop in (("bicubic", 0.875), ("bilinear", 0.95))]
    agree(resizer, photos, usual, tmp_path)


def test_both_orders_of_passes(resizer: Any, tmp_path: Path) -> None:
    """A manifest of Pillow 12 is followed as it was made, whichever Pillow is installed."""
    from cspedge.bundle import pixels

    rgb = np.asarray(decode_listed(digits("val"), 7).image)[:, 2:5]
    rgb = np.ascontiguousarray(np.tile(rgb, (12, 1, 1)))
    (tmp_path / "rgb").write_bytes(rgb.tobytes())
    entry = preprocess_entry(contract("squash", "bicubic", (20, 20), 1.0))
    tensors = {}
    for order in ("width", "width-unless-tall"):
        told = {**entry, "resize": {**entry["resize"], "first_pass": order}}
        job = {"do": "preprocess", "rgb": str(tmp_path / "rgb"), "width": 3, "height": 96, "preprocess": told}
        resizer.run([{**job, "out": str(tmp_path / order)}])
        tensors[order] = (tmp_path / order).read_bytes()
        assert tensors[order] == pixels.tensor(rgb, told).tobytes()
    assert tensors["width"] != tensors["width-unless-tall"]


@pytest.mark.parametrize(
    ("width", "height", "kind"),
    [(0, 5, "image-empty"), (5, 0, "image-empty"), (400_000, 1, "image-too-large")],
)
def test_sizes_that_are_refused(resizer: Any, tmp_path: Path, width: int, height: int, kind: str) -> None:
    (tmp_path / "rgb").write_bytes(bytes(3 * width * height))
    job = {"do": "preprocess", "rgb": str(tmp_path / "rgb"), "width": width, "height": height}
    entry = preprocess_entry(contract("center", "bilinear", (224, 224)))
    (answer,) = resizer.run([{**job, "preprocess": entry, "out": str(tmp_path / "out")}])
    assert answer["code" if resizer.name == "cpp" else "kind"] == (3 if resizer.name == "cpp" else kind)
    assert f"{width} x {height}" in answer["message"]
    assert not (tmp_path / "out").exists()


def test_of_equal_logits_the_lower_class_comes_first(core: Any, tmp_path: Path) -> None:
    logits = np.array([0.5, 3.25, -1, 3.25, 2], "<f4")
    (tmp_path / "logits").write_bytes(logits.tobytes())
    labels = ["a", "b", 'c "quoted"', "d", "é"]
    (found,) = core.run([{"do": "top", "logits": str(tmp_path / "logits"), "labels": labels, "count": 4}])
    powers = np.exp(logits.astype(float) - 3.25)
    order = [1, 3, 4, 0]
    assert [row[:2] for row in found] == [[index, labels[index]] for index in order]
    np.testing.assert_allclose([row[2] for row in found], (powers / powers.sum())[order], rtol=1e-12)
