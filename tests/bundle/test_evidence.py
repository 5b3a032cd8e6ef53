"""What of a report's figures goes into a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cspedge.bundle.content import _evidence
from cspedge.report import load

EXAMPLE = Path(__file__).parents[1] / "report" / "example_report.json"
NOISE = {"artifact": "openvino/int8", "ratio": 0.9, "ci95": [0.8, 0.95], "reason": "differs"}


@pytest.mark.parametrize(("conclusive", "speed"), [(None, 1.36), (True, 1.36), (False, None)])
def test_a_bundle_claims_no_speed_that_the_report_does_not(conclusive: bool | None, speed: float | None) -> None:
    row: dict[str, Any] = load(EXAMPLE)["artifacts"][5]
    row["latency"]["noise"] = None if conclusive is None else {**NOISE, "conclusive": conclusive}
    told = _evidence(row)["latency"]
    assert told["speedup_vs_fp32"] == speed
    assert (told["speedup_ci95"] is None) == (speed is None)
    assert told["p50_ms"] == row["latency"]["p50_ms"]
