"""How times were taken, in report.json's schema, on the page and in the console's table."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cspedge.cli.console import sweep_table
from cspedge.errors import UsageError
from cspedge.report import judge, load, render, validate
from cspedge.report.timing import listed

EXAMPLE = Path(__file__).with_name("example_report.json")
POINT = {"p50_ci95": [0.3, 0.5], "p50_ms": 0.4, "p90_ms": 0.5, "p99_ms": 0.6, "samples_ms": [0.4, 0.6]}
TAKEN: dict[str, Any] = {
    "protocol": "fresh-process",
    "p50_ci95": [0.46, 0.48],
    "cores": [1, 3],
    "base_rss_mb": 60.0,
    "warmup_ms": [[0.9] * 10, [0.8] * 30],
    "unsteady": 1,
    "noise": {
        "artifact": "openvino/int8",
        "ratio": 0.9,
        "ci95": [0.85, 0.95],
        "conclusive": False,
        "reason": "differs",
    },
    "cold": {
        "load_samples_ms": [80.0, 90.0],
        "first_samples_ms": [2.0, 4.0],
        "first_ms": 3.0,
        "total_ms": 88.0,
        "total_ci95": [82.0, 94.0],
    },
    "sweep": [{**POINT, "threads": 1, "cores": None}, {**POINT, "threads": 4, "cores": [0, 1, 2, 3]}],
}


@pytest.fixture
def report() -> dict[str, Any]:
    """The example, with openvino/int8 timed by today's protocol and the others as long ago."""
    found = load(EXAMPLE)
    found["artifacts"][5]["latency"] |= copy.deepcopy(TAKEN)
    return found


def test_every_figure_has_its_words(report: dict[str, Any]) -> None:
    validate(report)
    facts = dict(listed(report["artifacts"][5]["latency"]))
    assert facts == {
        "Median\u2019s interval": "0.460 to 0.480 ms (95 %)",
        "Timed in": "a fresh process per artifact and round",
        "Warm-up": "20 inferences; not steady after them in 1 of 2 processes",
        "Noise": "openvino/int8 beside itself: 0.85 to 0.95 times; too noisy to conclude about speed",
        "Cold start": "88.0 ms, 82.0 to 94.0 ms (95 %); first inference 3.00 ms; medians of 2 processes",
        "With 1 thread": "0.400 ms, 0.300 to 0.500 ms (95 %)",
        "With 4 threads": "0.400 ms, 0.300 to 0.500 ms (95 %)",
        "Cores": [1, 3],
        "Peak memory": "95 MB, 60 MB of it before the model was loaded",
    }


def test_a_report_of_before_says_what_it_can(report: dict[str, Any]) -> None:
    facts = dict(listed(report["artifacts"][1]["latency"]))
    assert {name for name, value in facts.items() if value} == {"Peak memory"}


def test_the_page_does_not_conclude(report: dict[str, Any]) -> None:
    timed = report["artifacts"][5]
    timed["reasons"] = judge(timed, {})[1]
    noisy = render(report)
    timed["latency"]["noise"] |= {"ci95": [0.98, 1.02], "conclusive": True, "reason": None}
    timed["reasons"] = judge(timed, {})[1]
    quiet = render(report)
    assert noisy.count("too noisy to conclude") >= 3  # beside the ratio, in the reasons, among the figures
    assert "1.31 to 1.42" not in noisy
    assert quiet.count("too noisy to conclude") == 0
    assert "1.31 to 1.42" in quiet


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t["noise"].update(conclusive="yes"), r"latency.noise.conclusive is 'yes'"),
        (lambda t: t["noise"].pop("ratio"), r"latency.noise.ratio is missing"),
        (lambda t: t.update(protocol="guess"), r"one of in-process, fresh-process"),
        (lambda t: t["warmup_ms"].append([]), r"warmup_ms\[2\] is \[\]; expected a list of 1"),
        (lambda t: t["cold"].update(extra=1), r"cold.extra is an unknown key"),
        (lambda t: t["sweep"][1].update(p50_ci95=[2, 1]), r"sweep\[1\].p50_ci95 is \[2, 1\]"),
    ],
)
def test_what_is_wrong_is_named(
    report: dict[str, Any], change: Callable[[dict[str, Any]], object], message: str
) -> None:
    change(report["artifacts"][5]["latency"])
    with pytest.raises(UsageError, match=message):
        validate(report)


def test_the_console_shows_a_sweep(report: dict[str, Any]) -> None:
    console = Console(file=io.StringIO(), width=80)
    console.print(sweep_table(report))
    assert isinstance(console.file, io.StringIO)
    lines = [line.split() for line in console.file.getvalue().splitlines()]
    assert lines[1:] == [["artifact", "1", "2", "4"], ["openvino/int8", "0.40", "0.47", "0.40"]]
    assert sweep_table(load(EXAMPLE)) is None
