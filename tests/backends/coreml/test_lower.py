"""Lowering: the same bytes every time, nothing but what Core ML needs, precisions kept, failures named."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np
import pytest
import torch

from cspedge.backends.coreml import BACKEND
from cspedge.backends.coreml.package import item_paths, read_program
from cspedge.backends.coreml.reference import Executor
from cspedge.digest import sha256_path
from cspedge.errors import TargetError
from cspedge.evaluate.metrics import sqnr_db
from cspedge.quantize.encodings import Encodings
from cspedge.quantize.graph import prepare
from cspedge.quantize.parity import differences
from cspedge.quantize.placement import PlacedModel, Placement, QuantizedModel, place, place_float
from cspedge.types import Precision

SHAPE = (3, 32, 32)
CHILD = Path(__file__).with_name("lower_small.py")


def images(count: int) -> torch.Tensor:
    values = torch.randint(0, 256, (count, *SHAPE), generator=torch.Generator().manual_seed(1))
    return values.float() / 255


def placed(small: QuantizedModel, precision: Precision) -> PlacedModel:
    fuse = ("relu", "relu6", "hardtanh", "hardswish", "leaky_relu", "silu")
    return place_float(small.graph, SHAPE) if precision.is_float else place(small, Placement(fuse=fuse))


@pytest.mark.parametrize("precision", list(Precision))
def test_only_what_core_ml_needs(small_packages: dict[str, Path], precision: Precision) -> None:
    path = small_packages[precision]
    files = sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())
    base = "Data/com.apple.CoreML"
    assert files == [f"{base}/model.mlmodel", f"{base}/weights/weight.bin", "Manifest.json"]
    assert all(uuid.UUID(key).version == 5 for key in item_paths(path) if key)
    content = b"".join((path / f).read_bytes() for f in files)
    for word in (b"coremltools", b"/work", b"site-packages", b"torch==", b"conversion_date", str(Path.home()).encode()):
        assert word not in content


@pytest.mark.parametrize(("precision", "seed"), [("fp16", "1"), ("int8", "1"), ("int8", "4711")])
def test_same_bytes_in_other_processes(
    small_packages: dict[str, Path], precision: str, seed: str, tmp_path: Path
) -> None:
    command = [sys.executable, str(CHILD), precision, str(tmp_path / "again.mlpackage")]
    environment = os.environ | {"PYTHONHASHSEED": seed}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=300)
    assert done.stdout.strip() == sha256_path(small_packages[precision])
    assert done.stderr == ""  # no warnings, no progress bars


@pytest.mark.parametrize(
    ("precision", "floor", "types"),
    [("fp32", 110.0, {"fp32"}), ("fp16", 55.0, {"fp16", "fp32"}), ("int8", 25.0, {"fp16", "fp32", "int8", "uint8"})],
)
def test_computes_what_pt2e_computes_in_its_own_precision(
    small: QuantizedModel, small_packages: dict[str, Path], precision: str, floor: float, types: set[str]
) -> None:
    program = read_program(small_packages[precision])
    found = Executor(program)(images(32))[0].numpy()
    expected = placed(small, Precision(precision))(images(32))[0].numpy()
    assert (sqnr_db(expected, found) or 999.0) > floor
    used = {o.type.dtype for op in program.operations for o in op.outputs}
    assert used == types
    in_fp32 = [op.type for op in program.operations if op.outputs[0].type.dtype == "fp32"]
    if precision != "fp32":
        assert in_fp32 == ["cast"]  # the logits


def test_input_quantizer_is_exact_for_8_bit_images(small_packages: dict[str, Path]) -> None:
    program = read_program(small_packages["int8"])
    pixels = torch.arange(256, dtype=torch.float32) / 255
    every = pixels.repeat(12).reshape(1, 3, 32, 32)
    trace = Executor(program).trace(every)
    assert [op.type for op in program.operations[:3]] == ["cast", "quantize", "dequantize"]
    stored, real = (trace[op.outputs[0].name] for op in program.operations[1:3])
    assert stored.dtype == torch.uint8
    assert torch.equal(stored.reshape(-1), torch.arange(256, dtype=torch.uint8).repeat(12))
    assert real.dtype == torch.float16
    assert torch.allclose(real.float(), every, rtol=2**-10, atol=0)


def test_first_layers_of_the_trace_are_pt2es_codes(small: QuantizedModel, small_packages: dict[str, Path]) -> None:
    """Where nothing has accumulated yet, codes differ from PT2E's by one step at most, and rarely."""
    model = placed(small, Precision.INT8)
    quantize = torch.ops.quantized_decomposed.quantize_per_tensor.default
    nodes = [n for n in model.graph.graph.nodes if n.target is quantize]
    wanted: dict[str, torch.Tensor] = {}

    class Keeping(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> object:
            result = super().run_node(n)
            if n in nodes[:3]:
                wanted[n.name] = result
            return result

    with torch.no_grad():
        Keeping(model.graph).run(images(4))
    program = read_program(small_packages["int8"])
    trace = Executor(program).trace(images(4))
    names = [op.outputs[0].name for op in program.operations if op.type == "quantize"][:3]
    for name, expected in zip(names, wanted.values(), strict=True):
        codes = trace[name].int() - (128 if trace[name].dtype == torch.uint8 else 0)
        difference = (codes - expected.int()).abs()
        assert int(difference.max()) <= 1
        assert float(difference.float().mean()) < 0.05


def test_every_placed_weight_and_zero_point_is_read_back(
    small: QuantizedModel, small_packages: dict[str, Path]
) -> None:
    model, found = placed(small, Precision.INT8), BACKEND.readback(small_packages["int8"])
    # scales are float16 in the file: half a unit in the last place is 2^-11
    for encoding in model.activations.values():
        assert any(
            a.zero_point == encoding.zero_point and abs(a.scale / encoding.scale - 1) <= 2**-11
            for a in found.activations
        )
    for a in found.activations:
        assert any(
            a.zero_point == e.zero_point and abs(a.scale / e.scale - 1) <= 2**-11 for e in model.activations.values()
        )
    theirs = sorted(w.values.tobytes() for w in found.weights)
    assert theirs == sorted(w.numpy().tobytes() for w in model.weights.values())
    for w in found.weights:
        assert w.scales.shape == (w.values.shape[0],)
        assert np.array_equal(w.scales, w.scales.astype(np.float16))


def test_nothing_is_lost_or_added_between_encodings_and_file(
    small: QuantizedModel, small_packages: dict[str, Path]
) -> None:
    found = BACKEND.readback(small_packages["int8"])
    assert found.half_scales
    assert differences(placed(small, Precision.INT8), found) == ()
    one = found.activations[-1].scale
    left = tuple(a for a in found.activations if a.scale != one)
    fewer = dataclasses.replace(found, activations=left, weights=found.weights[1:])
    problems = differences(placed(small, Precision.INT8), fewer)
    assert {p.split()[0] for p in problems} == {"activation", "weight"}


def test_float_artifacts_have_no_quantizers(small_packages: dict[str, Path]) -> None:
    for precision in ("fp16", "fp32"):
        found = BACKEND.readback(small_packages[precision])
        assert found.activations == found.weights == ()


def test_audit_counts_what_stands_between_quantizers(small: QuantizedModel, small_packages: dict[str, Path]) -> None:
    audit = BACKEND.audit(small_packages["int8"], placed(small, Precision.INT8))
    assert audit.int8_mac_share == 1.0
    assert audit.fp32_islands == ("model:sub", "model:div")  # the normalisation
    assert 0.9 < audit.int8_op_share < 1.0
    floats = BACKEND.audit(small_packages["fp16"], placed(small, Precision.FP16))
    assert (floats.int8_op_share, floats.int8_mac_share, floats.fp32_islands) == (0.0, 0.0, ())


def test_audit_names_float_islands(small: QuantizedModel, tmp_path: Path) -> None:
    """Weights left in float, and an activation whose result is not quantized, are islands."""
    encodings = small.encodings
    less = {n: w for n, w in encodings.weights.items() if not n.startswith("left")}
    fewer = {n: e for n, e in encodings.activations.items() if not n.startswith("stem.2")}
    model = place(
        dataclasses.replace(small, encodings=Encodings(activations=fewer, weights=less)),
        Placement(fuse=("hardswish", "relu", "leaky_relu", "hardtanh")),
    )
    path = tmp_path / "island.mlpackage"
    BACKEND.lower(model, Precision.INT8, path, {})
    audit = BACKEND.audit(path, model)
    assert "left:conv2d" in audit.fp32_islands
    assert "stem.0:conv2d" in audit.fp32_islands
    assert "stem.2:hardswish" in audit.fp32_islands
    assert "right:conv2d" not in audit.fp32_islands
    assert audit.int8_mac_share < 0.9


class Odd(torch.nn.Module):
    """An op coremltools does not have."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.special.i0(x)


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        (Odd(), r"'coreml' cannot convert the graph at op 'special_i0' in module 'odd\.1': not supported"),
        (torch.nn.AvgPool2d(2, divisor_override=3), r"at op 'avg_pool2d' in module 'odd\.1': .*divisor_override"),
    ],
    ids=["unknown op", "unknown option"],
)
def test_what_coremltools_cannot_convert_is_named_with_its_module(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], odd: torch.nn.Module, message: str
) -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.odd = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), odd)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.odd(x).mean((2, 3))

    torch.manual_seed(0)
    model = place_float(prepare(Model().eval(), SHAPE), SHAPE)
    path = tmp_path / "odd.mlpackage"
    with pytest.raises(TargetError, match=message):
        BACKEND.lower(model, Precision.FP16, path, {})
    assert not path.exists()
    assert capfd.readouterr().err == ""


def test_availability_names_the_version() -> None:
    found = BACKEND.availability()
    assert found.ok
    assert set(found.versions) == {"coremltools"}
