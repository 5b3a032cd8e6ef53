"""Why an int8 model answers as it does: per tensor what was chosen, what it does, and what it would cost in float."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from cspedge.quantize.sensitivity import Sensitivity, Study, rank

if TYPE_CHECKING:
    import torch
    from torch import fx

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One quantized tensor of a placement, in the order of the graph.

    layer: the convolution or linear whose result it is, with the activation behind it where the runtime fuses both;
    range_lo, range_hi: what the encoding holds; lo, hi: what calibration observed. sqnr_db: of this tensor quantized
    alone; cumulative_db: of this tensor in the whole int8 graph, everything before it quantized too; weight_sqnr_db: of
    the layer's int8 weights; None where nothing is lost. shift, weight_shift: mean change of an image's margin by first
    order (`cspedge.quantize.margins`). saved: share of answers that keeping it in float is expected to save;
    float_layers, mac_share, price: what goes with it into float, as a share of all multiply-accumulates, and the time
    that adds, as a share of the int8 model's (`cspedge.quantize.islands`).
    """

    tensor: str
    layer: str | None
    observer: str
    scale: float
    zero_point: int
    range_lo: float
    range_hi: float
    lo: float
    hi: float
    sqnr_db: float | None
    cumulative_db: float | None
    weight_sqnr_db: float | None
    shift: float
    weight_shift: float | None
    saved: float
    float_layers: tuple[str, ...]
    mac_share: float
    price: float


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """The table and the ranking behind it, for one placement."""

    rows: tuple[Row, ...]
    sensitivity: Sensitivity

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {"rows": [asdict(row) for row in self.rows], "sensitivity": self.sensitivity.to_dict()}


def explain(found: Study, *, top: int = 0, progress: Progress | None = None) -> Explanation:
    """A row for each quantized tensor; found: what `sensitivity.study` gave.

    top: how many units and layers are measured besides the ranking by first order, each with a run over all images.
    """
    ranking = rank(found, top=top, progress=progress)
    units = {name: row for row in ranking.units for name in row.unit.tensors}
    shifts = {row.name: row.shift.mean for row in ranking.layers}
    islands, model = found.islands, found.partial.model
    layers = _layers(found)
    alone, cumulative = _noise(found)
    rows = []
    for name in (n for n in islands.sizes if n in islands.chosen):
        encoding, unit, layer = model.encodings.activations[name], units[name], layers.get(name)
        rows.append(
            Row(
                tensor=name,
                layer=layer,
                observer=encoding.observer,
                scale=encoding.scale,
                zero_point=encoding.zero_point,
                range_lo=encoding.bounds[0],
                range_hi=encoding.bounds[1],
                lo=encoding.lo,
                hi=encoding.hi,
                sqnr_db=alone[name].db,
                cumulative_db=cumulative[name].db,
                weight_sqnr_db=None if layer is None else _weight_noise(found, layer).db,
                shift=unit.shift.mean,
                weight_shift=None if layer is None else shifts[layer],
                saved=unit.saved,
                float_layers=unit.unit.layers,
                mac_share=unit.unit.mac_share,
                price=unit.unit.price,
            )
        )
    return Explanation(rows=tuple(rows), sensitivity=ranking)


def _layers(found: Study) -> dict[str, str]:
    """Quantized tensor -> the int8 layer that it is the result of."""
    from cspedge.quantize.graph import NAME, weighted_nodes
    from cspedge.quantize.placement import result_of

    int8, links = found.islands.layers(()), {}
    for node in weighted_nodes(found.partial.model.graph):
        result = result_of(node, found.islands.placement)
        if node.meta[NAME] in int8:
            links[result.meta[NAME]] = node.meta[NAME]
    return links


@dataclass
class _Noise:
    """Sums of squares of a tensor and of its error."""

    signal: float = 0.0
    noise: float = 0.0

    def add(self, exact: torch.Tensor, found: torch.Tensor) -> None:
        import torch

        self.signal += float(exact.square().sum(dtype=torch.float64))
        self.noise += float((found - exact).square().sum(dtype=torch.float64))

    @property
    def db(self) -> float | None:
        """SQNR, None where there is no noise (or no signal, so that it has no meaning)."""
        import math

        return 10.0 * math.log10(self.signal / self.noise) if self.noise and self.signal else None


def _noise(found: Study) -> tuple[dict[str, _Noise], dict[str, _Noise]]:
    """Each tensor's own error, and its error in the whole int8 graph, over all images.

    Both within the bounds beyond which no reader looks: below -3 an h-swish is 0, whatever the tensor before it holds.
    """
    import torch

    from cspedge.quantize.graph import NAME
    from cspedge.quantize.partial import batches, fake_quantize
    from cspedge.quantize.ranges import lossless_clips

    islands, encodings = found.islands, found.partial.model.encodings.activations
    alone = {name: _Noise() for name in islands.chosen}
    cumulative = {name: _Noise() for name in islands.chosen}
    clips = lossless_clips(found.partial.model.graph)
    exact: dict[str, torch.Tensor] = {}

    def seen(name: str, value: torch.Tensor) -> torch.Tensor:
        return value.clamp(*clips[name]) if name in clips else value

    def first(node: fx.Node, value: torch.Tensor) -> None:
        name = node.meta[NAME]
        if name in alone:
            exact[name] = seen(name, value)
            alone[name].add(exact[name], seen(name, fake_quantize(value, encodings[name])))

    def second(node: fx.Node, value: torch.Tensor) -> None:
        name = node.meta[NAME]
        if name in cumulative:
            cumulative[name].add(exact.pop(name), seen(name, fake_quantize(value, encodings[name])))

    with torch.no_grad():
        for inputs in batches(found.bench.images, found.bench.batch):
            found.partial.run(inputs, watch=first)
            found.partial.run(inputs, islands.tensors(()), islands.layers(()), watch=second)
    return alone, cumulative


def _weight_noise(found: Study, layer: str) -> _Noise:
    from cspedge.quantize.graph import NAME, tensor_of, weighted_nodes
    from cspedge.quantize.ops import arg

    graph = found.partial.model.graph
    node = next(n for n in weighted_nodes(graph) if n.meta[NAME] == layer)
    own = tensor_of(graph, arg(node, 1))
    assert own is not None
    noise = _Noise()
    noise.add(own, found.partial.weight(layer))
    return noise
