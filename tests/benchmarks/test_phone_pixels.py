"""The phones' resizers of `benchmarks/phone_pixels.py`: against real Skia, Pillow, torch and their own definitions."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

ROOT = Path(__file__).parents[2]
SKIA = ROOT / ".venv-skia" / "bin" / "python"  # `make skia`
# height and width: smaller in both directions, in one, and larger
SIDES = ((128, 171), (60, 40), (33, 500), (411, 333))


@pytest.fixture(scope="module")
def phone() -> Iterator[ModuleType]:
    """The module, imported as the scripts beside it import it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        import phone_pixels

        yield phone_pixels


@pytest.fixture(scope="module")
def files(caltech: Path) -> list[Path]:
    """A photograph of every tenth class, and a grey one."""
    grey = next(file for file in sorted((caltech / "val").rglob("*.jpg")) if Image.open(file).mode == "L")
    return [*(min(folder.iterdir()) for folder in sorted((caltech / "val").iterdir())[::10]), grey]


@pytest.fixture(scope="module")
def photographs(files: list[Path]) -> list[NDArray[np.uint8]]:
    return [np.asarray(Image.open(file).convert("RGB")) for file in files]


def script(python: Path, name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, ROOT / "benchmarks" / name, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


def largest(a: NDArray[np.generic], b: NDArray[np.generic]) -> float:
    return float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max())


def test_android_is_real_skia(caltech: Path) -> None:
    if not SKIA.exists():
        pytest.skip("skia-python's environment is not there; `make skia` makes it")
    loaded = subprocess.run([SKIA, "-c", "import skia"], capture_output=True, text=True)
    if loaded.returncode:
        pytest.skip(f"skia-python does not load here: {loaded.stderr.splitlines()[-1]}")  # libGL, libEGL
    done = script(SKIA, "skia_pixels.py", caltech / "val", "--every", "100")
    assert done.returncode == 0, done.stdout + done.stderr
    found = {name: row for name, row in json.loads(done.stdout).items() if name != "skia-python"}
    assert sum(row["images"] for row in found.values()) == 14 * (4 + 3 * 5)
    assert [name for name, row in found.items() if row["allowed"]] == ["ImageDecoder's draw"]
    assert all(row["largest"] <= row["allowed"] <= 1 for row in found.values())


def test_bilinear_is_torchs_without_antialiasing(phone: ModuleType, photographs: list[NDArray[np.uint8]]) -> None:
    for image in photographs:
        planes = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].double()
        for sides in SIDES:
            theirs = torch.nn.functional.interpolate(planes, sides, mode="bilinear", antialias=False)[0].permute(
                1, 2, 0
            )
            assert largest(phone.bilinear(image, *sides), theirs.numpy()) <= 0.5 + 1e-9


def test_androids_bilinear_is_bilinear_with_weights_of_four_bits(
    phone: ModuleType, photographs: list[NDArray[np.uint8]]
) -> None:
    """The weights are cut to sixteenths, at worst by 1/16 each way of a 255-step edge, and so is the sum."""
    image = photographs[0]
    for sides in SIDES:
        difference = phone.bilinear(image, *sides).astype(int) - phone.skia_bilinear(image, *sides)
        assert np.abs(difference).max() <= 2 * 255 / 16 + 1.5
        assert np.abs(difference).mean() < 1.5
    np.testing.assert_array_equal(phone.skia_bilinear(image, *image.shape[:2]), image)


def test_androids_nearest_is_the_pixel_under_the_centre(
    phone: ModuleType, photographs: list[NDArray[np.uint8]]
) -> None:
    image = photographs[1]

    def under(old: int, new: int) -> list[int]:
        # on an edge between two pixels the lower one; exactly, in fractions
        return [math.ceil(Fraction(2 * i + 1, 2) * old / new) - 1 for i in range(new)]

    for sides in ((64, 64), (100, 75), (192, 256)):
        rows, columns = (under(old, new) for old, new in zip(image.shape[:2], sides, strict=True))
        np.testing.assert_array_equal(phone.skia_nearest(image, *sides), image[rows][:, columns])


def lanczos_by_definition(line: NDArray[np.uint8], new: int, lobes: int) -> list[float]:
    """One row of one channel, each output on its own, in plain Python."""
    old = len(line)
    wider = max(1.0, old / new)
    found = []
    for index in range(new):
        centre = (index + 0.5) * old / new - 0.5
        total = weights = 0.0
        for sample in range(math.ceil(centre - lobes * wider), math.floor(centre + lobes * wider) + 1):
            x = math.pi * (sample - centre) / wider
            weight = 1.0 if x == 0 else lobes * math.sin(x) * math.sin(x / lobes) / x**2
            weights += weight
            total += weight * float(line[min(max(sample, 0), old - 1)])
        found.append(total / weights)
    return found


@pytest.mark.parametrize("lobes", [3, 5])
def test_lanczos_is_its_definition(phone: ModuleType, photographs: list[NDArray[np.uint8]], lobes: int) -> None:
    row = photographs[2][40:41]
    for new in (37, 128, 421):
        expected = [lanczos_by_definition(row[0, :, channel], new, lobes) for channel in range(3)]
        found = phone.lanczos(row, 1, new, lobes=lobes)[0]
        assert largest(found, np.clip(np.transpose(expected), 0, 255)) <= 0.5 + 1e-9


