"""Mixed precision: the smallest set of tensors in float that meets the goals on tuning images.

The order in which tensors are tried follows from the sensitivity ranking: expected answers saved per time added, one
after the other. How many of them are needed is found by bisection, each step a real evaluation; then each member that
turns out not to be needed goes back to int8. Where no set within the budgets does, the best of them is improved by real
evaluations: learned numbers make up for one another's errors, and a tensor in float can do harm. The search ends with
the best that was found and says why it ended.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any

from cspedge.errors import UsageError
from cspedge.quantize.goals import Goals
from cspedge.quantize.order import IMAGE, Order, order, stretched

if TYPE_CHECKING:
    from cspedge.quantize.journal import Journal
    from cspedge.quantize.measure import Measured
    from cspedge.quantize.sensitivity import Study

Progress = Callable[[int, int], None]
TRIES = 12  # members of the best set that are tried in int8, and others that are tried in float


@dataclass(frozen=True, kw_only=True)
class MixedOptions:
    """Choices of a recipe's `[mixed]` table.

    max_drop, min_agreement: goals for logits, at least one of them; min_cosine: the goal for feature maps and
    embeddings (`cspedge.quantize.goals`); max_float_macs: the share of multiply-accumulates that may stay outside
    int8; seconds: for the whole search on one placement, over all its interruptions; max_memory_mb: for the search's
    own tensors; images: how many tuning images are drawn.
    """

    max_drop: float | None = None
    min_agreement: float | None = None
    min_cosine: float = 0.98
    max_float_macs: float = 0.1
    seconds: float = 600.0
    max_memory_mb: float = 1000.0
    images: int = 256

    def __post_init__(self) -> None:
        if self.max_drop is None and self.min_agreement is None:
            raise UsageError("the accuracy loop has no goal; give max_drop or min_agreement")
        for name in ("max_drop", "min_agreement", "min_cosine", "max_float_macs"):
            value = getattr(self, name)
            if value is not None and not 0.0 <= value <= 1.0:
                raise UsageError(f"{name} is {value!r}; it is a share, from 0 to 1")
        for name in ("seconds", "max_memory_mb"):
            if not 0.0 < getattr(self, name) < float("inf"):
                raise UsageError(f"{name} is {getattr(self, name)!r}; it is above 0")
        if self.images < 32:
            raise UsageError(f"images is {self.images!r}; tuning needs 32 or more")

    @property
    def goals(self) -> Goals:
        return Goals(max_drop=self.max_drop, min_agreement=self.min_agreement, min_cosine=self.min_cosine)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One set of tensors in float, by the names of its units, and what it gave."""

    units: tuple[str, ...]
    float_macs: float
    price: float
    measured: Measured
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Mixed:
    """How the search ended.

    tensors: what stays in float; layers: the convolutions and linears that go with them; float_macs: share of
    multiply-accumulates outside int8; price: time that it adds, as a share of the int8 model's, by the target's cost
    table; history: every evaluation, in order, the first with all in int8.
    """

    tensors: tuple[str, ...]
    layers: tuple[str, ...]
    float_macs: float
    price: float
    met: bool
    reason: str
    measured: Measured
    history: tuple[Evaluation, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON values; `from_dict` reads them back."""
        return asdict(self)


def from_dict(data: Mapping[str, Any]) -> Mixed:
    """What `Mixed.to_dict` gave, also after a way through JSON."""
    from cspedge.quantize.measure import Measured

    history = tuple(
        Evaluation(**{**row, "units": tuple(row["units"]), "measured": Measured(**row["measured"])})
        for row in data["history"]
    )
    rest = {"tensors": tuple(data["tensors"]), "layers": tuple(data["layers"]), "history": history}
    return Mixed(**{**data, **rest, "measured": Measured(**data["measured"])})


def search(
    found: Study, options: MixedOptions, journal: Journal, *, spent: float = 0.0, progress: Progress | None = None
) -> Mixed:
    """The smallest set in float that meets the goals, or the best within the budgets, with the reason in words.

    journal: evaluations of earlier searches on the same numbers, placement and images, taken over; what they took
    counts against `seconds`, as `spent` does (what preparing `found` took).
    """
    return _Search(found, options, journal, spent, progress).run()


class _OutOfTimeError(Exception):
    """The next evaluation would begin after the budget's end."""


@dataclass
class _Search:
    found: Study
    options: MixedOptions
    journal: Journal
    spent: float
    progress: Progress | None
    history: list[Evaluation] = field(default_factory=list)
    known: dict[frozenset[str], Evaluation] = field(default_factory=dict)

    def run(self) -> Mixed:
        before = ""
        try:
            if self._meets(()):
                return self._result("all in int8")
            for ranking in (order, stretched):  # the second stretches the float budget instead of the time
                ranked = ranking(self.found, self.options.max_float_macs)
                before = _left_out(ranked)
                if self._shrink(ranked.units):
                    return self._result("")
            self._improve(ranked.units)
        except _OutOfTimeError:
            return self._result(f"the time ended ({self.options.seconds:g} s, {len(self.history)} evaluations)")
        return self._result(
            f"no set within the float budget does ({self.options.max_float_macs:.1%} of multiply-accumulates){before}"
        )

    def _shrink(self, units: tuple[str, ...]) -> bool:
        """Bisection over the order, then back to int8 with what is not needed; False where the whole does not do."""
        if not self._meets(units):
            return False
        low, high = 0, len(units)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._meets(units[:middle]) else (middle, high)
        kept = list(units[:high])
        for unit in sorted(kept, key=lambda u: -self._price([u])):
            fewer = [u for u in kept if u != unit]
            if self._price(fewer) <= self._price(kept) and self._meets(fewer):
                kept = fewer
        return True

    def _improve(self, units: tuple[str, ...]) -> None:
        """Looks for a better set by evaluations of all images: the halves of the order, then one unit at a time."""
        lengths = {0, *(len(units) >> i for i in range(4))}
        kept = max((units[:n] for n in sorted(lengths)), key=lambda u: self._quality(self._evaluate(u, whole=True)))
        others = [unit.name for unit in self.found.islands.units if unit.name not in kept and unit.name != IMAGE]
        others.sort(key=lambda name: self._flips((*kept, name)))
        for unit in [*kept[::-1][:TRIES], *others[:TRIES]]:
            changed = tuple(u for u in kept if u != unit) if unit in kept else (*kept, unit)
            if self.found.islands.float_share(self._tensors(changed)) > self.options.max_float_macs:
                continue
            better, now = (self._quality(self._evaluate(u, whole=True)) for u in (changed, kept))
            if better > now or (better == now and len(changed) < len(kept)):
                kept = changed

    @staticmethod
    def _quality(evaluation: Evaluation) -> float:
        """How little the margins change; of maps and embeddings, their cosine similarity.

        Answers change in proportion, and every image counts: of 512, only the ten or so with the least margins change
        their answer, and a set chosen by those is chosen by luck.
        """
        found = evaluation.measured
        return found.cosine if found.expected is None else -found.shift

    def _meets(self, units: Collection[str]) -> bool:
        return self.options.goals.shortfall(self._evaluate(units).measured) == 0.0

    def _evaluate(self, units: Collection[str], *, whole: bool = False) -> Evaluation:
        """What keeping `units` gives; whole: on all images, also where it is clear before that it will not do."""
        key, count = frozenset(units), len(self.found.bench.images)
        if key in self.known and (self.known[key].measured.n == count or not whole):
            return self.known[key]
        tensors = self._tensors(units)
        islands, goals = self.found.islands, self.options.goals
        entry = self.journal.get(tensors)
        if entry is None or (entry[0].n < count and (whole or not goals.is_hopeless(entry[0]))):
            if self.history and self.spent >= self.options.seconds:
                raise _OutOfTimeError
            start = perf_counter()
            enough = None if whole else goals.is_hopeless
            measured = self.found.bench.measure(islands.tensors(tensors), islands.layers(tensors), enough)
            entry = (measured, round(perf_counter() - start, 3))
            self.journal.put(tensors, *entry)
        self.spent += entry[1]
        self.known[key] = Evaluation(
            units=tuple(units),
            float_macs=islands.float_share(tensors),
            price=islands.price(tensors),
            measured=entry[0],
            seconds=entry[1],
        )
        self.history.append(self.known[key])
        if self.progress is not None:
            self.progress(min(int(self.spent), int(self.options.seconds)), int(self.options.seconds))
        return self.known[key]

    def _tensors(self, units: Collection[str]) -> tuple[str, ...]:
        return tuple(sorted(t for u in self.found.islands.units if u.name in units for t in u.tensors))

    def _price(self, units: Collection[str]) -> float:
        return self.found.islands.price(self._tensors(units))

    def _flips(self, units: Collection[str]) -> float:
        tensors, islands = self._tensors(units), self.found.islands
        return self.found.first.flips(islands.tensors(tensors), islands.layers(tensors))

    def _result(self, why: str) -> Mixed:
        """The cheapest evaluation that meets the goals; where none does, the one that keeps most answers.

        Of those that saw all images, where more than one did; else by first order, which all can be compared by.
        """
        goals, islands = self.options.goals, self.found.islands
        meeting = [e for e in self.history if goals.shortfall(e.measured) == 0.0]
        met = bool(meeting)
        whole = [e for e in self.known.values() if e.measured.n == len(self.found.bench.images)]
        if met:
            best = min(meeting, key=lambda e: (e.price, len(e.units)))
        elif len(whole) > 1:
            best = max(whole, key=lambda e: (self._quality(e), -e.price))
        else:
            best = min(self.history, key=lambda e: (self._flips(e.units), e.price))
        tensors = self._tensors(best.units)
        layers = sorted(islands.layers(()) - islands.layers(tensors), key=list(islands.macs).index)
        where = (
            f"{len(tensors)} tensors and {len(layers)} layers in float ({best.float_macs:.1%} of multiply-accumulates)"
        )
        state = f"{goals.words(best.measured)} with {where if tensors else 'all in int8'}"
        if tensors:
            state += f"; all in int8: {goals.words(self.known[frozenset()].measured)}"
        reason = f"met: {state}" if met else f"not met, {why}: {state}"
        if met and why not in {"", "all in int8"}:
            reason += f"; {why}, a smaller set may do"
        return Mixed(
            tensors=tensors,
            layers=tuple(layers),
            float_macs=best.float_macs,
            price=best.price,
            met=met,
            reason=reason,
            measured=best.measured,
            history=tuple(self.history),
        )


def _left_out(ranked: Order) -> str:
    if ranked.left_out is None:
        return ""
    return f", the next would be {ranked.left_out.name!r} with {ranked.left_out.mac_share:.1%}"
