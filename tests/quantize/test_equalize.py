"""Channels are scaled only where that changes nothing, everywhere it does not, and for the better."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import fx, nn
from torch.nn import functional as F

from cspedge.errors import InputError
from cspedge.quantize.calibrate import QuantizeOptions, calibrate
from cspedge.quantize.channels import Channels
from cspedge.quantize.equalize import equalize, equalized
from cspedge.quantize.graph import NAME, as_tuple, prepare
from cspedge.quantize.placement import Placement, QuantizedModel, place

SHAPE = (3, 32, 32)
AFTER = Placement(fuse=("relu", "hardtanh", "leaky_relu"))


def noise(count: int, seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def free_layers(graph: fx.GraphModule) -> set[str]:
    """Layers that have at least one channel to scale."""
    channels = Channels(graph)
    return {n.meta[NAME] for n, ids in channels.outputs.items() if channels.free(ids).any()}


def random_scales(graph: fx.GraphModule, widest: float) -> dict[str, torch.Tensor]:
    """Any scales will do to show that nothing changes: from 1 / widest to widest, for all channels that are free."""
    channels = Channels(graph)
    by_root = widest ** (torch.rand(channels.count, generator=torch.Generator().manual_seed(1)) * 2 - 1)
    by_root[~torch.from_numpy(channels.free(channels.everything))] = 1.0
    return {n.meta[NAME]: by_root[channels.root(ids)] for n, ids in channels.outputs.items()}


def relative(found: Any, expected: Any) -> float:
    """The largest difference in any output, relative to its largest value."""
    pairs = zip(as_tuple(found), as_tuple(expected), strict=True)
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)


@pytest.mark.parametrize(
    ("name", "least"),
    [("ese_vovnet19b_dw", 35), ("cspdarknet53", 50), ("cspresnext50", 40), ("resnet18", 20)],
)
def test_real_networks_compute_the_same(name: str, least: int, network: Callable[[str], nn.Module]) -> None:
    graph = prepare(network(name), SHAPE)
    x = torch.from_numpy(noise(4)).float() / 255
    with torch.no_grad():
        expected = graph(x)
        before = [t.clone() for t in graph.buffers()]
        scaled = equalized(graph, random_scales(graph, 4.0))
        found = scaled(x)
    assert len(free_layers(graph)) >= least
    assert relative(found, expected) < 1e-5
    assert all(torch.equal(a, b) for a, b in zip(graph.buffers(), before, strict=True)), "the graph itself was changed"
    weights = zip(graph.state_dict().items(), scaled.state_dict().values(), strict=True)
    changed = sum(not torch.equal(a, b) for (_, a), b in weights)
    assert changed >= least


class Body(nn.Module):
    """Two convolutions with `between` in the middle, and a classifier."""

    def __init__(self, between: Callable[..., torch.Tensor], groups: int = 1, part: nn.Module | None = None) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, 2, 1)
        self.between = between
        self.part = part
        self.second = nn.Conv2d(8, 8, 3, 1, 1, groups=groups)
        self.last = nn.Linear(8, 5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.second(self.between(self, self.first(image)))
        return self.last(x.relu().mean((2, 3)))


FIRST, SECOND, PART = "first:conv2d", "second:conv2d", "part:conv2d"
Between = Callable[..., torch.Tensor]

# name: (function between the convolutions, their groups, a module of its own, the layers that can be scaled)
PATHS: dict[str, tuple[Between, int, Callable[[], nn.Module] | None, set[str]]] = {
    "nothing": (lambda m, x: x, 1, None, {FIRST, SECOND}),
    "relu": (lambda m, x: F.relu(x), 1, None, {FIRST, SECOND}),
    "leaky_relu": (lambda m, x: F.leaky_relu(x, 0.1), 1, None, {FIRST, SECOND}),
    "prelu": (lambda m, x: m.part(x), 1, lambda: nn.PReLU(8), {FIRST, SECOND}),
    "grouped": (lambda m, x: F.relu(x), 2, None, {FIRST, SECOND}),
    "depthwise": (lambda m, x: F.relu(x), 8, None, {FIRST, SECOND}),
    "chain_of_three": (lambda m, x: m.part(x).relu(), 8, lambda: nn.Conv2d(8, 8, 1), {FIRST, SECOND, PART}),
    "max_pool": (lambda m, x: F.max_pool2d(x, 3, 2, 1), 1, None, {FIRST, SECOND}),
    "avg_pool": (lambda m, x: F.avg_pool2d(x, 2), 1, None, {FIRST, SECOND}),
    "upsampling": (lambda m, x: F.interpolate(x, scale_factor=2.0, mode="bilinear"), 1, None, {FIRST, SECOND}),
    "zero_padding": (lambda m, x: F.pad(x, (1, 1)), 1, None, {FIRST, SECOND}),
    "reshaping": (lambda m, x: x.flatten(2).reshape(-1, 8, 16, 16), 1, None, {FIRST, SECOND}),
    "residual": (lambda m, x: F.relu(m.part(x)) + x, 1, lambda: nn.Conv2d(8, 8, 1), {FIRST, SECOND, PART}),
    "concatenation": (lambda m, x: torch.cat([x[:, :4], m.part(x)], 1), 1, lambda: nn.Conv2d(8, 4, 1),
                      {FIRST, SECOND, PART}),
    "split": (lambda m, x: torch.cat([c.relu() for c in reversed(x.split([3, 5], 1))], 1), 1, None, {FIRST, SECOND}),
    "chunk": (lambda m, x: torch.cat(x.chunk(2, 1)[::-1], 1), 1, None, {FIRST, SECOND}),
    "concatenation_of_rows": (lambda m, x: torch.cat([x, F.relu(x)], 2), 1, None, {FIRST, SECOND}),
    "gate": (lambda m, x: x * m.part(x.mean((2, 3), keepdim=True)).sigmoid(), 1, lambda: nn.Conv2d(8, 8, 1),
             {FIRST, SECOND}),
    "constant_factor": (lambda m, x: x * torch.arange(8.0).view(-1, 1, 1) / 2, 1, None, {FIRST, SECOND}),
    "hardswish": (lambda m, x: F.hardswish(x), 1, None, {SECOND}),
    "relu6": (lambda m, x: F.relu6(x), 1, None, {SECOND}),
    "hardtanh": (lambda m, x: F.hardtanh(x), 1, None, {SECOND}),
    "sigmoid": (lambda m, x: F.sigmoid(x), 1, None, {SECOND}),
    "constant_offset": (lambda m, x: x + torch.arange(8.0).view(-1, 1, 1), 1, None, {SECOND}),
    "square": (lambda m, x: x * x, 1, None, {SECOND}),
    "shuffle": (lambda m, x: x.reshape(-1, 2, 4, 16, 16).transpose(1, 2).reshape(-1, 8, 16, 16), 1, None, {SECOND}),
    "one_padding": (lambda m, x: F.pad(x, (1, 1), value=1.0), 1, None, {SECOND}),
    "second_reader": (lambda m, x: x.relu() + F.hardswish(x), 1, None, {SECOND}),
    "shared_weights": (lambda m, x: m.first(m.part(x)), 1, lambda: nn.Conv2d(8, 3, 1), {SECOND}),
}  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_scales_pass_where_they_may(path: str) -> None:
    between, groups, part, wanted = PATHS[path]
    torch.manual_seed(0)
    graph = prepare(Body(between, groups, None if part is None else part()).eval(), SHAPE)
    assert free_layers(graph) == wanted
    x = torch.from_numpy(noise(3)).float() / 255
    with torch.no_grad():
        assert relative(equalized(graph, random_scales(graph, 16.0))(x), graph(x)) < 1e-5


def test_what_the_user_gets_is_not_scaled(network: Callable[[str], nn.Module]) -> None:
    import timm

    torch.manual_seed(0)
    extractor = timm.create_model("resnet18", pretrained=False, features_only=True).eval()
    levels = [f"level_{i}" for i in range(5)]
    graph = prepare(extractor, SHAPE, levels)
    x = torch.from_numpy(noise(2)).float() / 255
    with torch.no_grad():
        assert relative(equalized(graph, random_scales(graph, 4.0))(x), extractor(x)) < 1e-5


def sqnr(model: QuantizedModel, images: Any) -> float:
    x = torch.from_numpy(images).float() / 255
    with torch.no_grad():
        expected, found = model.float_graph(x), place(model, AFTER)(x)[0]
    return float(10 * torch.log10(expected.square().sum() / (found - expected).square().sum()))


@pytest.fixture(scope="module")
def uneven(network: Callable[[str], nn.Module]) -> fx.GraphModule:
    """ese_vovnet19b_dw whose channels differ by up to 64 times."""
    graph = prepare(network("ese_vovnet19b_dw"), SHAPE)
    return equalized(graph, random_scales(graph, 8.0))


def test_uneven_channels_are_evened_out(uneven: fx.GraphModule) -> None:
    images, held = noise(32), noise(32, seed=1)
    without = calibrate(uneven, SHAPE, images, QuantizeOptions(equalize=False))
    with_it = calibrate(uneven, SHAPE, images, QuantizeOptions())
    assert without.equalization == {}
    assert without.float_graph is uneven
    assert with_it.float_graph is uneven
    assert with_it.graph is not uneven
    assert sqnr(with_it, held) > sqnr(without, held) + 6


def test_scales_repeat_bit_for_bit(uneven: fx.GraphModule) -> None:
    first, second = (equalize(copy.deepcopy(uneven), noise(8)) for _ in range(2))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_dead_channel_keeps_its_scale() -> None:
    torch.manual_seed(0)
    body = Body(lambda m, x: F.relu(x)).eval()
    with torch.no_grad():
        body.first.weight[2] = 0
        body.first.bias[2] = 0
    scales = equalize(prepare(body, SHAPE), noise(4))
    assert scales[FIRST][2] == 1.0
    assert all(torch.isfinite(s).all() and bool((s > 0).all()) for s in scales.values())


def test_a_net_of_h_swish_has_little_to_equalize(network: Callable[[str], nn.Module]) -> None:
    """lcnet_050: only its squeeze-excites' hidden layers, which a ReLU follows."""
    assert free_layers(prepare(network("lcnet_050"), SHAPE)) == {
        "blocks.5.0.se.conv_reduce:conv2d",
        "blocks.5.1.se.conv_reduce:conv2d",
    }


