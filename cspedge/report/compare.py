"""Two reports beside each other: what changed from A to B, with intervals, as plain values that pages are made of.

Accuracy is paired image by image where both reports say which images they get right (`images.right`), else the interval
is of independent shares, which is wider. Latency is compared where device, threads and protocol are the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from enum import StrEnum
from typing import Any

from cspedge.errors import InputError
from cspedge.evaluate.between import ShareChange, latency_ratio, paired_change, unpaired_change
from cspedge.report.differs import settings
from cspedge.report.given import Given
from cspedge.report.schema import artifact_label
from cspedge.report.single_images import unpack
from cspedge.report.tables import worst
from cspedge.report.words import points, times
from cspedge.types import Status, Verdict

COMPARISON = 1
_ORDER = (Verdict.SHIP, Verdict.CAUTION, Verdict.DO_NOT_SHIP)


class Answer(StrEnum):
    """What an interval says of B against A."""

    BETTER = "better"
    WORSE = "worse"
    OPEN = "open"  # the interval holds "no change"


def compare(a: Given, b: Given) -> dict[str, Any]:
    """The comparison as plain JSON values (docs/report.md).

    Raises InputError where the two cannot be compared: other validation images, or another head.
    """
    _comparable(a, b)
    left, right = ({artifact_label(x): x for x in g.report["artifacts"]} for g in (a, b))
    both = [label for label in left if label in right]
    rows = [_artifact(left[label], right[label]) for label in both]
    found: dict[str, Any] = {
        "comparison": COMPARISON,
        "a": _side(a),
        "b": _side(b),
        "validation": {"n": a.report["reference"]["n"], "sha256": (a.report["validation"] or {}).get("sha256")},
        "reference": _reference(a.report["reference"], b.report["reference"]),
        "artifacts": rows,
        "only_a": [_alone(left[label]) for label in left if label not in right],
        "only_b": [_alone(right[label]) for label in right if label not in left],
        "drift": _drift(rows),
        "differs": settings(a.report, b.report),
    }
    _judge_latency(rows, found["drift"])
    return found | {"worse": worsened(found)}


def _comparable(a: Given, b: Given) -> None:
    heads = [g.report["model"]["head"] for g in (a, b)]
    if heads[0] != heads[1]:
        raise InputError(
            f"{a.name!r} is of {heads[0]} and {b.name!r} of {heads[1]}: only reports of one head can be compared"
        )
    sets = [g.report["validation"] for g in (a, b)]
    first, second = (None if s is None else s["sha256"] for s in sets)
    if first != second:
        said = [f"{s['n']:,} images (SHA-256 {s['sha256'][:12]})" if s else "no images" for s in sets]
        raise InputError(
            f"{a.name!r} was validated on {said[0]} and {b.name!r} on {said[1]}: figures on different images cannot be "
            "compared; validate both with the same --val"
        )


def _side(given: Given) -> dict[str, Any]:
    report = given.report
    return {
        "report": given.name,
        "model": report["model"]["name"],
        "head": report["model"]["head"],
        "weights_sha256": report["model"]["weights_sha256"],
        "recipe": (report["calibration"] or {}).get("recipe"),
    }


def _reference(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    """fp32's own top-1, which changes where the weights do."""
    if a["top1"] is None or b["top1"] is None:
        return {"top1": None, "change": None}
    found = _share((a["top1"], b["top1"]), (a.get("right"), b.get("right")), a["n"])
    return {"top1": {"a": a["top1"], "b": b["top1"]}, "change": asdict(found)}


def _share(shares: tuple[float, float], masks: tuple[str | None, str | None], n: int) -> ShareChange:
    if masks[0] is not None and masks[1] is not None:
        return paired_change(unpack(masks[0], n), unpack(masks[1], n))
    return unpaired_change(*shares, n)


def _alone(artifact: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "artifact": artifact_label(artifact),
        "status": artifact["status"],
        "reason": artifact["reason"],
        "verdict": artifact["verdict"],
    }


def _artifact(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "target": a["target"],
        "precision": a["precision"],
        "same_file": a["sha256"] is not None and a["sha256"] == b["sha256"],
    }
    row |= {key: {"a": a[key], "b": b[key]} for key in ("status", "evidence", "verdict", "bytes")}
    row["reasons"] = {side: x["reasons"] or [x["reason"]] for side, x in (("a", a), ("b", b))}
    return row | {"top1": None, "agreement": None, **_accuracy(a, b), **_closeness(a, b), "latency": _latency(a, b)}


