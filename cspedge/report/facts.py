"""Names and values for the report's lists of facts, also where the keys are other parts' and not known here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from cspedge.report import timing, words

Fact = tuple[str, Any]
_DIGEST = re.compile(r"[0-9a-f]{40,128}")
_SPOKEN = {"sha256": "SHA-256", "lr": "learning rate", "ema": "EMA", "img": "image", "pct": "share", "hflip": "flip"}


def value_text(value: Any) -> str:
    """Any JSON value in a word or a short list."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, list):
        return ", ".join(value_text(item) for item in value) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {value_text(item)}" for key, item in sorted(value.items())) or "none"
    return str(value)


def is_digest(value: Any) -> bool:
    """Whether a value is a long hexadecimal digest, which the page shows shortened and whole on demand."""
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def short_digest(value: str) -> str:
    """Both ends of a digest: enough to compare two by eye."""
    return f"{value[:8]}\u2026{value[-4:]}"


def spoken(key: str) -> str:
    """A JSON key as a label: `batch_size` -> 'Batch size', `train.sha256` -> 'Train SHA-256'."""
    text = " ".join(_SPOKEN.get(part, part) for part in re.split(r"[._]", key) if part)
    return text[:1].upper() + text[1:] if text else key


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of nested objects under dotted keys, in their order; lists and empty objects are leaves."""
    leaves: dict[str, Any] = {}
    for key, item in value.items():
        name = f"{prefix}.{key}" if prefix else key
        leaves.update(flatten(item, name) if isinstance(item, Mapping) and item else {name: item})
    return leaves


def listed(value: Mapping[str, Any]) -> list[Fact]:
    """An object of any depth as facts."""
    return [(spoken(key), item if is_digest(item) else value_text(item)) for key, item in flatten(value).items()]


def more(artifact: Mapping[str, Any]) -> list[Fact]:
    """What the table of artifacts has no column for."""
    facts: list[Fact] = [
        ("File", artifact["path"]),
        ("SHA-256", artifact["sha256"]),
        ("Placement", artifact["placement"]),
        ("Evidence", artifact.get("evidence_detail")),
        ("Ran on", _ran_on(artifact.get("ran_on"))),
        ("Manifest", artifact.get("manifest")),
        *_figures(artifact),
        *_timing(artifact["latency"]),
        ("Instructions, emulated; no time", _instructions(artifact.get("instructions"))),
    ]
    audit = artifact["audit"]
    if audit is not None:
        facts += [("Operations in int8", words.percent(audit["int8_op_share"])), ("Notes", audit.get("notes"))]
    return [(name, value) for name, value in facts if value]


def _ran_on(place: Mapping[str, Any] | None) -> str | None:
    if place is None:
        return None
    by = f" ({', '.join(place['delegates'])})" if place["delegates"] else ""
    return f"{place['uri']}: {place['cpu']}, {place['os']}, by {place['runtime']}{by}"


def _figures(artifact: Mapping[str, Any]) -> list[Fact]:
    accuracy, pt2e = artifact["accuracy"], artifact["pt2e"]
    facts: list[Fact] = []
    if accuracy is not None:
        facts += [("Top-5", words.percent(accuracy["top5"])), ("Macro top-1", words.percent(accuracy["macro_top1"]))]
        paired = artifact.get("paired")
        if paired is not None:
            error, before = (words.points(paired[key]) for key in ("ece", "ece_reference"))
            facts.append(("Calibration error", f"{error} points, fp32 {before}"))
        for row in artifact["outputs"]:  # of the logits; other heads have columns for it
            mean, least = words.cosine(row["cosine_mean"]), words.cosine(row["cosine_min"])
            facts.append(("Cosine to fp32", f"mean {mean}, least {least}"))
    if pt2e is not None:
        said = f"{words.decibels(pt2e['sqnr_db'])} dB, largest difference {words.brief(pt2e['max_abs_diff'])}"
        facts.append(("Against PT2E", "equal bit for bit" if pt2e["sqnr_db"] is None else said))
    return facts


def _instructions(found: Mapping[str, Any] | None) -> str | None:
    if found is None:
        return None
    least, most = min(found["samples"]), max(found["samples"])
    spread = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    return f"{spread} an inference ({len(found['samples'])} counts) on {found['device']}, threads: {found['threads']}"


def _threads(count: int) -> str:
    """0: the runtime takes no number of threads."""
    return f"{count} thread{'s' * (count != 1)}" if count else "threads as the runtime chooses"


def _timing(latency: Mapping[str, Any] | None) -> list[Fact]:
    if latency is None:
        return []
    return [
        ("Mean", f"{words.milliseconds(latency['mean_ms'])} ms over {len(latency['samples_ms'])} samples"),
        *timing.listed(latency),
        ("Load", f"{words.milliseconds(latency['load_ms'])} ms"),
        ("Device", f"{latency['device']}, {_threads(latency['threads'])}"),
        ("Instruction sets", latency["isa"]),
        ("Conditions", conditions(latency.get("conditions"))),
    ]


def conditions(told: Mapping[str, Any] | None) -> str | None:
    """A device's clocks and warmth around timed processes, in a line; None where nothing was told."""
    if told is None:
        return None
    parts = [
        f"{clock['cores']} {clock['governor']} {clock['before_mhz']:.0f} then {clock['after_mhz']:.0f} MHz, allowed "
        f"{clock['limit_mhz']:.0f} of {clock['max_mhz']:.0f}"
        for clock in told["clocks"]
    ]
    for key, words_ in (("celsius", "hottest sensor, °C"), ("status", "thermal status (0 is cool)")):
        start, before, after = (told[f"{key}_{when}"] for when in ("start", "before", "after"))
        if start is not None and before is not None and after is not None:
            parts.append(f"{words_}: {start:g} at the start, {before:g} before, {after:g} after")
    parts.append(f"cooled down for {told['cooldown_s']:.0f} s in all")
    if told["warm_starts"]:
        parts.append(f"{told['warm_starts']} of {told['processes']} processes began warm")
    return "; ".join(parts)
