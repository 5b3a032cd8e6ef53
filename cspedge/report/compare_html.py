"""comparison.html: two reports beside each other on one self-contained page, as report.html is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cspedge.report import compare_words as say
from cspedge.report.frame import INK, Row, dot, rows_plot, span, write_value
from cspedge.report.words import times
from cspedge.types import Evidence, Head, Status

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def render(found: Mapping[str, Any]) -> str:
    """The page of `compare.compare`'s values; its output depends on them alone."""
    from markupsafe import Markup

    from cspedge.report.html import CONTENT_SECURITY_POLICY, environment

    logits = found["a"]["head"] == Head.LOGITS
    rows = found["artifacts"]
    plots = []
    if any(row["top1"] for row in rows):
        plots.append(("Top-1", "Dot: B less A, in points. Zero is A.", change_plot(rows)))
    if any(map(_timed, rows)):
        plots.append(("Latency, one image", "Dot: B\u2019s median over A\u2019s. One is A.", ratio_plot(rows)))
    return (
        environment()
        .get_template("comparison.html.j2")
        .render(
            found=found,
            csp=CONTENT_SECURITY_POLICY,
            logits=logits,
            rows=[_row(row, logits) for row in rows],
            alone=[(side.upper(), found[f"only_{side}"]) for side in "ab" if found[f"only_{side}"]],
            # the drawing is serialised by `svg.inline`, which escapes all text
            plots=[{"title": title, "caption": said, "drawing": Markup(drawn)} for title, said, drawn in plots],
            headline=say.headline(found),
            counts=say.counts(found),
            notes=[note for note in (say.paired_note(found), say.drift_note(found)) if note],
        )
    )


def _row(row: Mapping[str, Any], logits: bool) -> dict[str, Any]:
    shares = [("Top-1", say.share_cell(row["top1"])), ("Agrees with fp32", say.share_cell(row["agreement"]))]
    closeness = [("Cosine to fp32", say.cosine_cell(row["cosine"])), ("SQNR, dB", say.decibel_cell(row["sqnr_db"]))]
    return {
        **row,
        "cells": [
            *(shares if logits else closeness),
            ("Size", say.size_cell(row["bytes"])),
            ("p50, ms", say.latency_cell(row["latency"])),
        ],
        "told": _told(row),
    }


def _told(row: Mapping[str, Any]) -> list[str]:
    """Why there is nothing to compare, or why the verdict is another one."""
    missing = [f"{side.upper()}: {row['reasons'][side][0]}" for side in "ab" if row["status"][side] != Status.OK]
    return missing or (row["reasons"]["b"] if row["verdict"]["a"] != row["verdict"]["b"] else [])


def change_plot(rows: list[Mapping[str, Any]]) -> str:
    """Change of top-1 from A to B in points with its 95 % interval; right of 0 is better."""

    def draw(axes: Axes, drawn: list[Row]) -> None:
        shown = [(row, row.artifact["top1"]) for row in drawn if row.artifact["top1"]]
        ends = [100 * bound for _, found in shown for bound in found["ci95"]]
        low, high = min([0.0, *ends]), max([0.0, *ends])
        pad = max(0.06 * (high - low), 0.25)
        axes.set_xlim(low - pad, high + pad)
        axes.axvline(0, color=INK, linewidth=1)
        for row, found in shown:
            low, high = found["ci95"]
            span(axes, row, (100 * low, 100 * high))
            dot(axes, row, 100 * found["change"])
            write_value(axes, row, say.signed(found["change"]))

    return rows_plot(
        [_drawn(row) for row in rows],
        draw,
        name="change",
        axis="points of top-1, B less A (right is better)",
        title="Change of top-1 from A to B, with 95 % intervals",
        describe=lambda row: _say(say.share_cell(row["top1"])),
        shown=lambda row: row["top1"] is not None,
    )


def ratio_plot(rows: list[Mapping[str, Any]]) -> str:
    """Median latency of B over A's with its 95 % interval; left of 1 is faster."""

    def draw(axes: Axes, drawn: list[Row]) -> None:
        shown = [(row, row.artifact["latency"]) for row in drawn if _timed(row.artifact)]
        ends = [bound for _, found in shown for bound in found["ci95"]]
        low, high = min([1.0, *ends]), max([1.0, *ends])
        pad = max(0.06 * (high - low), 0.02)
        axes.set_xlim(low - pad, high + pad)
        axes.axvline(1, color=INK, linewidth=1)
        for row, found in shown:
            span(axes, row, (found["ci95"][0], found["ci95"][1]))
            dot(axes, row, found["ratio"])
            write_value(axes, row, f"{times(found['ratio'])}\u00d7")

    return rows_plot(
        [_drawn(row) for row in rows],
        draw,
        name="ratio",
        axis="time of B, A's being 1 (left is better)",
        title="Ratio of median latencies, B to A, with 95 % intervals",
        describe=lambda row: _say(say.latency_cell(row["latency"])),
        shown=_timed,
    )


def _timed(row: Mapping[str, Any]) -> bool:
    return row["latency"] is not None and row["latency"]["ratio"] is not None


def _drawn(row: Mapping[str, Any]) -> dict[str, Any]:
    """As the plots take an artifact: one status, one evidence."""
    status = next((s for s in row["status"].values() if s != Status.OK), Status.OK)
    evidence = next((e for e in row["evidence"].values() if e != Evidence.MEASURED), Evidence.MEASURED)
    return {**row, "status": status, "evidence": evidence}


def _say(cell: say.Cell | None) -> str:
    return "not compared" if cell is None else f"{cell['change']} ({cell['small']})"
