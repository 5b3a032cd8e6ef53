"""What the accuracy loop must reach, and how far a measurement is from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cspedge.quantize.measure import Measured

SURE = 0.999  # confidence at which an evaluation is broken off
EARLIEST = 128  # images before that is asked


@dataclass(frozen=True, kw_only=True)
class Goals:
    """Limits in fractions of 1, None where there is none.

    max_drop: of top-1 against the labels; where images have none, the share of changed answers must stay below it,
    which bounds the drop. min_agreement: with fp32, counted and expected (`Measured.expected`). min_cosine: to fp32,
    of the output that is furthest off, for models that give no logits; the other two mean nothing there.
    """

    max_drop: float | None
    min_agreement: float | None
    min_cosine: float

    def shortfall(self, found: Measured) -> float:
        """How far the goals are missed, all added up; 0 where they are met."""
        if found.agreement is None or found.expected is None:
            return max(0.0, self.min_cosine - found.cosine)
        missed, agreement = 0.0, min(found.agreement, found.expected)
        if self.min_agreement is not None:
            missed += max(0.0, self.min_agreement - agreement)
        if self.max_drop is not None:
            drop = 1.0 - agreement if found.drop is None else found.drop
            missed += max(0.0, drop - self.max_drop)
        return missed if missed > 1e-12 else 0.0

    def is_hopeless(self, found: Measured) -> bool:
        """Whether so few answers agree that more images would not change the verdict (Wilson's upper bound)."""
        if self.min_agreement is None or found.agreement is None or found.n < EARLIEST:
            return False
        from scipy.stats import binomtest

        bounds = binomtest(round(found.agreement * found.n), found.n).proportion_ci(SURE, method="wilson")
        return bool(bounds.high < self.min_agreement)

    def words(self, found: Measured) -> str:
        """The figures that the goals speak of, each beside its goal."""
        on = f"on {found.n} tuning images"
        if found.agreement is None or found.expected is None:
            return f"cosine similarity {found.cosine:.4f} (goal {self.min_cosine:g}) {on}"
        parts = []
        if self.min_agreement is not None:
            parts.append(
                f"agreement {found.agreement:.2%}, expected {found.expected:.2%} (goal {self.min_agreement:.2%})"
            )
        if self.max_drop is not None:
            drop = found.drop
            most = 1.0 - min(found.agreement, found.expected)
            said = f"at most {most:.2%} (no labels)" if drop is None else f"{drop:.2%}"
            parts.append(f"drop {said} (goal {self.max_drop:.2%})")
        return f"{', '.join(parts)} {on}"
