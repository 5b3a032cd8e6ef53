"""A comparison's figures in words, for its page and its Markdown alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from cspedge.report import words
from cspedge.types import Status

ANSWERS = {"better": "better", "worse": "worse", "open": "no sure difference"}
MINUS = "\u2212"
Cell = dict[str, str]


def signed(fraction: float) -> str:
    """A change in points with its sign: 0.0028 -> '+0.28'."""
    found = words.points(fraction)
    return found if found.startswith(MINUS) or float(found) == 0 else f"+{found}"


def interval(pair: list[float] | tuple[float, float]) -> str:
    return f"{signed(pair[0])} to {signed(pair[1])}"


def from_to(before: str, after: str) -> str:
    return before if before == after else f"{before} \u2192 {after}"


def share_cell(found: Mapping[str, Any] | None) -> Cell | None:
    """Top-1 or agreement: {values, change, small, answer}."""
    if found is None:
        return None
    small = interval(found["ci95"]) + ("" if found["paired"] else ", unpaired")
    return {
        "values": from_to(words.percent(found["a"]), words.percent(found["b"])),
        "change": signed(found["change"]),
        "small": small,
        "answer": found["answer"],
    }


def size_cell(found: Mapping[str, Any]) -> Cell | None:
    if found["a"] is None or found["b"] is None:
        return None
    change = f"{100 * (found['b'] / max(found['a'], 1) - 1):+.1f} %".replace("-", MINUS)
    values = from_to(*(words.megabytes(found[side]) for side in "ab"))
    return {"values": values, "change": "" if found["a"] == found["b"] else change, "small": "", "answer": "open"}


def latency_cell(found: Mapping[str, Any] | None) -> Cell | None:
    """{values in ms, change as a ratio, small: its interval or why there is none, answer}."""
    if found is None:
        return None
    values = from_to(*("\u2013" if found[side] is None else words.milliseconds(found[side]) for side in "ab"))
    if found["ratio"] is None:
        return {"values": values, "change": "", "small": str(found["reason"]), "answer": "open"}
    small = " to ".join(words.times(bound) for bound in found["ci95"])
    answer = found["answer"] or "open"
    return {"values": values, "change": f"{words.times(found['ratio'])}\u00d7", "small": small, "answer": answer}


def cosine_cell(found: Mapping[str, Any] | None) -> Cell | None:
    if found is None:
        return None
    values = from_to(*(words.cosine(found[side]) for side in "ab"))
    return {"values": values, "change": "", "small": "", "answer": "open"}


def decibel_cell(found: Mapping[str, Any] | None) -> Cell | None:
    if found is None:
        return None
    return {
        "values": from_to(*(words.decibels(found[side]) for side in "ab")),
        "change": "",
        "small": "",
        "answer": "open",
    }


def headline(found: Mapping[str, Any]) -> str:
    """What became of the artifacts, in one sentence."""
    if found["worse"]:
        count = len(found["worse"])
        return f"{count} change{'s' if count > 1 else ''} for the worse"
    told = Counter(row["top1"]["answer"] for row in found["artifacts"] if row["top1"])
    if told["better"]:
        return f"{told['better']} of {len(found['artifacts'])} artifacts surely better, none worse"
    return "No artifact is surely worse"


def counts(found: Mapping[str, Any]) -> str:
    """How many artifacts are in both, and how many of them are the very same file."""
    rows = found["artifacts"]
    same = sum(row["same_file"] for row in rows)
    ran = sum(row["status"]["a"] == row["status"]["b"] == Status.OK for row in rows)
    said = f"{len(rows)} artifact{'' if len(rows) == 1 else 's'} in both, {ran} made in both"
    return said + (f"; {same} the same file, byte for byte" if same else "")


def paired_note(found: Mapping[str, Any]) -> str:
    """How top-1 was compared."""
    changes = [row["top1"] for row in found["artifacts"] if row["top1"]]
    if not changes:
        return ""
    if all(change["paired"] for change in changes):
        return f"Paired: the same {found['validation']['n']:,} images in both, compared one by one."
    return (
        "Not all is paired: a report from before single images were recorded says how many are right and not which, so "
        "those intervals are wider than need be; `cspedge report` in that run's workspace writes it anew."
    )


def drift_note(found: Mapping[str, Any]) -> str:
    """What the two runs' latencies are worth beside each other."""
    drift = found["drift"]
    if not any(row["latency"] and row["latency"]["ratio"] for row in found["artifacts"]):
        return ""
    apart = "The two runs were timed at different times, not in turn: a ratio includes what the machine did meanwhile."
    if drift is None:
        return f"{apart} No file is the same in both, so that cannot be told apart here."
    low, high = words.times(drift["low"]), words.times(drift["high"])
    files = f"{drift['artifacts']} unchanged file{'s' if drift['artifacts'] > 1 else ''}"
    return f"{apart} {files} took {low} to {high} times as long; only what lies beyond that is called a change."
