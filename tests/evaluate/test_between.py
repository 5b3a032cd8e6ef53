"""Intervals between two runs: against published examples, against counting, and by how often they hold the truth."""

from __future__ import annotations

import numpy as np
import pytest

from cspedge.errors import InputError
from cspedge.evaluate.between import latency_ratio, paired_change, unpaired_change
from cspedge.evaluate.stats import tango_interval


def test_paired_counts_the_images_that_changed() -> None:
    a = np.array([True] * 90 + [False] * 10)
    b = a.copy()
    b[:3] = False
    b[90:97] = True
    found = paired_change(a, b)
    assert (found.only_a, found.only_b, found.paired) == (3, 7, True)
    assert found.change == pytest.approx(0.04)
    assert found.ci95 == tango_interval(7, 3, 100)
    assert found.p == pytest.approx(2 * sum(np.array([1, 10, 45, 120])) / 2**10)  # binomial(10, 1/2), both tails


# Newcombe (1998), table II, method 10, of n = 10: 9/10 against 3/10, and 10/10 against 0/10.
@pytest.mark.parametrize(("b", "a", "low", "high"), [(0.9, 0.3, 0.1705, 0.8090), (1.0, 0.0, 0.6075, 1.0)])
def test_unpaired_is_newcombes(a: float, b: float, low: float, high: float) -> None:
    found = unpaired_change(a, b, 10)
    assert found.ci95 == pytest.approx((low, high), abs=5e-5)
    assert not found.paired
    assert found.p is None


def test_paired_is_narrower_than_unpaired_where_answers_are_alike() -> None:
    a = np.arange(500) % 10 != 0
    b = a.copy()
    b[:3] = ~b[:3]
    low, high = paired_change(a, b).ci95
    wide_low, wide_high = unpaired_change(float(a.mean()), float(b.mean()), 500).ci95
    assert high - low < (wide_high - wide_low) / 2


def test_nothing_to_compare_is_an_error() -> None:
    with pytest.raises(InputError, match="0 images"):
        unpaired_change(0.0, 0.0, 0)


def machine(rng: np.random.Generator, median: float) -> list[float]:
    """Ten stretches of ten samples; a stretch has a state of its own."""
    state = rng.normal(1.0, 0.03, size=(10, 1))
    return list((median * state * rng.lognormal(0.0, 0.02, size=(10, 10))).ravel())


def test_the_ratios_interval_holds_the_truth() -> None:
    rng = np.random.default_rng(5)
    held = 0
    for _ in range(100):
        found = latency_ratio(machine(rng, 2.0), machine(rng, 1.5))
        assert found is not None
        held += found[1][0] <= 0.75 <= found[1][1]
    assert 85 <= held <= 100


def test_the_same_samples_give_the_same_interval_around_one() -> None:
    samples = machine(np.random.default_rng(0), 1.0)
    found = latency_ratio(samples, samples)
    assert found == latency_ratio(samples, samples)
    assert found is not None
    assert found[0] == 1.0
    assert found[1][0] < 1.0 < found[1][1]


@pytest.mark.parametrize("samples", [[1.0] * 49, [0.0] + [1.0] * 99])
def test_too_few_or_impossible_samples_give_no_interval(samples: list[float]) -> None:
    assert latency_ratio(samples, [1.0] * 100) is None
