"""What two runs were given and where they ran: the settings and the environment in which their reports differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cspedge.report.facts import flatten
from cspedge.report.schema import artifact_label

# Parts of a report that were given to a run or describe the machine. What a run found out is compared elsewhere.
_GIVEN = ("model", "calibration", "tuning", "validation", "environment")
_LONG = frozenset({"model.labels", "calibration.skipped", "tuning.skipped", "validation.skipped"})


def settings(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows {what, a, b} of every setting that differs, in the report's order; what one report lacks is null there.

    `what` is the JSON path in report.json, for artifacts with their label in place of the index. Artifacts that only
    one report has are named elsewhere.
    """
    both = {artifact_label(artifact) for artifact in a["artifacts"]} & {artifact_label(x) for x in b["artifacts"]}
    left, right = _leaves(a, both), _leaves(b, both)
    rows = []
    for what in dict.fromkeys([*left, *right]):
        before, after = left.get(what), right.get(what)
        if before != after and (before or after):  # an empty list and none at all are the same
            rows.append({"what": what, "a": before, "b": after})
    return rows


def _leaves(report: Mapping[str, Any], labels: set[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in _GIVEN:
        if report.get(part) is not None:
            found |= flatten(report[part], part)
    reference = report["reference"]
    found["reference.device"] = reference["device"]
    found |= {key: f"{len(found[key])} entries" for key in _LONG if found.get(key)}
    for artifact in report["artifacts"]:
        if artifact_label(artifact) in labels:
            found |= _of_artifact(artifact)
    return found


def _of_artifact(artifact: Mapping[str, Any]) -> dict[str, Any]:
    where = f"artifacts[{artifact_label(artifact)}]"
    kept, latency = artifact["kept"], artifact["latency"]
    found = {"placement": artifact["placement"], "evidence": artifact["evidence"]}
    if kept is not None:
        found["kept.tensors"] = kept["tensors"]
    if latency is not None:
        found |= {f"latency.{key}": latency[key] for key in ("device", "threads")}
    if artifact.get("ran_on") is not None:
        found |= flatten(artifact["ran_on"], "ran_on")
    return {f"{where}.{key}": value for key, value in found.items() if value is not None}
