"""Many reports on one page: one line per model, target and precision, as plain values and as HTML."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from cspedge.report import words
from cspedge.report.given import Given
from cspedge.report.schema import artifact_label
from cspedge.report.tables import worst
from cspedge.types import Status, Verdict

OVERVIEW = 1
_SEVERITY = {Verdict.DO_NOT_SHIP: 0, Verdict.CAUTION: 1, Verdict.SHIP: 2}
_UNFOLDED = 4  # so few runs are shown without asking
_MOST_HELD = 60  # lines of what does not ship, before all
_MOST_REASONS = 4  # on the page for each artifact; its own report has them all


def overview(given: Sequence[Given]) -> dict[str, Any]:
    """The overview as plain JSON values (docs/report.md): runs by model, in each the worst artifact first."""
    runs = sorted((_run(g) for g in given), key=lambda run: (run["model"], run["recipe"] or "", run["report"]))
    verdicts = Counter(row["verdict"] for run in runs for row in run["artifacts"])
    return {"overview": OVERVIEW, "runs": runs, "verdicts": {str(v): verdicts[str(v)] for v in Verdict}}


def _run(given: Given) -> dict[str, Any]:
    report = given.report
    return {
        "report": given.name,
        "model": report["model"]["name"],
        "head": report["model"]["head"],
        "recipe": (report["calibration"] or {}).get("recipe"),
        "n": report["reference"]["n"],
        "reference_top1": report["reference"]["top1"],
        "validation_sha256": (report["validation"] or {}).get("sha256"),
        "cpu": report["environment"]["cpu"],
        "artifacts": sorted(map(_line, report["artifacts"]), key=_rank),
    }


def _line(artifact: Mapping[str, Any]) -> dict[str, Any]:
    accuracy, latency = artifact["accuracy"], artifact["latency"]
    found: dict[str, Any] = {
        key: artifact[key] for key in ("target", "precision", "status", "evidence", "verdict", "bytes")
    }
    found["reasons"] = artifact["reasons"] or [artifact["reason"]]
    found |= dict.fromkeys(("top1", "drop_top1", "drop_ci95", "agreement", "cosine", "p50_ms", "speedup_vs_fp32"))
    if accuracy is not None:
        found |= {key: accuracy[key] for key in ("top1", "drop_top1", "drop_ci95", "agreement")}
    if artifact["outputs"]:
        found["cosine"] = worst(artifact, "cosine_mean")["cosine_mean"]
    if latency is not None:
        found |= {key: latency[key] for key in ("p50_ms", "speedup_vs_fp32")}
    return found


def _rank(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """The worst first: verdict, then what it loses."""
    loss = row["drop_top1"] if row["drop_top1"] is not None else 1 - row["cosine"] if row["cosine"] else math.inf
    return (_SEVERITY[row["verdict"]], -loss, artifact_label(row))


def second_names(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """What stands beside each run's model: its recipe, or its report's path where another run has both the same."""
    counts = Counter((run["model"], run["recipe"]) for run in runs)
    return [run["report"] if counts[run["model"], run["recipe"]] > 1 else run["recipe"] or "float only" for run in runs]


def render(found: Mapping[str, Any]) -> str:
    """overview.html: a grid of verdicts to jump from, what does not ship, and every artifact, folded by run."""
    from cspedge.report.html import CONTENT_SECURITY_POLICY, environment

    names = second_names(found["runs"])
    runs = [_shown(run, index, names[index]) for index, run in enumerate(found["runs"])]
    held = [
        row | {"model": run["model"], "second": run["second"]}
        for run in runs
        for row in run["rows"]
        if row["verdict"] != Verdict.SHIP
    ]
    held.sort(key=lambda row: (*_rank(row)[:2], row["model"], row["to"]))
    return (
        environment()
        .get_template("overview.html.j2")
        .render(
            found=found,
            runs=runs,
            unfolded=len(runs) <= _UNFOLDED,
            held=held[:_MOST_HELD],
            held_more=len(held) - _MOST_HELD if len(held) > _MOST_HELD else 0,
            grid=grid(found),
            csp=CONTENT_SECURITY_POLICY,
            total=sum(found["verdicts"].values()),
        )
    )


def _shown(run: Mapping[str, Any], index: int, second: str) -> dict[str, Any]:
    rows = [{**_row(row), "to": f"a{index}-{at}"} for at, row in enumerate(run["artifacts"])]
    counts = Counter(row["verdict"] for row in rows)
    tally = [(str(word), counts[str(word)]) for word in Verdict if counts[str(word)]]
    return {**run, "second": second, "rows": rows, "tally": tally, "stops": counts[str(Verdict.DO_NOT_SHIP)]}


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    said = row["reasons"][:_MOST_REASONS]
    return {**row, "said": said, "loss": loss_text(row), "more": len(row["reasons"]) - len(said)}


def loss_text(row: Mapping[str, Any]) -> str:
    """Points of top-1 lost, or the cosine similarity where there are no logits, or a word where there is neither."""
    if row["status"] != Status.OK:
        return "none"
    if row["drop_top1"] is not None:
        return words.points(row["drop_top1"])
    return "not run" if row["cosine"] is None else words.cosine(row["cosine"])


def columns(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Every (target, precision) of any run, targets in order of their names, float before int8."""
    names = {(row["target"], row["precision"]) for run in found["runs"] for row in run["artifacts"]}
    return sorted(names, key=lambda name: (name[0], name[1] == "int8", name[1]))


def grid(found: Mapping[str, Any]) -> dict[str, Any]:
    """{names: columns, rows: [{run, second, cells}]}; a cell is {text, verdict, to: the anchor of its line} or None."""
    names, seconds = columns(found), second_names(found["runs"])
    rows = []
    for index, run in enumerate(found["runs"]):
        at = {(row["target"], row["precision"]): i for i, row in enumerate(run["artifacts"])}
        cells = [
            None
            if name not in at
            else {
                "text": loss_text(run["artifacts"][at[name]]),
                "verdict": run["artifacts"][at[name]]["verdict"],
                "to": f"a{index}-{at[name]}",
            }
            for name in names
        ]
        rows.append({"run": run, "second": seconds[index], "cells": cells})
    return {"names": names, "rows": rows}
