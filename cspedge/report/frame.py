"""How the report's plots are drawn: one row per artifact, grouped by target, as inline SVG.

matplotlib draws with sentinel colours, which become CSS variables (`var(--ink)`), so that one SVG serves light, dark
and print; `svg.inline` makes the page's element of it. 330 user units wide: 1:1 in a card on a phone.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cspedge.report import svg
from cspedge.report.schema import artifact_label
from cspedge.report.words import plain, shorten
from cspedge.types import Evidence, Precision, Status

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 330.0  # CSS px
LEFT, RIGHT = 44.0, 68.0  # room for the precision and for the value
HEADING, ROW, GAP, AXIS = 19.0, 21.0, 7.0, 40.0
SIZE, SMALL = 12, 11  # font sizes, px

# Sentinels: colours nobody would choose, replaced by the page's own.
INK, MUTED, LINE, PANEL, INT8, FLOAT, STOP = (f"#0a0b0{digit}" for digit in "1234567")
VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    LINE: "var(--line)",
    PANEL: "var(--panel)",
    INT8: "var(--int8)",
    FLOAT: "var(--float)",
    STOP: "var(--stop)",
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One artifact's row; y: px from the top of the plotting area."""

    artifact: Mapping[str, Any]
    y: float

    @property
    def colour(self) -> str:
        return colour_of(self.artifact)

    @property
    def face(self) -> str:
        """Hollow where the figures do not come from a device."""
        return face_of(self.artifact)


def colour_of(artifact: Mapping[str, Any]) -> str:
    return INT8 if artifact["precision"] == Precision.INT8 else FLOAT


def face_of(artifact: Mapping[str, Any]) -> str:
    return PANEL if artifact["evidence"] != Evidence.MEASURED else colour_of(artifact)


def rows_plot(
    artifacts: list[Mapping[str, Any]],
    draw: Callable[[Axes, list[Row]], None],
    *,
    name: str,
    axis: str,
    title: str,
    describe: Callable[[Mapping[str, Any]], str],
    shown: Callable[[Mapping[str, Any]], bool],
) -> str:
    """A plot with a row per artifact over one x axis; `draw` puts the marks, of those that are `shown`."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for artifact in artifacts:
        groups.setdefault(artifact["target"], []).append(artifact)
    headings, rows, bottom = _layout(groups)
    height = bottom + AXIS
    with canvas(name, height) as figure:
        axes = figure.add_axes((LEFT / WIDTH, AXIS / height, 1 - (LEFT + RIGHT) / WIDTH, bottom / height))
        _dress(axes, bottom, axis)
        place: dict[str, Any] = {**_px(axes), "va": "center_baseline", "fontsize": SIZE}
        for heading, y in headings:
            axes.annotate(shorten(heading, 40), (-LEFT, y), color=INK, weight="bold", **place)
        for row in rows:
            axes.annotate(str(row.artifact["precision"]), (-LEFT, row.y), color=MUTED, **place)
            if not shown(row.artifact):
                text, colour = missing(row.artifact)
                box = {"facecolor": PANEL, "edgecolor": "none", "pad": 1.5}  # over the grid and the zero line
                axes.annotate(text, (4, row.y), color=colour, style="italic", bbox=box, **place)
        draw(axes, rows)
        document = svg.document(figure)
    return finish(document, name=name, height=height, title=title, artifacts=artifacts, describe=describe)


@contextmanager
def canvas(name: str, height: float) -> Iterator[Figure]:
    """A figure of WIDTH by `height` px whose drawing depends on nothing but what is drawn."""
    from matplotlib import style
    from matplotlib.figure import Figure

    settings: Any = ["default", {"svg.fonttype": "none", "svg.hashsalt": f"cspedge-{name}", "text.parse_math": False}]
    # "default" first: a matplotlibrc of the user's must not change the report. A name in a script that DejaVu lacks
    # draws a warning about glyphs, though the browser's font and not DejaVu will set it.
    with style.context(settings, after_reset=True), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        yield Figure(figsize=(WIDTH / 72, height / 72), dpi=72)


def finish(
    document: str,
    *,
    name: str,
    height: float,
    title: str,
    artifacts: list[Mapping[str, Any]],
    describe: Callable[[Mapping[str, Any]], str],
) -> str:
    """The page's element of matplotlib's document, with every figure in words for those who cannot see it."""
    sentences = "; ".join(f"{plain(artifact_label(a))} {plain(describe(a))}" for a in artifacts)
    return svg.inline(
        document,
        prefix=name,
        view=(WIDTH, height),
        title=plain(title),
        description=f"{sentences}.",
        colours=VARIABLES,
    )


def missing(artifact: Mapping[str, Any]) -> tuple[str, str]:
    """What stands in the place of a mark that there is no figure for, and its colour."""
    status = artifact["status"]
    return "not run here" if status == Status.OK else str(status), STOP if status == Status.FAILED else MUTED


def dot(axes: Axes, row: Row, x: float) -> None:
    """A round mark, hollow where the figure does not come from a device."""
    axes.plot([x], [row.y], "o", markersize=7.5, markerfacecolor=row.face, markeredgecolor=row.colour, mew=1.6)


def beyond(axes: Axes, row: Row, limit: float) -> None:
    """An arrow at the axis's end: the row goes on past it."""
    axes.plot([limit], [row.y], marker=">", markersize=5, color=row.colour, markeredgewidth=0)


