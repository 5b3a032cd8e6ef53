"""Many reports as Markdown for a pull request: a line per model, a column per target and precision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cspedge.report.markdown import MARKS, bullets, code, document, table, text
from cspedge.report.overview import grid, second_names
from cspedge.report.schema import artifact_label
from cspedge.report.words import VERDICT_WORDS, percent
from cspedge.types import Verdict


def render(found: Mapping[str, Any]) -> str:
    """The Markdown of `overview.overview`'s values."""
    shown = grid(found)
    headings = ["Model", "Run", "fp32 top-1", *(code("/".join(name), in_table=True) for name in shown["names"])]
    rows = [[*_names(row["run"], row["second"]), *map(_cell, row["cells"])] for row in shown["rows"]]
    counts = ", ".join(f"{MARKS[word]} {count} {VERDICT_WORDS[word]}" for word, count in found["verdicts"].items())
    stopped = [
        f"{run['model']} ({second}), {artifact_label(row)}: {row['reasons'][0]}"
        for run, second in zip(found["runs"], second_names(found["runs"]), strict=True)
        for row in run["artifacts"]
        if row["verdict"] == Verdict.DO_NOT_SHIP
    ]
    return document(
        f"### cspedge: {len(found['runs'])} runs",
        f"{counts}.",
        table(headings, rows, right=2),
        "Figures: points of top-1 lost against fp32 on each run's own images, or cosine similarity to fp32.",
        bullets("**Do not ship**", stopped),
    )


def _names(run: Mapping[str, Any], second: str) -> list[str]:
    top1 = "\u2013" if run["reference_top1"] is None else percent(run["reference_top1"])
    return [code(run["model"], in_table=True), code(second, in_table=True), top1]


def _cell(cell: Mapping[str, Any] | None) -> str:
    return "\u2013" if cell is None else f"{MARKS[cell['verdict']]} {text(cell['text'])}"
