"""Core ML packages layer by layer: the first that differs, by name, and the course of SQNR behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cspedge.report import words
from cspedge.report.schema import artifact_label

LIMITS = (
    "By the reference executor: it shows that the saved program computes this graph, layer by layer, in the precision "
    "it declares; it says nothing of how Apple's Neural Engine, GPU or CPU round, which runs a layer, or how fast."
)
_MOST_DB = 80.0  # the height of the line: float16's own noise lies at 50 to 70 dB


def differs(layer: Mapping[str, Any], limit_db: float) -> bool:
    """Whether a layer is further from PT2E than the limit allows, or holds values that are no numbers."""
    if layer["sqnr_db"] is None:
        return bool(layer["max_abs_diff"] != 0)  # 0: equal bit for bit
    return bool(layer["sqnr_db"] < limit_db)


def first(trace: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The first layer that differs, None where all are within the limit."""
    return next((layer for layer in trace["layers"] if differs(layer, trace["limit_db"])), None)


def sentence(artifact: Mapping[str, Any]) -> str:
    """What the trace of one artifact says."""
    trace = artifact["trace"]
    limit = f"{trace['limit_db']:g} dB"
    compared = f"{len(trace['layers'])} values on {trace['n']} images"
    found = first(trace)
    if found is not None:
        return f"the first that differs is {_named(found)}: {_distance(found)}, where {limit} are allowed ({compared})"
    measured = [layer for layer in trace["layers"] if layer["sqnr_db"] is not None]
    if not measured:
        return f"equal to PT2E bit for bit in all {compared}"
    least = min(measured, key=lambda layer: layer["sqnr_db"])
    return f"no layer is below {limit}; the furthest is {_named(least)}: {_distance(least)} ({compared})"


def lines(report: Mapping[str, Any]) -> list[str]:
    """For the console: a line for each trace, and one with what they prove."""
    ran = [artifact for artifact in report["artifacts"] if artifact.get("trace")]
    return [f"trace {artifact_label(a)}: {sentence(a)}" for a in ran] + ([LIMITS] if ran else [])


def traces(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One {artifact, sentence, found, rows, points, count, limit} for each artifact that was traced.

    points: an SVG polyline's, one unit wide for each layer, 0 at the top for 80 dB and more; limit: its height.
    """
    found = []
    for artifact in report["artifacts"]:
        trace = artifact.get("trace")
        if not trace:
            continue
        limit, layers = trace["limit_db"], trace["layers"]
        found.append(
            {
                "artifact": artifact,
                "sentence": sentence(artifact),
                "found": first(trace) is not None,
                "rows": [_row(layer, limit) for layer in layers],
                "points": _points(layers),
                "count": max(len(layers) - 1, 1),
                "limit": f"{_MOST_DB - min(limit, _MOST_DB):.1f}",
            }
        )
    return found


def _row(layer: Mapping[str, Any], limit: float) -> dict[str, Any]:
    most = layer["max_abs_diff"]
    return {
        "name": layer["name"],
        "module": layer["module"],
        "kind": layer["kind"],
        "sqnr": _sqnr(layer),
        "most": "not finite" if most is None else words.brief(most),
        "carried": "" if layer["carried_db"] is None else words.decibels(layer["carried_db"]),
        "differs": differs(layer, limit),
    }


def _points(layers: Sequence[Mapping[str, Any]]) -> str:
    heights = [_MOST_DB - _clamped(layer) for layer in layers]
    return " ".join(f"{index},{height:.1f}" for index, height in enumerate(heights))


def _clamped(layer: Mapping[str, Any]) -> float:
    if layer["sqnr_db"] is None:
        return _MOST_DB if layer["max_abs_diff"] == 0 else 0.0
    return float(min(max(layer["sqnr_db"], 0.0), _MOST_DB))


def _sqnr(layer: Mapping[str, Any]) -> str:
    if layer["sqnr_db"] is None and layer["max_abs_diff"] != 0:
        return "none"
    return words.decibels(layer["sqnr_db"])


def _distance(layer: Mapping[str, Any]) -> str:
    if layer["sqnr_db"] is not None:
        return f"{words.decibels(layer['sqnr_db'])} dB SQNR"
    return "not finite" if layer["max_abs_diff"] is None else "no signal in PT2E"


def _named(layer: Mapping[str, Any]) -> str:
    return f"{words.plain(layer['module'] or layer['name'])} ({layer['kind']}, {words.plain(layer['name'])})"
