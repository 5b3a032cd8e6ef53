"""Intervals: the accuracy difference of paired classifiers, a median latency, and the ratio of two."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from cspedge.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Z95 = 1.959963984540054  # the standard normal's 97.5 % point


def share_interval(hits: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a share of `hits` in n (JASA 22, 1927, 209-212), n at least 1."""
    from scipy.stats import binomtest

    found = binomtest(hits, n).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def paired_drop_interval(reference_correct: NDArray[np.bool_], other_correct: NDArray[np.bool_]) -> tuple[float, float]:
    """95 % interval of the accuracy drop (reference minus other) of two classifiers on the same images.

    reference_correct, other_correct: bool [n], whether each was right on image i. Returns (low, high) in fractions;
    above 0 the other is worse.

    Method: the score test of Tango (1998), Statistics in Medicine 17:891-908, inverted. With b images right only in
    the reference and c only in the other, the interval is every drop d in [-1, 1] that the test does not reject:
    |b - c - n d| <= z sqrt(n (2 q + d (1 - d))), q being the maximum-likelihood probability of "right only in the
    other" under the restriction that the drop is d.

    Why it holds for small n: the variance is the one under the hypothesised drop, not the one estimated from the
    sample. So it does not vanish where the two never differ (b = c = 0 gives +-z^2/(n + z^2), not the zero width of
    the Wald interval, which would call 20 equal answers proof of no loss), the limits stay in [-1, 1], and coverage
    stays near 95 %: summed exactly over a grid of true probabilities for n = 20 to 50 it is never below 92.8 % and
    95 to 96 % on average. Only the discordant images carry information on the drop, which makes pairing worth having.

    It speaks of images drawn like these, independently; it knows nothing of frames from one video, or of images
    unlike the validation set. Raises InputError on unequal shapes, no images, or a dtype other than bool.
    """
    for name, values in (("reference_correct", reference_correct), ("other_correct", other_correct)):
        if values.ndim != 1 or values.dtype != np.bool_:
            raise InputError(f"{name} is {values.dtype} of shape {list(values.shape)}; needed is bool [images]")
    n = len(reference_correct)
    if n == 0 or len(other_correct) != n:
        raise InputError(
            f"a paired interval needs the same images on both sides and at least one; "
            f"got {n} for the reference and {len(other_correct)} for the other"
        )
    b = int(np.sum(reference_correct & ~other_correct))
    c = int(np.sum(~reference_correct & other_correct))
    return tango_interval(b, c, n)


def tango_interval(b: int, c: int, n: int) -> tuple[float, float]:
    """Tango's 95 % score interval of (b - c)/n from the two discordant counts of n pairs (b, c >= 0, b + c <= n)."""
    # Swapping the two classifiers mirrors the problem, so one end is enough and symmetry is exact.
    upper = _upper_limit(b, c, n)
    lower = -_upper_limit(c, b, n)
    return (lower + 0.0, upper)  # + 0.0: no "-0.0" in a report


def excess_p(b: int, c: int, n: int, allowed: float) -> float:
    """One-sided p of Tango's score test that the drop is no more than `allowed`, a fraction in [0, 1), from the counts.

    Small where the observed drop (b - c)/n is above `allowed` by more than chance explains; b, c, n: as in
    `tango_interval`, whose lower end is above `allowed` exactly where this is below 0.025.
    """
    observed = b - c - n * allowed
    variance = n * (2.0 * _restricted_q(allowed, b, c, n) + allowed * (1.0 - allowed))
    if variance <= 0.0:  # no image differs and no drop is allowed: nothing speaks against it
        return 1.0 if observed <= 0.0 else 0.0
    return math.erfc(observed / math.sqrt(2.0 * variance)) / 2.0


def mcnemar_p(b: int, c: int) -> float:
    """Two-sided p of the exact McNemar test (Psychometrika 12, 1947, 153-157) from the two discordant counts.

    Where neither classifier is better, an image that only one gets right is as likely either's: b of b + c is binomial
    with 1/2. 1 where there are none.
    """
    from scipy.stats import binomtest

    return float(binomtest(b, b + c, 0.5).pvalue) if b + c else 1.0


