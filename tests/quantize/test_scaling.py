"""Channel scales change nothing in real arithmetic, stand only where they may, and leave one set of integers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from cspedge.config import common_placement, known_placements, load_target
from cspedge.errors import InputError
from cspedge.quantize.calibrate import QuantizeOptions, calibrate
from cspedge.quantize.graph import NAME, prepare, tensor_of
from cspedge.quantize.islands import Cost, Islands
from cspedge.quantize.ops import arg
from cspedge.quantize.partial import Partial, elements, multiply_accumulates
from cspedge.quantize.placement import Placement, QuantizedModel, chosen_tensors, place
from cspedge.quantize.scaling import ChannelScales, candidates, fitted, is_scale, unfitted, with_scales
from cspedge.quantize.simulate import Learned, simulation
from cspedge.quantize.ties import avoid_ties

SHAPE = (3, 64, 64)
FREE, PAID = load_target("openvino").placement, load_target("executorch").placement


def noise(count: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (count, *SHAPE), dtype=np.uint8)


def scales(model: QuantizedModel) -> list[str]:
    return [n.meta[NAME] for n in model.graph.graph.nodes if is_scale(n)]


@pytest.fixture(scope="module", params=list(ChannelScales), ids=str)
def wanted(request: pytest.FixtureRequest) -> ChannelScales:
    found: ChannelScales = request.param
    return found


@pytest.fixture(scope="module")
def lcnet(network: Callable[[str], nn.Module]) -> Any:
    return prepare(network("lcnet_050"), SHAPE)


@pytest.fixture(scope="module")
def model(lcnet: Any, wanted: ChannelScales) -> QuantizedModel:
    return calibrate(lcnet, SHAPE, noise(32), QuantizeOptions(channel_scales=wanted))


def test_the_graph_computes_the_same(lcnet: Any, model: QuantizedModel, wanted: ChannelScales) -> None:
    """28 h-swishes: depthwise layers alone read 13; two stand before a squeeze-excite, one is a vector."""
    count = {ChannelScales.NONE: 0, ChannelScales.WHERE_CHEAP: 16, ChannelScales.EVERYWHERE: 28}[wanted]
    assert len(scales(model)) == count
    assert len(candidates(lcnet, wanted)) == count
    x = torch.from_numpy(noise(2, seed=1)).float() / 255
    with torch.no_grad():
        expected = lcnet(x)
        for graph in (model.graph, fitted(model, PAID).graph):
            assert float((graph(x) - expected).abs().max() / expected.abs().max()) < 1e-5
    assert model.float_graph is lcnet


def test_every_factor_is_a_power_of_two_and_some_differ(model: QuantizedModel) -> None:
    for node in model.graph.graph.nodes:
        if is_scale(node):
            factors = tensor_of(model.graph, arg(node, 1))
            assert factors is not None
            assert torch.equal(factors, torch.exp2(factors.log2().round()))
            assert float(factors.max() / factors.min()) > 1


@pytest.mark.parametrize("placement", [FREE, PAID, common_placement()], ids=["free", "paid", "common"])
def test_one_set_of_integers_serves_every_placement(model: QuantizedModel, placement: Placement) -> None:
    placed = place(model, placement)
    assert all(torch.equal(placed.weights[name], model.integer_weights[name]) for name in placed.weights)
    left = [n for n in placed.graph.graph.nodes if is_scale(n)]
    optional = sum(name.endswith(":scale_where_free") for name in scales(model))
    assert len(left) == len(scales(model)) - (0 if placement.channel_scales else optional)
    # nothing is quantized between an activation and its scale
    assert not {arg(n, 0).meta[NAME] for n in left} & set(placed.activations)
    # three ways to compute the same, to the bit
    x = torch.from_numpy(noise(3, seed=1)).float() / 255
    own = fitted(model, placement)
    islands = Islands(own, placement, Cost(), elements(own), multiply_accumulates(own, elements(own)))
    with torch.no_grad():
        expected = placed(x)[0]
        assert torch.equal(simulation(Learned(model), placement)(x), expected)
        assert torch.equal(Partial(own).run(x, islands.tensors(()), islands.layers(()))[0], expected)


def test_taking_scales_out_is_undone_to_the_bit(model: QuantizedModel) -> None:
    plain = fitted(model, PAID)
    assert fitted(plain, PAID) is plain
    assert fitted(model, FREE) is model
    assert unfitted(model, plain).encodings == model.encodings
    assert avoid_ties(model, known_placements()).encodings.activations.keys() == model.encodings.activations.keys()


def uneven(lcnet: Any) -> Any:
    """lcnet_050 whose depthwise layers read channels that differ by up to 64 times."""
    graph, generator = copy.deepcopy(lcnet), torch.Generator().manual_seed(1)
    for node in with_scales(graph, candidates(graph, ChannelScales.WHERE_CHEAP)).graph.nodes:
        if is_scale(node):
            layer = next(n for n in graph.graph.nodes if n.meta.get(NAME) == arg(arg(node, 0), 0).meta[NAME])
            weight, bias = tensor_of(graph, arg(layer, 1)), tensor_of(graph, arg(layer, 2))
            assert weight is not None
            assert bias is not None
            factor = 8.0 ** (torch.rand(len(weight), generator=generator) * 2 - 1)
            weight.mul_(factor.reshape(-1, 1, 1, 1))
            bias.mul_(factor)
    return graph


def test_channels_behind_h_swish_are_evened_out(lcnet: Any) -> None:
    """int8 gains where scales are free, and loses nothing where they are not."""
    graph, held = uneven(lcnet), torch.from_numpy(noise(32, seed=1)).float() / 255
    with torch.no_grad():
        expected = graph(held)

    def sqnr(found: QuantizedModel, placement: Placement) -> float:
        error = place(found, placement)(held)[0] - expected
        return float(10 * torch.log10(expected.square().sum() / error.square().sum()))

    none = calibrate(graph, SHAPE, noise(32), QuantizeOptions(channel_scales=ChannelScales.NONE))
    free = calibrate(graph, SHAPE, noise(32), QuantizeOptions())
    assert sqnr(free, FREE) > sqnr(none, FREE) + 1.5
    assert sqnr(free, PAID) > sqnr(none, PAID) - 1.0


def test_a_scale_is_no_table_of_codes(model: QuantizedModel, wanted: ChannelScales) -> None:
    """Where a runtime pays for scales, each turns a table into float arithmetic: values are converted more often."""
    own = fitted(model, PAID)
    sizes = elements(own)
    islands = Islands(own, PAID, Cost(), sizes, multiply_accumulates(own, sizes))
    names = set(scales(own))
    assert len(names) == {ChannelScales.NONE: 0, ChannelScales.WHERE_CHEAP: 3, ChannelScales.EVERYWHERE: 28}[wanted]
    assert names <= chosen_tensors(own.graph, PAID)
    read = {n.meta[NAME]: arg(arg(n, 0), 0).meta[NAME] for n in own.graph.graph.nodes if n.meta.get(NAME) in names}
    plain = fitted(replace_scales(model), PAID)
    before = Islands(plain, PAID, Cost(), sizes, multiply_accumulates(plain, elements(plain)))
    assert islands.converts(()) - before.converts(()) >= sum(sizes[name] for name in read)


def replace_scales(model: QuantizedModel) -> QuantizedModel:
    """The model as if it had been calibrated without channel scales."""
    return calibrate(model.float_graph, SHAPE, noise(4), QuantizeOptions(channel_scales=ChannelScales.NONE))


def test_stored_scales_of_another_model_are_refused(lcnet: Any) -> None:
    with pytest.raises(InputError, match="quantize the model again"):
        with_scales(lcnet, ["blocks.9.9:hardswish:scale"])


def test_a_recipe_names_where(tmp_path: Any) -> None:
    from cspedge.config import load_recipe
    from cspedge.errors import UsageError

    file = tmp_path / "r.toml"
    file.write_text('summary = "x"\n[images]\ncount = 8\n[quantize]\nchannel_scales = "sometimes"\n', encoding="utf-8")
    with pytest.raises(UsageError, match="where-cheap"):
        load_recipe(str(file))
    assert load_recipe("accurate").quantizer.quantize.channel_scales is ChannelScales.EVERYWHERE
    assert load_recipe("default").quantizer.quantize.channel_scales is ChannelScales.WHERE_CHEAP
    assert replace(load_target("coreml").placement).channel_scales
