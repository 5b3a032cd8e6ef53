"""The rule that ends a warm-up, on traces made by hand: each is a way in which real processes begin."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cspedge.evaluate.steady import CAP, TOLERANCE, WINDOW, warm_up

LEAST = 2 * WINDOW
FLAT = [2.0] * 40
SLOW_START = [9.0, 4.0, 2.0] + [2.0] * 37  # allocation and kernel choice: over after two inferences
CACHES = [2.0 + 2.0 * 0.5**i for i in range(40)]  # halves its distance each time
CLOCK = [3.0] * 12 + [2.0] * 28  # the processor raises its clock at once
SPIKES = [2.0 if i % 7 else 20.0 for i in range(40)]  # the system interrupts every seventh
JITTER = [2.0 + 0.3 * (i * 7 % 11 / 10 - 0.5) for i in range(40)]
DRIFT = [2.0 * 1.03**i for i in range(40)]  # ever hotter, ever slower
TWO_STATES = [1.0, 2.0] * 20


@pytest.mark.parametrize(
    ("trace", "ended"),
    [
        (FLAT, (LEAST, True)),
        (SLOW_START, (LEAST, True)),
        (CACHES, (LEAST + 3, True)),
        (SPIKES, (LEAST, True)),
        (JITTER, (LEAST, True)),
        (DRIFT, (CAP, False)),
        (TWO_STATES, (CAP, False)),
        (FLAT[:9], (9, False)),  # too short to tell
        ([], (0, False)),
    ],
)
def test_when_a_process_is_warm(trace: list[float], ended: tuple[int, bool]) -> None:
    assert warm_up(trace) == ended


def test_a_step_within_the_windows_is_waited_for() -> None:
    """A slow start of four inferences: the earlier window's median has to lie behind it."""
    assert warm_up([3.0] * 4 + [2.0] * 36) == (4 + LEAST - WINDOW // 2, True)


def test_a_late_step_is_beyond_the_rule() -> None:
    """What ten inferences cannot see (docs/latency.md says so): the trace is flat for as long as the rule looks."""
    assert warm_up(CLOCK) == (LEAST, True)


@given(st.lists(st.floats(0.01, 1e3), max_size=60), st.floats(0.1, 100))
def test_the_rule_knows_no_unit_and_nothing_after_its_end(trace: list[float], factor: float) -> None:
    end, steady = warm_up(trace)
    assert end <= min(len(trace), CAP)
    assert warm_up(trace[:end]) == (end, steady)
    if steady:
        before, last = (sorted(trace[at : at + WINDOW])[WINDOW // 2] for at in (end - LEAST, end - WINDOW))
        assert abs(last - before) <= TOLERANCE * before
