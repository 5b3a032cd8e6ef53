"""Tango's interval against a published figure, its own definition and exact coverage; the round bootstrap."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import norm

from cspedge.errors import InputError
from cspedge.evaluate.stats import Z95, bootstrap_ratio, excess_p, paired_drop_interval, share_interval, tango_interval


@st.composite
def tables(draw: st.DrawFn, largest: int = 400) -> tuple[int, int, int]:
    n = draw(st.integers(1, largest))
    b = draw(st.integers(0, n))
    return b, draw(st.integers(0, n - b)), n


def likelihood_score(d: float, b: int, c: int, n: int) -> float:
    """The score statistic at drop d, with the restricted maximum found by search instead of by Tango's formula."""
    from scipy.optimize import brentq

    low, high = max(0.0, -d), (1.0 - d) / 2.0  # of q, the probability of "right only in the other"

    def slope(q: float) -> float:
        both_same = -2.0 * (n - b - c) / (1.0 - 2.0 * q - d) if n > b + c else 0.0
        return (b / (q + d) if b else 0.0) + (c / q if c else 0.0) + both_same

    edge = (high - low) * 1e-13
    if slope(low + edge) <= 0.0:
        q = low
    elif slope(high - edge) >= 0.0:
        q = high
    else:
        q = brentq(slope, low + edge, high - edge, xtol=1e-16, rtol=1e-14)
    return (b - c - n * d) / math.sqrt(n * (2.0 * q + d * (1.0 - d)))


def test_published_example() -> None:
    """Cavo et al. 2012 (59, 6, 16, 80) in Fagerland, Lydersen and Laake's contingencytables: -0.1240 to -0.0054."""
    low, high = tango_interval(6, 16, 161)
    assert round(low, 4) == -0.1240
    assert round(high, 4) == -0.0054


