"""report.json's checks: the example passes, and each kind of violation is named by its JSON path."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest

from cspedge.digest import pretty_json
from cspedge.errors import UsageError
from cspedge.report.schema import REFERENCE, artifact_label, load, validate

EXAMPLE = Path(__file__).with_name("example_report.json")


@pytest.fixture
def report() -> dict[str, Any]:
    return load(EXAMPLE)


def place(report: dict[str, Any], path: str, value: Any) -> None:
    """Sets `value` at a dotted path; numbers are list indices."""
    *parents, last = path.split(".")
    node: Any = report
    for key in parents:
        node = node[int(key)] if key.isdigit() else node[key]
    node[int(last) if last.isdigit() else last] = value


def every_object(node: Any, path: str = "") -> list[tuple[str, dict[str, Any]]]:
    found = []
    if isinstance(node, dict):
        found.append((path, node))
        for key, value in node.items():
            found += every_object(value, f"{path}.{key}" if path else key)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            found += every_object(value, f"{path}[{index}]")
    return found


def test_example_is_valid_and_canonical(report: dict[str, Any]) -> None:
    assert EXAMPLE.read_text(encoding="utf-8") == pretty_json(report)
    assert {a["status"] for a in report["artifacts"]} == {"ok", "failed", "unavailable"}
    assert {a["evidence"] for a in report["artifacts"]} == {"measured", "reference-executor", "not-run"}


OPEN = ("model.preprocess", "reference.trained_on", "environment")
# A pair without its agreement in top-1 is taken for one of embeddings.
MESSAGES = {"schema": "schema None", "top1_agreement": "max_abs_logit_diff is an unknown key"}
OPTIONAL = {"labels", "evidence_detail", "manifest", "notes"}


def test_every_closed_object_refuses_an_unknown_key_and_demands_each_of_its_own(report: dict[str, Any]) -> None:
    checked = 0
    for path, _ in every_object(report):
        if path.startswith(OPEN):  # any JSON below, at any depth
            continue
        broken = copy.deepcopy(report)
        target = dict(every_object(broken))[path]
        target["surprise"] = 1
        with pytest.raises(UsageError, match=r"surprise is an unknown key"):
            validate(broken)
        del target["surprise"]
        for key in list(target):
            if key in OPTIONAL and path:
                continue
            value = target.pop(key)
            with pytest.raises(UsageError, match=MESSAGES.get(key, "is missing")):
                validate(broken)
            target[key] = value
            checked += 1
        validate(broken)
    assert checked > 200


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("reference.top1", 98.6, r"reference.top1 is 98.6; expected a number from 0 to 1"),
        ("reference.top1", math.nan, "reference.top1 is nan; expected a finite number"),
        ("reference.top1", True, "reference.top1 is True"),
        ("reference.top1", "0.9", "reference.top1 is '0.9'"),
        ("reference.precision", "fp16", "expected 'fp32'"),
        ("model.weights_sha256", "abc", "SHA-256"),
        ("model.weights_sha256", "A" * 64, "SHA-256"),
        ("model.params", 1.5, "whole number"),
        ("model.params", -1, "whole number"),
        ("model.name", "  ", "model.name is empty"),
        ("model.name", "half \ud800 pair", "surrogate"),
        ("model.preprocess.std", [0.2, math.inf], r"model.preprocess.std\[1\] is inf"),
        ("environment.isa", "avx2", "environment.isa is 'avx2'; expected a list"),
        ("environment.extra", {"deep": [math.nan]}, r"environment.extra.deep\[0\] is nan"),
        ("artifacts.0.precision", "int4", "one of fp32, fp16, int8"),
        ("artifacts.0.status", "done", "one of ok, failed, unavailable"),
        ("artifacts.0.evidence", "seen", "one of measured"),
        ("artifacts.0.verdict", "maybe", "one of ship"),
        ("artifacts.0.path", None, "path is null; expected a value, since status is 'ok'"),
        ("artifacts.0.outputs", [], "does not fit evidence 'measured'"),
        ("artifacts.0.evidence", "not-run", "does not fit evidence 'not-run'"),
        ("artifacts.0.accuracy.drop_ci95", [0.1], r"\[low, high\]"),
        ("artifacts.0.accuracy.drop_ci95", [0.1, -0.1], "low <= high"),
        ("artifacts.0.accuracy.drop_ci95.1", 2, r"drop_ci95\[1\] is 2; expected a number from -1 to 1"),
        ("artifacts.0.accuracy.drop_top1", 1.7, "from -1 to 1"),
        ("artifacts.0.accuracy.sqnr_db", math.inf, "sqnr_db is inf"),
        ("artifacts.0.latency.p50_ms", 10**400, "finite number"),
        ("artifacts.0.latency.p90_ms", 0.0, "percentiles out of order"),
        ("artifacts.0.latency.samples_ms", [], "a list of 1 or more"),
        ("artifacts.0.latency.samples_ms.3", -1.0, r"samples_ms\[3\] is -1"),
        ("artifacts.1.audit.int8_mac_share", 1.2, "from 0 to 1"),
        ("artifacts.1.audit.encodings_match", "yes", "true or false"),
        ("artifacts.1.target", "executorch", None),
        ("artifacts.1.precision", "fp32", r"artifacts\[1\] repeats 'executorch/fp32'"),
        ("artifacts.8.reason", "", "reason is empty; expected a sentence"),
        ("artifacts.8.verdict", "ship", "'do-not-ship' where status is not 'ok'"),
        ("artifacts.8.evidence", "measured", "'not-run' where status is not 'ok'"),
        ("artifacts.8.audit", {"int8_op_share": 0, "int8_mac_share": 0, "fp32_islands": [], "encodings_match": None},
         "audit is given though status is 'failed'"),
        ("agreement.0.a", "tflite/int8", r"agreement\[0\].a is 'tflite/int8'"),
        ("agreement.0.a", REFERENCE, None),
        ("stages.0.cached", 1, r"stages\[0\].cached is 1; expected true or false"),
        ("stages.0.seconds", -0.5, "seconds is -0.5"),
        ("calibration", None, None),
        ("validation", None, None),
        ("reference.trained_on", None, None),
        ("artifacts.2.latency", None, None),
        ("artifacts", {}, "artifacts is {}; expected a list"),
        ("artifacts", [], r"agreement\[0\].a"),
        ("notes.0", 3, r"notes\[0\] is 3; expected text"),
    ],
)  # fmt: skip
def test_values(report: dict[str, Any], path: str, value: Any, message: str | None) -> None:
    place(report, path, value)
    if message is None:
        validate(report)
    else:
        with pytest.raises(UsageError, match=message):
            validate(report)


def test_instructions_stand_on_emulated_rows_without_times(report: dict[str, Any]) -> None:
    row = report["artifacts"][0]
    row["instructions"] = {
        "device": "cortex-a76, emulated by QEMU 7.2.22 (qemu-aarch64://cortex-a76)",
        "threads": 1,
        "instructions_per_inference": 2,
        "samples": [2, 1, 2],
        "ratio_to_fp32": None,
    }
    for evidence, latency in (("emulated", row["latency"]), ("measured", None)):
        row.update(evidence=evidence, latency=latency)
        with pytest.raises(UsageError, match=r"\[0\].instructions is given beside a time, or off an emulation"):
            validate(report)
    row.update(evidence="emulated", latency=None)
    validate(report)
    place(report, "artifacts.0.instructions.samples", [2, 0.5])
    with pytest.raises(UsageError, match=r"instructions.samples\[1\] is 0.5; expected a whole number"):
        validate(report)


def test_not_an_object() -> None:
    with pytest.raises(UsageError, match="the document is"):
        validate([])


def test_another_schema_says_what_to_do(report: dict[str, Any], tmp_path: Path) -> None:
    report["schema"] = 2
    path = tmp_path / "report.json"
    path.write_text(json.dumps(report))
    with pytest.raises(
        UsageError, match=r"schema 2 and this cspedge reads schema 1: write it anew with `cspedge report`"
    ):
        load(path)
    report["schema"] = True  # equal to 1 in Python, another thing in JSON
    with pytest.raises(UsageError, match="schema is True"):
        validate(report)


@pytest.mark.parametrize("text", ["", "{", "[1", '{"schema": NaN}', "\xff", "[" * 100_000])
def test_load_refuses_what_is_not_json(tmp_path: Path, text: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(UsageError, match=r"cannot be read as a report\.json"):
        load(path)


def test_load_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no report at .*nowhere\.json.*`cspedge run`"):
        load(tmp_path / "nowhere.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(UsageError, match=r"list.json: report.json: the document is \[\]"):
        load(tmp_path / "list.json")


def test_label(report: dict[str, Any]) -> None:
    assert artifact_label(report["artifacts"][1]) == "executorch/int8"
