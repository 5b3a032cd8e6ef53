"""ExecuTorch on XNNPACK: lowering, the saved bytes, the runtime; small graphs and, where it is there, the reference."""

from __future__ import annotations

import os
import random
import runpy
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cspedge.backends.executorch import BACKEND
from cspedge.backends.executorch.flat import DamagedError, Reader, parse_schema
from cspedge.backends.executorch.lower import lower
from cspedge.backends.executorch.program import read_program
from cspedge.digest import sha256_bytes, sha256_json, sha256_path
from cspedge.errors import TargetError, UsageError
from cspedge.evaluate.metrics import agreement, sqnr_db
from cspedge.quantize.encodings import Encodings
from cspedge.quantize.parity import differences
from cspedge.quantize.placement import PlacedModel, Placement, QuantizedModel, place, place_float
from cspedge.types import Evidence, Precision

HELPER = Path(__file__).with_name("small_model.py")
SMALL: dict[str, Any] = runpy.run_path(str(HELPER))
images, eager = SMALL["images"], SMALL["eager"]
NAME = "executorch"
PLACEMENT = Placement(fuse=("relu", "relu6", "hardtanh"), quantize_output=True)


class Small(nn.Module):
    """Every kind of op the classifiers have: plain, depthwise and pointwise convs, a gate, concat, split, pools."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.dw = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.pw = nn.Conv2d(8, 12, 1)
        self.reduce = nn.Conv2d(12, 4, 1)
        self.expand = nn.Conv2d(4, 12, 1)
        self.side = nn.Conv2d(6, 6, 3, padding=1, groups=2)
        self.head = nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.hardswish(self.stem((x - 0.45) / 0.25))
        x = F.relu(self.dw(x) + x)
        x = F.leaky_relu(self.pw(x), 0.1)
        x = x * F.hardsigmoid(self.expand(F.relu(self.reduce(x.mean((2, 3), keepdim=True)))))
        a, b = x.chunk(2, 1)
        x = F.max_pool2d(torch.cat([a, F.silu(self.side(b))], 1), 3, 2, ceil_mode=True)
        logits: torch.Tensor = self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


@dataclass(frozen=True, kw_only=True)
class Lowered:
    model: PlacedModel
    path: Path


def make(model: QuantizedModel, precision: Precision, folder: Path, placement: Placement = PLACEMENT) -> Lowered:
    is_float = precision.is_float
    placed = place_float(model.graph, model.input_shape) if is_float else place(model, placement)
    path = folder / f"model.{precision}.pte"
    BACKEND.lower(placed, precision, path, {})
    return Lowered(model=placed, path=path)


def python(*arguments: str, seed: str = "0") -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONHASHSEED": seed}
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=300)


@pytest.fixture(scope="module")
def small() -> QuantizedModel:
    torch.manual_seed(0)
    found: QuantizedModel = SMALL["quantize"](Small(), (3, 32, 32))
    return found


@pytest.fixture(scope="module")
def small_int8(small: QuantizedModel, tmp_path_factory: pytest.TempPathFactory) -> Lowered:
    return make(small, Precision.INT8, tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def lcnet() -> QuantizedModel:
    found: QuantizedModel = SMALL["lcnet"]()
    return found


@pytest.fixture(scope="module")
def lcnet_int8(lcnet: QuantizedModel, tmp_path_factory: pytest.TempPathFactory) -> Lowered:
    return make(lcnet, Precision.INT8, tmp_path_factory.mktemp("int8"))


@pytest.fixture(scope="module")
def lcnet_fp32(lcnet: QuantizedModel, tmp_path_factory: pytest.TempPathFactory) -> Lowered:
    return make(lcnet, Precision.FP32, tmp_path_factory.mktemp("fp32"))


def test_available_with_version() -> None:
    found = BACKEND.availability()
    assert found.ok
    assert set(found.versions) == {"executorch"}


@pytest.mark.parametrize(("kind", "floor"), [("lcnet_fp32", 90.0), ("lcnet_int8", 25.0)])
def test_fresh_process_gives_the_placed_graphs_answers(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, floor: float
) -> None:
    case: Lowered = request.getfixturevalue(kind)
    batch = images(case.model.input_shape)
    np.save(tmp_path / "images.npy", batch)
    done = python(str(HELPER), "run", NAME, str(case.path), str(tmp_path / "images.npy"), str(tmp_path / "logits.npy"))
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert done.stderr == ""  # the runtime's lines about the CPU stay away
    found, expected = np.load(tmp_path / "logits.npy"), eager(case.model, batch)
    assert found.dtype == np.float32
    assert found.shape == (len(batch), 10)
    sqnr = sqnr_db(expected, found)
    assert sqnr is None or sqnr > floor


def test_small_graph_answers_are_the_placed_graphs(small_int8: Lowered) -> None:
    batch = images((3, 32, 32), 32)
    session = BACKEND.load(small_int8.path, threads=1, options={})
    assert session.evidence is Evidence.MEASURED
    found, expected = session.run(batch)[0], eager(small_int8.model, batch)
    step = small_int8.model.activations["head:linear"].scale
    assert np.abs(found - expected).max() <= 1.01 * step
    assert np.abs(found - expected).mean() < 0.05 * step


@pytest.mark.parametrize("kind", ["small_int8", "lcnet_int8"])
def test_readback_carries_exactly_the_placed_numbers(request: pytest.FixtureRequest, kind: str) -> None:
    case: Lowered = request.getfixturevalue(kind)
    found = BACKEND.readback(case.path)
    assert differences(case.model, found) == ()
    placed = {(np.float32(e.scale), e.zero_point) for e in case.model.activations.values()}
    assert {(np.float32(a.scale), a.zero_point) for a in found.activations} == placed
    assert case.model.encodings is not None
    weights = [case.model.encodings.weights[n] for n in case.model.weights]
    wanted = sorted((w.sha256, tuple(np.float32(s) for s in w.scales)) for w in weights)
    assert sorted((sha256_bytes(w.values.tobytes()), tuple(w.scales)) for w in found.weights) == wanted
    assert all(w.values.dtype == np.int8 and w.scales.dtype == np.float32 for w in found.weights)


def test_a_changed_weight_is_seen(small_int8: Lowered, tmp_path: Path) -> None:
    assert small_int8.model.encodings is not None
    values = small_int8.model.weights["stem:conv2d"].numpy()
    stored = np.ascontiguousarray(values.transpose(0, 2, 3, 1)).tobytes()  # XNNPACK's OHWI
    data = bytearray(small_int8.path.read_bytes())
    at = data.find(stored)
    assert at > 0
    data[at] ^= 1
    path = tmp_path / "changed.pte"
    path.write_bytes(data)
    problems = differences(small_int8.model, BACKEND.readback(path))
    assert problems[0] == "weight stem:conv2d: these integer values are not in the artifact"
    assert "1 quantized weights in the artifact were not placed" in problems


def test_float_artifact_has_no_quantizers(lcnet_fp32: Lowered) -> None:
    found = BACKEND.readback(lcnet_fp32.path)
    assert found.activations == ()
    assert found.weights == ()
    audit = BACKEND.audit(lcnet_fp32.path, lcnet_fp32.model)
    assert (audit.int8_op_share, audit.int8_mac_share, audit.fp32_islands, audit.notes) == (0.0, 0.0, (), ())


def test_quantizers_outside_the_delegate_are_read_back(small: QuantizedModel, tmp_path: Path) -> None:
    import executorch.kernels.quantized  # noqa: F401
    from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower

    model = place(small, PLACEMENT)
    config = EdgeCompileConfig(_check_ir_validity=False, _skip_dim_order=True)
    edge = to_edge_transform_and_lower(model.exported(), partitioner=[], compile_config=config)
    path = tmp_path / "portable.pte"
    path.write_bytes(edge.to_executorch().buffer)
    assert differences(model, BACKEND.readback(path)) == ()
    audit = BACKEND.audit(path, model)
    assert audit.int8_op_share == 0.0
    assert "outside XNNPACK:aten::convolution.out" in audit.fp32_islands


def test_audit_of_lcnet(lcnet_int8: Lowered) -> None:
    audit = BACKEND.audit(lcnet_int8.path, lcnet_int8.model)
    assert audit.int8_mac_share == 1.0
    scaled = ("blocks.5.0.bn1.act", "blocks.5.1.bn1.act", "act2")  # channel scales where they are cheap
    assert audit.fp32_islands == tuple(f"{name}:{op}" for name in scaled for op in ("hardswish", "mul"))
    assert audit.int8_op_share > 0.9
    assert audit.notes == ("25 activations counted as int8: XNNPACK makes int8 tables of them at load",)
    assert audit.encodings_match is None


def test_audit_names_islands(small: QuantizedModel, small_int8: Lowered) -> None:
    audit = BACKEND.audit(small_int8.path, small_int8.model)
    assert audit.fp32_islands == ("model:sub", "model:div", "model:hardswish", "model:mul", "model:silu")
    assert audit.int8_mac_share == 1.0
    (graph,) = read_program(small_int8.path).graphs
    assert {n.kind for n in graph.nodes} >= {"LeakyReLU", "Hardswish", "Concatenate2", "StaticSlice", "MaxPooling2d"}


def test_macs_are_weighed(small: QuantizedModel, tmp_path: Path) -> None:
    kept = {n: w for n, w in small.encodings.weights.items() if n != "pw:conv2d"}
    part = replace(small, encodings=Encodings(activations=small.encodings.activations, weights=kept))
    case = make(part, Precision.INT8, tmp_path)
    audit = BACKEND.audit(case.path, case.model)
    side, pixels = 6 * 3 * 9, 16 * 16
    by_hand = {
        "stem": pixels * 8 * 27,
        "dw": pixels * 72,
        "pw": pixels * 96,
        "gate": 96,
        "side": pixels * side,
        "head": 60,
    }
    assert audit.int8_mac_share == pytest.approx(1 - by_hand["pw"] / sum(by_hand.values()))
    assert "pw:conv2d" in audit.fp32_islands


def test_the_short_way_gives_the_stock_bytes(small_int8: Lowered, tmp_path: Path) -> None:
    lower(small_int8.model, Precision.INT8, tmp_path / "stock.pte", stock=True)
    assert (tmp_path / "stock.pte").read_bytes() == small_int8.path.read_bytes()


AGAIN = """
import runpy, sys
from pathlib import Path
from cspedge.backends.executorch import BACKEND
from cspedge.digest import sha256_json, sha256_path
from cspedge.types import Precision
small = runpy.run_path(sys.argv[1])
model = small["placed"](small["lcnet"](), "executorch", "int8")
BACKEND.lower(model, Precision.INT8, Path(sys.argv[2]), {})
print(sha256_json(model.encodings.to_dict()), sha256_path(Path(sys.argv[2])))
"""


def test_same_bytes_in_another_process_with_another_hash_seed(lcnet_int8: Lowered, tmp_path: Path) -> None:
    done = python("-c", AGAIN, str(HELPER), str(tmp_path / "again.pte"), seed="4711")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    encodings, artifact = done.stdout.split()
    assert lcnet_int8.model.encodings is not None
    assert encodings == sha256_json(lcnet_int8.model.encodings.to_dict())
    assert artifact == sha256_path(lcnet_int8.path)


def test_no_paths_in_the_file(lcnet_int8: Lowered) -> None:
    data = lcnet_int8.path.read_bytes()
    for word in (b".py", str(Path.home()).encode() + b"/", str(Path(__file__).parents[2]).encode(), b"Cspedge"):
        assert word not in data


CHILD = """
import os, sys
from pathlib import Path
from cspedge.backends.executorch import BACKEND
from cspedge.backends.executorch.session import runtime
from cspedge.errors import TargetError
runtime()
for name in sys.argv[1:]:
    pid = os.fork()
    if pid == 0:
        try:
            BACKEND.load(Path(name), threads=1, options={})
        except TargetError as error:
            os._exit(7 if str(error).startswith(f"executorch: {Path(name).name!r} does not load: ") else 8)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_damaged_files_are_target_errors(small_int8: Lowered, tmp_path: Path) -> None:
    data = small_int8.path.read_bytes()
    paths = []
    noise = random.Random(0).randbytes(4096)
    cuts = [data[:n] for n in (0, 7, 40, len(data) // 3, len(data) // 2, len(data) - 200)]
    foreign = [noise, data[:4] + b"PK" + data[6:], data[:64] + noise]
    for number, damaged in enumerate([*cuts, *foreign]):
        path = tmp_path / f"{number}.pte"
        path.write_bytes(damaged)
        paths.append(str(path))
        with pytest.raises(TargetError, match=r"is not a whole \.pte file"):
            BACKEND.readback(path)
        with pytest.raises(TargetError, match="make the artifact again"):
            BACKEND.audit(path, small_int8.model)
    done = python("-c", CHILD, *paths)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["7"] * len(paths)


def test_no_mutation_gets_past_the_reader_as_another_error(small_int8: Lowered, tmp_path: Path) -> None:
    data, rng, path = small_int8.path.read_bytes(), random.Random(1), tmp_path / "mutated.pte"
    refused = 0
    for _ in range(150):
        mutated = bytearray(data)
        for _ in range(rng.choice((1, 4, 32))):
            mutated[rng.randrange(min(len(data), 16000))] = rng.randrange(256)
        path.write_bytes(mutated)
        try:
            BACKEND.readback(path)
            BACKEND.audit(path, small_int8.model)
        except TargetError:
            refused += 1
    assert refused > 10


def test_a_missing_file_is_a_target_error(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"'no\.pte' cannot be read"):
        BACKEND.readback(tmp_path / "no.pte")
    with pytest.raises(TargetError, match=r"'no\.pte' does not load"):
        BACKEND.load(tmp_path / "no.pte", threads=1, options={})


def with_scale(model: QuantizedModel, name: str, scale: float) -> PlacedModel:
    activations = dict(model.encodings.activations)
    activations[name] = replace(activations[name], scale=scale)
    encodings = Encodings(activations=activations, weights=model.encodings.weights)
    return place(replace(model, encodings=encodings), PLACEMENT)


@pytest.mark.parametrize(
    ("name", "scale", "words"),
    [
        ("pw:conv2d", 2.0**-40, r"conv2d at 'pw' in int8: sx \* sw / so = .*below 256"),
        ("head:linear", 2.0**-40, r"linear at 'head' in int8: sx \* sw / so"),
        ("model:relu", 2.0**-40, r"add at 'model' in int8: max\(sa, sb\) / so"),
        ("model:mul", 2.0**-40, r"mul at 'model' in int8: sa \* sb / so"),
        ("model:max_pool2d", 0.37, r"max_pool2d at 'model' in int8: an input has scale .*the output 0\.37"),
        ("model:cat", 0.37, r"cat at 'model' in int8: .*takes equal ones only"),
    ],
)
def test_scales_out_of_range_are_refused_before_lowering(
    small: QuantizedModel, tmp_path: Path, name: str, scale: float, words: str
) -> None:
    assert name in small.encodings.activations
    with pytest.raises(TargetError, match=words):
        BACKEND.lower(with_scale(small, name, scale), Precision.INT8, tmp_path / "no.pte", {})
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_honoured_is_refused(small: QuantizedModel, small_int8: Lowered, tmp_path: Path) -> None:
    path = tmp_path / "no.pte"
    with pytest.raises(TargetError, match="executorch lowers fp32 and int8, not 'fp16'"):
        BACKEND.lower(place_float(small.graph, small.input_shape), Precision.FP16, path, {})
    with pytest.raises(UsageError, match="backend 'executorch' knows no option 'speed'"):
        BACKEND.lower(small_int8.model, Precision.INT8, path, {"speed": 1})
    with pytest.raises(UsageError, match="threads=0"):
        BACKEND.load(small_int8.path, threads=0, options={})
    session = BACKEND.load(small_int8.path, threads=1, options={})
    with pytest.raises(TargetError, match=r"images of shape \(1, 3, 16, 16\) do not fit 'model.int8.pte'"):
        session.run(np.zeros((1, 3, 16, 16), np.float32))
    assert session.run(np.zeros((0, 3, 32, 32), np.float32))[0].shape == (0, 5)
    assert list(tmp_path.iterdir()) == []


def test_sessions_of_different_threads_take_turns(lcnet_int8: Lowered, lcnet_fp32: Lowered) -> None:
    batch = images(lcnet_int8.model.input_shape)
    first = BACKEND.load(lcnet_fp32.path, threads=1, options={})
    alone = first.run(batch)[0]
    second = BACKEND.load(lcnet_int8.path, threads=2, options={})  # replaces the process's thread pool
    expected = second.run(batch)[0]
    for _ in range(3):
        assert np.allclose(first.run(batch)[0], alone, rtol=1e-5, atol=1e-5)
        assert np.array_equal(second.run(batch)[0], expected)


def test_lowering_and_loading_are_quiet(
    small: QuantizedModel, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    import logging

    before = logging.getLogger().level, list(logging.getLogger().handlers)
    case = make(small, Precision.FP32, tmp_path)
    BACKEND.load(case.path, threads=2, options={}).run(images((3, 32, 32)))
    assert capfd.readouterr() == ("", "")
    assert [r for r in caplog.records if r.levelno > logging.INFO] == []
    assert (logging.getLogger().level, list(logging.getLogger().handlers)) == before


def test_schema_reader() -> None:
    schema = parse_schema(
        """enum Kind : short { A = 0, B = 3, C }  // comment
        union U { Leaf: Other, Other }
        table Other { x: float; names: [string]; data: [ubyte] (force_align: 16); }
        table Root { u: U; kind: Kind = B; n: int = 7; old: [uint] (deprecated); }
        root_type Root;"""
    )
    assert schema.enums["Kind"] == ("short", {0: "A", 3: "B", 4: "C"})
    assert [(f.name, f.slot, f.vector) for f in schema.tables["Root"]] == [
        ("u", 1, False),
        ("kind", 2, False),
        ("n", 3, False),
        ("old", 4, True),
    ]
    import flatbuffers

    builder = flatbuffers.Builder(64)
    text, data = builder.CreateString("h\u00e9"), builder.CreateByteVector(b"\x01\x02")
    builder.StartVector(4, 1, 4)
    builder.PrependUOffsetTRelative(text)
    names = builder.EndVector()
    builder.StartObject(3)
    builder.PrependFloat32Slot(0, 0.1, 0.0)
    builder.PrependUOffsetTRelativeSlot(1, names, 0)
    builder.PrependUOffsetTRelativeSlot(2, data, 0)
    other = builder.EndObject()
    builder.StartObject(5)
    builder.PrependUint8Slot(0, 1, 0)
    builder.PrependUOffsetTRelativeSlot(1, other, 0)
    builder.PrependInt16Slot(2, 4, 0)
    builder.Finish(builder.EndObject())
    whole = bytes(builder.Output())
    leaf = {"kind": "Leaf", "x": float(np.float32(0.1)), "names": ["h\u00e9"], "data": b"\x01\x02"}
    assert Reader(schema, whole).root("Root") == {"u": leaf, "kind": "C", "n": 7, "old": []}
    for size in range(len(whole) - 2):
        with pytest.raises(DamagedError):
            Reader(schema, whole[:size]).root("Root")


def test_the_trained_reference_on_photographs(references: Path, caltech: Path, tmp_path: Path) -> None:
    from cspedge import api

    reference = api.load_reference(f"local-dir:{references / 'lcnet_050.caltech101'}")
    quantized = api.quantize(reference, api.collect_calibration(reference, caltech / "train", count=32))
    case = make(quantized, Precision.INT8, tmp_path)
    photos = api.collect_validation(reference, caltech / "val")
    batch = photos.images[:: max(1, len(photos) // 96)].astype(np.float32) / np.float32(255)
    labels = photos.labels
    assert labels is not None
    labels = labels[:: max(1, len(photos) // 96)]
    found = BACKEND.load(case.path, threads=2, options={}).run(batch)[0]
    float_top1 = float((eager(place_float(quantized.graph, quantized.input_shape), batch).argmax(1) == labels).mean())
    assert agreement(eager(case.model, batch), found) >= 0.95
    assert float((found.argmax(1) == labels).mean()) > float_top1 - 0.08
    assert differences(case.model, BACKEND.readback(case.path)) == ()
