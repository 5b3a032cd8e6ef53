"""The accuracy loop: what it finds, how it ends, and that nothing of it is lost."""

from __future__ import annotations

import json
import runpy
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cspedge.config import load_target
from cspedge.errors import UsageError
from cspedge.quantize.journal import Journal
from cspedge.quantize.mixed import Mixed, MixedOptions, from_dict, search
from cspedge.quantize.sensitivity import Study, study

BAD = ("blocks.2.0.bn2.act:hardswish:scale_where_free", "blocks.4.1.bn1.act:hardswish")
GOAL = MixedOptions(min_agreement=0.995, images=192)
CHILD = Path(__file__).with_name("mixed_child.py")


def prepared(digits: Any, *bad: str, labels: bool = False) -> Study:
    model = digits.coarse(*bad)
    return study(model, load_target("openvino").placement, digits.images, digits.labels if labels else None)


@pytest.fixture(scope="module")
def broken(digits: Any) -> Study:
    """Two tensors of far too coarse encodings: nine answers of ten are lost."""
    return prepared(digits, *BAD)


@pytest.fixture(scope="module")
def found(broken: Study) -> Mixed:
    return search(broken, GOAL, Journal())


def test_exactly_what_is_broken_stays_in_float(found: Mixed) -> None:
    assert found.tensors == tuple(sorted(BAD))
    assert set(found.layers) == {"blocks.2.1.conv_dw:conv2d", "blocks.4.1.conv_pw:conv2d"}
    assert found.met
    assert found.measured.agreement >= 0.99
    assert 0 < found.float_macs <= 0.1
    assert found.history[0].units == ()
    assert found.history[0].measured.agreement < 0.6
    assert found.reason.startswith("met: agreement ")
    assert "2 tensors and 2 layers in float" in found.reason


def test_the_result_survives_json_and_a_second_search_gives_the_same(broken: Study, found: Mixed) -> None:
    assert from_dict(json.loads(json.dumps(found.to_dict(), allow_nan=False))) == found
    again = search(broken, GOAL, Journal())
    assert replace(again, history=()) == replace(found, history=())
    assert [e.units for e in again.history] == [e.units for e in found.history]


def test_what_is_good_enough_in_int8_is_left_alone(digits: Any) -> None:
    result = search(prepared(digits), GOAL, Journal())
    assert result.met
    assert result.tensors == ()
    assert len(result.history) == 1
    assert "with all in int8" in result.reason


def test_the_float_budget_ends_it_with_the_best_and_what_would_come_next(broken: Study) -> None:
    result = search(broken, replace(GOAL, max_float_macs=0.03), Journal())
    assert not result.met
    assert result.float_macs <= 0.03
    whole = [e.measured.shift for e in result.history if e.measured.n == 192]
    assert len(whole) > 3
    assert result.measured.shift == min(whole)
    assert (
        "not met, no set within the float budget does (3.0% of multiply-accumulates), the next would be 'blocks.4.1"
        in result.reason
    )


def test_the_time_ends_it_with_the_best_so_far(broken: Study, found: Mixed) -> None:
    result = search(broken, replace(GOAL, seconds=1e-3), Journal())
    assert not result.met
    assert len(result.history) == 1, "the first evaluation is always made"
    assert "not met, the time ended (0.001 s, 1 evaluations)" in result.reason
    middle = sum(e.seconds for e in found.history[:2]) + 1e-6
    journal = Journal()
    for evaluation in found.history:
        keep = [t for u in broken.islands.units if u.name in evaluation.units for t in u.tensors]
        journal.put(keep, evaluation.measured, evaluation.seconds)
    replay = search(broken, replace(GOAL, seconds=middle), journal)
    assert [e.units for e in replay.history] == [e.units for e in found.history], "what is known costs no more time"


def test_a_met_goal_is_reported_though_time_ran_out(broken: Study, found: Mixed) -> None:
    """Time for the two first evaluations only: the second, with all that fits in float, meets the goal."""
    journal = Journal()
    for evaluation in found.history[:2]:
        keep = [t for u in broken.islands.units if u.name in evaluation.units for t in u.tensors]
        journal.put(keep, evaluation.measured, 10.0)
    result = search(broken, replace(GOAL, seconds=15.0), journal)
    assert result.met
    assert len(result.tensors) > 2
    assert "the time ended (15 s, 2 evaluations), a smaller set may do" in result.reason


