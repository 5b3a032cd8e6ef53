"""The verdict's rules one by one, and what is recommended from verdicts."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from cspedge.errors import UsageError
from cspedge.report import judge, load, recommend
from cspedge.types import Verdict

EXAMPLE = Path(__file__).with_name("example_report.json")
SHIP, CAUTION, STOP = Verdict.SHIP, Verdict.CAUTION, Verdict.DO_NOT_SHIP

QUIET = {"artifact": "openvino/int8", "ratio": 1.01, "ci95": [0.98, 1.03], "conclusive": True, "reason": None}
NOISY = {**QUIET, "ci95": [0.8, 0.9], "conclusive": False, "reason": "openvino/int8 beside itself differs"}


@pytest.fixture
def report() -> dict[str, Any]:
    return load(EXAMPLE)


@pytest.fixture
def good(report: dict[str, Any]) -> dict[str, Any]:
    """openvino/int8 of the example: ok in every respect."""
    return copy.deepcopy(report["artifacts"][5])


def test_the_example_carries_the_verdicts_of_these_rules(report: dict[str, Any]) -> None:
    for artifact in report["artifacts"]:
        assert judge(artifact, {}) == (artifact["verdict"], artifact["reasons"])


@pytest.mark.parametrize(
    ("drop", "interval", "verdict", "word"),
    [
        (0.0, [-0.004, 0.004], SHIP, "Loses nothing in top-1"),
        (0.002, [-0.006, 0.010], SHIP, "within the budget of 1.00."),
        (-0.003, [-0.010, 0.004], SHIP, "Gains 0.30 points"),
        (0.005, [-0.005, 0.020], SHIP, "well within the budget of 1.00, as far as 360 images can tell"),
        (0.005, [-0.005, 0.021], CAUTION, "images would settle it"),
        (0.006, [-0.005, 0.015], CAUTION, "images would settle it"),
        (0.0, [-0.03, 0.03], CAUTION, "about 3,200 images would settle it"),
        (0.010, [-0.005, 0.025], CAUTION, "at or over the budget of 1.00, though not surely"),
        (0.020, [0.005, 0.035], CAUTION, "though not surely"),
        (0.021, [-0.010, 0.050], STOP, "more than twice the budget"),
        (0.015, [0.011, 0.019], STOP, "surely over the budget of 1.00"),
        (0.010, [0.0100, 0.0200], CAUTION, "though not surely"),
    ],
)
def test_accuracy(good: dict[str, Any], drop: float, interval: list[float], verdict: Verdict, word: str) -> None:
    good["accuracy"].update(drop_top1=drop, drop_ci95=interval)
    got, reasons = judge(good, {})
    assert got == verdict
    assert any(word in reason for reason in reasons)
    if verdict != SHIP:
        assert word in reasons[0]


def test_a_budget_moves_the_line(good: dict[str, Any]) -> None:
    good["accuracy"].update(drop_top1=0.004, drop_ci95=[0.002, 0.006])
    assert judge(good, {"max_drop": 0.005})[0] == CAUTION
    assert judge(good, {"max_drop": 0.001})[0] == STOP
    assert judge(good, {"max_drop": 0.006})[0] == SHIP


@pytest.mark.parametrize(
    ("changes", "verdict", "word"),
    [
        ({"audit.encodings_match": False}, STOP, "differ from encodings.json"),
        ({"audit.encodings_match": None}, CAUTION, "not checked against encodings.json"),
        ({"audit": None}, CAUTION, "not checked against encodings.json"),
        ({"audit.int8_mac_share": 0.49}, CAUTION, "int8 in name: only 49.0 %"),
        ({"audit.int8_mac_share": 0.5}, SHIP, "50.0 % of its multiply-accumulates run in int8"),
        ({"accuracy.agreement": 0.899}, CAUTION, "89.9 % of images, below 90.0 %"),
        ({"accuracy.agreement": 0.93}, SHIP, "short of the 95.0 % to aim for"),
        ({"accuracy.agreement": 0.95}, SHIP, "95.0 % of images."),
        ({"latency.speedup_ci95": [0.7, 0.999]}, CAUTION, "x86 is no proxy for phones"),
        ({"latency.speedup_ci95": [0.7, 0.9], "latency.isa": ["neon", "dotprod"]}, CAUTION, "times its speed)."),
        ({"latency.speedup_ci95": [0.9, 1.1]}, SHIP, "within noise"),
        ({"latency.speedup_ci95": [1.1, 1.3]}, SHIP, "1.10 to 1.30 times as fast"),
        ({"latency.speedup_ci95": [0.7, 0.9], "latency.noise": NOISY}, SHIP, "too noisy to conclude"),
        ({"latency.speedup_ci95": [0.7, 0.9], "latency.noise": QUIET}, CAUTION, "x86 is no proxy"),
        ({"latency.speedup_ci95": [1.1, 1.3], "latency.noise": NOISY}, SHIP, "too noisy to conclude"),
        ({"latency.speedup_ci95": None}, SHIP, "multiply-accumulates"),
        ({"latency": None}, SHIP, "multiply-accumulates"),
        ({"evidence": "reference-executor"}, SHIP, "not run on a device"),
        ({"accuracy": None, "outputs": [], "evidence": "not-run"}, CAUTION, "No accuracy was measured"),
        ({"status": "failed", "reason": "no such op"}, STOP, "failed: no such op"),
        ({"status": "unavailable", "reason": "pip install it"}, STOP, "unavailable: pip install it"),
        ({"precision": "fp32", "accuracy.agreement": 0.98}, CAUTION, "a float artifact should on 99.0 %"),
        ({"precision": "fp32", "latency.speedup_ci95": [0.1, 0.2], "audit": None}, SHIP, "99.2 %"),
    ],
)  # fmt: skip
def test_rules(good: dict[str, Any], changes: dict[str, Any], verdict: Verdict, word: str) -> None:
    for path, value in changes.items():
        node, *rest = path.split(".")
        if rest:
            good[node][rest[0]] = value
        else:
            good[node] = value
    got, reasons = judge(good, {})
    assert got == verdict
    assert any(word in reason for reason in reasons), reasons
    if verdict != SHIP:
        assert word in reasons[0]


def closeness(artifact: dict[str, Any], *means: float, neighbours: float | None = None) -> dict[str, Any]:
    """The artifact as one of another head: no accuracy, an output for each mean cosine."""
    row = {"n": 360, "sqnr_db": 20.0, "cosine_min": -1.0, "neighbour_agreement": neighbours}
    outputs = [{**row, "name": f"level_{i}", "cosine_mean": mean} for i, mean in enumerate(means)]
    return {**artifact, "accuracy": None, "outputs": outputs}


@pytest.mark.parametrize(
    ("precision", "means", "verdict", "word"),
    [
        ("int8", [0.98], SHIP, "fp32 0.9800 (360 images)."),
        ("int8", [0.9999, 0.98, 0.99], SHIP, "fp32 0.9800 (level_1, the least of 3 outputs; 360 images)."),
        ("int8", [0.9999, 0.9799], CAUTION, "short of 0.98"),
        ("int8", [0.95], CAUTION, "short of 0.98"),
        ("int8", [0.9999, 0.9499], STOP, "below 0.95"),
        ("int8", [-0.2], STOP, "fp32 \u22120.2000"),
        ("fp32", [0.9999999], SHIP, "fp32 >0.9999"),
        ("fp32", [1.0], SHIP, "fp32 1 (360 images)"),
        ("fp16", [0.9989], CAUTION, "short of 0.999"),
        ("fp32", [0.94], STOP, "below 0.95"),
    ],
)
def test_other_heads_go_by_the_output_that_is_furthest_off(
    good: dict[str, Any], precision: str, means: list[float], verdict: Verdict, word: str
) -> None:
    got, reasons = judge(closeness({**good, "precision": precision}, *means), {})
    assert got == verdict
    assert any(word in reason for reason in reasons), reasons
    assert not any("top-1" in reason or "No accuracy" in reason for reason in reasons)


def test_a_targets_cosine_budget_moves_the_line(good: dict[str, Any]) -> None:
    assert judge(closeness(good, 0.96), {"low_cosine": 0.97})[0] == STOP
    assert judge(closeness(good, 0.96), {"min_cosine": 0.96})[0] == SHIP


def test_neighbours_are_said_and_not_judged(good: dict[str, Any]) -> None:
    verdict, reasons = judge(closeness(good, 0.99, neighbours=0.45), {})
    assert verdict == SHIP
    assert "45.0 % of images keep their nearest neighbour." in reasons


def test_recommends_by_cosine_where_there_is_no_top1(report: dict[str, Any]) -> None:
    for index, artifact in enumerate(report["artifacts"]):
        if artifact["status"] != "ok":
            continue
        mean = {"fp32": 1.0, "fp16": 0.9999, "int8": 0.97}[artifact["precision"]]
        changed = closeness(artifact, 0.99 if artifact["target"] == "executorch" else mean)
        changed["verdict"], changed["reasons"] = judge(changed, {})
        report["artifacts"][index] = changed
    answer = recommend(report)
    # int8 elsewhere is short of 0.98, executorch's is slower than fp32 on x86: a float artifact goes first here ...
    assert answer["artifact"] == "onnxruntime/fp32"
    assert platform(answer, "iOS")["artifact"] == "executorch/int8"  # ... and that slowness says nothing on a phone
    assert platform(answer, "Android")["artifact"] == "executorch/int8"
    assert any("Mean cosine similarity to fp32 0.9900" in why for why in platform(answer, "iOS")["why"])


def test_size_and_time_budgets(good: dict[str, Any]) -> None:
    assert judge(good, {"max_bytes": 100_000})[0] == STOP
    assert judge(good, {"max_bytes": 10_000_000, "max_p50_ms": 5})[0] == SHIP
    assert judge(good, {"max_p50_ms": 0.1})[0] == STOP
    good["latency"] = None
    assert judge(good, {"max_p50_ms": 0.1})[0] == CAUTION


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ({"max_dorp": 0.01}, "unknown budget entry 'max_dorp'; known: low_agreement"),
        ({"max_drop": 1.5}, "expected a fraction of 1"),
        ({"max_drop": None}, "'max_drop' is None"),
        ({"max_drop": float("nan")}, "'max_drop' is nan"),
        ({"max_bytes": -1}, "'max_bytes' is -1"),
        ({"max_bytes": True}, "'max_bytes' is True"),
    ],
)
def test_budget_errors(good: dict[str, Any], budget: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        judge(good, budget)


def platform(answer: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(p for p in answer["platforms"] if p["platform"] == name)
    return found


def test_recommends_from_the_example(report: dict[str, Any]) -> None:
    answer = recommend(report)
    assert (answer["artifact"], answer["verdict"]) == ("openvino/int8", "ship")
    assert any("2.66 times smaller than openvino/fp32" in why for why in answer["why"])
    assert platform(answer, "iOS")["artifact"] == "coreml/int8"
    # Slower than fp32 on x86 is all that is held against it, and x86 says nothing about a phone.
    assert platform(answer, "Android")["artifact"] == "executorch/int8"
    assert platform(answer, "Android")["verdict"] == "caution"
    assert platform(answer, "x86 server")["artifact"] == "openvino/int8"


def test_a_second_caution_counts_on_phones_too(report: dict[str, Any]) -> None:
    artifact = report["artifacts"][1]
    artifact["accuracy"]["agreement"] = 0.8
    artifact["verdict"], artifact["reasons"] = judge(artifact, {})
    assert platform(recommend(report), "Android")["artifact"] == "executorch/fp32"


def test_never_recommends_what_must_not_ship(report: dict[str, Any]) -> None:
    for artifact in report["artifacts"]:
        if artifact["target"] in {"openvino", "coreml"}:
            artifact["verdict"] = "do-not-ship"
    answer = recommend(report)
    assert answer["artifact"] == "onnxruntime/fp32"
    assert platform(answer, "iOS")["artifact"] == "executorch/int8"
    for artifact in report["artifacts"]:
        artifact["verdict"] = "do-not-ship"
    answer = recommend(report)
    assert answer["artifact"] is None
    assert answer["why"] == ["None of 10 artifacts can be shipped."]
    assert platform(answer, "iOS")["why"] == ["None of 5 artifacts for coreml or executorch can be shipped."]


def test_measured_evidence_goes_first_overall(report: dict[str, Any]) -> None:
    report["artifacts"][5]["verdict"] = "do-not-ship"  # leaves coreml/int8 as the only int8 to ship
    assert recommend(report)["artifact"] == "onnxruntime/fp32"


def test_a_bench_that_is_too_noisy_ranks_by_size(report: dict[str, Any]) -> None:
    """Three int8 artifacts that may ship: the fastest comes first, unless nobody can tell which one that is."""
    able = [a for a in report["artifacts"] if a["latency"] is not None and a["precision"] == "int8"]
    for artifact, took, size in zip(able, (3.0, 2.0, 1.0), (1_000, 2_000, 3_000), strict=True):
        artifact.update(verdict="ship", bytes=size)
        artifact["latency"].update(p50_ms=took, noise=QUIET)
    assert recommend(report)["artifact"] == f"{able[2]['target']}/int8"
    for artifact in able:
        artifact["latency"]["noise"] = NOISY
    assert recommend(report)["artifact"] == f"{able[0]['target']}/int8"
