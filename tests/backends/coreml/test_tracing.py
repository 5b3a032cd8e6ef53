"""The package beside PT2E, layer by layer: a changed weight is found in the layer that reads it."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from cspedge.backends.coreml.reference import Numerics, Rounding
from cspedge.backends.coreml.tracing import compare, first_below
from cspedge.quantize.placement import QuantizedModel, place_float

IMAGES = np.random.Generator(np.random.PCG64(2)).integers(0, 256, (2, 3, 32, 32)).astype(np.float32) / 255


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_changed_weight_is_found(small: QuantizedModel, small_packages: dict[str, Path], precision: str) -> None:
    placed = place_float(small.graph, (3, 32, 32))
    layers = compare(small_packages[precision], placed, IMAGES)
    names = [layer.name for layer in layers]
    convolutions = ["stem_0", "depthwise_0", "reduce", "expand", "left", "right", "mix_0"]
    assert [n.removesuffix("__conv2d") for n in names if n.endswith("conv2d")] == convolutions
    limit = {"fp32": 100.0, "fp16": 50.0}[precision]
    assert first_below(layers, limit) is None
    broken = copy.deepcopy(placed)
    state = dict(broken.graph.named_parameters()) | dict(broken.graph.named_buffers())
    with torch.no_grad():
        next(v for v in state.values() if tuple(v.shape) == (8, 8, 3, 3)).mul_(1.5)  # `left`
    rows = compare(small_packages[precision], broken, IMAGES)
    assert [(row.module, row.kind) for row in rows if row.sqnr_db < limit] == [("left", "conv")]
    assert first_below(rows, limit) == next(row for row in rows if row.module == "left")
    mixed = next(row for row in rows if row.name == "mix_0__conv2d")
    assert mixed.sqnr_db >= limit
    assert mixed.carried_db < limit, "what reads it carries it on"


def test_float16_is_named_as_the_cause(small: QuantizedModel, small_packages: dict[str, Path]) -> None:
    """Without rounding the fp16 package is PT2E with float16 weights; the rounding of results is what is missing."""
    placed = place_float(small.graph, (3, 32, 32))
    rounded = compare(small_packages["fp16"], placed, IMAGES)
    unrounded = compare(small_packages["fp16"], placed, IMAGES, numerics=Numerics(rounding=Rounding.NONE))
    assert [layer.name for layer in rounded] == [layer.name for layer in unrounded]
    assert rounded[0].sqnr_db < unrounded[0].sqnr_db