def test_the_drop_is_measured_with_labels_and_bounded_without(digits: Any) -> None:
    goal = MixedOptions(max_drop=0.01, images=192)
    with_labels = search(prepared(digits, *BAD, labels=True), goal, Journal())
    assert with_labels.met
    assert with_labels.measured.drop <= 0.01
    assert with_labels.history[0].measured.drop > 0.3
    without = search(prepared(digits, *BAD), goal, Journal())
    assert without.met
    assert without.measured.drop is None
    assert 1 - without.measured.agreement <= 0.01
    assert "drop at most" in without.reason


def test_a_larger_budget_goes_on_where_the_smaller_one_ended(broken: Study, tmp_path: Path) -> None:
    path = tmp_path / "journal.json"
    first = search(broken, replace(GOAL, seconds=1e-3), Journal(path))
    kept = path.read_bytes()
    second = search(broken, GOAL, Journal(path))
    assert second.met
    assert second.history[0] == first.history[0], "taken over with its seconds, not measured again"
    assert json.loads(kept)["evaluations"].items() <= json.loads(path.read_text())["evaluations"].items()


@pytest.mark.parametrize("damage", [b"", b"{", b'{"schema": 99, "evaluations": {}}', b"\xff\xfe"])
def test_a_journal_that_cannot_be_read_is_none(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "journal.json"
    path.write_bytes(damage)
    assert len(Journal(path)) == 0


def test_evaluations_under_a_wrong_key_are_not_taken(broken: Study, found: Mixed, tmp_path: Path) -> None:
    path = tmp_path / "journal.json"
    Journal(path).put(["a"], found.measured, 1.0)
    data = json.loads(path.read_text())
    data["evaluations"]["0" * 64] = data["evaluations"].popitem()[1]
    path.write_text(json.dumps(data))
    assert len(Journal(path)) == 0


def test_a_killed_search_loses_one_evaluation_at_most(tmp_path: Path) -> None:
    """A real SIGKILL in the middle; the same command again takes over what was measured and ends as if never killed."""
    command = [sys.executable, str(CHILD), str(tmp_path / "journal.json")]
    process = subprocess.Popen([*command, "slow"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told = [process.stdout.readline() for _ in range(3)]
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert process.returncode == -signal.SIGKILL
    assert all(line.startswith("evaluated") for line in told)
    kept = len(Journal(tmp_path / "journal.json"))
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    summary = json.loads(done.stdout.splitlines()[-1])
    result, undisturbed = from_dict(summary["result"]), runpy.run_path(str(CHILD))["run"](Journal())
    assert 3 <= summary["known"] == kept < len(undisturbed.history)
    assert summary["measured"] == len(undisturbed.history) - kept
    assert replace(result, history=()) == replace(undisturbed, history=())
    assert [e.measured for e in result.history] == [e.measured for e in undisturbed.history]
    assert list(tmp_path.glob(".tmp-*")) == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "has no goal; give max_drop or min_agreement"),
        ({"min_agreement": 1.5}, "min_agreement is 1.5; it is a share"),
        ({"max_drop": -0.1}, "max_drop is -0.1; it is a share"),
        ({"max_drop": 0.1, "max_float_macs": 2.0}, "max_float_macs is 2.0; it is a share"),
        ({"max_drop": 0.1, "seconds": 0.0}, "seconds is 0.0; it is above 0"),
        ({"max_drop": 0.1, "max_memory_mb": float("nan")}, "max_memory_mb is nan; it is above 0"),
        ({"max_drop": 0.1, "images": 5}, "images is 5; tuning needs 32 or more"),
    ],
)
def test_options_say_what_is_allowed(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        MixedOptions(**values)


def test_memory_decides_how_many_images_run_together(digits: Any) -> None:
    placement = load_target("openvino").placement
    sizes = [
        study(digits.model, placement, digits.images[:32], max_memory_mb=mb).bench.batch for mb in (1.0, 60.0, 4000.0)
    ]
    assert sizes[0] == 1
    assert 1 < sizes[1] < 32
    assert sizes[2] == 32


def test_time_is_counted_from_real_evaluations(broken: Study) -> None:
    start = time.perf_counter()
    result = search(broken, GOAL, Journal())
    assert sum(e.seconds for e in result.history) <= time.perf_counter() - start + 0.001 * len(result.history)