@pytest.mark.parametrize(
    ("b", "c", "n"), [(6, 16, 161), (1, 7, 21), (0, 1, 44), (3, 0, 20), (10, 10, 20), (1, 0, 1000), (30, 2, 897)]
)
def test_both_ends_are_where_the_score_test_stops_rejecting(b: int, c: int, n: int) -> None:
    low, high = tango_interval(b, c, n)
    assert likelihood_score(low, b, c, n) == pytest.approx(Z95, abs=1e-6)  # the search is good to about 1e-7
    assert likelihood_score(high, b, c, n) == pytest.approx(-Z95, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(tables(60))
def test_the_interval_is_the_set_of_drops_not_rejected(table: tuple[int, int, int]) -> None:
    b, c, n = table
    low, high = tango_interval(b, c, n)
    for d in np.linspace(-0.995, 0.995, 80):
        if min(abs(d - low), abs(d - high)) > 1e-4:
            assert (abs(likelihood_score(float(d), b, c, n)) < Z95) == (low < d < high)


@given(tables())
def test_ends_satisfy_the_score_equation_exactly(table: tuple[int, int, int]) -> None:
    from cspedge.evaluate.stats import _excess

    b, c, n = table
    low, high = tango_interval(b, c, n)
    assert abs(_excess(high, b, c, n)) / n < 1e-9
    assert abs(_excess(-low, c, b, n)) / n < 1e-9


@given(tables())
def test_inside_minus_one_to_one_with_the_estimate_and_a_width(table: tuple[int, int, int]) -> None:
    b, c, n = table
    low, high = tango_interval(b, c, n)
    assert -1.0 <= low <= (b - c) / n <= high <= 1.0
    assert low < high


@given(tables())
def test_swapping_the_classifiers_mirrors_it(table: tuple[int, int, int]) -> None:
    b, c, n = table
    low, high = tango_interval(b, c, n)
    assert tango_interval(c, b, n) == (-high, -low)


@pytest.mark.parametrize("n", [1, 20, 359, 10_000])
def test_no_discordant_pair_still_has_a_width(n: int) -> None:
    width = Z95**2 / (n + Z95**2)
    assert tango_interval(0, 0, n) == pytest.approx((-width, width), abs=1e-12)


@pytest.mark.parametrize("n", [1, 5, 50])
def test_all_discordant_one_way(n: int) -> None:
    assert tango_interval(n, 0, n) == pytest.approx(((n - Z95**2) / (n + Z95**2), 1.0))
    assert tango_interval(0, n, n) == pytest.approx((-1.0, (Z95**2 - n) / (n + Z95**2)))


def test_closed_forms_join_their_neighbours() -> None:
    """The three special cases are limits of the general one, not exceptions from it."""
    n = 200_000
    assert tango_interval(1, 0, n)[1] == pytest.approx(tango_interval(0, 0, n)[1], abs=2e-5)
    assert tango_interval(0, n - 1, n)[1] == pytest.approx(tango_interval(0, n, n)[1], abs=2e-5)


@cache
def _all_intervals(n: int) -> NDArray[np.float64]:
    rows = [(b, c, *tango_interval(b, c, n)) for b in range(n + 1) for c in range(n + 1 - b)]
    return np.array(rows, dtype=np.float64)


@pytest.mark.parametrize("n", [20, 35, 50])
@pytest.mark.parametrize(
    ("p_b", "p_c"), [(0.01, 0.01), (0.05, 0.01), (0.02, 0.13), (0.1, 0.1), (0.3, 0.05), (0.2, 0.2), (0.45, 0.45)]
)
def test_exact_coverage(n: int, p_b: float, p_c: float) -> None:
    """Summed over every possible table, not simulated: the probability that the interval holds the true drop."""
    from scipy.stats import multinomial

    b, c, low, high = _all_intervals(n).T
    weight = multinomial.pmf(np.stack([b, c, n - b - c], axis=1), n, [p_b, p_c, 1.0 - p_b - p_c])
    drop = p_b - p_c
    covered = (low <= drop + 1e-12) & (drop - 1e-12 <= high)
    assert weight.sum() == pytest.approx(1.0)
    assert weight[covered].sum() >= 0.93


def test_simulated_coverage_through_the_public_function() -> None:
    """Two correlated classifiers, 30 images, true drop 5 points: 2,000 seeded draws."""
    rng = np.random.default_rng(7)
    hits = 0
    for _ in range(2000):
        reference = rng.random(30) < 0.85
        other = np.where(rng.random(30) < 0.8, reference, rng.random(30) < 0.60)  # P = 0.8 * 0.85 + 0.2 * 0.6 = 0.80
        low, high = paired_drop_interval(reference, other)
        hits += low <= 0.05 <= high
    assert hits / 2000 >= 0.93


def test_counts_are_of_the_right_cells() -> None:
    reference = np.array([1, 1, 1, 0, 0, 1], dtype=np.bool_)
    other = np.array([1, 0, 0, 1, 0, 1], dtype=np.bool_)
    assert paired_drop_interval(reference, other) == tango_interval(2, 1, 6)


@pytest.mark.parametrize(
    ("reference", "other"),
    [
        (np.zeros(0, np.bool_), np.zeros(0, np.bool_)),
        (np.zeros(3, np.bool_), np.zeros(4, np.bool_)),
        (np.zeros((3, 1), np.bool_), np.zeros((3, 1), np.bool_)),
        (np.zeros(3, np.int64), np.zeros(3, np.bool_)),
    ],
)
def test_unusable_answers(reference: NDArray[np.bool_], other: NDArray[np.bool_]) -> None:
    with pytest.raises(InputError, match=r"needed is bool|needs the same images"):
        paired_drop_interval(reference, other)


def _noisy(rng: np.random.Generator, rounds: int, per_round: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two artifacts, a twice as slow as b, under a load that changes from round to round and hits both."""
    load = np.exp(rng.normal(0.0, 0.3, size=(rounds, 1)))
    a = 2.0 * load * np.exp(rng.normal(0.0, 0.05, size=(rounds, per_round)))
    b = 1.0 * load * np.exp(rng.normal(0.0, 0.05, size=(rounds, per_round)))
    return a, b


def test_ratio_of_constants_is_exact() -> None:
    ratio, interval = bootstrap_ratio(np.full((5, 10), 3.0), np.full((5, 10), 2.0), seed=0)
    assert ratio == 1.5
    assert interval == (1.5, 1.5)


def test_ratio_is_of_medians_and_seeded() -> None:
    a, b = _noisy(np.random.default_rng(1), 12, 10)
    ratio, interval = bootstrap_ratio(a, b, seed=3)
    assert ratio == np.median(a) / np.median(b)
    assert interval[0] <= ratio <= interval[1]
    assert bootstrap_ratio(a, b, seed=3) == (ratio, interval)
    assert bootstrap_ratio(a, b, seed=4)[1] != interval


def test_an_outlier_does_not_move_it_much() -> None:
    a, b = _noisy(np.random.default_rng(2), 12, 10)
    spoiled = a.copy()
    spoiled[3, 4] = 1000.0
    assert bootstrap_ratio(spoiled, b, seed=0)[0] == pytest.approx(bootstrap_ratio(a, b, seed=0)[0], rel=0.05)


def test_a_load_both_share_cancels() -> None:
    """Each round's two halves stay together: pairing rounds at random instead gives wider intervals."""
    rng = np.random.default_rng(5)
    covered = wider = 0
    for trial in range(100):
        a, b = _noisy(rng, 12, 10)
        low, high = bootstrap_ratio(a, b, seed=trial, resamples=300)[1]
        covered += low <= 2.0 <= high
        apart_low, apart_high = bootstrap_ratio(a, rng.permutation(b), seed=trial, resamples=300)[1]
        wider += apart_high - apart_low > high - low
    assert covered >= 85
    assert wider >= 85


def test_rounds_not_samples_are_the_unit() -> None:
    """Where a round's samples move together, resampling single samples claims a precision that is not there."""
    rng = np.random.default_rng(6)
    by_round = by_sample = 0
    for trial in range(100):
        a = 2.0 * np.exp(rng.normal(0.0, 0.2, (15, 1)) + rng.normal(0.0, 0.02, (15, 10)))
        b = np.exp(rng.normal(0.0, 0.2, (15, 1)) + rng.normal(0.0, 0.02, (15, 10)))
        low, high = bootstrap_ratio(a, b, seed=trial, resamples=300)[1]
        by_round += low <= 2.0 <= high
        low, high = bootstrap_ratio(a.reshape(-1, 1), b.reshape(-1, 1), seed=trial, resamples=300)[1]
        by_sample += low <= 2.0 <= high
    assert by_round >= 85
    assert by_sample <= 75


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (np.ones(10), np.ones((2, 5)), r"a_ms has shape \[10\]"),
        (np.ones((1, 50)), np.ones((1, 50)), "rounds >= 2"),
        (np.ones((3, 5)), np.ones((2, 5)), "3 rounds and b_ms 2"),
        (np.ones((2, 5)), np.zeros((2, 5)), "b_ms holds latencies that are not positive"),
        (np.full((2, 5), np.nan), np.ones((2, 5)), "a_ms holds latencies"),
    ],
)
def test_unusable_samples(a: NDArray[np.float64], b: NDArray[np.float64], message: str) -> None:
    with pytest.raises(InputError, match=message):
        bootstrap_ratio(a, b, seed=0)


