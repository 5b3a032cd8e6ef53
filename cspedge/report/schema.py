"""report.json, schema 1: exact keys, types, ranges and the rules between fields, checked in code.

Every object is closed (an unknown key is an error) except three that carry other parts' words
(`model.preprocess`, `reference.trained_on`, `environment`): below those any finite JSON is taken.
A check is a function of (value, JSON path) that raises `UsageError` naming the path.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from cspedge.errors import UsageError
from cspedge.types import Evidence, Precision, Status, Verdict

SCHEMA = 1
REFERENCE = "reference/fp32"  # the name of the fp32 reference in `agreement`

Check = Callable[[Any, str], None]


def artifact_label(artifact: Mapping[str, Any]) -> str:
    """`target/precision`, the name of an artifact throughout the report."""
    return f"{artifact['target']}/{artifact['precision']}"


def load(path: Path) -> dict[str, Any]:
    """Reads and validates a report.json. Raises UsageError for another schema or anything malformed."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError as error:
        raise UsageError(f"no report at {str(path)!r}: write one with `cspedge run` or `cspedge report`") from error
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise UsageError(f"{str(path)!r} cannot be read as a report.json ({error}): write it anew") from error
    try:
        validate(report)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    assert isinstance(report, dict)
    return report


def validate(report: Any) -> None:
    """Checks a whole report against schema 1.

    Raises UsageError with the JSON path of the first thing that is wrong (`artifacts[2].latency.p50_ms`).
    """
    if isinstance(report, dict) and report.get("schema") != SCHEMA:
        raise UsageError(
            f"report has schema {report.get('schema')!r} and this cspedge reads schema {SCHEMA}: "
            "write it anew with `cspedge report`, or read it with the cspedge that wrote it"
        )
    _REPORT(report, "")
    labels = [artifact_label(a) for a in report["artifacts"]]
    for index, artifact in enumerate(report["artifacts"]):
        where = f"artifacts[{index}]"
        if labels.index(labels[index]) != index:
            raise _wrong(where, f"repeats {labels[index]!r}", "one artifact per target and precision")
        _artifact_rules(artifact, where)
    for index, pair in enumerate(report["agreement"]):
        for side in ("a", "b"):
            if pair[side] not in labels and pair[side] != REFERENCE:
                raise _wrong(f"agreement[{index}].{side}", f"is {pair[side]!r}", f"one of {[*labels, REFERENCE]}")


def _artifact_rules(artifact: dict[str, Any], where: str) -> None:
    """What one field of an artifact demands of another."""
    ok, not_run = artifact["status"] == Status.OK, artifact["evidence"] == Evidence.NOT_RUN
    if not ok:
        for key in ("accuracy", "latency", "audit"):
            if artifact[key] is not None:
                raise _wrong(f"{where}.{key}", f"is given though status is {artifact['status']!r}", "null")
        if not artifact["reason"]:
            raise _wrong(f"{where}.reason", "is empty", f"a sentence, since status is {artifact['status']!r}")
        if not not_run:
            raise _wrong(f"{where}.evidence", f"is {artifact['evidence']!r}", "'not-run' where status is not 'ok'")
        if artifact["verdict"] != Verdict.DO_NOT_SHIP:
            raise _wrong(f"{where}.verdict", f"is {artifact['verdict']!r}", "'do-not-ship' where status is not 'ok'")
        return
    for key in ("path", "bytes", "sha256"):
        if artifact[key] is None:
            raise _wrong(f"{where}.{key}", "is null", "a value, since status is 'ok'")
    if (artifact["accuracy"] is None) != not_run:
        raise _wrong(f"{where}.accuracy", f"does not fit evidence {artifact['evidence']!r}", "null exactly for 'not-run'")
    latency = artifact["latency"]
    if latency is not None and not latency["p50_ms"] <= latency["p90_ms"] <= latency["p99_ms"]:
        raise _wrong(f"{where}.latency", "has percentiles out of order", "p50_ms <= p90_ms <= p99_ms")


def _wrong(where: str, what: str, allowed: str) -> UsageError:
    return UsageError(f"report.json: {where or 'the document'} {what}; expected {allowed}")


