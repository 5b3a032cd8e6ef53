"""Encodings: scale, zero point and axis per tensor, one set for all targets, and `encodings.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from cspedge.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SCHEMA = 1
QMIN, QMAX = -128, 127  # activations, int8
WMIN, WMAX = -127, 127  # weights, symmetric int8
# XNNPACK's requantization takes multipliers in [2^-32, 256); a floor keeps dead tensors inside (FACTS).
MIN_SCALE = 2.0**-20
MAX_SCALE = 65504.0  # fp16's largest (see `half_at_least`)


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """One activation tensor: real = scale * (q - zero_point), q in [-128, 127], round half to even, saturating.

    scale is a float32 value that fp16 can hold as well (Core ML stores scales in fp16; see `half_at_least`), but for
    the fixed ranges of images and gates, whose 1/255 is a float32. lo and hi are the observed extremes over the
    calibration images (after a lossless clip); `observer` says how the range was chosen; tensors that must share one
    encoding carry the same `group`.
    """

    scale: float
    zero_point: int
    lo: float
    hi: float
    observer: str
    group: str | None = None

    def __post_init__(self) -> None:
        if not (0 < self.scale < float("inf")) or not QMIN <= self.zero_point <= QMAX:
            raise InputError(
                f"encoding with scale {self.scale!r} and zero point {self.zero_point!r}; "
                f"scales are positive and zero points lie in [{QMIN}, {QMAX}]"
            )

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the greatest value that has a code."""
        return self.scale * (QMIN - self.zero_point), self.scale * (QMAX - self.zero_point)


@dataclass(frozen=True, kw_only=True)
class WeightEncoding:
    """One weight: symmetric int8 per output channel (axis 0), real = scales[c] * q, q in [qmin, qmax].

    sha256 is the digest of the int8 values in torch's layout, row-major.
    """

    scales: tuple[float, ...]
    sha256: str
    shape: tuple[int, ...]
    axis: int = 0
    qmin: int = WMIN
    qmax: int = WMAX


@dataclass(frozen=True, kw_only=True)
class Encodings:
    """All encodings of a model: activations and weights by tensor name (`module.path:op`)."""

    activations: Mapping[str, Encoding]
    weights: Mapping[str, WeightEncoding]

    def to_dict(self) -> dict[str, Any]:
        activations = {}
        for name, encoding in self.activations.items():
            entry = {k: v for k, v in asdict(encoding).items() if v is not None}
            activations[name] = entry | {"dtype": "int8", "qmin": QMIN, "qmax": QMAX}
        weights = {
            name: {**asdict(w), "scales": list(w.scales), "shape": list(w.shape)} | {"dtype": "int8", "zero_point": 0}
            for name, w in self.weights.items()
        }
        return {"schema": SCHEMA, "activations": activations, "weights": weights}


def from_dict(data: Mapping[str, Any]) -> Encodings:
    """Reads what `Encodings.to_dict` wrote. Raises InputError on another schema, a missing or an unknown key."""
    if data.get("schema") != SCHEMA:
        raise InputError(f"encodings of schema {data.get('schema')!r}; this version reads schema {SCHEMA}")
    try:
        activations = {
            name: Encoding(**{k: v for k, v in entry.items() if k not in {"dtype", "qmin", "qmax"}})
            for name, entry in data["activations"].items()
        }
        weights = {
            name: WeightEncoding(
                scales=tuple(entry["scales"]),
                sha256=entry["sha256"],
                shape=tuple(entry["shape"]),
                axis=entry["axis"],
                qmin=entry["qmin"],
                qmax=entry["qmax"],
            )
            for name, entry in data["weights"].items()
        }
    except (KeyError, TypeError) as error:
        raise InputError(f"encodings.json is not one of cspedge's: {error}") from error
    return Encodings(activations=activations, weights=weights)


def loads(text: str) -> Encodings:
    """Parses `encodings.json`; InputError where it is not JSON."""
    try:
        data = json.loads(text)
    except ValueError as error:
        raise InputError(f"encodings.json does not parse: {error}") from error
    return from_dict(data)


def half_at_least(values: Any) -> NDArray[np.float32]:
    """The smallest fp16 numbers not below `values`, as float32, elementwise.

    A scale that fp16 holds exactly is the same number in every format: Core ML's quantize op takes its scale in the
    type of its input, which is fp16. Eleven bits are plenty for a scale; not below, so that no range shrinks.
    """
    import numpy as np

    wanted = np.asarray(values, np.float32)
    nearest = wanted.astype(np.float16)
    above = np.where(nearest.astype(np.float32) < wanted, np.nextafter(nearest, np.float16(np.inf)), nearest)
    return np.minimum(above, np.finfo(np.float16).max).astype(np.float32)


def encoding_from_range(
    lo: float, hi: float, *, observer: str, observed: tuple[float, float] | None = None, group: str | None = None
) -> Encoding:
    """Asymmetric int8 encoding of [lo, hi], widened to hold 0, with zero exactly representable (Jacob et al. 2018)."""
    import numpy as np

    lo, hi = min(lo, 0.0), max(hi, 0.0)
    wanted = np.float32(max((hi - lo) / (QMAX - QMIN), MIN_SCALE))
    scale = float(wanted) if observer == "fixed" else float(half_at_least(wanted))
    zero_point = int(np.clip(round(QMIN - lo / scale), QMIN, QMAX))
    seen = observed or (lo, hi)
    return Encoding(
        scale=scale, zero_point=zero_point, lo=float(seen[0]), hi=float(seen[1]), observer=observer, group=group
    )


def quantize_array(values: NDArray[np.float32], encoding: Encoding) -> NDArray[np.int8]:
    """float32 -> int8 by `encoding`; the arithmetic every runtime is held to."""
    import numpy as np

    scaled = np.rint(np.asarray(values, np.float32) / np.float32(encoding.scale))
    codes: NDArray[np.int8] = np.clip(scaled + encoding.zero_point, QMIN, QMAX).astype(np.int8)
    return codes


def dequantize_array(values: NDArray[np.int8], encoding: Encoding) -> NDArray[np.float32]:
    """int8 -> float32 by `encoding`."""
    import numpy as np

    return (values.astype(np.int32) - encoding.zero_point).astype(np.float32) * np.float32(encoding.scale)
