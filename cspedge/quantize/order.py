"""The order in which tensors are tried in float: answers saved per time added, greedily."""

from __future__ import annotations

import heapq
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cspedge.quantize.islands import Unit

if TYPE_CHECKING:
    from cspedge.quantize.sensitivity import Study

FREE = 1e-3  # an island that adds less than a thousandth of the time is as good as free
IMAGE = "input"  # is exact in int8, and keeping it in float saves nothing
DEAR = 8  # units that are tried as the first


@dataclass(frozen=True, kw_only=True)
class Order:
    """Names of units, the best first; left_out: the best unit that does not fit into the float budget."""

    units: tuple[str, ...]
    left_out: Unit | None


def stretched(found: Study, max_float_macs: float) -> Order:
    """The order that saves most within the float budget, multiply-accumulates being the price.

    Greedy choice fills the budget with what is cheap and may shut out one dear unit that saves more than all of it, so
    each of the `DEAR` units that save most alone is also tried as the first (Martello and Toth 1990, section 2.4).
    """
    islands, first = found.islands, found.first

    def flips(units: Collection[str]) -> float:
        keep = tuple(t for u in islands.units if u.name in units for t in u.tensors)
        return first.flips(islands.tensors(keep), islands.layers(keep))

    dear = sorted((u for u in islands.units if u.name != IMAGE), key=lambda unit: flips([unit.name]))[:DEAR]
    starts = [(), *((unit,) for unit in dear if islands.float_share(unit.tensors) <= max_float_macs)]
    orders = [order(found, max_float_macs, by_macs=True, start=start) for start in starts]
    return min(orders, key=lambda o: flips(o.units))


def order(found: Study, max_float_macs: float, *, by_macs: bool = False, start: tuple[Unit, ...] = ()) -> Order:
    """All units but the image that fit into `max_float_macs` (a share) together.

    Each next one saves the most expected answers for its price, given those before it: a layer that is in float already
    costs nothing more. by_macs: its share of multiply-accumulates counts as the price. What a unit saves grows little
    by what others are in float, so old figures stand until a unit comes first by them (Minoux 1978). start: units that
    come first whatever they save.
    """
    islands, first = found.islands, found.first
    kept: list[Unit] = list(start)
    tensors: tuple[str, ...] = tuple(t for unit in start for t in unit.tensors)
    left_out: Unit | None = None

    def standing(keep: tuple[str, ...]) -> tuple[float, float]:
        flips = first.flips(islands.tensors(keep), islands.layers(keep))
        return flips, islands.float_share(keep) if by_macs else islands.price(keep)

    def rate(unit: Unit) -> float:
        flips, price = standing((*tensors, *unit.tensors))
        return (now[0] - flips) / max(price - now[1], FREE)

    now = standing(tensors)
    others = [unit for unit in islands.units if unit.name != IMAGE and unit not in start]
    waiting = [(-rate(unit), position, len(kept), unit) for position, unit in enumerate(others)]
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
