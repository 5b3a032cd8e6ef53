"""The structural check: a saved artifact carries exactly the placed scales, zero points and integer weights."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from cspedge.digest import sha256_bytes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cspedge.backends.base import Readback
    from cspedge.quantize.placement import PlacedModel

# Scales travel as float32; a format that stores a range instead of a scale returns it within a few units in the
# last place (2^-23 is 1.2e-7).
RELATIVE = 2e-6


def differences(model: PlacedModel, found: Readback) -> tuple[str, ...]:
    """What differs between the placed model and what was read back; empty where they are the same.

    A format that stores scales in fp16 must hold the rounding of ours to fp16, to the bit: that is the same number but
    for the 1/255 of images and gates. Activations are compared as sets of (scale, zero point) in both directions:
    formats repeat a quantizer for each reader. Weights are compared one for one: integer values by digest, scales
    within `RELATIVE`.
    """
    return (*_activations(model, found), *_weights(model, found))


def _activations(model: PlacedModel, found: Readback) -> list[str]:
    problems = []
    half = found.half_scales
    wanted = {(e.scale, e.zero_point): name for name, e in model.activations.items()}
    for (scale, zero), name in wanted.items():
        if not any(_same(scale, a.scale, half) and zero == a.zero_point for a in found.activations):
            problems.append(f"activation {name}: scale {scale:.9g}, zero point {zero} is not in the artifact")
    for a in found.activations:
        if not any(_same(scale, a.scale, half) and zero == a.zero_point for scale, zero in wanted):
            problems.append(f"{a.where}: scale {a.scale:.9g}, zero point {a.zero_point} was not placed")
    return problems


def _weights(model: PlacedModel, found: Readback) -> list[str]:
    assert model.encodings is not None or not model.weights
    problems = []
    theirs: dict[str, list[NDArray[np.float32]]] = {}
    for w in found.weights:
        theirs.setdefault(_digest(w.values), []).append(w.scales)
    names: Counter[str] = Counter()
    for name in model.weights:
        assert model.encodings is not None
        encoding = model.encodings.weights[name]
        names[encoding.sha256] += 1
        candidates = theirs.get(encoding.sha256, [])
        match = next((i for i, s in enumerate(candidates) if _close(s, encoding.scales)), None)
        if match is None:
            what = "scales differ" if candidates else "these integer values are not in the artifact"
            problems.append(f"weight {name}: {what}")
        else:
            candidates.pop(match)
    left = sum(len(v) for v in theirs.values())
    if left:
        problems.append(f"{left} quantized weights in the artifact were not placed")
    return problems


def _digest(values: NDArray[np.int8]) -> str:
    import numpy as np

    return sha256_bytes(np.ascontiguousarray(values, dtype=np.int8).tobytes())


def _same(ours: float, theirs: float, half: bool) -> bool:
    import numpy as np

    if half:
        return float(np.float16(ours)) == theirs
    return abs(ours - theirs) <= RELATIVE * ours


def _close(found: NDArray[np.float32], wanted: tuple[float, ...]) -> bool:
    import numpy as np

    scales = np.asarray(found, np.float64).reshape(-1)
    return len(scales) == len(wanted) and bool(np.allclose(scales, wanted, rtol=RELATIVE, atol=0.0))
