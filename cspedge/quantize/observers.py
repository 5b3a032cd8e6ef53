"""Observers: how an activation's range is chosen from its histogram."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from cspedge.quantize.encodings import QMAX, QMIN

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Values = NDArray[np.float64]

BINS = 2048  # eight bins to a step of the widest 8-bit range


class Observer(StrEnum):
    """How the range of an activation is chosen.

    minmax: observed extremes; percentile: so many per cent of the values inside; mse: the range of least squared error;
    entropy: the range whose 256 steps keep most of the distribution (least Kullback-Leibler divergence).
    """

    MINMAX = "minmax"
    PERCENTILE = "percentile"
    MSE = "mse"
    ENTROPY = "entropy"


def choose_range(
    counts: NDArray[np.int64],
    lo: float,
    hi: float,
    observer: Observer,
    through: Callable[[Values], Values] | None = None,
    percentile: float = 99.99,
) -> tuple[float, float]:
    """The range to encode. counts: int64 [BINS] over [lo, hi], equal widths.

    through: the activation that alone reads the tensor; `mse` takes the squared error after it, since an error where
    h-swish is flat costs nothing. percentile: how many per cent of the values lie inside, the rest half on each side.
    """
    import numpy as np

    if observer is Observer.MINMAX or hi <= lo or counts.sum() == 0:
        return lo, hi
    centers = lo + (np.arange(BINS) + 0.5) * (hi - lo) / BINS
    if observer is Observer.PERCENTILE:
        cumulative, tail = np.cumsum(counts) / counts.sum(), (100.0 - percentile) / 200.0
        inside = centers[(cumulative >= tail) & (cumulative <= 1.0 - tail)]
        return (float(inside[0]), float(inside[-1])) if len(inside) else (lo, hi)
    if observer is Observer.ENTROPY:
        counts = _without_spikes(counts, lo, hi)
    used = counts > 0
    mass, places = counts[used].astype(np.float64), centers[used]
    if observer is Observer.ENTROPY:
        return _search(_divergence(mass, places, (hi - lo) / BINS), lo, hi)
    return _search(_squared_error(mass, places, through), lo, hi)


def _without_spikes(counts: NDArray[np.int64], lo: float, hi: float) -> NDArray[np.int64]:
    """Zero and the ends, where activations and clips pile values up, count no more than the bins beside them.

    These values have a code of their own in any case; spread over the bins of their step they would outweigh all else
    (NVIDIA's calibrator in pytorch-quantization sets the bin of zero to its neighbour for the same reason).
    """
    found = counts.copy()
    zero = int(-lo / (hi - lo) * BINS)
    for place in {0, min(max(zero, 0), BINS - 1), BINS - 1}:
        beside = [counts[i] for i in (place - 1, place + 1) if 0 <= i < BINS]
        found[place] = min(counts[place], max(beside))
    return found


def _codes(centers: Values, a: float, b: float) -> tuple[Values, float, float]:
    """The codes of `centers` in the encoding of [a, b], its scale and its zero point."""
    import numpy as np

    a, b = min(a, 0.0), max(b, 0.0)
    scale = max((b - a) / (QMAX - QMIN), 1e-12)
    zero = float(np.clip(np.rint(QMIN - a / scale), QMIN, QMAX))
    return np.clip(np.rint(centers / scale) + zero, QMIN, QMAX), scale, zero


def _squared_error(
    mass: Values, centers: Values, through: Callable[[Values], Values] | None
) -> Callable[[float, float], float]:
    """The squared error of encoding [a, b], after `through`."""
    import numpy as np

    target = centers if through is None else through(centers)

    def error(a: float, b: float) -> float:
        codes, scale, zero = _codes(centers, a, b)
        back = scale * (codes - zero)
        found = back if through is None else through(back)
        return float(np.dot(mass, (found - target) ** 2))

    return error


def _divergence(mass: Values, centers: Values, width: float) -> Callable[[float, float], float]:
    """The Kullback-Leibler divergence that encoding [a, b] leaves (Migacz, 8-bit inference with TensorRT, GTC 2017).

    As TensorRT and MXNet compute it, here for both ends of an asymmetric range: the clipped distribution, what lies
    outside counted at the ends, against the one whose steps spread what lies inside evenly over their occupied bins.
    Ranges of fewer bins than steps are not compared: their rounding would not show. width: of a bin.
    """
    import numpy as np

    def error(a: float, b: float) -> float:
        if max(b, 0.0) - min(a, 0.0) < (QMAX - QMIN + 1) * width:
            return float("inf")
        codes, scale, zero = _codes(centers, a, b)
        inside = np.flatnonzero(np.abs(scale * (codes - zero) - centers) <= scale / 2 * (1 + 1e-9))
        if not len(inside):
            return float("inf")
        steps, clipped = (codes[inside] - QMIN).astype(np.int64), mass[inside].copy()
        kept = np.bincount(steps, clipped)[steps] / np.bincount(steps)[steps]
        clipped[0] += mass[: inside[0]].sum()
        clipped[-1] += mass[inside[-1] + 1 :].sum()
        return float(np.dot(clipped / clipped.sum(), np.log(clipped / clipped.sum() * kept.sum() / kept)))

    return error


def _search(error: Callable[[float, float], float], lo: float, hi: float) -> tuple[float, float]:
    """Coordinate search over shrunken ends, coarse to fine: each end at up to 32 places, three sweeps."""
    import numpy as np

    best = (error(lo, hi), lo, hi)
    span = 0.7
    center_a, center_b = 1.0, 1.0
    for _ in range(3):
        grid_b = np.unique(np.clip(np.linspace(center_b - span, center_b + span, 33), 0.05, 1.0))
        best = min([best] + [(error(best[1], hi * g), best[1], hi * float(g)) for g in grid_b])
        grid_a = np.unique(np.clip(np.linspace(center_a - span, center_a + span, 33), 0.05, 1.0))
        best = min([best] + [(error(lo * g, best[2]), lo * float(g), best[2]) for g in grid_a])
        center_a = best[1] / lo if lo else 1.0
        center_b = best[2] / hi if hi else 1.0
        span /= 6
    return best[1], best[2]


def activation_function(name: str, arguments: Sequence[Any] = ()) -> Callable[[Values], Values] | None:
    """The element-wise function of an ATen activation, for errors taken after it; None for one that is not listed.

    arguments: those after the tensor, of which only leaky_relu's slope counts.
    """
    import numpy as np

    slope = float(arguments[0]) if name == "leaky_relu" and arguments else 0.01
    table: dict[str, Callable[[Values], Values]] = {
        "relu": lambda x: np.maximum(x, 0.0),
        "leaky_relu": lambda x: np.where(x > 0.0, x, slope * x),
        "hardswish": lambda x: x * np.clip(x + 3.0, 0.0, 6.0) / 6.0,
        "hardsigmoid": lambda x: np.clip(x + 3.0, 0.0, 6.0) / 6.0,
        "silu": lambda x: x / (1.0 + np.exp(-np.clip(x, -80.0, 80.0))),
        "sigmoid": lambda x: 1.0 / (1.0 + np.exp(-np.clip(x, -80.0, 80.0))),
    }
    return table.get(name)
