"""How times were taken, as facts: the figures of docs/latency.md that the table of artifacts has no column for."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

from cspedge.report import words

_PROTOCOLS = {
    "in-process": "all in one process",
    "fresh-process": "a fresh process per artifact and round",
    "fresh-load": "one process, every model loaded anew in every round",
}


def listed(latency: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Names and values; a value is None or empty where a report does not tell."""
    protocol, cold = latency.get("protocol"), latency.get("cold")
    return [
        ("Median\u2019s interval", _interval(latency.get("p50_ci95"))),
        ("Timed in", protocol and _PROTOCOLS[protocol]),
        ("Warm-up", _warm_up(latency)),
        ("Noise", _noise(latency.get("noise"))),
        ("Cold start", cold and _cold(cold)),
        *((_threads(point["threads"]), _point(point)) for point in latency.get("sweep", ())),
        ("Cores", latency.get("cores")),
        ("Peak memory", _memory(latency)),
    ]


def _interval(interval: list[float] | None) -> str | None:
    return None if interval is None else f"{' to '.join(words.milliseconds(bound) for bound in interval)} ms (95 %)"


def _warm_up(latency: Mapping[str, Any]) -> str | None:
    traces = latency.get("warmup_ms")
    if not traces:
        return None
    count, unsteady = f"{median(len(trace) for trace in traces):g} inferences", latency.get("unsteady", 0)
    if not unsteady:
        return f"{count} until steady"
    return f"{count}; not steady after them in {unsteady} of {len(traces)} process{'es' * (len(traces) != 1)}"


def _noise(noise: Mapping[str, Any] | None) -> str | None:
    if noise is None:
        return None
    low, high = (words.times(bound) for bound in noise["ci95"])
    verdict = "speeds may be compared" if noise["conclusive"] else "too noisy to conclude about speed"
    return f"{noise['artifact']} beside itself: {low} to {high} times; {verdict}"


def _cold(cold: Mapping[str, Any]) -> str:
    between = _interval(cold["total_ci95"])
    first = f"first inference {words.milliseconds(cold['first_ms'])} ms"
    count = f"medians of {len(cold['first_samples_ms'])} processes"
    return f"{words.milliseconds(cold['total_ms'])} ms{f', {between}' if between else ''}; {first}; {count}"


def _threads(count: int) -> str:
    return f"With {count} thread{'s' * (count != 1)}"


def _point(point: Mapping[str, Any]) -> str:
    between = _interval(point["p50_ci95"])
    return f"{words.milliseconds(point['p50_ms'])} ms{f', {between}' if between else ''}"


def _memory(latency: Mapping[str, Any]) -> str | None:
    peak, base = latency["peak_rss_mb"], latency.get("base_rss_mb")
    if not peak:
        return None
    return f"{peak:.0f} MB" if not base else f"{peak:.0f} MB, {base:.0f} MB of it before the model was loaded"
