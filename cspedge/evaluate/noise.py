"""Whether a machine is quiet enough to compare speeds: an A/A test, one artifact of the bench against itself.

The artifact runs twice in every round, as two entries of the list that only the order tells apart. Their ratio is 1 but
for noise, so its interval shows what the bench would call a difference where there is none. It cannot see what hits
both alike in every round, such as a clock that is throttled throughout.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cspedge.types import Precision

if TYPE_CHECKING:
    from cspedge.evaluate.timing import NoiseCheck, Timed
    from cspedge.types import Artifact

WIDEST = 0.2  # of the 95 % interval: beyond it, a difference of a tenth either way would not be seen
AGAIN = " again"  # ends the label of the second of the two; no artifact's label has a space


def subject(artifacts: Sequence[Artifact]) -> Artifact:
    """The artifact that runs twice: the first in int8, whose short runs suffer most from noise, else the first."""
    return next((a for a in artifacts if a.precision is Precision.INT8), artifacts[0])


def check(label: str, one: Timed, other: Timed, *, seed: int) -> NoiseCheck:
    """one, other: the same artifact's times from two entries of the same bench. Not conclusive where the 95 % interval
    of the ratio of medians (`cspedge.evaluate.stats.bootstrap_ratio`) does not hold 1, or is wider than `WIDEST`.
    """
    from cspedge.evaluate.stats import bootstrap_ratio
    from cspedge.evaluate.timing import NoiseCheck

    ratio, (low, high) = bootstrap_ratio(one.samples_ms, other.samples_ms, seed=seed)
    reason, found = None, f"{label} beside itself came out at {low:.2f} to {high:.2f} times its own speed"
    if not low <= 1 <= high:
        reason = f"{found}, which should hold 1"
    elif high - low > WIDEST:
        reason = f"{found}, an interval wider than {WIDEST:g}"
    return NoiseCheck(artifact=label, ratio=ratio, ci95=(low, high), conclusive=reason is None, reason=reason)
