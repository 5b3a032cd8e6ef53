"""A graph that is partly in float computes what `place` computes, to the bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

import numpy as np
import pytest
import torch
from torch import nn

from cspedge.config import load_target
from cspedge.quantize.calibrate import QuantizeOptions, calibrate
from cspedge.quantize.graph import prepare
from cspedge.quantize.partial import Partial, batches, elements, fake_quantize, multiply_accumulates
from cspedge.quantize.placement import QuantizedModel, chosen_tensors, int8_layers, place
from cspedge.quantize.ranges import tied
from cspedge.quantize.scaling import fitted

SHAPE = (3, 32, 32)


@pytest.fixture(scope="module", params=["lcnet_050", "ese_vovnet19b_dw"])
def model(request: pytest.FixtureRequest, network: Callable[[str], nn.Module]) -> QuantizedModel:
    """With biases of its own for int8, as bias correction leaves them."""
    images = np.random.default_rng(0).integers(0, 256, (4, *SHAPE), dtype=np.uint8)
    found = calibrate(prepare(network(request.param), SHAPE), SHAPE, images, QuantizeOptions(weight_search=False))
    generator = torch.Generator().manual_seed(0)
    biases = {
        name: 0.1 * torch.randn(len(weight), generator=generator) for name, weight in found.integer_weights.items()
    }
    return replace(found, biases=biases)


@pytest.mark.parametrize("target", ["openvino", "onnxruntime", "executorch"])
@pytest.mark.parametrize("units", [0, 3])
def test_the_answers_are_those_of_the_placed_graph(model: QuantizedModel, target: str, units: int) -> None:
    placement = load_target(target).placement
    own = fitted(model, placement)
    chosen = chosen_tensors(own.graph, placement)
    groups = tied(own.graph)
    kept = set(Random(7).sample(sorted({groups[name] for name in chosen}), units))
    keep = {name for name in chosen if groups[name] in kept}
    names = chosen - keep
    batch = torch.rand((3, *SHAPE), generator=torch.Generator().manual_seed(1))
    expected = place(model, placement, keep)(batch)
    with torch.no_grad():
        found = Partial(own).run(batch, names, int8_layers(own.graph, placement, names))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_nothing_quantized_is_the_fp32_graph_and_one_thing_is_not(model: QuantizedModel) -> None:
    batch = torch.rand((2, *SHAPE), generator=torch.Generator().manual_seed(1))
    partial = Partial(model)
    with torch.no_grad():
        expected = model.graph(batch)
        assert torch.equal(partial.run(batch)[0], expected)
        for layer in list(model.integer_weights)[:3]:
            found = partial.run(batch, (), (layer,))[0]
            assert not torch.equal(found, expected)
            assert torch.allclose(found, expected, atol=0.2 * float(expected.abs().max()))


def test_fake_quantize_is_the_arithmetic_of_the_quantize_op(model: QuantizedModel) -> None:
    import torch.ao.quantization.fx._decomposed

    ops = torch.ops.quantized_decomposed
    values = torch.randn(4096, generator=torch.Generator().manual_seed(2)) * 3
    for encoding in list(model.encodings.activations.values())[:20]:
        numbers = (encoding.scale, encoding.zero_point, -128, 127, torch.int8)
        expected = ops.dequantize_per_tensor(ops.quantize_per_tensor(values, *numbers), *numbers)
        assert torch.equal(fake_quantize(values, encoding), expected)


def test_shapes_and_work_are_counted_for_one_image() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8))
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    images = np.random.default_rng(0).integers(0, 256, (2, *SHAPE), dtype=np.uint8)
    model = calibrate(prepare(nn.Sequential(module, head).eval(), SHAPE), SHAPE, images, QuantizeOptions())
    sizes = elements(model)
    assert sizes["input"] == 3 * 32 * 32
    assert multiply_accumulates(model, sizes) == {
        "0.0:conv2d": 8 * 32 * 32 * 27,
        "0.2:conv2d": 8 * 16 * 16 * 9,
        "1.2:linear": 5 * 8,
    }


def test_batches_cover_every_image_once() -> None:
    images = np.arange(5 * 3 * 4, dtype=np.uint8).reshape(5, 3, 2, 2)
    found = torch.cat(list(batches(images, 2))).numpy()
    assert np.array_equal(found, images.astype(np.float32) / np.float32(255))
