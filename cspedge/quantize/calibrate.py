"""Calibration: observes every tensor that any target may quantize and chooses all encodings once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cspedge.digest import sha256_bytes
from cspedge.errors import InputError, UsageError
from cspedge.quantize.encodings import (
    MIN_SCALE,
    WMAX,
    WMIN,
    Encoding,
    Encodings,
    WeightEncoding,
    encoding_from_range,
    half_at_least,
)
from cspedge.quantize.graph import NAME, tensor_of, weighted_nodes
from cspedge.quantize.observers import BINS, Observer, activation_function, choose_range
from cspedge.quantize.ops import FIXED_RANGE, LOSSLESS_ABOVE, LOSSLESS_BELOW, Role, arg, op_name, role
from cspedge.quantize.placement import QuantizedModel

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import fx

Progress = Callable[[int, int], None]
SAMPLED = 2**17  # values of one tensor and batch that its histogram counts


@dataclass(frozen=True, kw_only=True)
class QuantizeOptions:
    """Choices of a recipe's `[quantize]` table.

    outlier_images: the share of images whose extremes a range need not hold (of 512, five; of 64, none).
    """

    observer: Observer = Observer.MSE
    weight_search: bool = True
    lossless_clip: bool = True
    outlier_images: float = 0.01
    batch_size: int = 32

    def __post_init__(self) -> None:
        if not 0.0 <= self.outlier_images < 0.5:
            raise UsageError(f"outlier_images is {self.outlier_images!r}; it is a share, from 0 to below 0.5")
        if self.batch_size < 1:
            raise UsageError(f"batch_size is {self.batch_size!r}; it is 1 or more")


@dataclass
class _Range:
    """Extremes of one group of tensors, image by image, and in the second pass its histogram.

    lo, hi: where the histogram ends; lows, highs: one array for each batch and tensor.
    """

    lo: float = 0.0
    hi: float = 0.0
    lows: list[Any] = field(default_factory=list)
    highs: list[Any] = field(default_factory=list)
    counts: Any = None

    def settle(self, outliers: float) -> None:
        """Ends the range where all but the share `outliers` of the images end.

        One image that drives a network out of its range (fbnetv3_b on Caltech-101: activations of 1,000 where all
        others stay below 10) would otherwise own the squared error, and every other image lose its answer.
        """
        import numpy as np

        self.lo = float(np.quantile(np.concatenate(self.lows), outliers, method="lower"))
        self.hi = float(np.quantile(np.concatenate(self.highs), 1.0 - outliers, method="higher"))

    @property
    def observed(self) -> tuple[float, float]:
        """The extremes over all images."""
        return float(min(v.min() for v in self.lows)), float(max(v.max() for v in self.highs))


_Pass = Callable[[_Range, str, "torch.Tensor"], None]


def calibrate(
    graph: fx.GraphModule,
    input_shape: tuple[int, int, int],
    images: NDArray[np.uint8],
    options: QuantizeOptions,
    progress: Progress | None = None,
) -> QuantizedModel:
    """Two streaming passes over `images` (uint8 [n, 3, H, W]): extremes, then histograms; memory is one batch.

    Raises InputError where an activation is NaN or infinite, naming the tensor.
    """
    groups = tied(graph)
    clips = _lossless_clips(graph) if options.lossless_clip else {}
    ranges = {name: _Range() for name in set(groups.values())}
    fixed = _fixed_ranges(graph)
    total = 2 * len(images)
    for number, observe_pass in enumerate((_observe_extremes, _observe_histogram)):
        done = number * len(images)
        if number == 1:
            for found in ranges.values():
                found.settle(options.outlier_images)

        def observe(name: str, tensor: torch.Tensor, into: _Pass = observe_pass) -> None:
            into(ranges[groups[name]], name, _clip(tensor, clips.get(name)))

        for start in range(0, len(images), options.batch_size):
            batch = images[start : start + options.batch_size]
            _run(graph, batch, observe, groups)
            if progress is not None:
                progress(done + start + len(batch), total)
    activations = _choose(graph, groups, ranges, fixed, options)
    weights, integers = quantize_weights(graph, search=options.weight_search, activations=activations)
    return QuantizedModel(
        graph=graph,
        input_shape=input_shape,
        encodings=Encodings(activations=activations, weights=weights),
        integer_weights=integers,
    )


def _choose(
    graph: fx.GraphModule,
    groups: dict[str, str],
    ranges: dict[str, _Range],
    fixed: dict[str, tuple[float, float]],
    options: QuantizeOptions,
) -> dict[str, Encoding]:
    """One encoding for each group: fixed where its range is known, else searched."""
    through = _through(graph)
    joined = {groups[n.meta[NAME]] for n in _observed(graph) if role(n) is Role.CONCAT}
    chosen: dict[str, Encoding] = {}
    for group, found in ranges.items():
        alone = sum(g == group for g in groups.values()) == 1
        shared = None if alone else group
        if group in fixed and group not in joined:  # a concatenation may bring in other ranges
            chosen[group] = encoding_from_range(*fixed[group], observer="fixed", group=shared)
            continue
        reader = through.get(group) if alone else None
        lo, hi = choose_range(found.counts, found.lo, found.hi, options.observer, reader)
        chosen[group] = encoding_from_range(
            lo, hi, observer=str(options.observer), observed=found.observed, group=shared
        )
    return {name: chosen[group] for name, group in groups.items()}


def _observed(graph: fx.GraphModule) -> list[fx.Node]:
    return [
        n
        for n in graph.graph.nodes
        if NAME in n.meta
        and (n.op == "placeholder" or role(n) is not Role.FLOAT)
        and not isinstance(n.meta.get("val"), (list, tuple))
    ]


def tied(graph: fx.GraphModule) -> dict[str, str]:
    """Tensor name -> name of its group: pass-through ops and concats tie tensors to one encoding (union-find)."""
    parent: dict[fx.Node, fx.Node] = {n: n for n in graph.graph.nodes}

    def root(node: fx.Node) -> fx.Node:
        while parent[node] is not node:
            node = parent[node]
        return node

    order = {n: i for i, n in enumerate(graph.graph.nodes)}
    for node in graph.graph.nodes:
        partners: list[fx.Node] = []
        if role(node) is Role.SHARE:
            partners = [arg(node, 0)]
        elif role(node) is Role.CONCAT:
            partners = list(arg(node, 0))
        for other in partners:
            first, second = sorted((root(node), root(other)), key=order.__getitem__)
            parent[second] = first
    return {n.meta[NAME]: str(root(n).meta.get(NAME, root(n).name)) for n in _observed(graph)}


def _fixed_ranges(graph: fx.GraphModule) -> dict[str, tuple[float, float]]:
    """Tensors whose range is known: 8-bit images (scale 1/255, exact) and gates in [0, 1]."""
    fixed = {}
    for node in _observed(graph):
        if node.op == "placeholder":
            fixed[node.meta[NAME]] = (0.0, 1.0)
        elif op_name(node) in FIXED_RANGE:
            fixed[node.meta[NAME]] = FIXED_RANGE[op_name(node)]
        elif op_name(node) == "hardtanh" and tuple(node.args[1:3]) == (0.0, 1.0):
            fixed[node.meta[NAME]] = (0.0, 1.0)
    return fixed


def _lossless_clips(graph: fx.GraphModule) -> dict[str, tuple[float | None, float | None]]:
    """Where every reader is constant beyond a bound, the bound."""
    clips: dict[str, tuple[float | None, float | None]] = {}
    for node in _observed(graph):
        readers = {op_name(u) for u in node.users}
        if not readers or not readers <= set(LOSSLESS_BELOW):
            continue
        below = min(LOSSLESS_BELOW[r] for r in readers)
        above = max(LOSSLESS_ABOVE.get(r, float("inf")) for r in readers)
        clips[node.meta[NAME]] = (below, None if above == float("inf") else above)
    return clips


def _through(graph: fx.GraphModule) -> dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]]:
    found = {}
    for node in _observed(graph):
        if len(node.users) == 1:
            function = activation_function(op_name(next(iter(node.users))))
            if function is not None:
                found[node.meta[NAME]] = function
    return found


def _clip(tensor: torch.Tensor, bounds: tuple[float | None, float | None] | None) -> torch.Tensor:
    return tensor if bounds is None else tensor.clamp(min=bounds[0], max=bounds[1])


def _observe_extremes(found: _Range, name: str, tensor: torch.Tensor) -> None:
    import torch

    images = tensor.flatten(1)
    lows, highs = images.amin(1), images.amax(1)
    if not bool(torch.isfinite(lows).all() and torch.isfinite(highs).all()):
        raise InputError(
            f"the activation {name!r} is NaN or infinite on a calibration image; "
            "check the weights, and that the images suit the model's preprocessing"
        )
    found.lows.append(lows.numpy())
    found.highs.append(highs.numpy())


def _observe_histogram(found: _Range, name: str, tensor: torch.Tensor) -> None:
    import numpy as np
    import torch

    if found.counts is None:
        found.counts = np.zeros(BINS, np.int64)
    if found.hi > found.lo:
        values = tensor.float().flatten()
        # an odd stride visits all channels and places; extremes were taken from every value
        values = values[:: (len(values) // SAMPLED) | 1]
        histogram = torch.histc(values, BINS, found.lo, found.hi)
        found.counts += histogram.numpy().astype(np.int64)


def _run(
    graph: fx.GraphModule,
    batch: NDArray[np.uint8],
    observe: Callable[[str, torch.Tensor], None],
    wanted: dict[str, str],
) -> None:
    import numpy as np
    import torch
    from torch import fx

    class Observing(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            result = super().run_node(n)
            name = n.meta.get(NAME)
            if name in wanted:
                observe(name, result)
            return result

    with torch.no_grad():
        # divided in numpy, as every artifact's input is; also copies what may be memory-mapped read-only
        Observing(graph).run(torch.from_numpy(batch.astype(np.float32) / np.float32(255)))


def quantize_weights(
    graph: fx.GraphModule, *, search: bool, activations: Mapping[str, Encoding]
) -> tuple[dict[str, WeightEncoding], dict[str, torch.Tensor]]:
    """Symmetric int8 per output channel. search: the scale of least squared error among 40 shrunken maxima.

    A channel of zeros gets the smallest scale allowed and zeros; nothing divides by zero. A nearly dead channel with a
    large bias gets a scale that keeps the bias, in steps of input scale x weight scale, inside 30 bits: runtimes hold
    it as int32, and ONNX Runtime wraps around without a word.
    """
    import torch

    encodings, integers = {}, {}
    for node in weighted_nodes(graph):
        weight = tensor_of(graph, arg(node, 1))
        assert weight is not None
        scales = _weight_scales(weight, search)
        bias, source = tensor_of(graph, arg(node, 2)), activations.get(arg(node, 0).meta.get(NAME, ""))
        if bias is not None and source is not None:
            scales = torch.maximum(scales, bias.abs() / (source.scale * 2.0**30))
        scales = torch.from_numpy(half_at_least(scales.numpy()))
        shape = (-1, *([1] * (weight.dim() - 1)))
        values = (weight / scales.reshape(shape)).round().clamp(WMIN, WMAX).to(torch.int8)
        name = node.meta[NAME]
        integers[name] = values
        encodings[name] = WeightEncoding(
            scales=tuple(float(s) for s in scales),
            sha256=sha256_bytes(values.contiguous().numpy().tobytes()),
            shape=tuple(weight.shape),
        )
    return encodings, integers


def _weight_scales(weight: torch.Tensor, search: bool) -> torch.Tensor:
    import torch

    flat = weight.flatten(1)
    largest = flat.abs().amax(1)
    # a nearly dead channel must not fall out of XNNPACK's range of multipliers beside live ones
    floor = max(float(largest.max()) / WMAX * 2.0**-16, MIN_SCALE)
    full = (largest / WMAX).clamp(min=floor)
    if not search:
        return full
    best, best_error = full.clone(), torch.full_like(full, float("inf"))
    for step in range(40):
        scale = (full * (1.0 - 0.0125 * step)).clamp(min=floor)
        error = ((flat / scale[:, None]).round().clamp(WMIN, WMAX) * scale[:, None] - flat).square().sum(1)
        better = error < best_error
        best, best_error = torch.where(better, scale, best), torch.where(better, error, best_error)
    return best
