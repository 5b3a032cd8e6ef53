"""Scales without ties: nothing else moves, no result lies near a middle, and real runtimes give equal logits."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from cspedge.backends import get_backend
from cspedge.config import common_placement, known_placements, load_target, with_placement
from cspedge.quantize.calibrate import QuantizeOptions, calibrate
from cspedge.quantize.graph import NAME, prepare
from cspedge.quantize.ops import op_name
from cspedge.quantize.placement import QuantizedModel, chosen_tensors, place
from cspedge.quantize.ranges import tied
from cspedge.quantize.regions import regions
from cspedge.quantize.ties import avoid_ties
from cspedge.types import Precision

SHAPE = (3, 32, 32)


class Residual(nn.Module):
    """Everything that rounds: convolutions, h-swish, additions, a squeeze-excite gate, an average, a linear."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList([nn.Conv2d(16, 16, 3, padding=1, groups=g) for g in (1, 16, 1)])
        self.reduce, self.expand = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 16, 1)
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.hardswish(self.stem(x))
        for block in self.blocks:
            x = x + block(x)
        gate = self.expand(nn.functional.relu(self.reduce(x.mean((2, 3), keepdim=True))))
        x = x * nn.functional.hardsigmoid(gate)
        return self.head(x.mean((2, 3)))


def pictures(count: int, seed: int) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (count, *SHAPE), dtype=np.uint8)


@pytest.fixture(scope="module")
def before() -> QuantizedModel:
    torch.manual_seed(0)
    model = Residual().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0)
    return calibrate(prepare(model, SHAPE), SHAPE, pictures(16, 0), QuantizeOptions(equalize=False))


@pytest.fixture(scope="module")
def after(before: QuantizedModel) -> QuantizedModel:
    return avoid_ties(before, known_placements())


def test_scales_alone_move_and_not_far(before: QuantizedModel, after: QuantizedModel) -> None:
    assert after.integer_weights is before.integer_weights
    moved = 0
    for name, old in before.encodings.activations.items():
        new = after.encodings.activations[name]
        assert replace(new, scale=old.scale) == old
        assert old.scale <= new.scale <= 1.07 * old.scale
        if old.observer == "fixed":
            assert new.scale == old.scale
        else:
            assert float(np.float16(new.scale)) == new.scale, "Core ML holds scales in fp16"
        moved += new.scale != old.scale
    assert moved > 3
    for name, weight in before.encodings.weights.items():
        new_scales = np.array(after.encodings.weights[name].scales)
        assert np.allclose(new_scales, weight.scales, rtol=0.0125)
        assert np.array_equal(new_scales.astype(np.float16), new_scales)
        assert replace(after.encodings.weights[name], scales=weight.scales) == weight


def nearest(model: QuantizedModel, node: Any) -> float:
    """How near the sum of any two codes comes to a middle between two codes, in codes."""
    encodings = model.encodings.activations
    first, second = (encodings[a.meta[NAME]] for a in node.args)
    codes = np.arange(-128, 128.0)
    sums = np.add.outer((codes - first.zero_point) * first.scale, (codes - second.zero_point) * second.scale)
    steps = sums / encodings[node.meta[NAME]].scale
    return float(np.abs(steps - np.floor(steps) - 0.5).min())


def test_no_sum_of_two_codes_lies_near_a_middle(before: QuantizedModel, after: QuantizedModel) -> None:
    sums = [
        n for n in after.graph.graph.nodes if op_name(n) == "add" and all(NAME in a.meta for a in n.all_input_nodes)
    ]
    assert len(sums) == 3
    for node in sums:
        assert nearest(after, node) > 4e-4, node
    assert min(nearest(before, node) for node in sums) < 1e-4, "there was nothing to avoid"


def test_it_is_the_same_again_and_settles_what_is_settled(before: QuantizedModel, after: QuantizedModel) -> None:
    assert avoid_ties(before, known_placements()).encodings == after.encodings
    again = avoid_ties(after, known_placements()).encodings.activations
    assert {n: e.scale for n, e in again.items()} == {n: e.scale for n, e in after.encodings.activations.items()}


def test_tied_tensors_keep_one_scale(after: QuantizedModel) -> None:
    groups = tied(after.graph)
    scales: dict[str, set[float]] = {}
    for name, encoding in after.encodings.activations.items():
        scales.setdefault(groups[name], set()).add(encoding.scale)
    assert all(len(found) == 1 for found in scales.values())


def test_regions_part_the_graph(after: QuantizedModel) -> None:
    names = chosen_tensors(after.graph, common_placement())
    found = regions(after.graph, names)
    assert {r.name for r in found} | {"input"} == set(names)
    inside = [node for region in found for node in region.nodes]
    assert len(inside) == len(set(inside)), "a node lies in two regions"
    assert all(source.meta[NAME] in names for region in found for source in region.sources)


def test_runtimes_give_equal_logits_with_one_placement(after: QuantizedModel, tmp_path: Path) -> None:
    """Four real runtimes (Core ML: its reference executor) on 100 images that calibration did not see."""
    images = pictures(100, 1).astype(np.float32) / np.float32(255)
    common, logits = common_placement(), {}
    for name in ("onnxruntime", "openvino", "executorch", "coreml"):
        target = with_placement(load_target(name), common)
        backend = get_backend(target.backend)
        if not backend.availability().ok:
            continue
        path = tmp_path / f"model{backend.suffix}"
        backend.lower(place(after, target.placement), Precision.INT8, path, target.options)
        (logits[name],) = backend.load(path, threads=1, options=load_target(name).options).run(images)
    assert len(logits) > 1
    for (one, first), (other, second) in itertools.combinations(logits.items(), 2):
        assert float((first.argmax(1) == second.argmax(1)).mean()) >= 0.995, (one, other)
        equal = float((np.abs(first - second).max(1) < 1e-5).mean())
        assert equal >= 0.9, f"{one} and {other} give the same logits on {equal:.0%} of the images only"
