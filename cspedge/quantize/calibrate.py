"""Calibration: observes every tensor that any target may quantize and chooses all encodings once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cspedge.errors import InputError, UsageError
from cspedge.quantize.encodings import MAX_SCALE, QMAX, QMIN, Encoding, Encodings, encoding_from_range
from cspedge.quantize.equalize import equalize, equalized
from cspedge.quantize.observe import Observed, Progress, observe
from cspedge.quantize.observers import Observer, choose_range
from cspedge.quantize.outliers import outliers
from cspedge.quantize.placement import QuantizedModel
from cspedge.quantize.ranges import fixed_ranges, lossless_clips, readers_function, tied
from cspedge.quantize.scaling import ChannelScales
from cspedge.quantize.weights import LARGEST, input_energy, quantize_weights

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import fx


@dataclass(frozen=True, kw_only=True)
class QuantizeOptions:
    """Choices of a recipe's `[quantize]` table.

    equalize: whether channels are scaled between layers, where that is exact; channel_scales: where they are scaled
    behind activations that let no scale through (`cspedge.quantize.scaling`; nowhere without equalize); percentile: per
    cent of a tensor's values inside its range, for that observer; weight_bits: 8, or 7 where two products of u8 x s8
    must not saturate (x86 with AVX2 and no VNNI); outlier_images: the share of images whose extremes a range need not
    hold (of 512, five; of 64, none); avoid_ties: whether scales are moved to where all runtimes round alike
    (`cspedge.quantize.ties`).
    """

    equalize: bool = True
    channel_scales: ChannelScales = ChannelScales.WHERE_CHEAP
    observer: Observer = Observer.MSE
    percentile: float = 99.99
    weight_search: bool = True
    weight_bits: int = 8
    lossless_clip: bool = True
    outlier_images: float = 0.01
    avoid_ties: bool = True
    batch_size: int = 32

    def __post_init__(self) -> None:
        if not 50.0 < self.percentile <= 100.0:
            raise UsageError(f"percentile is {self.percentile!r}; it is in per cent, above 50 and up to 100")
        if self.weight_bits not in LARGEST:
            raise UsageError(f"weight_bits is {self.weight_bits!r}; allowed: {', '.join(map(str, sorted(LARGEST)))}")
        if not 0.0 <= self.outlier_images < 0.5:
            raise UsageError(f"outlier_images is {self.outlier_images!r}; it is a share, from 0 to below 0.5")
        if self.batch_size < 1:
            raise UsageError(f"batch_size is {self.batch_size!r}; it is 1 or more")


def calibrate(
    graph: fx.GraphModule,
    input_shape: tuple[int, int, int],
    images: NDArray[np.uint8],
    options: QuantizeOptions,
    progress: Progress | None = None,
) -> QuantizedModel:
    """Equalizes a copy of the graph and chooses all encodings, from `images` (uint8 [n, 3, H, W]) in small batches.

    Raises InputError where an activation is NaN or infinite, or too large to encode, naming the tensor.
    """
    scales = equalize(graph, images, options.channel_scales) if options.equalize else {}
    prepared, graph = graph, equalized(graph, scales)
    groups = tied(graph)
    seen = observe(
        graph,
        images,
        groups,
        lossless_clips(graph) if options.lossless_clip else {},
        outliers=options.outlier_images,
        histograms=options.observer is not Observer.MINMAX,
        batch_size=options.batch_size,
        progress=progress,
    )
    activations = _choose(graph, groups, seen, options)
    weights, integers = quantize_weights(
        graph,
        search=options.weight_search,
        activations=activations,
        bits=options.weight_bits,
        energy=input_energy(graph, images) if options.weight_search else None,
    )
    return QuantizedModel(
        graph=graph,
        input_shape=input_shape,
        encodings=Encodings(activations=activations, weights=weights),
        integer_weights=integers,
        equalization=scales,
        prepared=prepared if scales else None,
        outliers=outliers(seen, activations),
    )


def _choose(
    graph: fx.GraphModule, groups: Mapping[str, str], seen: Mapping[str, Observed], options: QuantizeOptions
) -> dict[str, Encoding]:
    """One encoding for each group: fixed where its range is known, else searched."""
    readers, fixed = readers_function(graph), fixed_ranges(graph)
    members = list(groups.values())
    chosen: dict[str, Encoding] = {}
    for group, found in seen.items():
        alone = members.count(group) == 1
        shared = None if alone else group
        if group in fixed:
            chosen[group] = encoding_from_range(*fixed[group], observer="fixed", group=shared)
            continue
        lo, hi = choose_range(
            found.counts,
            found.lo,
            found.hi,
            options.observer,
            readers.get(group) if alone else None,
            options.percentile,
        )
        if not (hi - lo) / (QMAX - QMIN) <= MAX_SCALE:
            raise InputError(
                f"the activation {group!r} spans {lo:.3g} to {hi:.3g}, more than int8 with an fp16 scale holds; "
                "check the weights for huge values"
            )
        chosen[group] = encoding_from_range(
            lo, hi, observer=str(options.observer), observed=found.extremes, group=shared
        )
    return {name: chosen[group] for name, group in groups.items()}