def test_no_resamples() -> None:
    with pytest.raises(InputError, match="resamples is 0"):
        bootstrap_ratio(np.ones((2, 5)), np.ones((2, 5)), seed=0, resamples=0)


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"), [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)]
)
def test_wilson_interval(hits: int, n: int, low: float, high: float) -> None:
    """Newcombe, Statistics in Medicine 17 (1998) 857-872, table I, method 3."""
    assert share_interval(hits, n) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("b", "c", "n"), [(12, 3, 200), (40, 10, 1329), (5, 0, 50), (3, 3, 100), (0, 4, 60)])
def test_the_excess_test_is_the_intervals_own(b: int, c: int, n: int) -> None:
    """Its p is 2.5 % at either end of the interval, a half at the observed drop, and McNemar's with none allowed."""
    low, high = tango_interval(b, c, n)
    if low > 0:
        assert excess_p(b, c, n, low) == pytest.approx(0.025, abs=1e-9)
    if b > c:
        assert excess_p(b, c, n, (b - c) / n) == pytest.approx(0.5)
    assert excess_p(b, c, n, high) == pytest.approx(0.975, abs=1e-9)
    assert excess_p(b, c, n, 0.0) == pytest.approx(norm.sf((b - c) / math.sqrt(b + c)))


def test_where_nothing_differs_nothing_is_in_excess() -> None:
    assert excess_p(0, 0, 100, 0.0) == 1.0
    assert excess_p(0, 0, 100, 0.01) > 0.5