def span(axes: Axes, row: Row, ends: tuple[float, float]) -> None:
    """A line along the row, between two x."""
    axes.plot(ends, [row.y, row.y], color=row.colour, linewidth=2, solid_capstyle="round")


def write_value(axes: Axes, row: Row, text: str) -> None:
    """The row's figure, at its right end."""
    axes.annotate(
        text,
        (1, row.y),
        xycoords=axes.get_yaxis_transform(),
        xytext=(RIGHT - 2, 0),
        textcoords="offset points",
        ha="right",
        va="center_baseline",
        fontsize=SIZE,
        color=INK,
    )


def tick(value: float, _position: float | None = None) -> str:
    """An axis label with a real minus."""
    return f"{value:g}".replace("-", "\u2212")


def _layout(groups: Mapping[str, list[Mapping[str, Any]]]) -> tuple[list[tuple[str, float]], list[Row], float]:
    """Heights in px from the top: (heading, y), the rows, and the bottom of the plotting area."""
    headings: list[tuple[str, float]] = []
    rows: list[Row] = []
    y = 0.0
    for target, members in groups.items():
        headings.append((target, y + HEADING / 2))
        y += HEADING
        for artifact in members:
            rows.append(Row(artifact=artifact, y=y + ROW / 2))
            y += ROW
        y += GAP
    return headings, rows, max(y, ROW)


def _dress(axes: Axes, bottom: float, label: str) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    bare(axes, bottom)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(tick))
    axes.tick_params(axis="x", which="both", length=0, pad=5, labelsize=SMALL, labelcolor=MUTED)
    axes.grid(axis="x", color=LINE, linewidth=1)
    axes.set_axisbelow(True)
    axes.set_xlabel(label, fontsize=SMALL, color=MUTED, labelpad=4)


def bare(axes: Axes, bottom: float) -> None:
    """No frame, no y ticks; y is px from the top, downwards."""
    axes.set_ylim(bottom, 0)
    axes.patch.set_visible(False)
    axes.figure.patch.set_visible(False)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_yticks([])


def _px(axes: Axes) -> dict[str, Any]:
    """Coordinates for `annotate`: x in px from the left end of the plotting area, y in data (px from the top)."""
    from matplotlib.transforms import Affine2D, blended_transform_factory

    pixels = Affine2D().scale(1 / (WIDTH - LEFT - RIGHT), 1) + axes.transAxes
    return {"xycoords": blended_transform_factory(pixels, axes.transData)}
