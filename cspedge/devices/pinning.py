"""Cores for what is timed: as many as it has threads, fixed before it starts, so that the scheduler moves nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TOPOLOGY = Path("/sys/devices/system/cpu")


def choose(threads: int) -> tuple[int, ...] | None:
    """The numbers of `threads` logical processors that this process may use, ascending; None where the system cannot.

    Different physical cores first, and the highest numbers, since interrupts mostly go to the lowest. All that may be
    used where there are fewer than threads.
    """
    if not hasattr(os, "sched_getaffinity"):
        return None
    first: list[int] = []  # one of each physical core
    rest: list[int] = []
    seen: set[str] = set()
    for cpu in sorted(os.sched_getaffinity(0), reverse=True):
        siblings = _siblings(cpu)
        (rest if siblings in seen else first).append(cpu)
        seen.add(siblings)
    return tuple(sorted((first + rest)[:threads]))


def _siblings(cpu: int) -> str:
    file = _TOPOLOGY / f"cpu{cpu}" / "topology" / "thread_siblings_list"
    try:
        return file.read_text(encoding="ascii").strip()
    except OSError:  # the system does not tell: a core of its own
        return str(cpu)


@contextmanager
def pinned(cores: tuple[int, ...] | None) -> Iterator[None]:
    """Processes that are started inside run on these cores alone, from their first instruction; None: on any.

    A child inherits the affinity of the thread that starts it, so this thread takes it on meanwhile.
    """
    if cores is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
