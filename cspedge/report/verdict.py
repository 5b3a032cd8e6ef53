"""Which artifact should reach users: written rules, not taste.

Each rule below gives a verdict and a sentence; an artifact's verdict is the worst of them.

| what | ship | caution | do not ship |
|---|---|---|---|
| status | ok | | failed, unavailable |
| encodings (int8) | match | not checked | differ from encodings.json |
| top-1 drop d, 95 % interval [lo, hi], budget M | hi <= M, or d <= M/2 and hi <= 2M | between | lo > M, or d > 2M |
| feature maps and embeddings: mean cosine to fp32's | >= min_cosine (float: min_float_cosine) | below | < low_cosine |
| agreement with fp32 | >= low_agreement (float: min_float_agreement) | below | |
| single classes: McNemar corrected for all (q) | none loses with q < 0.05 | one does | |
| each mild corruption: score test of drop <= M, corrected for all (q) | none loses more with q < 0.05 | one does | |
| int8 share of multiply-accumulates | >= min_int8_mac_share | below: int8 in name | |
| int8 against the same runtime's fp32 | not surely slower, or too noisy to say | interval wholly below 1 | |
| evidence | measured, emulated or the reference executor (said so) | not run | |
| max_bytes, max_p50_ms, max_p95_ms, where the budget sets them | met | not measured | exceeded |

The output that is furthest off decides for feature maps; nearest neighbours are said and not judged, for they change
places where many images look alike.

The second way to ship on accuracy is for small validation sets: with n = 360 and not one answer changed, the
interval still reaches 1.1 points, and no artifact could ever pass hi <= 1 point.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from cspedge.errors import UsageError
from cspedge.report import robustness
from cspedge.report.schema import artifact_label
from cspedge.report.words import cosine, instructions, megabytes, milliseconds, percent, points, shorten, times
from cspedge.types import Evidence, Precision, Status, Verdict

DEFAULT_BUDGET: Mapping[str, float | None] = {
    "max_drop": 0.01,  # top-1, as a fraction: one point
    "min_agreement": 0.95,  # an int8 artifact below this is told so
    "low_agreement": 0.90,  # below this it is a caution
    "min_cosine": 0.98,  # feature maps and embeddings, mean over images, the worst output; below it a caution
    "low_cosine": 0.95,  # below this they must not ship
    "min_float_cosine": 0.999,
    "min_float_agreement": 0.99,  # a float artifact must give the reference's answers
    "min_int8_mac_share": 0.5,
    "max_bytes": None,
    "max_p50_ms": None,
    "max_p95_ms": None,
}
FALSE_DISCOVERIES = 0.05  # a class with q below it has changed by more than chance
X86 = "x86 server"
# Which runtimes belong on a platform, the native one first.
PLATFORMS: Mapping[str, tuple[str, ...]] = {
    "iOS": ("coreml", "executorch"),
    "Android": ("executorch", "onnxruntime"),
    X86: ("openvino", "onnxruntime"),
}
_SEVERITY = {Verdict.SHIP: 0, Verdict.CAUTION: 1, Verdict.DO_NOT_SHIP: 2}
_EVIDENCE_RANK = {
    Evidence.MEASURED: 0,
    Evidence.EMULATED: 1,
    Evidence.REFERENCE_EXECUTOR: 2,
    Evidence.NOT_RUN: 3,
}
_PRECISION_RANK = {Precision.INT8: 0, Precision.FP16: 1, Precision.FP32: 2}
_SLOWER = "Slower than fp32 here"
Finding = tuple[Verdict, str]


def judge(artifact: Mapping[str, Any], budget: Mapping[str, float | None]) -> tuple[Verdict, list[str]]:
    """The verdict on one artifact of report.json by the rules in this module's docstring.

    budget: any of DEFAULT_BUDGET's keys, fractions of 1; what it leaves out keeps the default.
    Returns the verdict and the reasons as sentences, the gravest first.
    Raises UsageError for an unknown or impossible budget entry.
    """
    limits = _limits(budget)
    if artifact["status"] != Status.OK:
        return Verdict.DO_NOT_SHIP, [f"{artifact['status']}: {artifact['reason']}"]
    findings = [
        *_encodings(artifact),
        *_accuracy(artifact, limits),
        *_cosine(artifact, limits),
        *_agreement(artifact, limits),
        *_classes(artifact),
        *robustness.findings(artifact, limits["max_drop"], FALSE_DISCOVERIES),
        *_int8_share(artifact, limits),
        *_size_and_time(artifact, limits),
        *_speed(artifact),
        *_instructions(artifact),
        *_evidence(artifact),
    ]
    # Stable: rules keep their order, so that slowness comes first only where it is the one caution (`_slow_only`).
    findings.sort(key=lambda finding: -_SEVERITY[finding[0]])
    return findings[0][0], [sentence for _, sentence in findings]


def _limits(budget: Mapping[str, float | None]) -> dict[str, Any]:
    for key, value in budget.items():
        if key not in DEFAULT_BUDGET:
            raise UsageError(f"unknown budget entry {key!r}; known: {', '.join(sorted(DEFAULT_BUDGET))}")
        if value is None and DEFAULT_BUDGET[key] is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise UsageError(f"budget entry {key!r} is {value!r}; expected a number, 0 or more")
        if DEFAULT_BUDGET[key] is not None and value > 1:
            raise UsageError(f"budget entry {key!r} is {value!r}; expected a fraction of 1 (0.01 is one point)")
    return {**DEFAULT_BUDGET, **budget}


def _encodings(artifact: Mapping[str, Any]) -> list[Finding]:
    if artifact["precision"] != Precision.INT8:
        return []
    audit = artifact["audit"]
    if audit is None or audit["encodings_match"] is None:
        return [(Verdict.CAUTION, "Its scales and integer weights were not checked against encodings.json.")]
    if not audit["encodings_match"]:
        return [(Verdict.DO_NOT_SHIP, "Its scales, zero points or integer weights differ from encodings.json.")]
    return []


def _accuracy(artifact: Mapping[str, Any], limits: Mapping[str, Any]) -> list[Finding]:
    accuracy = artifact["accuracy"]
    if accuracy is None:
        return [] if artifact["outputs"] else [(Verdict.CAUTION, "No accuracy was measured.")]
    drop, (low, high), most = accuracy["drop_top1"], accuracy["drop_ci95"], limits["max_drop"]
    change = "Loses nothing in top-1"
    if drop != 0:
        change = f"{'Loses' if drop > 0 else 'Gains'} {points(abs(drop))} points of top-1"
    measured = f"{change} (95 % interval of the loss {points(low)} to {points(high)})"
    allowed = f"budget of {points(most)}"
    if low > most:
        return [(Verdict.DO_NOT_SHIP, f"{measured}: surely over the {allowed}.")]
    if drop > 2 * most:
        return [(Verdict.DO_NOT_SHIP, f"{measured}: more than twice the {allowed}.")]
    if high <= most:
        return [(Verdict.SHIP, f"{measured}: within the {allowed}.")]
    if drop <= most / 2 and high <= 2 * most:
        return [(Verdict.SHIP, f"{measured}: well within the {allowed}, as far as {accuracy['n']:,} images can tell.")]
    if drop < most:
        # The interval's half width shrinks with the square root of n.
        needed = math.ceil(accuracy["n"] * ((high - drop) / (most - drop)) ** 2)
        more = f"about {float(f'{needed:.2g}'):,.0f} images would settle it" if needed < 1_000_000 else "it stays open"
        return [(Verdict.CAUTION, f"{measured}: the {allowed} is inside the interval; {more}.")]
    return [(Verdict.CAUTION, f"{measured}: at or over the {allowed}, though not surely.")]


def _cosine(artifact: Mapping[str, Any], limits: Mapping[str, Any]) -> list[Finding]:
    """Feature maps and embeddings, where there are no logits to judge by."""
    if artifact["accuracy"] is not None or not artifact["outputs"]:
        return []
    worst = min(artifact["outputs"], key=lambda row: row["cosine_mean"])
    is_float = artifact["precision"] != Precision.INT8
    wanted = limits["min_float_cosine"] if is_float else limits["min_cosine"]
    count = len(artifact["outputs"])
    where = f"{worst['name']}, the least of {count} outputs; " if count > 1 else ""
    said = f"Mean cosine similarity to fp32 {cosine(worst['cosine_mean'])} ({where}{worst['n']:,} images)"
    findings: list[Finding] = []
    if worst["cosine_mean"] < limits["low_cosine"]:
        findings.append((Verdict.DO_NOT_SHIP, f"{said}, below {limits['low_cosine']:g}."))
    elif worst["cosine_mean"] < wanted:
        findings.append((Verdict.CAUTION, f"{said}, short of {wanted:g}."))
    else:
        findings.append((Verdict.SHIP, f"{said}."))
    same = worst["neighbour_agreement"]
    if same is not None:
        findings.append((Verdict.SHIP, f"{percent(same)} of images keep their nearest neighbour."))
    return findings


def _agreement(artifact: Mapping[str, Any], limits: Mapping[str, Any]) -> list[Finding]:
    if artifact["accuracy"] is None:
        return []
    agreement = artifact["accuracy"]["agreement"]
    same = f"Gives fp32's answer on {percent(agreement)} of images"
    if artifact["precision"] != Precision.INT8:
        if agreement < limits["min_float_agreement"]:
            return [(Verdict.CAUTION, f"{same}; a float artifact should on {percent(limits['min_float_agreement'])}.")]
        return [(Verdict.SHIP, f"{same}.")]
    if agreement < limits["low_agreement"]:
        return [(Verdict.CAUTION, f"{same}, below {percent(limits['low_agreement'])}.")]
    if agreement < limits["min_agreement"]:
        return [(Verdict.SHIP, f"{same}, short of the {percent(limits['min_agreement'])} to aim for.")]
    return [(Verdict.SHIP, f"{same}.")]


def _classes(artifact: Mapping[str, Any]) -> list[Finding]:
    """Top-1 over all images hides what one class of many loses."""
    paired = artifact.get("paired") or {"changed": [], "classes": 0}
    lost = [r for r in paired["changed"] if r["q"] < FALSE_DISCOVERIES and r["only_reference"] > r["only_artifact"]]
    if not lost:
        return []
    loses = "lose" if len(lost) > 1 else "loses"
    named = f"{len(lost)} of {paired['classes']} classes {loses} more than chance explains"
    worst = max((r["only_reference"] - r["only_artifact"]) / r["n"] for r in lost)
    return [(Verdict.CAUTION, f"{named} (q < {FALSE_DISCOVERIES:g}; up to {percent(worst)} of a class's images).")]


def _int8_share(artifact: Mapping[str, Any], limits: Mapping[str, Any]) -> list[Finding]:
    if artifact["precision"] != Precision.INT8 or artifact["audit"] is None:
        return []
    share = artifact["audit"]["int8_mac_share"]
    if share < limits["min_int8_mac_share"]:
        return [(Verdict.CAUTION, f"int8 in name: only {percent(share)} of its multiply-accumulates run in int8.")]
    return [(Verdict.SHIP, f"{percent(share)} of its multiply-accumulates run in int8.")]


def _speed(artifact: Mapping[str, Any]) -> list[Finding]:
    latency = artifact["latency"]
    if artifact["precision"] != Precision.INT8 or latency is None or latency["speedup_ci95"] is None:
        return []
    if not _compared(latency):
        return [(Verdict.SHIP, "Its speed against fp32 is not judged: the machine was too noisy to conclude.")]
    low, high = latency["speedup_ci95"]
    if high < 1:
        proxy = "; x86 is no proxy for phones" if _is_x86(latency["isa"]) else ""
        return [(Verdict.CAUTION, f"{_SLOWER} ({times(low)} to {times(high)} times its speed){proxy}.")]
    if low > 1:
        return [(Verdict.SHIP, f"{times(low)} to {times(high)} times as fast as the same runtime's fp32 here.")]
    return [(Verdict.SHIP, f"As fast as the same runtime's fp32 here, within noise ({times(low)} to {times(high)}).")]


def _compared(latency: Mapping[str, Any]) -> bool:
    """Whether speeds of its bench may be compared; as in old reports where nothing checked."""
    noise = latency.get("noise")
    return noise is None or bool(noise["conclusive"])


def _instructions(artifact: Mapping[str, Any]) -> list[Finding]:
    found = artifact.get("instructions")
    if found is None:
        return []
    beside = "" if found["ratio_to_fp32"] is None else f", {times(found['ratio_to_fp32'])} of fp32's"
    each = instructions(found["instructions_per_inference"])
    return [(Verdict.SHIP, f"{each} instructions an inference{beside}, emulated; no time.")]


def _size_and_time(artifact: Mapping[str, Any], limits: Mapping[str, Any]) -> list[Finding]:
    findings: list[Finding] = []
    if limits["max_bytes"] is not None and artifact["bytes"] > limits["max_bytes"]:
        allowed = megabytes(int(limits["max_bytes"]))
        findings.append((Verdict.DO_NOT_SHIP, f"Its {megabytes(artifact['bytes'])} are over the budget of {allowed}."))
    latency = artifact["latency"]
    measured = {"max_p50_ms": ("median", latency and latency["p50_ms"]), "max_p95_ms": ("p95", p95_ms(latency))}
    for key, (name, took) in measured.items():
        if limits[key] is None:
            continue
        allowed = f"the budget of {milliseconds(limits[key])} ms"
        if took is None:
            findings.append((Verdict.CAUTION, f"Latency was not measured, so {allowed} is not checked."))
        elif took > limits[key]:
            findings.append((Verdict.DO_NOT_SHIP, f"Its {name} of {milliseconds(took)} ms is over {allowed}."))
    return findings


def p95_ms(latency: Mapping[str, Any] | None) -> float | None:
    """The 95th percentile of the raw samples (linear between them), milliseconds; None where nothing was timed."""
    if latency is None:
        return None
    import numpy as np

    return float(np.percentile(latency["samples_ms"], 95))


def _evidence(artifact: Mapping[str, Any]) -> list[Finding]:
    if artifact["evidence"] == Evidence.EMULATED:
        return [(Verdict.SHIP, "Accuracy on an emulated processor; not run on a device.")]
    if artifact["evidence"] == Evidence.REFERENCE_EXECUTOR:
        return [(Verdict.SHIP, "Accuracy by the reference executor; not run on a device.")]
    return []


def _slow_only(artifact: Mapping[str, Any]) -> bool:
    """Whether being slower than fp32 on this host is all that is held against the artifact."""
    return (
        artifact["verdict"] == Verdict.CAUTION
        and bool(artifact["reasons"])
        and artifact["reasons"][0].startswith(_SLOWER)
    )


def _is_x86(isa: Iterable[str]) -> bool:
    return any(flag.startswith(("sse", "avx", "fma", "x86")) for flag in isa)


def recommend(report: Mapping[str, Any]) -> dict[str, Any]:
    """Which artifact to ship, overall and per platform, with the reasons in words.

    Returns {"artifact": label or None, "verdict": word or None, "why": [sentence...], "platforms": [the same
    with "platform"]}. Overall the order is: verdict, evidence (measured first), int8 before float, median latency (not
    where the machine was too noisy), bytes; the same on x86 servers. On a phone: verdict, int8 before
    float, the platform's native runtime, bytes; this host's latency decides nothing there, a caution for slowness alone
    included. What must not ship is never named.
    """
    usable = [a for a in report["artifacts"] if a["verdict"] != Verdict.DO_NOT_SHIP]
    return {
        **_choice(sorted(usable, key=_overall_rank), report),
        "platforms": [
            {"platform": name, **_choice(_on_platform(usable, name, runtimes), report, runtimes)}
            for name, runtimes in PLATFORMS.items()
        ],
    }


def _overall_rank(artifact: Mapping[str, Any]) -> tuple[Any, ...]:
    latency = artifact["latency"]
    return (
        _SEVERITY[artifact["verdict"]],
        _EVIDENCE_RANK[artifact["evidence"]],
        _PRECISION_RANK[artifact["precision"]],
        latency["p50_ms"] if latency and _compared(latency) else math.inf,
        artifact["bytes"],
        artifact_label(artifact),
    )


def _on_platform(usable: list[Mapping[str, Any]], platform: str, runtimes: tuple[str, ...]) -> list[Mapping[str, Any]]:
    def phone_rank(artifact: Mapping[str, Any]) -> tuple[Any, ...]:
        return (
            0 if _slow_only(artifact) else _SEVERITY[artifact["verdict"]],
            _PRECISION_RANK[artifact["precision"]],
            runtimes.index(artifact["backend"]),
            artifact["bytes"],
            artifact_label(artifact),
        )

    fitting = [a for a in usable if a["backend"] in runtimes]
    return sorted(fitting, key=_overall_rank if platform == X86 else phone_rank)


def _choice(
    ranked: list[Mapping[str, Any]], report: Mapping[str, Any], runtimes: tuple[str, ...] = ()
) -> dict[str, Any]:
    if not ranked:
        tried = [a for a in report["artifacts"] if not runtimes or a["backend"] in runtimes]
        among = f"None of {len(tried)} artifacts" if tried else "No artifact"
        wanted = f" for {' or '.join(runtimes)}" if runtimes else ""
        return {"artifact": None, "verdict": None, "why": [f"{among}{wanted} can be shipped."]}
    best = ranked[0]
    why = list(best["reasons"])
    twin = next((a for a in report["artifacts"] if _float_twin(a, best)), None)
    if twin is not None and best["bytes"]:
        ratio = times(twin["bytes"] / best["bytes"])
        why.append(f"{megabytes(best['bytes'])}, {ratio} times smaller than {artifact_label(twin)}.")
    if len(ranked) > 1:
        why.append(f"Next best: {shorten(artifact_label(ranked[1]), 60)} ({ranked[1]['verdict']}).")
    return {"artifact": artifact_label(best), "verdict": str(best["verdict"]), "why": why}


def _float_twin(other: Mapping[str, Any], best: Mapping[str, Any]) -> bool:
    """Whether `other` is the float artifact of `best`'s target, `best` being int8."""
    return bool(
        best["precision"] == Precision.INT8
        and other["target"] == best["target"]
        and other["precision"] != Precision.INT8
        and other["status"] == Status.OK
    )
