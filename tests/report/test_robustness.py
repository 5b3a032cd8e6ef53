"""Loss under mild corruptions in the report: the verdict's rule, the table, the schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cspedge.errors import UsageError
from cspedge.evaluate.stats import excess_p, tango_interval
from cspedge.report import judge, load, render, validate
from cspedge.report.robustness import corrected, table

EXAMPLE = Path(__file__).with_name("example_report.json")
NAMES = ("blur", "JPEG", "brighter", "darker")
N = 1000


def row(name: str, lost: int, gained: int) -> dict[str, Any]:
    return {
        "name": name,
        "n": N,
        "top1": 0.6,
        "drop_top1": (lost - gained) / N,
        "drop_ci95": list(tango_interval(lost, gained, N)),
        "agreement": 0.95,
        "only_reference": lost,
        "only_artifact": gained,
    }


def with_losses(*counts: tuple[int, int]) -> dict[str, Any]:
    """The example, its openvino/int8 with these images lost and gained under the four corruptions."""
    report = load(EXAMPLE)
    own = {"kind": "gaussian-blur", "value": 1.0, "clean_top1": 0.7, "n": N, "top1": 0.6, "drop_top1": 0.1}
    corruptions = [own | {"name": name, "drop_ci95": [0.05, 0.15]} for name in NAMES]
    report["robustness"] = {"sha256": "0" * 64, "corruptions": corruptions}
    report["artifacts"][5]["robustness"] = [row(name, *found) for name, found in zip(NAMES, counts, strict=True)]
    return report


@pytest.mark.parametrize(
    ("counts", "over"),
    [
        (((5, 5), (5, 5), (5, 5), (5, 5)), ()),
        (((60, 10), (5, 5), (5, 5), (5, 5)), ("blur",)),  # 5 points, budget 1
        (((60, 10), (5, 5), (70, 20), (5, 5)), ("blur", "brighter")),
        # p is 0.026: alone it would be below 0.05, as one of four it is not
        (((31, 10), (5, 5), (5, 5), (5, 5)), ()),
    ],
)
def test_a_corruption_under_which_int8_loses_too_much_is_a_caution(
    counts: tuple[tuple[int, int], ...], over: tuple[str, ...]
) -> None:
    artifact = with_losses(*counts)["artifacts"][5]
    verdict, reasons = judge(artifact, {"max_drop": 0.01})
    said = next(r for r in reasons if "corrupt" in r)
    assert ("surely over the budget of 1.00" in said) == bool(over)
    assert [name for name in NAMES if f"{name} " in said and over] == list(over)
    if over:
        assert verdict == "caution"
        assert judge(artifact, {"max_drop": 0.2})[1] != reasons
    alone = excess_p(*counts[0], N, 0.01)
    q = corrected(artifact["robustness"], 0.01)
    assert min(q) >= min(alone, 1.0)
    assert (min(q) < 0.05) == bool(over)


def test_correction_for_four_is_what_saves_the_last_case() -> None:
    assert 0.02 < excess_p(31, 10, N, 0.01) < 0.05


def test_the_table_says_what_fp32_loses_and_what_int8_loses_more() -> None:
    report = with_losses((60, 10), (5, 5), (5, 5), (5, 5))
    validate(report)
    found = table(report)
    assert found is not None
    assert found["names"] == [("openvino", "int8")]
    assert [r["name"] for r in found["rows"]] == list(NAMES)
    assert found["rows"][0]["drop"] == "10.00"
    assert [r["cells"][0]["worse"] for r in found["rows"]] == [True, False, False, False]
    assert found["rows"][0]["cells"][0]["drop"] == "5.00"
    page = render(report)
    assert "<h2>Under mild corruptions</h2>" in page
    assert "Hendrycks" in page
    assert "<h2>Under mild corruptions</h2>" not in render(load(EXAMPLE))


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        ("name", "fog", r"artifacts\[5\].robustness names \['fog', 'JPEG', 'brighter', 'darker'\]"),
        ("top1", 1.5, r"artifacts\[5\].robustness\[0\].top1 is 1.5"),
        ("drop_ci95", [0.2, 0.1], r"artifacts\[5\].robustness\[0\].drop_ci95"),
        ("only_reference", -1, r"artifacts\[5\].robustness\[0\].only_reference"),
    ],
)
def test_what_is_malformed_is_named(where: str, value: Any, message: str) -> None:
    report = with_losses((5, 5), (5, 5), (5, 5), (5, 5))
    report["artifacts"][5]["robustness"][0][where] = value
    with pytest.raises(UsageError, match=message):
        validate(report)
