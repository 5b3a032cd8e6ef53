"""What is lost under mild corruptions: fp32's own loss, and what an int8 artifact loses more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cspedge.report import words
from cspedge.types import Status, Verdict

KINDS = {
    "gaussian-blur": "\u03c3 {:g} px",
    "jpeg": "quality {:g}",
    "brightness": "light \u00d7 {:g}",
}


def findings(artifact: Mapping[str, Any], allowed: float, level: float) -> list[tuple[Verdict, str]]:
    """The verdict rule: caution where a drop under a corruption is above `allowed` by more than chance explains.

    allowed: a fraction of 1; level: of the p corrected for all corruptions after Benjamini and Hochberg, which holds
    for tests on the same images too, as these are (Benjamini and Yekutieli, Annals of Statistics 29, 2001, 1165-1188).
    """
    rows = artifact.get("robustness") or []
    if not rows or artifact["status"] != Status.OK:
        return []
    worst = max(rows, key=lambda row: row["drop_top1"])
    over = [row for row, q in zip(rows, corrected(rows, allowed), strict=True) if q < level]
    budget = f"the budget of {words.points(allowed)}"
    if over:
        named = "; ".join(f"{row['name']} {_loss(row)}" for row in over)
        surely = f"surely over {budget} (q < {level:g})"
        return [(Verdict.CAUTION, f"On corrupted images it loses more points than fp32 does, {surely}: {named}.")]
    most = f"at most {words.points(worst['drop_top1'])} points more than fp32 ({worst['name']})"
    if worst["drop_top1"] <= 0:
        most = "nothing more than fp32"
    return [(Verdict.SHIP, f"Under {len(rows)} mild corruptions it loses {most}.")]


def corrected(rows: list[Mapping[str, Any]], allowed: float) -> list[float]:
    """q of each row: p of Tango's score test that its drop is within `allowed`, corrected for all rows."""
    from scipy.stats import false_discovery_control

    from cspedge.evaluate.stats import excess_p

    p = [excess_p(row["only_reference"], row["only_artifact"], row["n"], allowed) for row in rows]
    return [float(q) for q in false_discovery_control(p, method="bh")]


def table(report: Mapping[str, Any]) -> dict[str, Any] | None:
    """Rows {name, what, n, clean, top1, drop, interval, cells}, a cell per artifact in "names"; None without any.

    clean, top1, drop: fp32's on the clean images, on the corrupted ones, and the difference; a cell is {drop, interval,
    same, worse}: what int8 loses more on the corrupted images, where both agree, and whether it surely loses more.
    """
    found = report.get("robustness")
    ran = [artifact for artifact in report["artifacts"] if artifact.get("robustness")]
    if found is None:
        return None
    rows = []
    for index, corruption in enumerate(found["corruptions"]):
        kind = KINDS.get(corruption["kind"], corruption["kind"] + " {:g}")
        rows.append(
            {
                "name": corruption["name"],
                "what": kind.format(corruption["value"]),
                "n": corruption["n"],
                "clean": words.percent(corruption["clean_top1"]),
                "top1": words.percent(corruption["top1"]),
                "drop": words.points(corruption["drop_top1"]),
                "interval": _interval(corruption),
                "cells": [_cell(artifact["robustness"][index]) for artifact in ran],
            }
        )
    return {"rows": rows, "names": [(a["target"], a["precision"]) for a in ran]}


def _cell(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "drop": words.points(row["drop_top1"]),
        "interval": _interval(row),
        "same": f"{words.percent(row['agreement'])} agree",
        "worse": row["drop_ci95"][0] > 0,
    }


def _loss(row: Mapping[str, Any]) -> str:
    return f"{words.points(row['drop_top1'])} ({_interval(row)})"


def _interval(row: Mapping[str, Any]) -> str:
    return " to ".join(words.points(bound) for bound in row["drop_ci95"])
