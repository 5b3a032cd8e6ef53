"""Integer weights: one scale per channel, whatever the channel holds, in eight bits or in seven."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import fx, nn

from cspedge.errors import InputError
from cspedge.quantize.encodings import Encodings, from_dict
from cspedge.quantize.graph import prepare
from cspedge.quantize.weights import quantize_weights

SHAPE = (3, 16, 16)


@pytest.fixture
def module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)).eval()


def graph_of(module: nn.Module) -> fx.GraphModule:
    return prepare(module, SHAPE)


@pytest.mark.parametrize("search", [True, False])
@pytest.mark.parametrize(("bits", "largest"), [(8, 127), (7, 64)])
def test_bits_are_kept_and_recorded(module: nn.Module, bits: int, largest: int, search: bool) -> None:
    graph = graph_of(module)
    encodings, integers = quantize_weights(graph, search=search, activations={}, bits=bits)
    for name, values in integers.items():
        assert int(values.abs().max()) == largest
        assert values.dtype == torch.int8
        assert (encodings[name].qmin, encodings[name].qmax) == (-largest, largest)
    written = Encodings(activations={}, weights=encodings).to_dict()
    assert all((w["qmin"], w["qmax"]) == (-largest, largest) for w in written["weights"].values())
    assert from_dict(written).weights == encodings


def saturated_share(integers: Any) -> float:
    """How many sums of two products with the largest u8 activation leave the int16 that AVX2 holds them in."""
    flat = integers.flatten().numpy().astype(np.int64)
    sums = 255 * (np.sign(flat[:, None]) == np.sign(flat[None, :])) * (flat[:, None] + flat[None, :])
    return float(np.mean((sums > 32767) | (sums < -32768)))


def test_seven_bits_never_saturate_on_avx2(module: nn.Module) -> None:
    eight, seven = (quantize_weights(graph_of(module), search=True, activations={}, bits=b)[1] for b in (8, 7))
    assert saturated_share(eight["0:conv2d"]) > 0
    assert saturated_share(seven["0:conv2d"]) == 0


def test_corrections_stay_within_seven_bits(module: nn.Module) -> None:
    from cspedge.quantize.calibrate import QuantizeOptions, calibrate
    from cspedge.quantize.simulate import Learned

    images = np.random.default_rng(0).integers(0, 256, (4, *SHAPE), dtype=np.uint8)
    learned = Learned(calibrate(graph_of(module), SHAPE, images, QuantizeOptions(weight_bits=7)))
    with torch.no_grad():
        for quantizer in learned.weights.values():
            quantizer.steps *= 3
    assert max(int(v.abs().max()) for v in learned.result().integer_weights.values()) == 64


def test_zero_and_nearly_dead_rows_get_finite_scales(module: nn.Module) -> None:
    with torch.no_grad():
        module[0].weight[1] = 0
        module[0].weight[2] *= 1e-30
        module[3].weight[0] = 0
    encodings, integers = quantize_weights(graph_of(module), search=True, activations={})
    for name, row in (("0:conv2d", 1), ("3:linear", 0)):
        scales = encodings[name].scales
        assert all(np.isfinite(s) and s > 0 for s in scales)
        assert max(scales) / min(scales) <= 2.0**16 * 1.01
        assert not integers[name][row].any()


def test_a_search_leaves_no_larger_error(module: nn.Module) -> None:
    graph = graph_of(module)
    errors = []
    for search in (True, False):
        encodings, integers = quantize_weights(graph, search=search, activations={}, bits=7)
        scales = torch.tensor(encodings["0:conv2d"].scales).reshape(-1, 1, 1, 1)
        errors.append((integers["0:conv2d"] * scales - module[0].weight).square().sum((1, 2, 3)).detach())
    # scales are rounded up to fp16 after the search, which may cost a thousandth
    assert bool((errors[0] <= errors[1] * 1.01).all())
    assert float(errors[0].sum()) < float(errors[1].sum())


@pytest.mark.parametrize("value", [1e9, float("inf"), float("nan")])
def test_what_no_scale_holds_is_refused(module: nn.Module, value: float) -> None:
    graph = graph_of(module)
    for name, buffer in graph.named_buffers():
        if name.startswith("model_0_weight") or buffer.dim() == 4:
            buffer[0, 0, 0, 0] = value
    for name, parameter in graph.named_parameters():
        if parameter.dim() == 4:
            parameter.data[0, 0, 0, 0] = value
            assert name
    with pytest.raises(InputError, match=r"the weight '0:conv2d' reaches .* check the weights"):
        quantize_weights(graph, search=True, activations={})
