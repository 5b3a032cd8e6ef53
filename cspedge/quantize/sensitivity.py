"""Sensitivity: what each tensor's quantization does to the answers, and what it would cost to keep it in float.

All tensors are ranked by first order (`cspedge.quantize.margins`), which costs one forward and one backward pass; the
first of them are then measured: with that tensor alone quantized, and with all but that one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from cspedge.quantize.islands import Cost, Islands, Unit
from cspedge.quantize.scaling import fitted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cspedge.quantize.margins import FirstOrder
    from cspedge.quantize.measure import Bench, Measured
    from cspedge.quantize.partial import Partial
    from cspedge.quantize.placement import Placement, QuantizedModel

Progress = Callable[[int, int], None]
SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Shift:
    """Change of the images' margins, without its sign: a few images may own the mean while the median is tiny."""

    mean: float
    median: float
    largest: float


@dataclass(frozen=True, kw_only=True)
class UnitRow:
    """One unit of tensors that can be kept in float.

    shift: by first order, of the unit's own tensors; saved: share of images whose answer is expected to change, with
    all in int8 less with this unit in float; alone: measured with only these tensors quantized; left_out: measured
    with all quantized but these (and the layers that go with them).
    """

    unit: Unit
    shift: Shift
    saved: float
    alone: Measured | None = None
    left_out: Measured | None = None


@dataclass(frozen=True, kw_only=True)
class LayerRow:
    """The int8 weights of one layer, activations in float; shift by first order, alone measured."""

    name: str
    shift: Shift
    alone: Measured | None = None


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """A ranking on n images, for one placement: what costs most answers first.

    flips: share of images whose answer is expected to change with all in int8; all_int8: the same, measured.
    """

    n: int
    flips: float
    all_int8: Measured
    units: tuple[UnitRow, ...]
    layers: tuple[LayerRow, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON values; `from_dict` reads them back."""
        return {"schema": SCHEMA, **asdict(self)}


def from_dict(data: Mapping[str, Any]) -> Sensitivity:
    """What `Sensitivity.to_dict` gave, also after a way through JSON."""
    return Sensitivity(
        n=data["n"],
        flips=data["flips"],
        all_int8=_measured(data["all_int8"]),
        units=tuple(
            UnitRow(
                unit=_unit(row["unit"]),
                shift=Shift(**row["shift"]),
                saved=row["saved"],
                alone=row["alone"] and _measured(row["alone"]),
                left_out=row["left_out"] and _measured(row["left_out"]),
            )
            for row in data["units"]
        ),
        layers=tuple(
            LayerRow(name=row["name"], shift=Shift(**row["shift"]), alone=row["alone"] and _measured(row["alone"]))
            for row in data["layers"]
        ),
    )


def _unit(data: Mapping[str, Any]) -> Unit:
    return Unit(**{**data, "tensors": tuple(data["tensors"]), "layers": tuple(data["layers"])})


def _measured(data: Mapping[str, Any]) -> Measured:
    from cspedge.quantize.measure import Measured

    return Measured(**data)


@dataclass(frozen=True, kw_only=True)
class Study:
    """What a ranking and the accuracy loop work with: one placement, tuning images, first-order changes."""

    partial: Partial
    islands: Islands
    bench: Bench
    first: FirstOrder


def study(
    model: QuantizedModel,
    placement: Placement,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64] | None = None,
    *,
    cost: Cost | None = None,
    max_memory_mb: float = 1000.0,
    progress: Progress | None = None,
) -> Study:
    """The first-order pass over `images`, uint8 [n, 3, H, W], and everything that is measured on them afterwards.

    labels: int64 [n], where the drop in top-1 matters; max_memory_mb: how much the loop's own tensors may take, which
    decides how many images run together. Raises InputError where the fp32 reference's answers are not finite.
    """
    from cspedge.quantize.margins import first_order
    from cspedge.quantize.measure import Bench, batch_size
    from cspedge.quantize.partial import Partial, elements, multiply_accumulates

    model = fitted(model, placement)
    sizes = elements(model)
    islands = Islands(model, placement, cost or Cost(), sizes, multiply_accumulates(model, sizes))
    parameters = sum(v.numel() for v in model.integer_weights.values())
    batch = batch_size(sizes, parameters, max_memory_mb)
    partial = Partial(model)
    first = first_order(partial, islands.chosen, islands.layers(()), images, batch=batch, progress=progress)
    return Study(partial=partial, islands=islands, bench=Bench(partial, images, labels, batch=batch), first=first)


def rank(found: Study, *, top: int = 16, progress: Progress | None = None) -> Sensitivity:
    """Every unit and every layer's weights, ranked by first order, the first `top` of each measured as well."""
    islands, first, bench = found.islands, found.first, found.bench
    everything, all_layers = islands.tensors(()), islands.layers(())
    flips = first.flips(everything, all_layers)
    units = [
        UnitRow(
            unit=unit,
            shift=_shift([first.tensors[name] for name in unit.tensors if name in first.tensors]),
            saved=flips - first.flips(islands.tensors(unit.tensors), islands.layers(unit.tensors)),
        )
        for unit in islands.units
    ]
    layers = [LayerRow(name=name, shift=_shift([first.layers[name]])) for name in sorted(all_layers)]
    units.sort(key=lambda row: (-row.saved, row.unit.name))
    layers.sort(key=lambda row: (-row.shift.mean, row.name))
    total = 1 + 2 * len(units[:top]) + len(layers[:top])
    done = 0

    def measure(tensors: frozenset[str], weights: frozenset[str]) -> Measured:
        nonlocal done
        measured = bench.measure(tensors, weights)
        done += 1
        if progress is not None:
            progress(done, total)
        return measured

    all_int8 = measure(everything, all_layers)
    for index, row in enumerate(units[:top]):
        keep = row.unit.tensors
        units[index] = UnitRow(
            unit=row.unit,
            shift=row.shift,
            saved=row.saved,
            alone=measure(frozenset(keep), frozenset()),
            left_out=measure(islands.tensors(keep), islands.layers(keep)),
        )
    for index, layer in enumerate(layers[:top]):
        alone = measure(frozenset(), frozenset({layer.name}))
        layers[index] = LayerRow(name=layer.name, shift=layer.shift, alone=alone)
    return Sensitivity(n=len(bench.images), flips=flips, all_int8=all_int8, units=tuple(units), layers=tuple(layers))


def _shift(parts: list[NDArray[np.float32]]) -> Shift:
    """Of signed first-order changes, float32 [n] each, added up."""
    import numpy as np

    total = np.abs(np.sum(parts, axis=0)) if parts else np.zeros(1)
    return Shift(mean=float(total.mean()), median=float(np.median(total)), largest=float(total.max()))