def _restricted_q(d: float, b: int, c: int, n: int) -> float:
    """Maximum-likelihood estimate of P(right only in the other) where the drop is d (Tango's equation for q21)."""
    linear = -b - c + (2 * n - b + c) * d
    constant = -c * d * (1.0 - d)
    root = math.sqrt(max(linear * linear - 8.0 * n * constant, 0.0))
    # Two forms of the same root of 2n q^2 + linear q + constant = 0; each is used where nothing cancels.
    if linear > 0.0:
        return -2.0 * constant / (root + linear)
    return (root - linear) / (4.0 * n)


def _excess(d: float, b: int, c: int, n: int) -> float:
    """How far the drop d lies above the observed one, less the z standard errors the test allows it."""
    variance = n * (2.0 * _restricted_q(d, b, c, n) + d * (1.0 - d))
    return n * d - (b - c) - Z95 * math.sqrt(max(variance, 0.0))


def _upper_limit(b: int, c: int, n: int) -> float:
    from scipy.optimize import brentq

    z2 = Z95 * Z95
    # Where the sample has no variance of its own the observed drop is a second root, which brentq would return.
    # These three cases have closed forms.
    if b == n:
        return 1.0
    if b == c == 0:
        return z2 / (n + z2)
    if c == n:
        return (z2 - n) / (z2 + n)
    return float(brentq(_excess, (b - c) / n, 1.0, args=(b, c, n), xtol=1e-15, rtol=1e-14, maxiter=200))


def bootstrap_ratio(
    a_ms: NDArray[np.float64], b_ms: NDArray[np.float64], *, seed: int, resamples: int = 2000
) -> tuple[float, tuple[float, float]]:
    """Ratio of medians a/b with a 95 % percentile bootstrap interval (Efron 1979) over rounds.

    a_ms, b_ms: milliseconds, [rounds, per_round], measured interleaved, so that row i of both is one stretch of time
    (`cspedge.evaluate.latency.bench`). With a the fp32 and b the int8 artifact the ratio is the speed-up.

    Rounds are resampled, not samples, and the same rounds for both sides. Samples inside a round share the machine's
    state (clock frequency, a neighbour's load, what lies in the caches): taken as independent they give an interval
    far too narrow (in the tests' simulation it holds the truth 44 times in 100, over rounds 92 times). What slowed a
    round slowed both artifacts, so keeping the round's two halves together lets it cancel in the ratio. With fewer
    than about 8 rounds there are few distinct resamples and the interval is too narrow: use 10 rounds or more.

    The same seed gives the same interval. Raises InputError on other shapes, unequal rounds, fewer than two rounds,
    samples that are not positive and finite, or no resamples.
    """
    for name, values in (("a_ms", a_ms), ("b_ms", b_ms)):
        if values.ndim != 2 or values.shape[0] < 2 or values.shape[1] < 1:
            raise InputError(f"{name} has shape {list(values.shape)}; needed is [rounds >= 2, per_round >= 1]")
        if not (np.isfinite(values).all() and (values > 0.0).all()):
            raise InputError(f"{name} holds latencies that are not positive and finite; the clock cannot be trusted")
    rounds = a_ms.shape[0]
    if b_ms.shape[0] != rounds:
        raise InputError(f"a_ms has {rounds} rounds and b_ms {b_ms.shape[0]}; they must be of one interleaved run")
    if resamples < 1:
        raise InputError(f"resamples is {resamples}; allowed is 1 and above")
    picks = np.random.default_rng(seed).integers(0, rounds, size=(resamples, rounds))
    ratios = np.median(a_ms[picks], axis=(1, 2)) / np.median(b_ms[picks], axis=(1, 2))
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(np.median(a_ms) / np.median(b_ms)), (float(low), float(high))


def bootstrap_median(ms: NDArray[np.float64], *, seed: int, resamples: int = 2000) -> tuple[float, float]:
    """95 % percentile bootstrap interval (Efron 1979) of the median of ms [rounds, per_round].

    Rounds are resampled, not samples, as in `bootstrap_ratio`. Raises InputError where there are fewer than two rounds.
    """
    if ms.ndim != 2 or ms.shape[0] < 2 or ms.shape[1] < 1:
        raise InputError(f"latencies have shape {list(ms.shape)}; needed is [rounds >= 2, per_round >= 1]")
    picks = np.random.default_rng(seed).integers(0, len(ms), size=(resamples, len(ms)))
    low, high = np.percentile(np.median(ms[picks], axis=(1, 2)), [2.5, 97.5])
    return float(low), float(high)
