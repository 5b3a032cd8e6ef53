"""Observers: how an activation's range is chosen from its histogram."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING

from cspedge.quantize.encodings import QMAX, QMIN

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BINS = 2048  # eight bins to a step of the widest 8-bit range


class Observer(StrEnum):
    """minmax: observed extremes; percentile: 99.99 % of the values inside; mse: the range of least squared error."""

    MINMAX = "minmax"
    PERCENTILE = "percentile"
    MSE = "mse"


def choose_range(
    counts: NDArray[np.int64],
    lo: float,
    hi: float,
    observer: Observer,
    through: Callable[[NDArray[np.float64]], NDArray[np.float64]] | None = None,
) -> tuple[float, float]:
    """The range to encode. counts: int64 [BINS] over [lo, hi], equal widths.

    through: the activation that alone reads the tensor; the squared error is then taken after it, since an error
    where h-swish is flat costs nothing.
    """
    import numpy as np

    if observer is Observer.MINMAX or hi <= lo or counts.sum() == 0:
        return lo, hi
    centers = lo + (np.arange(BINS) + 0.5) * (hi - lo) / BINS
    if observer is Observer.PERCENTILE:
        cumulative = np.cumsum(counts) / counts.sum()
        inside = centers[(cumulative >= 0.00005) & (cumulative <= 0.99995)]
        return (float(inside[0]), float(inside[-1])) if len(inside) else (lo, hi)
    return _search(counts.astype(np.float64), centers, lo, hi, through)


def _search(
    counts: NDArray[np.float64],
    centers: NDArray[np.float64],
    lo: float,
    hi: float,
    through: Callable[[NDArray[np.float64]], NDArray[np.float64]] | None,
) -> tuple[float, float]:
    """Coordinate search over shrunken ends, coarse to fine: each end at up to 32 places, three sweeps."""
    import numpy as np

    target = centers if through is None else through(centers)
    used = counts > 0
    counts, centers, target = counts[used], centers[used], target[used]

    def error(a: float, b: float) -> float:
        a, b = min(a, 0.0), max(b, 0.0)
        scale = max((b - a) / (QMAX - QMIN), 1e-12)
        zero = np.clip(np.rint(QMIN - a / scale), QMIN, QMAX)
        back = scale * (np.clip(np.rint(centers / scale) + zero, QMIN, QMAX) - zero)
        found = back if through is None else through(back)
        return float(np.dot(counts, (found - target) ** 2))

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


def activation_function(name: str) -> Callable[[NDArray[np.float64]], NDArray[np.float64]] | None:
    """The element-wise function of an ATen activation without parameters, for errors taken after it."""
    import numpy as np

    table: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
        "relu": lambda x: np.maximum(x, 0.0),
        "hardswish": lambda x: x * np.clip(x + 3.0, 0.0, 6.0) / 6.0,
        "hardsigmoid": lambda x: np.clip(x + 3.0, 0.0, 6.0) / 6.0,
        "silu": lambda x: x / (1.0 + np.exp(-np.clip(x, -80.0, 80.0))),
        "sigmoid": lambda x: 1.0 / (1.0 + np.exp(-np.clip(x, -80.0, 80.0))),
    }
    return table.get(name)
