"""What the report says of a device's clocks and warmth."""

from __future__ import annotations

from pathlib import Path

import pytest

from cspedge.errors import UsageError
from cspedge.report import facts, schema

CONDITIONS = {
    "clocks": [
        {
            "cores": "policy4",
            "governor": "schedutil",
            "max_mhz": 2800.0,
            "limit_mhz": 2400.0,
            "before_mhz": 600.0,
            "after_mhz": 1800.0,
        }
    ],
    "status_start": None,
    "status_before": None,
    "status_after": None,
    "celsius_start": 31.0,
    "celsius_before": 33.5,
    "celsius_after": 41.25,
    "cooldown_s": 12.4,
    "processes": 10,
    "warm_starts": 2,
}


def test_a_line_of_conditions() -> None:
    """What the device does not tell is not said."""
    assert facts.conditions(CONDITIONS) == (
        "policy4 schedutil 600 then 1800 MHz, allowed 2400 of 2800; hottest sensor, °C: 31 at the start, 33.5 before, "
        "41.25 after; cooled down for 12 s in all; 2 of 10 processes began warm"
    )
    assert facts.conditions(None) is None


@pytest.mark.parametrize(("key", "value"), [("celsius_after", float("nan")), ("processes", -1), ("heat", 1)])
def test_conditions_that_are_none(key: str, value: object) -> None:
    report = schema.load(Path(__file__).with_name("example_report.json"))
    row = next(row for row in report["artifacts"] if row["latency"])
    row["latency"]["conditions"] = CONDITIONS
    schema.validate(report)
    row["latency"]["conditions"] = CONDITIONS | {key: value}
    with pytest.raises(UsageError, match=rf"latency\.conditions.*{key}"):
        schema.validate(report)
