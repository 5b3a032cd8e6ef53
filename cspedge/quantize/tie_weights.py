"""Weight scales for which every runtime rounds a convolution's result to the same code; see `cspedge.quantize.ties`.

A convolution in int8 sums whole numbers, and its code is round(sum * M), M = input scale * weight scale / output scale,
one M a channel. For each of the up to 255 middles between two codes the whole numbers on both sides of it are known,
and with them how near a result can come. Of the nearest scales that fp16 can hold the one is taken that leaves the
fewest results in reach of a rounding error, as long as that is worth the change of the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cspedge.quantize.encodings import QMAX, QMIN, Encoding, Encodings
from cspedge.quantize.graph import NAME
from cspedge.quantize.ops import CLAMPS, arg, op_name
from cspedge.quantize.placement import QuantizedModel
from cspedge.quantize.regions import Region

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import fx

STEPS = 12  # fp16 numbers on either side: up to 1.2 % (measured on lcnet_050: 0.27 % on average)
# How far a result in float32 may be off, relative to itself and to its code. OpenVINO rounds most often, and adds the
# zero point before it rounds to the code (measured: 5e-6 at code 4, so 3e-7 is not too careful).
ERROR = 3e-7
# Codes in doubt per image that pay for a channel's change by 100 %, squared: 0.2 % for one in 10,000 images.
PRICE = 25.0


def avoid_weight_ties(model: QuantizedModel, found: Sequence[Region]) -> QuantizedModel:
    """Moves weight scales, not the integers. found: the regions of the placement with the most quantizers."""
    activations, weights = model.encodings.activations, dict(model.encodings.weights)
    for region in found:
        layer, source, output = _layer(region, activations)
        if layer is None or source is None or output is None or layer not in weights:
            continue
        scales = _quietest(weights[layer].scales, source, output, region)
        weights[layer] = replace(weights[layer], scales=scales)
    return replace(model, encodings=Encodings(activations=activations, weights=weights))


def _layer(region: Region, activations: Any) -> tuple[str | None, Encoding | None, Encoding | None]:
    """The one layer of a region, and the encodings before and after it; None where the region holds anything else."""
    first, *rest = region.nodes
    if region.weighted != (first,) or len(region.sources) != 1 or any(op_name(n) not in CLAMPS for n in rest):
        return None, None, None
    return first.meta[NAME], activations.get(arg(first, 0).meta.get(NAME)), activations.get(region.name)


def _quietest(scales: Sequence[float], source: Encoding, output: Encoding, region: Region) -> tuple[float, ...]:
    """For each channel the scale with the least doubt and change together."""
    import numpy as np

    start = np.array(scales, np.float64)
    middles = np.arange(QMIN - output.zero_point, QMAX - output.zero_point, dtype=np.float64) + 0.5
    if len(region.nodes) > 1:  # a clamp: below its lower end nothing is rounded
        middles = middles[middles > 0]
    places = _places(region.nodes[0])
    chosen, least = start.copy(), np.full(len(start), np.inf)
    for candidate in _candidates(start):
        steps = candidate * source.scale / output.scale
        doubt = _doubt(steps, middles, output.zero_point) * places
        price = doubt + PRICE * np.square(candidate / start - 1)
        chosen, least = np.where(price < least, candidate, chosen), np.minimum(price, least)
    return tuple(float(np.float32(scale)) for scale in chosen)


def _candidates(start: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """The scales themselves, then fp16's numbers around them, the nearest first."""
    import numpy as np

    found, above, below = [start], start.astype(np.float16), start.astype(np.float16)
    for _ in range(STEPS):
        above, below = np.nextafter(above, np.float16(np.inf)), np.nextafter(below, np.float16(0))
        found += [
            side.astype(np.float64) for side in (above, np.where(below > 0, below, above)) if np.isfinite(side).all()
        ]
    return found


def _doubt(steps: NDArray[np.float64], middles: NDArray[np.float64], zero_point: int) -> NDArray[np.float64]:
    """Results in doubt of each channel, per place of the output, as if results were spread evenly over the codes."""
    import numpy as np

    sums = middles[None, :] / steps[:, None]
    down = sums - np.floor(sums)
    distance = np.minimum(down, 1 - down) * steps[:, None]
    reach = ERROR * (np.abs(middles) + middles + zero_point - QMIN)
    share: NDArray[np.float64] = np.clip(1 - distance / reach[None, :], 0, None).sum(1) * steps / (QMAX - QMIN)
    return share


def _places(node: fx.Node) -> int:
    """Height times width of a layer's result."""
    import math

    value: Any = node.meta["val"]
    return math.prod(value.shape[2:]) if value.dim() > 2 else 1