def test_a_stored_model_is_the_same_model(uneven: fx.GraphModule, tmp_path: Path) -> None:
    from cspedge import objects
    from cspedge.store import Store

    model = calibrate(uneven, SHAPE, noise(8), QuantizeOptions())
    stored = Store(tmp_path).stage("quantize", 1, {}, lambda folder: objects.write_quantized(model, folder)).object
    again = objects.read_quantized(stored, uneven, SHAPE)
    x = torch.from_numpy(noise(4)).float() / 255
    assert torch.equal(place(again, AFTER)(x)[0], place(model, AFTER)(x)[0])
    assert again.encodings == model.encodings
    assert again.outliers == model.outliers
    assert again.float_graph is uneven


@pytest.mark.parametrize("damage", ["name", "length", "frozen"])
def test_scales_of_another_graph_are_refused(uneven: fx.GraphModule, damage: str) -> None:
    scales = random_scales(uneven, 2.0)
    bad = {
        "name": {"nowhere:conv2d": torch.full((8,), 2.0)},
        "length": {"stem.0.conv:conv2d": torch.full((7,), 2.0)},
        "frozen": scales | {"head.fc:linear": torch.full((10,), 2.0)},
    }[damage]
    with pytest.raises(InputError, match="does not fit this model; quantize the model again"):
        equalized(uneven, bad)
