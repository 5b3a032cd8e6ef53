"""Tensors that a few calibration images drive far out of the range that was chosen for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from cspedge.errors import InputError

if TYPE_CHECKING:
    from cspedge.quantize.encodings import Encoding
    from cspedge.quantize.observe import Observed

FACTOR = 4.0  # widths of the encoded range


@dataclass(frozen=True, kw_only=True)
class Outlier:
    """One tensor (or group of tensors, under its first one's name) whose extremes the encoding leaves far outside.

    lo, hi: the extremes observed over all images; range_lo, range_hi: what the encoding holds; factor: the width that
    lo, hi and zero would need, in widths of the encoding; images: the calibration images (indices, the furthest out
    first) that need at least `FACTOR` widths; share: how many of all images they are, as a fraction of 1.
    """

    tensor: str
    lo: float
    hi: float
    range_lo: float
    range_hi: float
    factor: float
    share: float
    images: tuple[int, ...]


def outliers(
    seen: Mapping[str, Observed], activations: Mapping[str, Encoding], factor: float = FACTOR
) -> tuple[Outlier, ...]:
    """What a range does not hold, the widest first: groups whose extremes need `factor` times their encoding's width.

    seen: what was observed, by group; activations: encodings by tensor name. Ranges that are known, not measured, are
    left out.
    """
    import numpy as np

    found = []
    for group, record in seen.items():
        encoding = activations.get(group)
        if encoding is None or encoding.observer == "fixed":
            continue
        low, high = encoding.bounds
        needed = (np.maximum(record.highs, high) - np.minimum(record.lows, low)) / (high - low)
        images = np.flatnonzero(needed >= factor)
        if len(images):
            lo, hi = record.extremes
            order = images[np.argsort(-needed[images], kind="stable")]
            found.append(
                Outlier(
                    tensor=group,
                    lo=lo,
                    hi=hi,
                    range_lo=low,
                    range_hi=high,
                    factor=float((max(hi, high) - min(lo, low)) / (high - low)),
                    share=len(images) / len(needed),
                    images=tuple(int(i) for i in order),
                )
            )
    return tuple(sorted(found, key=lambda o: (-o.factor, o.tensor)))


def to_list(found: tuple[Outlier, ...]) -> list[dict[str, Any]]:
    """As plain data for JSON."""
    return [{**asdict(o), "images": list(o.images)} for o in found]


def from_list(data: Any) -> tuple[Outlier, ...]:
    """Reads what `to_list` wrote. Raises InputError on a missing or an unknown key."""
    try:
        return tuple(Outlier(**{**entry, "images": tuple(entry["images"])}) for entry in data)
    except (KeyError, TypeError) as error:
        raise InputError(f"outliers.json is not one of cspedge's: {error}") from error
