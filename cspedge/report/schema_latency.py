"""An artifact's `latency` in report.json: the part of the schema that docs/latency.md explains."""

from __future__ import annotations

import math

from cspedge.evaluate.timing import BenchProtocol
from cspedge.report import checks

_POSITIVE = checks.number(0)
_SAMPLES = checks.list_of(_POSITIVE, at_least=1)
_INTERVAL = checks.or_null(checks.interval(0, math.inf))
_CORES = checks.or_null(checks.list_of(checks.count, at_least=1))  # null: any core
# One artifact beside itself; reason is null where speeds may be compared.
_NOISE = checks.closed(
    {
        "artifact": checks.name,
        "ratio": _POSITIVE,
        "ci95": checks.interval(0, math.inf),
        "conclusive": checks.flag,
        "reason": checks.or_null(checks.text),
    }
)
# Load and first inference of each process.
_COLD = checks.closed(
    {
        "load_samples_ms": _SAMPLES,
        "first_samples_ms": _SAMPLES,
        "first_ms": _POSITIVE,
        "total_ms": _POSITIVE,
        "total_ci95": _INTERVAL,
    }
)
_FIGURES: dict[str, checks.Check] = {
    "threads": checks.count,
    "p50_ms": _POSITIVE,
    "p90_ms": _POSITIVE,
    "p99_ms": _POSITIVE,
    "samples_ms": _SAMPLES,
}
_SWEEP = checks.closed({**_FIGURES, "cores": _CORES, "p50_ci95": _INTERVAL})
# A device's clocks and warmth around timed processes (adb://); null: it does not tell.
_STATUS_LEVEL, _CELSIUS = checks.or_null(checks.count), checks.or_null(checks.number())
_CONDITIONS = checks.closed(
    {
        "clocks": checks.list_of(
            checks.closed(
                {
                    "cores": checks.name,
                    "governor": checks.name,
                    "max_mhz": _POSITIVE,
                    "limit_mhz": _POSITIVE,
                    "before_mhz": _POSITIVE,
                    "after_mhz": _POSITIVE,
                }
            )
        ),
        "status_start": _STATUS_LEVEL,
        "status_before": _STATUS_LEVEL,
        "status_after": _STATUS_LEVEL,
        "celsius_start": _CELSIUS,
        "celsius_before": _CELSIUS,
        "celsius_after": _CELSIUS,
        "cooldown_s": _POSITIVE,
        "processes": checks.count,
        "warm_starts": checks.count,
    }
)
LATENCY = checks.closed(
    {
        **_FIGURES,
        "device": checks.text,
        "isa": checks.list_of(checks.text),
        "mean_ms": _POSITIVE,
        "load_ms": _POSITIVE,
        "peak_rss_mb": checks.or_null(_POSITIVE),
        "speedup_vs_fp32": checks.or_null(_POSITIVE),  # null: this is the float artifact, or there is none
        "speedup_ci95": _INTERVAL,
    },
    {  # absent: written before there were any
        "p50_ci95": _INTERVAL,
        "protocol": checks.or_null(checks.one_of(BenchProtocol)),
        "cores": _CORES,
        "base_rss_mb": checks.or_null(_POSITIVE),
        "warmup_ms": checks.list_of(_SAMPLES),
        "unsteady": checks.count,
        "noise": checks.or_null(_NOISE),
        "cold": checks.or_null(_COLD),
        "sweep": checks.list_of(_SWEEP),
        "conditions": checks.or_null(_CONDITIONS),
    },
)
