"""Each rewrite gives the same numbers for one image and for many, and leaves the operators that runtimes know."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from timm.layers import EcaModule, ScaledStdConv2d, SpaceToDepth, StdConv2d
from torch import nn
from torch.nn import functional as F

from cspedge.quantize.graph import as_tuple, prepare
from cspedge.quantize.ops import op_name

SHAPE = (3, 16, 16)


class Body(nn.Module):
    """A convolution, then `function` with one module of its own, then numbers per image."""

    def __init__(self, function: Callable[..., torch.Tensor], part: nn.Module | None = None) -> None:
        super().__init__()
        self.function = function
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.part = part
        self.register_buffer("weight", torch.rand(8))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.stem(image)
        return self.function(self, x).flatten(1)


# name: (module, operators that are gone, operators that are there)
CASES: dict[str, tuple[Callable[[], nn.Module], set[str], set[str]]] = {
    "weight_standardisation": (
        lambda: Body(lambda m, x: m.part(x), StdConv2d(8, 8, 3)),
        {"batch_norm", "reshape", "view"},
        {"conv2d"},
    ),
    "scaled_weights": (
        lambda: Body(lambda m, x: m.part(x), ScaledStdConv2d(8, 8, 3)),
        {"batch_norm", "reshape_as", "mul"},
        {"conv2d"},
    ),
    "layer_scale": (lambda: Body(lambda m, x: x * m.weight.view(1, -1, 1, 1)), {"view"}, {"mul"}),
    "conv_1d": (lambda: Body(lambda m, x: m.part(x), EcaModule(8)), {"conv1d", "expand_as"}, {"conv2d", "mul"}),
    "mean": (lambda: Body(lambda m, x: x.mean((-2, -1))), set(), {"mean", "flatten"}),
    "mean_of_channels": (lambda: Body(lambda m, x: x.mean(1)), set(), {"mean"}),
    "stack": (lambda: Body(lambda m, x: torch.stack([x, F.relu(x)], 1)), {"stack"}, {"cat", "unsqueeze"}),
    "stack_summed": (lambda: Body(lambda m, x: torch.stack([x, F.relu(x)]).sum(0)), {"stack", "sum"}, {"add"}),
    "square": (lambda: Body(lambda m, x: x.square() + x**2), {"square", "pow"}, {"mul", "add"}),
    "cube": (lambda: Body(lambda m, x: x**3), set(), {"pow"}),
    "scaled_add": (lambda: Body(lambda m, x: torch.sub(x, F.relu(x), alpha=0.5)), set(), {"mul", "sub"}),
    "reverse_sub": (lambda: Body(lambda m, x: 1 - torch.sigmoid(x)), {"rsub"}, {"mul", "add"}),
    "addcmul": (lambda: Body(lambda m, x: torch.addcmul(x, x, F.relu(x), value=0.5)), {"addcmul"}, {"mul", "add"}),
    "global_max": (lambda: Body(lambda m, x: F.adaptive_max_pool2d(x, 1)), {"adaptive_max_pool2d"}, {"max_pool2d"}),
    "amax": (lambda: Body(lambda m, x: x.amax((2, 3))), {"amax"}, {"max_pool2d", "flatten"}),
    "amax_of_channels": (lambda: Body(lambda m, x: x.amax(1, keepdim=True)), set(), {"amax"}),
    "expand": (lambda: Body(lambda m, x: x * x.mean((2, 3), keepdim=True).expand_as(x)), {"expand_as"}, {"mul"}),
    "expand_of_both": (
        lambda: Body(lambda m, x: x[:, :, :1].expand(-1, -1, 8, -1) + x[:, :, :, :1]),
        set(),
        {"expand", "add"},
    ),
    "space_to_depth": (lambda: Body(lambda m, x: m.part(x), SpaceToDepth(4)), {"contiguous"}, {"permute", "reshape"}),
    "batch_norm_of_vectors": (
        lambda: Body(lambda m, x: m.part(x.mean((2, 3))), nn.BatchNorm1d(8)),
        {"batch_norm"},
        {"mul", "add"},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_same_function_in_fewer_forms(case: str) -> None:
    make, gone, there = CASES[case]
    torch.manual_seed(0)
    module = make().eval()
    graph = prepare(module, SHAPE)
    names = {op_name(node) for node in graph.graph.nodes}
    assert not names & gone
    assert there <= names
    for count in (1, 3):
        images = torch.rand((count, *SHAPE))
        with torch.no_grad():
            found, expected = as_tuple(graph(images))[0], module(images)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_whole_windows_are_averaged_in_the_plain_form() -> None:
    graph = prepare(Body(lambda m, x: F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)).eval(), SHAPE)
    pool = next(node for node in graph.graph.nodes if op_name(node) == "avg_pool2d")
    assert pool.args[1:6] == ([2, 2], [2, 2], [0, 0], False, False)


def test_cut_windows_keep_their_form() -> None:
    graph = prepare(Body(lambda m, x: F.avg_pool2d(x, 3, 2, ceil_mode=True, count_include_pad=False)).eval(), SHAPE)
    pool = next(node for node in graph.graph.nodes if op_name(node) == "avg_pool2d")
    assert pool.args[4] is True
