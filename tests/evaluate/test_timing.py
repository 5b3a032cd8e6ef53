"""The report's figures from raw times, the A/A test, and a Latency through JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cspedge.digest import canonical_json
from cspedge.errors import InputError
from cspedge.evaluate.noise import WIDEST, check
from cspedge.evaluate.stats import bootstrap_median
from cspedge.evaluate.timing import BenchProtocol, Timed, latency_from, summarise, with_sweep
from cspedge.measured import Latency

FRESH = BenchProtocol.FRESH_PROCESS
COUNTED = np.arange(1.0, 101.0).reshape(10, 10)


def _timed(samples: NDArray[np.float64], **more: Any) -> Timed:
    return replace(Timed(samples_ms=samples, load_ms=(12.5,)), **more)


def _summary(timed: Timed, **more: Any) -> Latency:
    return summarise(timed, device="host", isa=("avx2",), threads=2, protocol=FRESH, seed=1, **more)


def test_summary_of_known_samples() -> None:
    cold = {"load_ms": (10.0, 20.0, 30.0), "first_ms": (5.0, 1.0, 9.0)}
    latency = _summary(_timed(COUNTED, peak_rss_mb=80.0, **cold), fp32=_timed(COUNTED * 3.0), cores=(1, 3))
    assert (latency.p50_ms, latency.mean_ms, latency.load_ms) == (50.5, 50.5, 20.0)
    assert (latency.p90_ms, latency.p99_ms) == pytest.approx((90.1, 99.01))
    assert latency.samples_ms == tuple(float(v) for v in range(1, 101))
    assert latency.speedup_vs_fp32 == 3.0
    assert latency.speedup_ci95 == pytest.approx((3.0, 3.0))
    assert latency.cold is not None
    assert (latency.cold.first_ms, latency.cold.total_ms) == (5.0, 21.0)
    assert latency.cold.total_ci95 == (15.0, 39.0)
    assert (latency.protocol, latency.cores, latency.peak_rss_mb) == ("fresh-process", (1, 3), 80.0)


def test_a_latency_comes_back_from_json() -> None:
    timed = _timed(COUNTED, warmup_ms=((1.0, 2.0), (3.0,)), unsteady=1, first_ms=(4.0,), base_rss_mb=20.0)
    found = _summary(timed, noise=check("a/int8", timed, _timed(COUNTED * 1.5), seed=1), cores=(0,))
    found = with_sweep(found, {4: (timed, (0, 1, 2, 3)), 2: (_timed(COUNTED * 2.0), None)}, seed=1)
    assert [point.threads for point in found.sweep] == [2, 4]
    assert latency_from(json.loads(canonical_json(asdict(found)))) == found


def test_without_a_baseline_or_processes_there_are_no_such_figures() -> None:
    latency = _summary(_timed(COUNTED))
    assert (latency.speedup_vs_fp32, latency.speedup_ci95, latency.cold, latency.noise) == (None,) * 4
    assert _summary(_timed(COUNTED[:1])).p50_ci95 is None


@pytest.mark.parametrize("samples", [np.zeros((0, 5)), np.ones(50), np.full((2, 5), np.nan), np.full((2, 5), -1.0)])
def test_summary_refuses_impossible_samples(samples: NDArray[np.float64]) -> None:
    with pytest.raises(InputError, match="latency samples"):
        _summary(_timed(samples))


def test_the_interval_of_a_median_is_over_rounds() -> None:
    """Rounds that differ and samples within them that do not: as many numbers, and far less known."""
    rng = np.random.default_rng(5)
    rounds = np.repeat(rng.normal(10.0, 1.0, size=(10, 1)), 10, axis=1)
    low, high = bootstrap_median(rounds, seed=0)
    assert low <= np.median(rounds) <= high
    shuffled = rng.permutation(rounds.ravel()).reshape(10, 10)
    near, far = bootstrap_median(shuffled, seed=0)
    assert high - low > 2 * (far - near)
    assert bootstrap_median(rounds, seed=0) == (low, high)
    with pytest.raises(InputError, match="rounds >= 2"):
        bootstrap_median(rounds[:1], seed=0)


@pytest.mark.parametrize(
    ("other", "conclusive", "words"),
    [
        (COUNTED, True, None),
        (
            COUNTED * 1.2,
            False,
            "itself came out at 0.83 to 0.83 times its own speed, which should hold 1",
        ),
        (COUNTED[::-1], False, f"an interval wider than {WIDEST}"),  # rounds that have nothing to do with each other
    ],
)
def test_an_artifact_beside_itself(other: NDArray[np.float64], conclusive: bool, words: str | None) -> None:
    found = check("a/int8", _timed(COUNTED), _timed(other), seed=0)
    assert (found.artifact, found.conclusive) == ("a/int8", conclusive)
    if words is None:
        assert (found.reason, found.sentence) == (None, None)
    else:
        assert found.reason is not None
        assert words in found.reason
        assert found.sentence is not None
        assert found.sentence.startswith("Too noisy to conclude about speed: a/int8 beside itself")


def test_the_test_rarely_refuses_where_there_is_no_difference_and_sees_one_that_there_is() -> None:
    """Simulated benches with the machine's state in each round, as in the test of the ratio's interval."""
    rng = np.random.default_rng(3)

    def refused(slower: float) -> int:
        state = np.exp(rng.normal(0.0, 0.15, size=(10, 1)))  # of the round, for both
        one, other = (state * np.exp(rng.normal(0.0, 0.03, size=(10, 10))) for _ in range(2))
        return int(not check("a", _timed(one), _timed(other * slower), seed=0).conclusive)

    assert sum(refused(1.0) for _ in range(200)) <= 30
    assert sum(refused(1.1) for _ in range(50)) >= 45
