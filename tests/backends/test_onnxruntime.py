"""ONNX export and ONNX Runtime on small graphs and, where it is there, on the trained reference."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn import functional as F

from cspedge.backends.onnx_export import export_onnx, multiply_accumulates, serialize
from cspedge.backends.onnx_writer import Unwritable, write
from cspedge.backends.onnxruntime import BACKEND
from cspedge.digest import sha256_path
from cspedge.errors import TargetError, UsageError
from cspedge.evaluate.metrics import agreement, sqnr_db
from cspedge.quantize.parity import differences
from cspedge.quantize.placement import PlacedModel, QuantizedModel
from cspedge.types import Precision

HELPER = Path(__file__).with_name("small_model.py")
SMALL: dict[str, Any] = runpy.run_path(str(HELPER))
images, eager = SMALL["images"], SMALL["eager"]
NAME = "onnxruntime"


@pytest.fixture(scope="module")
def lcnet() -> QuantizedModel:
    found: QuantizedModel = SMALL["lcnet"]()
    return found


@pytest.fixture(scope="module")
def int8(lcnet: QuantizedModel) -> PlacedModel:
    found: PlacedModel = SMALL["placed"](lcnet, NAME, "int8")
    return found


@pytest.fixture(scope="module")
def int8_file(int8: PlacedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("int8") / "model.onnx"
    BACKEND.lower(int8, Precision.INT8, path, {})
    return path


def child(*arguments: str, seed: str = "0") -> str:
    command = [sys.executable, str(HELPER), *arguments]
    environment = os.environ | {"PYTHONHASHSEED": seed}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_available_with_versions() -> None:
    found = BACKEND.availability()
    assert found.ok
    assert set(found.versions) == {"onnxruntime", "onnx"}


@pytest.mark.parametrize(("precision", "floor"), [("fp32", 90.0), ("int8", 25.0)])
def test_fresh_process_gives_the_placed_graphs_answers(
    lcnet: QuantizedModel, tmp_path: Path, precision: str, floor: float
) -> None:
    model = SMALL["placed"](lcnet, NAME, precision)
    BACKEND.lower(model, Precision(precision), tmp_path / "model.onnx", {})
    batch = images(lcnet.input_shape)
    np.save(tmp_path / "images.npy", batch)
    child("run", NAME, *(str(tmp_path / f) for f in ("model.onnx", "images.npy", "logits.npy")))
    found, expected = np.load(tmp_path / "logits.npy"), eager(model, batch)
    assert found.shape == (6, 10)
    assert found.dtype == np.float32
    sqnr = sqnr_db(expected, found)
    assert sqnr is not None
    # int8: one value that falls between two codes and is rounded the other way (scales with eleven bits make exact
    # ties) costs a net of random weights 100 dB; an error in a scale or a weight leaves less than 10
    assert sqnr >= floor


def test_file_carries_the_placed_numbers(int8: PlacedModel, int8_file: Path) -> None:
    found = BACKEND.readback(int8_file)
    assert differences(int8, found) == ()
    assert len(found.weights) == len(int8.weights)
    assert {(a.scale, a.zero_point) for a in found.activations} == {
        (e.scale, e.zero_point) for e in int8.activations.values()
    }


def test_float_file_carries_no_quantizer(lcnet: QuantizedModel, tmp_path: Path) -> None:
    model = SMALL["placed"](lcnet, NAME, "fp32")
    BACKEND.lower(model, Precision.FP32, tmp_path / "model.onnx", {})
    found = BACKEND.readback(tmp_path / "model.onnx")
    assert found.activations == ()
    assert found.weights == ()
    assert BACKEND.audit(tmp_path / "model.onnx", model).int8_mac_share == 0.0


def test_same_bytes_in_another_process(int8_file: Path, tmp_path: Path) -> None:
    assert child("lower", NAME, "int8", str(tmp_path / "again.onnx"), seed="4711").strip() == sha256_path(int8_file)


def test_every_quantizer_has_its_own_zero_point(int8_file: Path) -> None:
    proto = onnx.load(str(int8_file))
    zeros = [n.input[2] for n in proto.graph.node if n.op_type in {"QuantizeLinear", "DequantizeLinear"}]
    assert len(zeros) == len(set(zeros))
    assert [i.name for i in proto.graph.input] == ["image"]
    assert [o.name for o in proto.graph.output] == ["logits"]


def test_audit_finds_every_convolution_in_int8_and_hardswish_in_float(int8: PlacedModel, int8_file: Path) -> None:
    audit = BACKEND.audit(int8_file, int8)
    assert audit.int8_mac_share == 1.0
    assert 0.4 < audit.int8_op_share < 0.7
    assert "blocks.5.0.bn2.act:hardswish" in audit.fp32_islands
    assert not any("conv2d" in name or "linear" in name for name in audit.fp32_islands)
    assert audit.encodings_match is None


def test_exact_products_and_fast_ones_both_load(int8: PlacedModel, int8_file: Path) -> None:
    batch = images(int8.input_shape)
    expected = eager(int8, batch)
    exact, fast = (
        BACKEND.load(int8_file, threads=2, options={"x64quantprecision": v}).run(batch)[0] for v in (True, False)
    )
    assert float(np.square(exact - expected).sum()) <= float(np.square(fast - expected).sum())


@pytest.mark.parametrize(
    ("options", "message"),
    [({"speed": 1}, "no option 'speed'; valid options: x64quantprecision"), ({"x64quantprecision": 1}, "is 1")],
)
def test_options_that_cannot_be_honoured_are_refused(int8_file: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        BACKEND.load(int8_file, threads=1, options=options)


def test_fp16_is_refused_and_leaves_no_file(lcnet: QuantizedModel, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="no fp16 artifact"):
        BACKEND.lower(SMALL["placed"](lcnet, NAME, "fp16"), Precision.FP16, tmp_path / "model.onnx", {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kept", [0.0, 0.4])
def test_damaged_file_is_a_target_error(int8_file: Path, tmp_path: Path, kept: float) -> None:
    damaged = tmp_path / "damaged.onnx"
    content = int8_file.read_bytes()
    damaged.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(TargetError, match=r"refuses 'damaged\.onnx'") as caught:
        BACKEND.load(damaged, threads=1, options={})
    assert str(tmp_path) not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_is_a_target_error(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="does not exist"):
        BACKEND.load(tmp_path / "none.onnx", threads=1, options={})


class Everything(nn.Module):
    """Operators of the writer's table that lcnet does not have, in odd arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding="same")
        self.second = nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=4, bias=False)
        self.head = nn.Linear(64, 5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        left, right = F.leaky_relu(self.first(image), 0.1).split([3, 5], dim=1)
        x = torch.cat([F.elu(right), torch.tanh(left)], dim=1)
        x = F.max_pool2d(x, 3, stride=2, padding=1, ceil_mode=True)
        x = F.avg_pool2d(F.gelu(x), 2, stride=1, padding=1, count_include_pad=False)
        x = F.silu(self.second(x)) + 0.5 * torch.sigmoid(x[:, :, ::2, ::2])
        first, second = x.chunk(2, dim=1)
        x = torch.cat([first - second, first / (torch.sigmoid(second) + 1.0)], dim=1)
        x = torch.clamp(F.hardsigmoid(x), min=0.1) * F.relu6(x)
        x = F.adaptive_avg_pool2d(x, 2) * x.mean((2, 3), keepdim=True) + x.mean((2, 3)).reshape(-1, 8, 1, 1)
        x = x.transpose(1, 2).permute(0, 3, 2, 1).reshape(x.shape[0], 4, -1)
        x = x.unsqueeze(1).squeeze(1).flatten(1)
        logits: torch.Tensor = self.head(torch.cat([x, F.hardtanh(x)], dim=1))
        return logits


class Unlisted(nn.Module):
    """Operators that only torch.onnx.export knows."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = F.pad(F.hardswish(self.conv(image)), (1, 1, 1, 1), mode="circular")
        logits: torch.Tensor = self.head(self.norm(x.permute(0, 2, 3, 1)).mean((1, 2)))
        return logits


class Impossible(nn.Module):
    """An operator without an ONNX form."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.ModuleDict({"odd": Bessel()})

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.inner["odd"](image.mean((2, 3)))
        return logits


class Bessel(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.special.bessel_j0(x)


def small(module: type[nn.Module], shape: tuple[int, int, int], precision: str) -> PlacedModel:
    torch.manual_seed(0)
    found: PlacedModel = SMALL["placed"](SMALL["quantize"](module(), shape), NAME, precision)
    return found


@pytest.mark.parametrize(("precision", "floor"), [("fp32", 100.0), ("int8", 25.0)])
def test_writer_covers_its_table(tmp_path: Path, precision: str, floor: float) -> None:
    shape = (3, 20, 20)
    model = small(Everything, shape, precision)
    proto = write(model)  # raises Unwritable where it does not
    onnx.checker.check_model(proto, full_check=True)
    path = tmp_path / "model.onnx"
    path.write_bytes(serialize(proto))
    sqnr = sqnr_db(eager(model, images(shape)), BACKEND.load(path, threads=1, options={}).run(images(shape))[0])
    assert sqnr is not None
    assert sqnr >= floor


def test_other_operators_go_through_the_exporter(tmp_path: Path) -> None:
    shape = (3, 16, 16)
    model = small(Unlisted, shape, "int8")
    with pytest.raises(Unwritable, match=r"aten\.pad\.default"):
        write(model)
    path, again = tmp_path / "model.onnx", tmp_path / "again.onnx"
    BACKEND.lower(model, Precision.INT8, path, {})
    BACKEND.lower(model, Precision.INT8, again, {})
    content = path.read_bytes()
    assert content == again.read_bytes()
    for leak in (b".py", b"site-packages", b"torch.nn.modules", b"pytorch"):
        assert leak not in content
    assert differences(model, BACKEND.readback(path)) == ()
    assert BACKEND.audit(path, model).int8_mac_share > 0.9
    sqnr = sqnr_db(eager(model, images(shape)), BACKEND.load(path, threads=1, options={}).run(images(shape))[0])
    assert sqnr is not None
    assert sqnr >= 25.0
    test_every_quantizer_has_its_own_zero_point(path)


def test_operator_without_onnx_form_is_named_with_its_module() -> None:
    with pytest.raises(TargetError, match=r"bessel_j0.* at 'inner\.odd'"):
        export_onnx(small(Impossible, (3, 8, 8), "fp32"), NAME)


class DeadChannel(nn.Module):
    """One channel of almost no weight beside a large bias, as pruned and batch-normalised nets have."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2)
        self.head = nn.Linear(8, 5)
        with torch.no_grad():
            self.conv.weight[3] = 1e-12
            self.conv.bias[3] = 40.0  # type: ignore[index]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(F.hardswish(self.conv(image)).mean((2, 3)))
        return logits


@pytest.mark.parametrize(("own_scale", "dims"), [(True, [8]), (False, [1, 8, 1, 1])])
def test_bias_beyond_int32_keeps_its_value(own_scale: bool, dims: list[int], tmp_path: Path) -> None:
    """Our scale keeps the bias inside int32; under one that does not, it becomes an Add of its own."""
    shape = (3, 16, 16)
    torch.manual_seed(0)
    quantized = SMALL["quantize"](DeadChannel(), shape)
    if not own_scale:
        name = "conv:conv2d"
        encoding = quantized.encodings.weights[name]
        scales = (*encoding.scales[:3], 2.0**-40, *encoding.scales[4:])
        weights = {**quantized.encodings.weights, name: replace(encoding, scales=scales)}
        quantized = replace(quantized, encodings=replace(quantized.encodings, weights=weights))
    model = SMALL["placed"](quantized, NAME, "int8")
    path = tmp_path / "model.onnx"
    BACKEND.lower(model, Precision.INT8, path, {})
    found = BACKEND.load(path, threads=1, options={}).run(images(shape))[0]
    sqnr = sqnr_db(eager(model, images(shape)), found)
    assert sqnr is None or sqnr > 60.0  # it is about 0 dB where the int32 wraps around
    assert differences(model, BACKEND.readback(path)) == ()
    proto = onnx.load(str(path))
    large = [i for i in proto.graph.initializer if abs(numpy_helper.to_array(i).max(initial=0) - 40.0) < 1e-3]
    assert [list(i.dims) for i in large] == [dims]


def test_multiply_accumulates_of_known_layers() -> None:
    model = small(DeadChannel, (3, 16, 16), "fp32")
    assert multiply_accumulates(model) == {"conv:conv2d": 8 * 7 * 7 * 3 * 9, "head:linear": 8 * 5}


def test_trained_reference_on_photographs(references: Path, caltech: Path, tmp_path: Path) -> None:
    from cspedge import api

    reference = api.load_reference(f"local-dir:{references / 'lcnet_050.caltech101'}")
    quantized = api.quantize(reference, api.collect_calibration(reference, caltech / "train", count=64))
    photos = api.collect_calibration(reference, caltech / "val", count=64).images.astype(np.float32) / np.float32(255)
    model = SMALL["placed"](quantized, NAME, "int8")
    path = tmp_path / "model.onnx"
    BACKEND.lower(model, Precision.INT8, path, {})
    expected, found = eager(model, photos), BACKEND.load(path, threads=1, options={}).run(photos)[0]
    sqnr = sqnr_db(expected, found)
    assert sqnr is not None
    assert sqnr > 20.0
    assert agreement(expected, found) > 0.93
    assert differences(model, BACKEND.readback(path)) == ()
