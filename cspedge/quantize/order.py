"""The order in which tensors are tried in float: answers saved per time added, greedily."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cspedge.quantize.islands import Unit

if TYPE_CHECKING:
    from cspedge.quantize.sensitivity import Study

FREE = 1e-3  # an island that adds less than a thousandth of the time is as good as free
IMAGE = "input"  # is exact in int8, and keeping it in float saves nothing


@dataclass(frozen=True, kw_only=True)
class Order:
    """Names of units, the best first; left_out: the best unit that does not fit into the float budget."""

    units: tuple[str, ...]
    left_out: Unit | None


def order(found: Study, max_float_macs: float, *, by_macs: bool = False) -> Order:
    """All units but the image that fit into `max_float_macs` (a share) together.

    Each next one saves the most expected answers for its price, given those before it: a layer that is in float already
    costs nothing more. by_macs: its share of multiply-accumulates counts as the price. What a unit saves grows little
    by what others are in float, so old figures stand until a unit comes first by them (Minoux 1978).
    """
    islands, first = found.islands, found.first
    kept: list[Unit] = []
    tensors: tuple[str, ...] = ()
    left_out: Unit | None = None

    def standing(keep: tuple[str, ...]) -> tuple[float, float]:
        flips = first.flips(islands.tensors(keep), islands.layers(keep))
        return flips, islands.float_share(keep) if by_macs else islands.price(keep)

    def rate(unit: Unit) -> float:
        flips, price = standing((*tensors, *unit.tensors))
        return (now[0] - flips) / max(price - now[1], FREE)

    now = standing(tensors)
    waiting = [(-rate(unit), position, 0, unit) for position, unit in enumerate(islands.units) if unit.name != IMAGE]
    heapq.heapify(waiting)
    while waiting:
        _, position, age, unit = heapq.heappop(waiting)
        if islands.float_share((*tensors, *unit.tensors)) > max_float_macs:
            left_out = left_out or unit
            continue
        if age < len(kept):
            heapq.heappush(waiting, (-rate(unit), position, len(kept), unit))
            continue
        kept.append(unit)
        tensors = (*tensors, *unit.tensors)
        now = standing(tensors)
    return Order(units=tuple(unit.name for unit in kept), left_out=left_out)
