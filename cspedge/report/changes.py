"""What changed against fp32 on the same images, artifact by artifact: paired tests and the classes behind them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cspedge.report import words
from cspedge.report.schema import artifact_label
from cspedge.report.verdict import FALSE_DISCOVERIES

_MOST_CLASSES = 6  # listed per artifact; report.json has them all


def changes(report: Mapping[str, Any]) -> dict[str, Any]:
    """Rows {artifact, facts, classes, more, sure, tested} of artifacts that answer otherwise than fp32 anywhere.

    "same": labels of those that get right exactly the images that fp32 does, top-5 included.
    """
    labels = report["model"].get("labels") or []
    rows, same = [], []
    for artifact in report["artifacts"]:
        paired = artifact.get("paired")
        if paired is None:
            continue
        if not paired["changed"] and paired["top5_drop"] == 0 and paired["top5_mcnemar_p"] == 1:
            same.append(artifact_label(artifact))
            continue
        shown = paired["changed"][:_MOST_CLASSES]
        rows.append(
            {
                "artifact": artifact,
                "facts": _facts(artifact["accuracy"], paired),
                "classes": [_class(row, labels) for row in shown],
                "more": len(paired["changed"]) - len(shown),
                "sure": sum(row["q"] < FALSE_DISCOVERIES for row in paired["changed"]),
                "tested": paired["classes"],
            }
        )
    return {"rows": rows, "same": same}


def _facts(accuracy: Mapping[str, Any], paired: Mapping[str, Any]) -> list[tuple[str, str]]:
    before, after = (words.points(paired[key]) for key in ("ece_reference", "ece"))
    return [
        ("Only fp32 right", _images(paired["only_reference"])),
        ("Only this right", _images(paired["only_artifact"])),
        ("McNemar\u2019s p", words.chance(paired["mcnemar_p"])),
        ("Top-1 lost", _drop(accuracy["drop_top1"], accuracy["drop_ci95"])),
        ("by bootstrap", _interval(paired["drop_bootstrap95"])),
        (
            "Top-5 lost",
            f"{_drop(paired['top5_drop'], paired['top5_ci95'])}, p {words.chance(paired['top5_mcnemar_p'])}",
        ),
        ("Macro top-1 lost", _drop(paired["macro_drop"], paired["macro_bootstrap95"])),
        ("Calibration error", f"{before} with fp32, {after} here"),
    ]


def _images(count: int) -> str:
    return f"{count:,} image{'s' * (count != 1)}"


def _drop(drop: float, interval: list[float] | None) -> str:
    return f"{words.points(drop)} ({_interval(interval)})"


def _interval(interval: list[float] | None) -> str:
    return "no answer changed" if interval is None else " to ".join(words.points(bound) for bound in interval)


def _class(row: Mapping[str, Any], labels: list[str]) -> dict[str, Any]:
    net = row["only_reference"] - row["only_artifact"]
    return {
        "name": words.class_name(labels, row["label"]),
        "n": row["n"],
        "net": f"{net:+d}".replace("-", "\u2212") if net else "0",
        "turned": row["only_reference"] + row["only_artifact"],
        "q": words.chance(row["q"]),
        "sure": row["q"] < FALSE_DISCOVERIES,
    }
