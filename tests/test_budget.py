"""The budget of cspedge.toml: what an artifact exceeds, in words, and what that makes of the exit code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cspedge.config import Budget, load_config
from cspedge.pipeline import budget_notes, exit_code
from cspedge.report import judge, load
from cspedge.report.verdict import p95_ms

EXAMPLE = Path(__file__).parent / "report" / "example_report.json"


@pytest.fixture
def report() -> dict[str, Any]:
    return load(EXAMPLE)


def budget_of(tmp_path: Path, lines: str) -> Budget:
    file = tmp_path / "cspedge.toml"
    file.write_text(f"[budget]\n{lines}\n", encoding="utf-8")
    found = load_config(file).budget
    assert found is not None
    return found


def test_p95_is_of_the_raw_samples(report: dict[str, Any]) -> None:
    latency = report["artifacts"][5]["latency"]
    ranked = sorted(latency["samples_ms"])
    place = 0.95 * (len(ranked) - 1)
    low = int(place)
    assert p95_ms(latency) == pytest.approx(ranked[low] + (place - low) * (ranked[low + 1] - ranked[low]))
    assert p95_ms(None) is None


@pytest.mark.parametrize(
    ("lines", "over"),
    [
        ("max_drop = 1.0\nmin_agreement = 0.0", None),
        ("max_drop = -1.0", "points of top-1, max_drop is \u2212100.00"),
        ("min_agreement = 1.0", "of images, min_agreement is 100 %"),
        ("max_mb = 0.1", ", max_mb is 0.1"),
        ("max_p95_ms = 0.001", "ms at the 95th percentile, max_p95_ms is 0.001"),
        ("max_p95_ms = 1e6", None),
    ],
)
def test_what_is_exceeded_is_said(report: dict[str, Any], tmp_path: Path, lines: str, over: str | None) -> None:
    report["artifacts"] = [report["artifacts"][5]]
    budget = budget_of(tmp_path, lines)
    notes = budget_notes(report, budget)
    assert exit_code([], report, budget) == (0 if over is None else 1)
    if over is None:
        assert notes == []
    else:
        assert len(notes) == 1
        assert notes[0].startswith("openvino/int8 is over the budget: ")
        assert over in notes[0]


def test_p95_decides_the_verdict(report: dict[str, Any]) -> None:
    artifact = report["artifacts"][5]
    took = float(np.percentile(artifact["latency"]["samples_ms"], 95))
    assert judge(artifact, {"max_p95_ms": took})[0] == "ship"
    verdict, reasons = judge(artifact, {"max_p95_ms": took * 0.9})
    assert verdict == "do-not-ship"
    assert reasons[0].startswith("Its p95 of ")
    artifact["latency"] = None
    assert judge(artifact, {"max_p95_ms": took})[0] == "caution"


def test_other_heads_by_cosine_and_no_budget(report: dict[str, Any], tmp_path: Path) -> None:
    report["artifacts"] = [report["artifacts"][5] | {"accuracy": None}]
    report["artifacts"][0]["outputs"][0]["cosine_mean"] = 0.94
    notes = budget_notes(report, budget_of(tmp_path, "min_cosine = 0.95"))
    assert "logits has a mean cosine of 0.9400 to fp32's, min_cosine is 0.95" in notes[0]
    assert budget_notes(report, None) == []
    assert exit_code([], report, None) == 0
