"""Checks of report.json's later parts, each optional: an older report of schema 1 lacks them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cspedge.report import checks

_FRACTION, _SIGNED = checks.number(0, 1), checks.number(-1, 1)
_LOSS: dict[str, checks.Check] = {
    "name": checks.name,
    "n": checks.count,
    "top1": _FRACTION,
    "drop_top1": _SIGNED,
    "drop_ci95": checks.interval(-1, 1),
}

# The device whose answers the accuracy is made of (--device); null: the process that wrote the report.
RAN_ON = checks.closed(
    {
        "uri": checks.name,
        "cpu": checks.text,
        "machine": checks.name,
        "isa": checks.list_of(checks.text),
        "os": checks.text,
        "runtime": checks.name,
        "delegates": checks.list_of(checks.name),
    },
    {
        "apple": checks.or_null(  # Core ML on a device: what it may run on there, and the device's state
            checks.closed(
                {
                    "units": checks.name,
                    "low_power_mode": checks.flag,
                    "thermal_before": checks.name,
                    "thermal_after": checks.name,
                    "compile_ms": checks.number(0),
                    "operations": checks.map_of(checks.count),
                }
            )
        )
    },
)
# Instructions of one inference on an emulated processor, where there are no times; ratio_to_fp32 as speedup_vs_fp32.
INSTRUCTIONS = checks.closed(
    {
        "device": checks.text,
        "threads": checks.count,
        "instructions_per_inference": checks.count,
        "samples": checks.list_of(checks.count, at_least=1),
        "ratio_to_fp32": checks.or_null(checks.number(0)),
    }
)
# Validation images under mild corruptions: their parameters, and what fp32 itself loses against the clean images.
CORRUPTIONS = checks.closed(
    {
        "sha256": checks.sha256,
        "corruptions": checks.list_of(
            checks.closed({**_LOSS, "kind": checks.name, "value": checks.number(), "clean_top1": _FRACTION}),
            at_least=1,
        ),
    }
)
# What one artifact loses against fp32 under each of them.
CORRUPTED = checks.list_of(
    checks.closed(
        {**_LOSS, "agreement": _FRACTION, "only_reference": checks.count, "only_artifact": checks.count},
    )
)

# A Core ML package beside PT2E, in the program's order; nulls as in `cspedge.layers.TracedLayer`.
TRACE = checks.closed(
    {
        "n": checks.count,
        "limit_db": checks.number(),
        "layers": checks.list_of(
            checks.closed(
                {
                    "name": checks.name,
                    "module": checks.text,
                    "kind": checks.name,
                    "sqnr_db": checks.or_null(checks.number()),
                    "max_abs_diff": checks.or_null(checks.number(0)),
                    "carried_db": checks.or_null(checks.number()),
                }
            )
        ),
    }
)


def rules(report: Mapping[str, Any]) -> None:
    """What those parts demand of one another. Raises UsageError."""
    wanted = [row["name"] for row in (report.get("robustness") or {"corruptions": []})["corruptions"]]
    for index, artifact in enumerate(report["artifacts"]):
        found = [row["name"] for row in artifact.get("robustness", [])]
        if found and found != wanted:
            where = f"artifacts[{index}].robustness"
            raise checks.wrong(where, f"names {found}", f"the report's corruptions {wanted}")
