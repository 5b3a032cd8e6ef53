"""Intervals of a difference between two runs of one thing: paired by image where that is known, latency by stretch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cspedge.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

STRETCHES = 10  # of consecutive samples; as many as the bench's rounds
LEAST_SAMPLES = 5 * STRETCHES
RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class ShareChange:
    """Share of images in run B less that in run A, with its 95 % interval.

    paired: whether both runs are known image by image; only_a, only_b, p: then the discordant images and the exact
    McNemar p, else None.
    """

    change: float
    ci95: tuple[float, float]
    paired: bool
    only_a: int | None = None
    only_b: int | None = None
    p: float | None = None


def paired_change(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> ShareChange:
    """Of bool [n] of the same images in the same order: Tango's score interval and the exact McNemar test.

    Raises InputError on unequal shapes or no images.
    """
    from cspedge.evaluate.stats import mcnemar_p, paired_drop_interval

    low, high = paired_drop_interval(b, a)
    only_a, only_b = int(np.sum(a & ~b)), int(np.sum(~a & b))
    return ShareChange(
        change=(only_b - only_a) / len(a),
        ci95=(low, high),
        paired=True,
        only_a=only_a,
        only_b=only_b,
        p=mcnemar_p(only_a, only_b),
    )


def unpaired_change(a: float, b: float, n: int) -> ShareChange:
    """Of two shares of n images each, by Newcombe's hybrid score interval (Statistics in Medicine 17, 1998, 873-890).

    It takes the two for independent. On the same images they are not, and the interval is wider than a paired one.
    Raises InputError where n is 0.
    """
    from cspedge.evaluate.stats import share_interval

    if n < 1:
        raise InputError("shares of 0 images have no interval; validate on at least one image")
    (low_a, high_a), (low_b, high_b) = (share_interval(round(share * n), n) for share in (a, b))
    change = b - a
    low = change - float(np.hypot(b - low_b, high_a - a))
    high = change + float(np.hypot(high_b - b, a - low_a))
    return ShareChange(change=change, ci95=(max(low, -1.0), min(high, 1.0)), paired=False)


def latency_ratio(
    a_ms: Sequence[float], b_ms: Sequence[float], *, seed: int = 0
) -> tuple[float, tuple[float, float]] | None:
    """Median of b over median of a, with a 95 % percentile bootstrap interval (Efron 1979); None with too few samples.

    a_ms, b_ms: positive milliseconds in the order measured. Each side's STRETCHES parts of consecutive samples are
    drawn anew, apart from the other's: the two runs were not interleaved, so nothing that slowed one slowed the other,
    and what differed between the runs as a whole (clock, neighbours, temperature) is in no interval.
    """
    if min(len(a_ms), len(b_ms)) < LEAST_SAMPLES or min(min(a_ms), min(b_ms)) <= 0:
        return None
    rng = np.random.default_rng(seed)
    drawn = [_medians(np.asarray(side, np.float64), rng) for side in (a_ms, b_ms)]
    low, high = np.percentile(drawn[1] / drawn[0], [2.5, 97.5])
    return float(np.median(b_ms) / np.median(a_ms)), (float(low), float(high))


def _medians(samples: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    length = len(samples) // STRETCHES  # the first few of a remainder are left out
    parts = samples[-length * STRETCHES :].reshape(STRETCHES, length)
    picks = rng.integers(0, STRETCHES, size=(RESAMPLES, STRETCHES))
    found: NDArray[np.float64] = np.median(parts[picks], axis=(1, 2))
    return found