def _accuracy(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    """Top-1 and agreement with fp32, from A to B."""
    before, after = a["accuracy"], b["accuracy"]
    if before is None or after is None:
        return {}
    found = {}
    masks = [x.get("images") or {} for x in (a, b)]
    for name, key, mask in (("top1", "top1", "right"), ("agreement", "agreement", "same")):
        change = _share((before[key], after[key]), (masks[0].get(mask), masks[1].get(mask)), before["n"])
        values = {"a": before[key], "b": after[key], "answer": str(_answer(change))}
        found[name] = values | asdict(change) | {"ci95": list(change.ci95)}
    found["top1"]["drop"] = {"a": before["drop_top1"], "b": after["drop_top1"]}
    return found


def _answer(change: ShareChange) -> Answer:
    low, high = change.ci95
    return Answer.BETTER if low > 0 else Answer.WORSE if high < 0 else Answer.OPEN


def _closeness(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    """The outputs' worst cosine similarity and SQNR (dB, null: exact); without an interval, for images are not kept."""
    if not a["outputs"] or not b["outputs"]:
        return {"cosine": None, "sqnr_db": None}
    cosine, sqnr = ({"a": worst(a, key)[key], "b": worst(b, key)[key]} for key in ("cosine_mean", "sqnr_db"))
    return {"cosine": cosine, "sqnr_db": sqnr}


def _latency(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any] | None:
    """{a, b: medians in ms, ratio: B over A, ci95, answer, reason}; None: not run. reason: why it is not compared."""
    before, after = a["latency"], b["latency"]
    if before is None and after is None:
        return None
    found: dict[str, Any] = {
        "a": before and before["p50_ms"],
        "b": after and after["p50_ms"],
        "ratio": None,
        "ci95": None,
        "answer": None,
    }
    reason = _other_protocol(a, b)
    if reason is None:
        measured = latency_ratio(before["samples_ms"], after["samples_ms"])
        if measured is None:
            reason = "too few samples for an interval"
        else:
            found |= {"ratio": measured[0], "ci95": list(measured[1])}
            reason = _noisy(before, after)
    return found | {"reason": reason}


def _other_protocol(a: Mapping[str, Any], b: Mapping[str, Any]) -> str | None:
    """Why two latencies cannot be compared; None where they can."""
    before, after = a["latency"], b["latency"]
    if before is None or after is None:
        return f"timed in {'B' if before is None else 'A'} only"
    if before["device"] != after["device"] or _place(a) != _place(b):
        return "timed on different devices"
    if before["threads"] != after["threads"]:
        return f"timed with {before['threads']} and {after['threads']} threads"
    protocols = [x.get("protocol") or "in an unnamed way" for x in (before, after)]
    if protocols[0] != protocols[1]:
        return f"timed by different protocols: {protocols[0]} and {protocols[1]}"
    if (before.get("cores") is None) != (after.get("cores") is None):
        return f"pinned to cores in {'B' if before.get('cores') is None else 'A'} only"
    return None


def _noisy(before: Mapping[str, Any], after: Mapping[str, Any]) -> str | None:
    """Why nothing is concluded from a ratio that there is: a run whose own noise check says so."""
    noisy = [run for run, x in (("A", before), ("B", after)) if x.get("noise") and not x["noise"]["conclusive"]]
    return f"too noisy to conclude about speed in {' and '.join(noisy)}" if noisy else None


def _place(artifact: Mapping[str, Any]) -> str | None:
    return (artifact.get("ran_on") or {}).get("uri")


def _drift(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """How far files that did not change ran apart in the two runs: the least that any ratio is unsure by."""
    ratios = [r["latency"]["ratio"] for r in rows if r["same_file"] and r["latency"] and r["latency"]["ratio"]]
    return {"artifacts": len(ratios), "low": min(ratios), "high": max(ratios)} if ratios else None


def _judge_latency(rows: list[dict[str, Any]], drift: Mapping[str, Any] | None) -> None:
    """Sets latency.answer: sure only where the interval leaves out 1 and all that unchanged files did."""
    low, high = (min(drift["low"], 1.0), max(drift["high"], 1.0)) if drift else (1.0, 1.0)
    for row in rows:
        latency = row["latency"]
        if latency is None or latency["ci95"] is None:
            continue
        if row["same_file"] or latency["reason"] is not None:
            latency["answer"] = str(Answer.OPEN)
            continue
        below, above = latency["ci95"][1] < low, latency["ci95"][0] > high
        latency["answer"] = str(Answer.BETTER if below else Answer.WORSE if above else Answer.OPEN)


def worsened(found: Mapping[str, Any]) -> list[str]:
    """One sentence for each artifact of A that B has lost, or made surely worse; what `--check` fails on."""
    said = [f"{row['artifact']} is not in B." for row in found["only_a"] if row["status"] == Status.OK]
    for row in found["artifacts"]:
        label, status, verdict = artifact_label(row), row["status"], row["verdict"]
        if status["a"] == Status.OK and status["b"] != Status.OK:
            said.append(f"{label} is {status['b']} in B: {row['reasons']['b'][0]}")
            continue
        if _ORDER.index(Verdict(verdict["b"])) > _ORDER.index(Verdict(verdict["a"])):
            said.append(f"{label} goes from {verdict['a']} to {verdict['b']}: {row['reasons']['b'][0]}")
        if row["top1"] and row["top1"]["answer"] == Answer.WORSE:
            low, high = (points(-bound) for bound in reversed(row["top1"]["ci95"]))
            said.append(f"{label} loses {points(-row['top1']['change'])} points of top-1 ({low} to {high}).")
        if row["latency"] and row["latency"]["answer"] == Answer.WORSE:
            low, high = (times(bound) for bound in row["latency"]["ci95"])
            said.append(f"{label} takes {low} to {high} times as long.")
    return said
