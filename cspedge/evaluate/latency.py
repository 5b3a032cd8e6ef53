"""Single-image latency of all artifacts together, interleaved so that a ratio compares like with like."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cspedge.errors import CspedgeError, InputError, UsageError
from cspedge.evaluate.steady import CAP, warm_up

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cspedge.backends.base import Session

MIN_TIMED = 50  # inferences per artifact below which a p90 or p99 is an anecdote

# Measured with lcnet_050 in ONNX Runtime and OpenVINO side by side: the first inference after the other runtime's
# burst takes 1.3 to 1.4 times the steady time, the second 1.1 to 1.2, from the third on at most 1.1.
SETTLE = 2


@dataclass(frozen=True, kw_only=True)
class BenchResult:
    """What `bench` measured: every artifact's label stands either in `samples` or in `failures`.

    samples: label to milliseconds, float64 [rounds, per_round]; failures: label to the reason it dropped out;
    order: the labels in the order they ran, one tuple a round; warmup: label to the milliseconds of the untimed
    inferences before the first round; unsteady: the labels that were not steady after them.
    """

    samples: dict[str, NDArray[np.float64]]
    failures: dict[str, str]
    order: tuple[tuple[str, ...], ...]
    warmup: dict[str, tuple[float, ...]]
    unsteady: frozenset[str]


def bench(
    sessions: Mapping[str, Session],
    image: NDArray[np.float32],
    *,
    rounds: int = 10,
    per_round: int = 10,
    seed: int = 0,
    clock: Callable[[], int] = time.perf_counter_ns,
    progress: Callable[[int, int], None] | None = None,
) -> BenchResult:
    """Times single-image inferences of every session, all of them in every round.

    sessions: artifact label to loaded session, all loaded with the same number of threads. image: float32
    [1, 3, H, W], RGB in [0, 1]. Each warms up first until it is steady (`cspedge.evaluate.steady`); then in each of
    `rounds` rounds every artifact runs `per_round` timed inferences in a row. clock: nanoseconds, monotonic. progress:
    called with (rounds done, rounds) after each round.

    The order within rounds: a seeded shuffle, rotated by one a round until each artifact has stood in each place once,
    then a fresh shuffle. So none profits from always running first, and the neighbours change too.

    Before each burst two more inferences run untimed: the artifact before has taken the caches (and its thread pool
    may still be spinning), which says something about the others in the list, not about this one. Python's garbage
    collector is off while timing, and is run between rounds.

    A session that raises drops out with its reason and the others go on. Raises UsageError where rounds x per_round
    is below 50 or a count is negative, InputError where the image has another shape or dtype.
    """
    check_counts(rounds, per_round)
    if image.ndim != 4 or image.shape[0] != 1 or image.shape[1] != 3 or image.dtype != np.float32:
        raise InputError(f"the image is {image.dtype} of shape {list(image.shape)}; needed is float32 [1, 3, H, W]")
    failures: dict[str, str] = {}
    warmup: dict[str, tuple[float, ...]] = {}
    unsteady: set[str] = set()
    for label, session in sessions.items():
        try:
            warmup[label], steady = _warm_up(session, image, clock)
            unsteady |= set() if steady else {label}
        except Exception as error:
            failures[label] = _reason(error, "in the warm-up")
    taken: dict[str, list[list[float]]] = {label: [] for label in sessions}
    order = round_order(tuple(sessions), rounds=rounds, seed=seed)
    ran: list[tuple[str, ...]] = []
    with _frozen():
        for index, labels in enumerate(order):
            gc.collect()
            here = tuple(label for label in labels if label not in failures)
            for label in here:
                try:
                    taken[label].append(_burst(sessions[label], image, per_round, clock))
                except Exception as error:
                    failures[label] = _reason(error, f"in round {index + 1} of {rounds}")
            ran.append(here)
            if progress is not None:
                progress(index + 1, rounds)
    samples = {label: np.array(rows, dtype=np.float64) for label, rows in taken.items() if label not in failures}
    return BenchResult(
        samples=samples, failures=failures, order=tuple(ran), warmup=warmup, unsteady=frozenset(unsteady)
    )


def check_counts(rounds: int, per_round: int) -> None:
    """Raises UsageError where there would be fewer than 50 timed inferences, or a single round, or none in one."""
    if rounds < 2 or per_round < 1:
        raise UsageError(
            f"rounds {rounds}, per_round {per_round}: allowed are at least 2 and 1, because intervals are over rounds"
        )
    if rounds * per_round < MIN_TIMED:
        raise UsageError(
            f"{rounds} rounds of {per_round} are {rounds * per_round} timed inferences per artifact; "
            f"at least {MIN_TIMED} are needed for percentiles, so raise the rounds or the inferences per round"
        )


def _reason(error: Exception, when: str) -> str:
    text = str(error) or "no message"
    return f"{text} ({when})" if isinstance(error, CspedgeError) else f"{type(error).__name__}: {text} ({when})"


def round_order(labels: tuple[str, ...], *, rounds: int, seed: int) -> tuple[tuple[str, ...], ...]:
    """The labels' order in each round: within every block of len(labels) rounds each has each place exactly once."""
    if not labels:
        return ((),) * rounds
    rng = np.random.default_rng(seed)
    order: list[tuple[str, ...]] = []
    for index in range(rounds):
        shift = index % len(labels)
        if shift == 0:
            block = [labels[int(i)] for i in rng.permutation(len(labels))]
        order.append(tuple(block[shift:] + block[:shift]))
    return tuple(order)


@contextmanager
def _frozen() -> Iterator[None]:
    """Leaves what was there before to itself: collections between rounds look at what the bench itself made."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def _no_gc() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _warm_up(session: Session, image: NDArray[np.float32], clock: Callable[[], int]) -> tuple[tuple[float, ...], bool]:
    """Runs until the session is steady, or until the cap: milliseconds of each inference, and whether it was."""
    milliseconds: list[float] = []
    with _no_gc():
        while True:
            start = clock()
            session.run(image)
            milliseconds.append((clock() - start) / 1e6)
            count, steady = warm_up(milliseconds)
            if steady or count == CAP:
                return tuple(milliseconds), steady


def _burst(session: Session, image: NDArray[np.float32], count: int, clock: Callable[[], int]) -> list[float]:
    """`count` timed inferences in milliseconds, after two untimed; each has its own pair of clock readings."""
    milliseconds: list[float] = []
    with _no_gc():
        for _ in range(SETTLE):
            session.run(image)
        for _ in range(count):
            start = clock()
            session.run(image)
            milliseconds.append((clock() - start) / 1e6)
    return milliseconds
