"""The plot of a sensitivity table: SQNR by depth, alone and cumulatively, and the tensors that cost most answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cspedge.report import svg
from cspedge.report.frame import (
    HEADING,
    INK,
    INT8,
    LINE,
    MUTED,
    RIGHT,
    ROW,
    SIZE,
    SMALL,
    VARIABLES,
    WIDTH,
    bare,
    canvas,
    tick,
)
from cspedge.report.words import decibels, percent, plain, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DEPTH, FOOT, EDGE = 130.0, 36.0, 30.0  # px: the curves, the axis below them, the room for their scale
MOST = 8  # rows of the ranking
# the report's light colours (report.css.j2), for a file of its own
LIGHT = {
    "var(--ink)": "#1b1d22",
    "var(--muted)": "#5c616b",
    "var(--line)": "#e2e0da",
    "var(--panel)": "#ffffff",
    "var(--int8)": "#1a5fb4",
    "var(--font)": "sans-serif",
}


def sensitivity_plot(rows: Sequence[Mapping[str, Any]], *, name: str = "sensitivity") -> str:
    """An `<svg role="img">` of a sensitivity table: `cspedge.quantize.explain.Row`s as plain values, in graph order.

    name: unique among the page's plots.
    """
    ranked = sorted(rows, key=lambda row: -row["saved"])[:MOST]
    bottom = HEADING + ROW * len(ranked)
    height = HEADING + DEPTH + FOOT + bottom
    with canvas(name, height) as figure:
        _curves(figure, rows, height)
        axes = figure.add_axes((0, 0, 1, bottom / height))
        bare(axes, bottom)
        axes.set_xticks([])
        axes.set_xlim(0, WIDTH)
        _heading(axes, HEADING / 2, "Answers saved, were it kept in float")
        largest = max([row["saved"] for row in ranked], default=0.0) or 1.0
        for index, row in enumerate(ranked):
            y = HEADING + ROW * (index + 0.5)
            length = max(0.0, row["saved"]) / largest * (WIDTH - RIGHT)
            axes.barh(y, length, height=ROW - 5, color=LINE, linewidth=0)
            place: dict[str, Any] = {"va": "center_baseline", "fontsize": SMALL, "color": INK}
            axes.text(4, y, shorten(row["tensor"], 42), **place)
            axes.text(WIDTH - 2, y, percent(row["saved"], 2), ha="right", **place)
        document = svg.document(figure)
    return svg.inline(
        document,
        prefix=name,
        view=(WIDTH, height),
        title="Sensitivity of each quantized tensor",
        description=f"{'; '.join(_say(row) for row in ranked)}.",
        colours=VARIABLES,
    )


def standalone(plot: str) -> str:
    """A plot of the report as an SVG file of its own, in the report's light colours."""
    for variable, colour in LIGHT.items():
        plot = plot.replace(variable, colour)
    return plot.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1) + "\n"


def _curves(figure: Figure, rows: Sequence[Mapping[str, Any]], height: float) -> None:
    from matplotlib.ticker import FuncFormatter

    top = height - HEADING - DEPTH
    axes = figure.add_axes((EDGE / WIDTH, top / height, 1 - EDGE / WIDTH, DEPTH / height))
    alone = [(i, row["sqnr_db"]) for i, row in enumerate(rows) if row["sqnr_db"] is not None]
    together = [(i, row["cumulative_db"]) for i, row in enumerate(rows) if row["cumulative_db"] is not None]
    # exact tensors (an image's 146 dB) would press the others together
    most = min(60.0, max([db for _, db in alone], default=1.0))
    bare(axes, most)
    axes.set_ylim(min([0.0, *(db for _, db in together)]), 1.08 * most)
    axes.set_xlim(-1, max(len(rows), 1))
    axes.set_yticks(range(0, int(most) + 1, 10))
    axes.yaxis.set_major_formatter(FuncFormatter(tick))
    axes.set_xticks([])
    axes.tick_params(axis="y", length=0, pad=4, labelsize=SMALL, labelcolor=MUTED)
    axes.grid(axis="y", color=LINE, linewidth=1)
    axes.set_axisbelow(True)
    axes.plot([i for i, _ in alone], [min(db, most) for _, db in alone], "o", markersize=3, color=MUTED)
    axes.plot([i for i, _ in together], [min(db, most) for _, db in together], color=INT8, linewidth=2)
    axes.set_xlabel("from the image to the answer", fontsize=SMALL, color=MUTED, labelpad=6)
    header = figure.add_axes((0, 1 - HEADING / height, 1, HEADING / height))
    bare(header, HEADING)
    header.set_xticks([])
    header.set_xlim(0, WIDTH)
    _heading(header, HEADING / 2, "SQNR in dB:")
    header.text(92, HEADING / 2, "● alone", va="center_baseline", fontsize=SIZE, color=MUTED)
    header.text(152, HEADING / 2, "— with all before it", va="center_baseline", fontsize=SIZE, color=INT8)


def _heading(axes: Axes, y: float, text: str) -> None:
    axes.text(0, y, text, va="center_baseline", fontsize=SIZE, color=INK, weight="bold")


def _say(row: Mapping[str, Any]) -> str:
    return (
        f"{plain(row['tensor'])} {percent(row['saved'], 2)} of answers, SQNR {decibels(row['sqnr_db'])} dB alone and "
        f"{decibels(row['cumulative_db'])} dB with all before it"
    )
