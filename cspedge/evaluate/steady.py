"""When a process has warmed up: a rule over its own times, applied here for every device and protocol alike.

Georges, Buytaert and Eeckhout (OOPSLA 2007) call a process steady once the last k of its times vary little, and not
after a fixed number of runs. Two changes. What is compared are the medians of the last k and of the k before them,
because one inference that the system interrupted spoils a coefficient of variation, and because a slow drift keeps
k neighbours alike. And a process that does not become steady is counted and said: Barrett et al. (OOPSLA 2017)
found that many never do, and that a figure which hides it misleads.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

WINDOW = 5  # inferences in each of the two windows
TOLERANCE = 0.05  # how far their medians may be apart, as a fraction of the earlier one
CAP = 30  # untimed inferences after which time is taken all the same


def warm_up(times_ms: Sequence[float], *, cap: int = CAP) -> tuple[int, bool]:
    """How many of a process's first inferences are its warm-up, and whether it was steady after them.

    times_ms: milliseconds of every inference from the first that counts, in order, positive. The warm-up ends with the
    first inference n >= 10 for which the median of the last 5 is within 5 % of the median of the 5 before, or after
    `cap`, not steady. Where the times end before either, all of them are warm-up, not steady. What is timed begins
    after it, so no time is kept because it was a likely one.
    """
    for end in range(2 * WINDOW, min(len(times_ms), cap) + 1):
        before, last = median(times_ms[end - 2 * WINDOW : end - WINDOW]), median(times_ms[end - WINDOW : end])
        if abs(last - before) <= TOLERANCE * before:
            return end, True
    return min(len(times_ms), cap), False