def _refuse_constant(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")


# --- checks -----------------------------------------------------------------------------------------------------------


def _text(value: Any, where: str) -> None:
    if not isinstance(value, str):
        raise _wrong(where, f"is {_show(value)}", "text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise _wrong(where, f"is {value!r}, with half a surrogate pair", "text that UTF-8 can hold") from error


def _name(value: Any, where: str) -> None:
    _text(value, where)
    if not value.strip():
        raise _wrong(where, "is empty", "text")


def _sha256(value: Any, where: str) -> None:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{64}", value):
        raise _wrong(where, f"is {_show(value)}", "a SHA-256 in 64 lower-case hex digits")


def _flag(value: Any, where: str) -> None:
    if not isinstance(value, bool):
        raise _wrong(where, f"is {_show(value)}", "true or false")


def _number(low: float = -math.inf, high: float = math.inf) -> Check:
    """A finite number in [low, high]; JSON's true and false are not numbers."""

    def check(value: Any, where: str) -> None:
        # The bound refuses NaN and infinities, and integers too long for a float.
        if isinstance(value, bool) or not isinstance(value, int | float) or not -1e300 <= value <= 1e300:
            raise _wrong(where, f"is {_show(value)}", "a finite number")
        if not low <= value <= high:
            raise _wrong(where, f"is {value}", f"a number from {low:g} to {high:g}")

    return check


def _count(value: Any, where: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise _wrong(where, f"is {_show(value)}", "a whole number from 0 to 2**63 - 1")


def _one_of(words: type[StrEnum]) -> Check:
    def check(value: Any, where: str) -> None:
        if not isinstance(value, str) or value not in list(words):
            raise _wrong(where, f"is {_show(value)}", "one of " + ", ".join(words))

    return check


def _constant(expected: Any) -> Check:
    def check(value: Any, where: str) -> None:
        if type(value) is not type(expected) or value != expected:
            raise _wrong(where, f"is {_show(value)}", repr(expected))

    return check


def _or_null(inner: Check) -> Check:
    def check(value: Any, where: str) -> None:
        if value is not None:
            inner(value, where)

    return check


def _list_of(inner: Check, at_least: int = 0) -> Check:
    def check(value: Any, where: str) -> None:
        if not isinstance(value, list) or len(value) < at_least:
            raise _wrong(where, f"is {_show(value)}", f"a list of {at_least} or more" if at_least else "a list")
        for index, item in enumerate(value):
            inner(item, f"{where}[{index}]")

    return check


def _interval(low: float, high: float) -> Check:
    bound = _number(low, high)

    def check(value: Any, where: str) -> None:
        if not isinstance(value, list) or len(value) != 2:
            raise _wrong(where, f"is {_show(value)}", "[low, high]")
        for index, item in enumerate(value):
            bound(item, f"{where}[{index}]")
        if value[0] > value[1]:
            raise _wrong(where, f"is {value}", "[low, high] with low <= high")

    return check


def _object(required: Mapping[str, Check], optional: Mapping[str, Check] | None = None) -> Check:
    """A closed object: every required key, nothing outside required and optional."""
    known = {**required, **(optional or {})}

    def check(value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise _wrong(where, f"is {_show(value)}", "an object")
        for key in value:
            if key not in known:
                raise _wrong(_join(where, str(key)), "is an unknown key", "one of " + ", ".join(sorted(known)))
        for key in required:
            if key not in value:
                raise _wrong(_join(where, key), "is missing", "a value")
        for key, item in value.items():
            known[key](item, _join(where, key))

    return check


def _open(required: Mapping[str, Check]) -> Check:
    """An object whose required keys are checked and whose other keys hold any finite JSON."""

    def check(value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise _wrong(where, f"is {_show(value)}", "an object")
        for key in required:
            if key not in value:
                raise _wrong(_join(where, key), "is missing", "a value")
        for key, item in value.items():
            _text(key, where)
            required.get(key, _json)(item, _join(where, key))

    return check


def _json(value: Any, where: str) -> None:
    if isinstance(value, dict):
        _open({})(value, where)
    elif isinstance(value, list):
        _list_of(_json)(value, where)
    elif isinstance(value, str):
        _text(value, where)
    elif value is not None and not isinstance(value, bool):
        _number()(value, where)


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


# --- the schema -------------------------------------------------------------------------------------------------------

_FRACTION, _POSITIVE, _SIGNED = _number(0, 1), _number(0), _number(-1, 1)
_SKIPPED = _list_of(_object({"name": _text, "reason": _text}))  # images that could not be read
_IMAGES: dict[str, Check] = {"n": _count, "sha256": _sha256, "source": _text, "skipped": _SKIPPED}

_ACCURACY = _object(
    {
        "n": _count,
        "top1": _FRACTION,
        "top5": _FRACTION,
        "macro_top1": _FRACTION,
        "drop_top1": _SIGNED,
        "drop_ci95": _interval(-1, 1),
        "agreement": _FRACTION,
        "sqnr_db": _or_null(_number()),  # null: equal to the reference bit for bit
    }
)
_LATENCY = _object(
    {
        "device": _text,
        "isa": _list_of(_text),
        "threads": _count,
        "p50_ms": _POSITIVE,
        "p90_ms": _POSITIVE,
        "p99_ms": _POSITIVE,
        "mean_ms": _POSITIVE,
        "load_ms": _POSITIVE,
        "peak_rss_mb": _or_null(_POSITIVE),
        "samples_ms": _list_of(_POSITIVE, at_least=1),
        "speedup_vs_fp32": _or_null(_POSITIVE),  # null: this is the float artifact, or there is none
        "speedup_ci95": _or_null(_interval(0, math.inf)),
    }
)
_AUDIT = _object(
    {
        "int8_op_share": _FRACTION,
        "int8_mac_share": _FRACTION,
        "fp32_islands": _list_of(_text),
        "encodings_match": _or_null(_flag),  # null: a float artifact has none
    },
    {"notes": _list_of(_text)},
)
_ARTIFACT = _object(
    {
        "target": _name,
        "backend": _name,
        "precision": _one_of(Precision),
        "status": _one_of(Status),
        "reason": _or_null(_text),
        "path": _or_null(_text),
        "bytes": _or_null(_count),
        "sha256": _or_null(_sha256),
        "placement": _or_null(_text),
        "evidence": _one_of(Evidence),
        "accuracy": _or_null(_ACCURACY),
        "latency": _or_null(_LATENCY),
        "audit": _or_null(_AUDIT),
        "lower_s": _or_null(_POSITIVE),
        "verdict": _one_of(Verdict),
        "reasons": _list_of(_text),
    },
    {"evidence_detail": _or_null(_text), "manifest": _or_null(_text)},
)
_REPORT = _object(
    {
        "schema": _constant(SCHEMA),
        "model": _object(
            {
                "name": _name,
                "architecture": _text,
                "head": _text,
                "weights_sha256": _sha256,
                "params": _count,
                "num_classes": _count,
                "preprocess": _open({}),
            },
            {"labels": _or_null(_list_of(_text))},
        ),
        "reference": _object(
            {
                "precision": _constant("fp32"),
                "device": _text,
                "top1": _FRACTION,
                "top5": _FRACTION,
                "macro_top1": _FRACTION,
                "n": _count,
                "trained_on": _or_null(_open({})),
            }
        ),
        # null: nothing was calibrated (float artifacts only), nothing was validated
        "calibration": _or_null(_object({**_IMAGES, "recipe": _text, "overlap_with_validation": _count})),
        "validation": _or_null(_object(_IMAGES)),
        "artifacts": _list_of(_ARTIFACT),
        "agreement": _list_of(
            _object({"a": _text, "b": _text, "top1_agreement": _FRACTION, "max_abs_logit_diff": _POSITIVE})
        ),
        "environment": _open(
            {"cspedge": _text, "python": _text, "torch": _text, "cpu": _text, "isa": _list_of(_text), "os": _text}
        ),
        "stages": _list_of(_object({"name": _name, "seconds": _POSITIVE, "cached": _flag})),
        "notes": _list_of(_text),
    }
)
