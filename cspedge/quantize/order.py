"""The order in which tensors are tried in float: answers saved per time added, greedily."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cspedge.quantize.islands import Unit

if TYPE_CHECKING:
    from cspedge.quantize.sensitivity import Study

FREE = 1e-3  # an island that adds less than a thousandth of the time is as good as free


@dataclass(frozen=True, kw_only=True)
class Order:
    """Names of units, the best first; left_out: the best unit that does not fit into the float budget."""

    units: tuple[str, ...]
    left_out: Unit | None


def order(found: Study, max_float_macs: float, *, by_macs: bool = False) -> Order:
    """All units that fit into `max_float_macs` (a share) together.

    Each next one saves the most expected answers for its price, given those before it: a layer that is in float already
    costs nothing more. by_macs: its share of multiply-accumulates counts as the price. What a unit saves grows little
    by what others are in float, so old figures stand until a unit comes first by them (Minoux 1978).
    """
    islands, first = found.islands, found.first
    kept: list[Unit] = []
    tensors: tuple[str, ...] = ()
    flips, cost = first.flips(islands.tensors(()), islands.layers(())), 0.0
    left_out: Unit | None = None

    def price(keep: tuple[str, ...]) -> float:
        return islands.float_share(keep) if by_macs else islands.price(keep)

    def gain(unit: Unit) -> float:
        keep = (*tensors, *unit.tensors)
        saved = flips - first.flips(islands.tensors(keep), islands.layers(keep))
        return saved / max(price(keep) - cost, FREE)

    cost = price(())
    waiting = [(-gain(unit), position, 0, unit) for position, unit in enumerate(islands.units)]
    heapq.heapify(waiting)
    while waiting:
        _, position, age, unit = heapq.heappop(waiting)
        if islands.float_share((*tensors, *unit.tensors)) > max_float_macs:
            left_out = left_out or unit
            continue
        if age < len(kept):
            heapq.heappush(waiting, (-gain(unit), position, len(kept), unit))
            continue
        kept.append(unit)
        tensors = (*tensors, *unit.tensors)
        flips, cost = first.flips(islands.tensors(tensors), islands.layers(tensors)), price(tensors)
    return Order(units=tuple(unit.name for unit in kept), left_out=left_out)
