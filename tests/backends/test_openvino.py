"""OpenVINO IR on small graphs and, where it is there, on the trained reference."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from cspedge.backends.openvino import BACKEND, read_ir
from cspedge.backends.openvino_ir import encoding_of_range
from cspedge.devices.host import describe, saturates_u8s8
from cspedge.digest import sha256_path
from cspedge.errors import TargetError, UsageError
from cspedge.evaluate.metrics import agreement, sqnr_db
from cspedge.quantize.parity import differences
from cspedge.quantize.placement import PlacedModel, QuantizedModel
from cspedge.types import Precision

HELPER = Path(__file__).with_name("small_model.py")
SMALL: dict[str, Any] = runpy.run_path(str(HELPER))
images, eager = SMALL["images"], SMALL["eager"]
NAME = "openvino"
EXACT = {"simulate_int8": True}


@pytest.fixture(scope="module")
def lcnet() -> QuantizedModel:
    found: QuantizedModel = SMALL["lcnet"]()
    return found


@pytest.fixture(scope="module")
def int8(lcnet: QuantizedModel) -> PlacedModel:
    found: PlacedModel = SMALL["placed"](lcnet, NAME, "int8")
    return found


@pytest.fixture(scope="module")
def int8_folder(int8: PlacedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("int8") / "model.ir"
    BACKEND.lower(int8, Precision.INT8, path, {})
    return path


def child(*arguments: str, seed: str = "0") -> str:
    command = [sys.executable, str(HELPER), *arguments]
    environment = os.environ | {"PYTHONHASHSEED": seed}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def sqnr(expected: np.ndarray, found: np.ndarray) -> float:
    decibels = sqnr_db(expected, found)
    return float("inf") if decibels is None else decibels


def test_available_with_versions() -> None:
    found = BACKEND.availability()
    assert found.ok
    assert set(found.versions) == {"openvino", "onnx"}


@pytest.mark.parametrize(("precision", "floor"), [("fp32", 90.0), ("fp16", 30.0)])
def test_float_artifacts_give_the_graphs_answers(
    lcnet: QuantizedModel, tmp_path: Path, precision: str, floor: float
) -> None:
    model = SMALL["placed"](lcnet, NAME, precision)
    path = tmp_path / "model.ir"
    BACKEND.lower(model, Precision(precision), path, {})
    batch = images(lcnet.input_shape)
    assert sqnr(eager(model, batch), BACKEND.load(path, threads=2, options={}).run(batch)[0]) >= floor
    assert BACKEND.readback(path).activations == ()
    assert BACKEND.readback(path).weights == ()
    assert BACKEND.audit(path, model).int8_mac_share == 0.0


def test_fp16_halves_the_weights(lcnet: QuantizedModel, tmp_path: Path) -> None:
    model = SMALL["placed"](lcnet, NAME, "fp32")
    for precision in ("fp32", "fp16"):
        BACKEND.lower(model, Precision(precision), tmp_path / precision, {})
    sizes = [(tmp_path / p / "model.bin").stat().st_size for p in ("fp16", "fp32")]
    assert sizes[0] < 0.55 * sizes[1]


def test_fresh_process_gives_this_processs_answers(int8: PlacedModel, int8_folder: Path, tmp_path: Path) -> None:
    batch = images(int8.input_shape)
    np.save(tmp_path / "images.npy", batch)
    child("run", NAME, str(int8_folder), *(str(tmp_path / f) for f in ("images.npy", "logits.npy")))
    found = np.load(tmp_path / "logits.npy")
    assert found.shape == (6, 10)
    assert found.dtype == np.float32
    assert np.array_equal(found, BACKEND.load(int8_folder, threads=1, options={}).run(batch)[0])


def test_int8_gives_pt2es_answers_where_products_do_not_saturate(int8: PlacedModel, int8_folder: Path) -> None:
    batch = images(int8.input_shape)
    options: dict[str, object] = dict(EXACT) if saturates_u8s8(describe().isa) else {}
    found = BACKEND.load(int8_folder, threads=1, options=options).run(batch)[0]
    assert sqnr(eager(int8, batch), found) >= 12.0  # random weights: one flipped value becomes noise


def test_file_carries_the_placed_numbers(int8: PlacedModel, int8_folder: Path) -> None:
    found = BACKEND.readback(int8_folder)
    assert differences(int8, found) == ()
    assert len(found.weights) == len(int8.weights)
    # one quantizer for each tensor, also where two ops read it
    assert len(found.activations) == len(int8.activations)


def test_same_bytes_in_another_process(int8_folder: Path, tmp_path: Path) -> None:
    assert child("lower", NAME, "int8", str(tmp_path / "again.ir"), seed="4711").strip() == sha256_path(int8_folder)


def test_files_tell_nothing_of_the_machine(int8_folder: Path) -> None:
    assert sorted(p.name for p in int8_folder.iterdir()) == ["model.bin", "model.xml"]
    text = (int8_folder / "model.xml").read_text(encoding="utf-8")
    assert "blocks.5.0.se.conv_reduce:conv2d" in text
    for leak in ("Runtime_version", "conversion_parameters", "/tmp", "model.onnx"):
        assert leak not in text


def test_audit_finds_every_convolution_in_int8(int8: PlacedModel, int8_folder: Path) -> None:
    audit = BACKEND.audit(int8_folder, int8)
    assert audit.int8_mac_share == 1.0
    assert audit.int8_op_share > 0.9
    assert audit.fp32_islands == ("model:mul",) or audit.fp32_islands == ()
    assert bool(audit.notes) == saturates_u8s8(describe().isa)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"speed": 1}, "no option 'speed'; valid options: simulate_int8"), ({"simulate_int8": "yes"}, "is 'yes'")],
)
def test_options_that_cannot_be_honoured_are_refused(
    int8_folder: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        BACKEND.load(int8_folder, threads=1, options=options)


@pytest.mark.parametrize("name", ["model.xml", "model.bin"])
@pytest.mark.parametrize("kept", [0.0, 0.4])
def test_damaged_file_is_a_target_error(int8_folder: Path, tmp_path: Path, name: str, kept: float) -> None:
    copy = tmp_path / "damaged.ir"
    shutil.copytree(int8_folder, copy)
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(TargetError, match=r"damaged\.ir") as caught:
        BACKEND.load(copy, threads=1, options={})
    assert str(tmp_path) not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_folder_is_a_target_error(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"has no model\.xml"):
        BACKEND.load(tmp_path / "none.ir", threads=1, options={})


def test_other_formats_are_not_opened(int8_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(int8_folder, tmp_path / "model.ir")
    (tmp_path / "model.ir" / "model.xml").write_bytes(b"\x08\x0a\x12\x07unknown")
    with pytest.raises(TargetError, match="is not an OpenVINO IR"):
        read_ir(tmp_path / "model.ir")


def test_importing_openvino_sends_nothing() -> None:
    program = (
        "import sys; from cspedge.backends.openvino import import_openvino; import_openvino();"
        "print([m for m in sys.modules if m.startswith('openvino_telemetry.')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"


@given(
    scale=st.floats(min_value=2.0**-20, max_value=1e3, width=32),
    zero=st.integers(min_value=-128, max_value=127),
)
def test_range_gives_scale_and_zero_point_back(scale: float, zero: int) -> None:
    low = np.float32(-(zero + 128)) * np.float32(scale)
    high = np.float32(255 - (zero + 128)) * np.float32(scale)
    found, found_zero = encoding_of_range(float(low), float(high))
    assert found_zero == zero
    assert abs(found - scale) <= 2.0**-23 * scale


def test_trained_reference_on_photographs(references: Path, caltech: Path, tmp_path: Path) -> None:
    from cspedge import api

    reference = api.load_reference(f"local-dir:{references / 'lcnet_050.caltech101'}")
    quantized = api.quantize(reference, api.collect_calibration(reference, caltech / "train", count=64))
    photos = api.collect_calibration(reference, caltech / "val", count=64).images.astype(np.float32) / np.float32(255)
    model = SMALL["placed"](quantized, NAME, "int8")
    path = tmp_path / "model.ir"
    BACKEND.lower(model, Precision.INT8, path, {})
    expected = eager(model, photos)
    for options, decibels, share in (({}, 15.0, 0.85), (EXACT, 20.0, 0.93)):
        found = BACKEND.load(path, threads=1, options=options).run(photos)[0]
        assert sqnr(expected, found) > decibels
        assert agreement(expected, found) > share
    assert differences(model, BACKEND.readback(path)) == ()


def test_a_quantizer_before_an_addition_rounds(tmp_path: Path) -> None:
    """The plugin runs an addition inside the convolution before it and would leave the rounding between them out."""

    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = nn.functional.relu(self.first(x))
            return nn.functional.relu(x + self.second(x)).flatten(1)

    torch.manual_seed(0)
    quantized = SMALL["quantize"](Sum(), (3, 16, 16))
    model = SMALL["placed"](quantized, "executorch", Precision.INT8)  # its placement quantizes the outputs
    path = tmp_path / "model.ir"
    BACKEND.lower(model, Precision.INT8, path, {})
    batch = images((3, 16, 16), 4)
    (found,) = BACKEND.load(path, threads=1, options={"simulate_int8": False}).run(batch)
    step = next(e.scale for name, e in model.activations.items() if name.endswith("relu") and "first" not in name)
    codes = np.rint((found - eager(model, batch)) / step)
    assert float((codes != 0).mean()) < 1e-3
    assert differences(model, BACKEND.readback(path)) == ()
