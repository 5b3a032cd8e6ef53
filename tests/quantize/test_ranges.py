"""What the structure says: ends that cost nothing, ranges that are known; and how observers choose the others."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import fx, nn
from torch.nn import functional as F

from cspedge.errors import UsageError
from cspedge.quantize.calibrate import QuantizeOptions
from cspedge.quantize.graph import NAME, prepare
from cspedge.quantize.observers import BINS, Observer, activation_function, choose_range
from cspedge.quantize.ranges import fixed_ranges, lossless_clips

SHAPE = (3, 16, 16)
STEM = "stem:conv2d"
ALL = math.inf
Function = Callable[..., Any]


class Body(nn.Module):
    """A convolution and what reads it."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 1, 1)
        self.function = function

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.function(self.stem(image))
        return found.flatten(1)


def graph_of(function: Function) -> fx.GraphModule:
    torch.manual_seed(0)
    return prepare(Body(function).eval(), SHAPE)


# name: (function of the convolution's output, the bounds beyond which that output does not matter)
CLIPS: dict[str, tuple[Function, tuple[float, float] | None]] = {
    "relu": (F.relu, (0.0, ALL)),
    "relu6": (F.relu6, (0.0, 6.0)),
    "hardswish": (F.hardswish, (-3.0, ALL)),
    "hardtanh": (lambda x: F.hardtanh(x, -0.5, 2.0), (-0.5, 2.0)),
    "clamp_below": (lambda x: x.clamp(min=-0.25), (-0.25, ALL)),
    "clamp_above": (lambda x: x.clamp(max=0.25), (-ALL, 0.25)),
    "linear_gate": (F.hardsigmoid, (0.0, 1.0)),
    "sigmoid": (torch.sigmoid, None),
    "leaky_relu": (F.leaky_relu, None),
    "relu_and_relu6": (lambda x: F.relu(x) + F.relu6(x), (0.0, ALL)),
    "hardswish_and_hardtanh": (lambda x: F.hardswish(x) + F.hardtanh(x), (-3.0, ALL)),
    "relu_and_itself": (lambda x: F.relu(x) + x, None),
    "relu_and_sigmoid": (lambda x: F.relu(x) * torch.sigmoid(x), None),
    "behind_max_pool": (lambda x: F.hardsigmoid(F.max_pool2d(x, 2)), (-3.0, 3.0)),
    "behind_reshape": (lambda x: F.relu(x.reshape(-1, 4, 32, 16)), (0.0, ALL)),
    "behind_slices": (lambda x: F.relu(x[:, :4]) * F.relu6(x[:, 4:]), (0.0, ALL)),
    "behind_split": (lambda x: F.relu(x.split(4, 1)[0]) * F.relu6(x.split(4, 1)[1]), (0.0, ALL)),
    "one_half_unclipped": (lambda x: F.relu(x[:, :4]) * x[:, 4:], None),
    "behind_concatenation": (lambda x: F.hardswish(torch.cat([x, torch.sigmoid(x).relu()], 1))[:, :4], None),
    "behind_concatenation_alone": (lambda x: F.hardswish(torch.cat([x, x[:, :4]], 1)), (-3.0, ALL)),
    "behind_zero_padding": (lambda x: F.relu(F.pad(x, (1, 1))), (0.0, ALL)),
    "zeros_would_be_clipped": (lambda x: F.hardtanh(F.pad(x, (1, 1)), 0.5, 1.0), None),
    "behind_average": (lambda x: F.relu(F.avg_pool2d(x, 2)), None),
    "behind_interpolation": (lambda x: F.relu(F.interpolate(x, scale_factor=2.0, mode="bilinear")), None),
    "behind_repetition": (lambda x: F.relu(F.interpolate(x, scale_factor=2.0)), (0.0, ALL)),
}


@pytest.mark.parametrize("case", CLIPS)
def test_ranges_end_where_every_reader_is_flat(case: str) -> None:
    function, wanted = CLIPS[case]
    graph = graph_of(function)
    clips = lossless_clips(graph)
    assert clips.get(STEM) == wanted
    assert_nothing_is_lost(graph, clips)


@pytest.mark.parametrize("name", ["lcnet_050", "hardcorenas_a", "ese_vovnet19b_dw"])
def test_clipping_a_real_network_loses_nothing(name: str, network: Callable[[str], nn.Module]) -> None:
    graph = prepare(network(name), (3, 32, 32))
    clips = lossless_clips(graph)
    assert len(clips) > 20
    assert_nothing_is_lost(graph, clips)