def test_lanczos_is_pillows_away_from_the_edge(phone: ModuleType, photographs: list[NDArray[np.uint8]]) -> None:
    """In floats, where Pillow neither rounds nor clips; beyond the edge it reads nothing, and here the edge repeats."""
    for image in photographs:
        planes = [Image.fromarray(image[..., channel].astype(np.float32)) for channel in range(3)]
        pillows = np.dstack([np.asarray(plane.resize((96, 64), Image.Resampling.LANCZOS)) for plane in planes])
        found, pillows = phone.lanczos(image, 64, 96), np.clip(pillows, 0, 255)
        assert largest(found[3:-3, 3:-3], pillows[3:-3, 3:-3]) <= 0.5 + 1e-3
        assert largest(found, pillows) > 0.5 + 1e-3


def test_linear_light_brightens_what_is_mixed(phone: ModuleType, photographs: list[NDArray[np.uint8]]) -> None:
    """Intensities are averaged, so half black and half white is 188 of 255, and a flat image stays as it is."""
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    assert phone.lanczos(stripes, 64, 1, linear_light=True)[32, 0].tolist() == [188, 188, 188]
    for level in (0, 3, 128, 255):
        flat = np.full((20, 20, 3), level, np.uint8)
        np.testing.assert_array_equal(phone.lanczos(flat, 7, 9, linear_light=True), flat[:7, :9])
    image = photographs[4]
    brighter = phone.lanczos(image, 32, 32, linear_light=True).mean() - phone.lanczos(image, 32, 32).mean()
    assert brighter > 0  # the curve is concave


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_libjpegs_reduction_averages(phone: ModuleType, files: list[Path], factor: int) -> None:
    """Its inverse DCT of fewer points is near the mean of each square, which leaving pixels out is not."""
    for file in files:
        whole = np.asarray(Image.open(file).convert("RGB"))
        found = phone.sampled(file.read_bytes(), factor)
        assert found.shape[:2] == phone.sampled_sides(whole.shape[:2], factor)
        height, width = (side // factor for side in whole.shape[:2])
        squares = whole[: height * factor, : width * factor].reshape(height, factor, width, factor, 3)
        inside = found[:height, :width].astype(float)
        assert (
            np.abs(inside - squares.mean((1, 3))).mean() < 0.5 * np.abs(inside - squares[:, factor // 2, :, 0]).mean()
        )


@pytest.mark.parametrize(("size", "factor"), [(3, 1), (6, 2), (10, 2), (12, 4), (24, 8)])
def test_other_sizes_leave_pixels_out(phone: ModuleType, files: list[Path], size: int, factor: int) -> None:
    rest = size // factor
    for file in files:
        jpeg = file.read_bytes()
        reduced, found = phone.sampled(jpeg, factor), phone.sampled(jpeg, size)
        assert found.shape[:2] == (reduced.shape[0] // rest, reduced.shape[1] // rest)
        for y, x in ((0, 0), (2, 1), (found.shape[0] - 1, found.shape[1] - 1)):
            np.testing.assert_array_equal(found[y, x], reduced[y * rest + rest // 2, x * rest + rest // 2])


def test_the_sample_size_is_the_largest_that_leaves_enough(phone: ModuleType) -> None:
    assert phone.sample_size((300, 400), (128, 170)) == 2
    assert phone.sample_size((255, 400), (128, 200)) == 1
    assert phone.sample_size((3024, 4032), (224, 298)) == 13
    assert phone.sample_size((509, 900), (128, 226)) == 3  # 509 / 4 is 127.25, decoded to 128; but 900 / 4 is 225
    assert phone.sample_size((509, 904), (128, 226)) == 4
    assert phone.sample_size((90, 300), (128, 426)) == 1
    powers = {side: phone.power_of_two((side, 2 * side), (100, 100)) for side in (99, 199, 200, 399, 400, 1600)}
    assert powers == {99: 1, 199: 1, 200: 2, 399: 2, 400: 4, 1600: 16}


def test_the_table_of_a_sample(caltech: Path) -> None:
    """A real run on 14 photographs: every variant's row, in order of what it does to the tensors."""
    pytest.importorskip("openvino")
    done = script(Path(sys.executable), "phone_resize.py", caltech.parents[1], "--every", "100")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("lcnet_050.caltech101: n = 14; top-1 fp32 ")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines() if line[:1] == "|"]
    mean = {row[0]: float(row[1]) for row in rows[2:]}
    assert len(mean) == 10
    assert 0 < mean["createScaledBitmap(filter=true)"] < mean["createScaledBitmap(filter=false)"]
    assert mean["createScaledBitmap(filter=false)"] < mean["Vision .scaleFill, the contract's filter"]
    assert all(len(row) == 10 and "%" in row[4] for row in rows[2:])


def test_a_folder_without_photographs_is_refused(tmp_path: Path) -> None:
    done = script(Path(sys.executable), "phone_resize.py", tmp_path)
    assert done.returncode == 3
    assert str(tmp_path / "references" / "lcnet_050.caltech101") in done.stderr
    assert "Traceback" not in done.stderr