def assert_nothing_is_lost(graph: fx.GraphModule, clips: dict[str, tuple[float, float]]) -> None:
    """Clamps every tensor at its bounds; the answer must be the same to the bit."""

    class Clipping(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            result = super().run_node(n)
            bounds = clips.get(n.meta.get(NAME)) if n.op == "call_function" else None
            return result if bounds is None else result.clamp(*bounds)

    size = next(n for n in graph.graph.nodes if n.op == "placeholder").meta["val"].shape[1:]
    x = torch.randn((2, *size), generator=torch.Generator().manual_seed(0)) * 8
    with torch.no_grad():
        assert torch.equal(Clipping(graph).run(x), graph(x))


@pytest.mark.parametrize(
    ("function", "wanted"),
    [
        (torch.sigmoid, (0.0, 1.0)),
        (torch.tanh, (-1.0, 1.0)),
        (F.hardsigmoid, (0.0, 1.0)),
        (lambda x: F.hardsigmoid(F.avg_pool2d(x, 2)), (0.0, 1.0)),
        (lambda x: x.clamp(0, 1), (0.0, 1.0)),
        (lambda x: x.clamp(0, 0.5), None),
        (lambda x: F.relu(x), None),
        (lambda x: torch.cat([torch.sigmoid(x), x], 1), None),
    ],
)
def test_known_ranges_are_not_measured(function: Function, wanted: tuple[float, float] | None) -> None:
    fixed = fixed_ranges(graph_of(function))
    assert fixed.pop("input") == (0.0, 1.0)
    assert list(fixed.values()) == ([] if wanted is None else [wanted])


# ---- observers -----------------------------------------------------------------------------------------------------


def histogram(values: Any) -> tuple[Any, float, float]:
    lo, hi = float(values.min()), float(values.max())
    return np.histogram(values, BINS, (lo, hi))[0], lo, hi


@pytest.fixture(scope="module")
def long_tail() -> Any:
    """As activations are: most values near zero, a heavy tail upwards and a short one below."""
    generator = np.random.default_rng(0)
    return np.concatenate([generator.normal(0, 0.5, 200_000), generator.exponential(3.0, 20_000), [60.0]])


@pytest.mark.parametrize("percent", [90.0, 99.0, 99.9])
def test_a_percentile_holds_its_share(percent: float, long_tail: Any) -> None:
    lo, hi = choose_range(*histogram(long_tail), Observer.PERCENTILE, percentile=percent)
    outside = 1 - percent / 100
    assert np.mean((long_tail < lo) | (long_tail > hi)) == pytest.approx(outside, rel=0.15)
    # bins are 1/2048 of the range wide, which the heavy side resolves well
    assert np.mean(long_tail > hi) == pytest.approx(outside / 2, rel=0.05)


def test_the_whole_percentile_is_the_range(long_tail: Any) -> None:
    counts, lo, hi = histogram(long_tail)
    found = choose_range(counts, lo, hi, Observer.PERCENTILE, percentile=100.0)
    assert found == pytest.approx((lo, hi), abs=(hi - lo) / BINS)


def divergence(counts: Any, lo: float, hi: float, a: float, b: float) -> float:
    """Migacz's procedure, bin by bin: clip, merge the bins of each step, spread them again, compare."""
    centers = lo + (np.arange(BINS) + 0.5) * (hi - lo) / BINS
    scale = (b - a) / 255
    zero = round(-128 - a / scale)
    steps = [round(float(c) / scale) + zero for c in centers]
    kept = [i for i in range(BINS) if -128 <= steps[i] <= 127 and counts[i] > 0]
    clipped = {i: float(counts[i]) for i in kept}
    clipped[kept[0]] += float(sum(counts[: kept[0]]))
    clipped[kept[-1]] += float(sum(counts[kept[-1] + 1 :]))
    spread = {}
    for i in kept:
        same = [j for j in kept if steps[j] == steps[i]]
        spread[i] = sum(float(counts[j]) for j in same) / len(same)
    p_sum, q_sum = sum(clipped.values()), sum(spread.values())
    return sum(p / p_sum * math.log((p / p_sum) / (spread[i] / q_sum)) for i, p in clipped.items())


def test_entropy_chooses_the_least_divergence(long_tail: Any) -> None:
    counts, lo, hi = histogram(long_tail)
    a, b = choose_range(counts, lo, hi, Observer.ENTROPY)
    assert lo <= a < 0 < b < hi
    chosen = divergence(counts, lo, hi, a, b)
    for share_a, share_b in ((1.0, 1.0), (1.0, 0.7), (1.0, 0.5), (0.5, 1.0), (0.7, 0.7), (0.9, 0.3)):
        assert chosen <= divergence(counts, lo, hi, lo * share_a, hi * share_b) * 1.05


def test_a_pile_of_zeros_does_not_rule_the_entropy() -> None:
    """As a ReLU leaves: half of all values are zero, which has a code in any range."""
    generator = np.random.default_rng(0)
    positive = generator.exponential(1.0, 100_000)
    piled = np.concatenate([positive, np.zeros(100_000)])
    alone = choose_range(*histogram(positive), Observer.ENTROPY)[1]
    assert choose_range(*histogram(piled), Observer.ENTROPY)[1] == pytest.approx(alone, rel=0.1)


def test_entropy_keeps_what_is_even() -> None:
    values = np.random.default_rng(0).uniform(-1, 3, 100_000)
    assert choose_range(*histogram(values), Observer.ENTROPY) == pytest.approx((-1, 3), abs=0.15)


@pytest.mark.parametrize("observer", Observer)
def test_a_constant_tensor_keeps_its_value(observer: Observer) -> None:
    assert choose_range(np.zeros(BINS, np.int64), 2.0, 2.0, observer) == (2.0, 2.0)


def test_an_error_after_leaky_relu_counts_for_its_slope() -> None:
    values = np.random.default_rng(0).laplace(0, 1, 200_000)
    alone = choose_range(*histogram(values), Observer.MSE)
    function = activation_function("leaky_relu", [0.01])
    assert function is not None
    behind = choose_range(*histogram(values), Observer.MSE, function)
    assert -behind[0] < -0.5 * alone[0], "below zero an error counts a hundredth"
    assert behind[1] == pytest.approx(alone[1], rel=0.35)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"percentile": 40.0}, "percentile is 40.0; it is in per cent, above 50 and up to 100"),
        ({"percentile": 100.5}, "percentile is 100.5"),
        ({"weight_bits": 4}, "weight_bits is 4; allowed: 7, 8"),
        ({"outlier_images": 0.5}, "outlier_images is 0.5"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_impossible_options_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        QuantizeOptions(**wrong)
