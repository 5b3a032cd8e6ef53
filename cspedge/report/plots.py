"""The report's three plots as inline SVG: top-1 drop, latency, size; one row per artifact, grouped by target.

matplotlib draws with sentinel colours, which become CSS variables (`var(--ink)`), so that one SVG serves light, dark
and print; `svg.inline` makes the page's element of it. 330 user units wide: 1:1 in a card on a phone.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cspedge.report import svg
from cspedge.report.schema import artifact_label
from cspedge.report.words import megabytes, milliseconds, plain, points, shorten
from cspedge.types import Evidence, Precision, Status

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 330.0  # CSS px
_LEFT, _RIGHT = 44.0, 68.0  # room for the precision and for the value
_HEADING, _ROW, _GAP, _AXIS = 19.0, 21.0, 7.0, 40.0
_SIZE, _SMALL = 12, 11  # font sizes, px

# Sentinels: colours nobody would choose, replaced by the page's own.
_INK, _MUTED, _LINE, _PANEL, _INT8, _FLOAT, _STOP = (f"#0a0b0{digit}" for digit in "1234567")
_VARIABLES = {
    _INK: "var(--ink)",
    _MUTED: "var(--muted)",
    _LINE: "var(--line)",
    _PANEL: "var(--panel)",
    _INT8: "var(--int8)",
    _FLOAT: "var(--float)",
    _STOP: "var(--stop)",
}


@dataclass(frozen=True, kw_only=True)
class _Row:
    artifact: Mapping[str, Any]
    y: float  # px from the top of the plotting area

    @property
    def colour(self) -> str:
        return _INT8 if self.artifact["precision"] == Precision.INT8 else _FLOAT

    @property
    def face(self) -> str:
        """Hollow where the figures do not come from a device."""
        return _PANEL if self.artifact["evidence"] != Evidence.MEASURED else self.colour


def drop_plot(artifacts: list[Mapping[str, Any]]) -> str:
    """Top-1 lost against fp32 in points, with its 95 % interval; 0 is the reference."""

    def draw(axes: Axes, rows: list[_Row]) -> None:
        shown = [(row, row.artifact["accuracy"]) for row in rows if row.artifact["accuracy"] is not None]
        lows = [100 * accuracy["drop_ci95"][0] for _, accuracy in shown]
        highs = [100 * accuracy["drop_ci95"][1] for _, accuracy in shown]
        low, high = min([0.0, *lows]), max([0.0, *highs])
        pad = max(0.06 * (high - low), 0.5 * (0.5 - (high - low)))
        axes.set_xlim(low - pad, high + pad)
        axes.axvline(0, color=_INK, linewidth=1)
        for row, accuracy in shown:
            ends = [100 * bound for bound in accuracy["drop_ci95"]]
            axes.plot(ends, [row.y, row.y], color=row.colour, linewidth=2, solid_capstyle="round")
            _dot(axes, row, 100 * accuracy["drop_top1"])
            _value(axes, row, points(accuracy["drop_top1"]))

    return _plot(
        artifacts,
        draw,
        name="drop",
        axis="points of top-1 lost (right is worse)",
        title="Top-1 drop against fp32, with 95 % intervals",
        describe=_say_drop,
        shown=lambda artifact: artifact["accuracy"] is not None,
    )


def latency_plot(artifacts: list[Mapping[str, Any]]) -> str:
    """Single-image latency in milliseconds: the median, a bar to the 90th and a line to the 99th percentile."""

    def draw(axes: Axes, rows: list[_Row]) -> None:
        shown = [(row, row.artifact["latency"]) for row in rows if row.artifact["latency"] is not None]
        limit = _latency_axis(axes, [latency for _, latency in shown])
        for row, latency in shown:
            p50, p90, p99 = latency["p50_ms"], latency["p90_ms"], latency["p99_ms"]
            axes.plot([p50, min(p99, limit)], [row.y, row.y], color=row.colour, linewidth=1.2)
            axes.plot([p50, min(p90, limit)], [row.y, row.y], color=row.colour, linewidth=5, solid_capstyle="butt")
            if p99 > limit:  # a long tail would squeeze every other row
                axes.plot([limit], [row.y], marker=">", markersize=5, color=row.colour, markeredgewidth=0)
            axes.plot([p50], [row.y], "o", markersize=7.5, color=row.colour, markeredgecolor=_PANEL, clip_on=False)
            _value(axes, row, f"{milliseconds(p50)} ms")

    return _plot(
        artifacts,
        draw,
        name="latency",
        axis="milliseconds per image",
        title="Latency of one image on this host",
        describe=_say_latency,
        shown=lambda artifact: artifact["latency"] is not None,
    )


def size_plot(artifacts: list[Mapping[str, Any]]) -> str:
    """Bytes on disk, as bars from zero."""

    def draw(axes: Axes, rows: list[_Row]) -> None:
        shown = [row for row in rows if row.artifact["bytes"] is not None]
        axes.set_xlim(0, 1.04 * max([0.1, *(row.artifact["bytes"] / 1e6 for row in shown)]))
        for row in shown:
            axes.barh(row.y, row.artifact["bytes"] / 1e6, height=9, color=row.colour, linewidth=0)
            _value(axes, row, megabytes(row.artifact["bytes"]))

    return _plot(
        artifacts,
        draw,
        name="size",
        axis="megabytes on disk",
        title="Size of each artifact",
        describe=_say_size,
        shown=lambda artifact: artifact["bytes"] is not None,
    )


def _latency_axis(axes: Axes, latencies: list[Mapping[str, Any]]) -> float:
    """Sets the x axis and returns its right end: linear from 0, or logarithmic where medians differ thirtyfold."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    if not latencies:
        axes.set_xlim(0, 1)
        return 1.0
    medians = [latency["p50_ms"] for latency in latencies]
    most = max(latency["p99_ms"] for latency in latencies)
    limit: float = max(min(most, 1.6 * max(latency["p90_ms"] for latency in latencies)), 1e-6)
    if min(medians) > 0 and max(medians) > 30 * min(medians):
        axes.set_xscale("log")  # which brings its own ticks and labels
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(_tick))
        axes.set_xlim(0.7 * min(medians), 1.1 * limit)
    else:
        axes.set_xlim(0, 1.03 * limit)
    return limit


def _dot(axes: Axes, row: _Row, x: float) -> None:
    axes.plot([x], [row.y], "o", markersize=7.5, markerfacecolor=row.face, markeredgecolor=row.colour, mew=1.6)


def _value(axes: Axes, row: _Row, text: str) -> None:
    axes.annotate(
        text,
        (1, row.y),
        xycoords=axes.get_yaxis_transform(),
        xytext=(_RIGHT - 2, 0),
        textcoords="offset points",
        ha="right",
        va="center_baseline",
        fontsize=_SIZE,
        color=_INK,
    )


def _plot(
    artifacts: list[Mapping[str, Any]],
    draw: Callable[[Axes, list[_Row]], None],
    *,
    name: str,
    axis: str,
    title: str,
    describe: Callable[[Mapping[str, Any]], str],
    shown: Callable[[Mapping[str, Any]], bool],
) -> str:
    from matplotlib import style
    from matplotlib.figure import Figure

    groups: dict[str, list[Mapping[str, Any]]] = {}
    for artifact in artifacts:
        groups.setdefault(artifact["target"], []).append(artifact)
    headings, rows, bottom = _layout(groups)
    settings: Any = ["default", {"svg.fonttype": "none", "svg.hashsalt": f"cspedge-{name}", "text.parse_math": False}]
    # "default" first: a matplotlibrc of the user's must not change the report. A name in a script that DejaVu lacks
    # draws a warning about glyphs, though the browser's font and not DejaVu will set it.
    with style.context(settings, after_reset=True), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        height = bottom + _AXIS
        figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72)
        axes = figure.add_axes((_LEFT / WIDTH, _AXIS / height, 1 - (_LEFT + _RIGHT) / WIDTH, bottom / height))
        _dress(axes, bottom, axis)
        for heading, y in headings:
            axes.annotate(
                shorten(heading, 40),
                (-_LEFT, y),
                **_px(axes),
                va="center_baseline",
                fontsize=_SIZE,
                color=_INK,
                weight="bold",
            )
        for row in rows:
            precision = str(row.artifact["precision"])
            axes.annotate(precision, (-_LEFT, row.y), **_px(axes), va="center_baseline", fontsize=_SIZE, color=_MUTED)
            if not shown(row.artifact):
                _say_missing(axes, row)
        draw(axes, rows)
        document = svg.document(figure)
    sentences = "; ".join(f"{plain(artifact_label(a))} {describe(a)}" for a in artifacts)
    return svg.inline(
        document,
        prefix=name,
        view=(WIDTH, height),
        title=plain(title),
        description=f"{sentences}.",
        colours=_VARIABLES,
    )


def _layout(groups: Mapping[str, list[Mapping[str, Any]]]) -> tuple[list[tuple[str, float]], list[_Row], float]:
    """Heights in px from the top: (heading, y), the rows, and the bottom of the plotting area."""
    headings: list[tuple[str, float]] = []
    rows: list[_Row] = []
    y = 0.0
    for target, members in groups.items():
        headings.append((target, y + _HEADING / 2))
        y += _HEADING
        for artifact in members:
            rows.append(_Row(artifact=artifact, y=y + _ROW / 2))
            y += _ROW
        y += _GAP
    return headings, rows, max(y, _ROW)


def _dress(axes: Axes, bottom: float, label: str) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.set_ylim(bottom, 0)  # one unit is one px, downwards
    axes.patch.set_visible(False)
    axes.figure.patch.set_visible(False)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_yticks([])
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(_tick))
    axes.tick_params(axis="x", which="both", length=0, pad=5, labelsize=_SMALL, labelcolor=_MUTED)
    axes.grid(axis="x", color=_LINE, linewidth=1)
    axes.set_axisbelow(True)
    axes.set_xlabel(label, fontsize=_SMALL, color=_MUTED, labelpad=4)


def _tick(value: float, _position: int | None = None) -> str:
    return f"{value:g}".replace("-", "\u2212")


def _px(axes: Axes) -> dict[str, Any]:
    """Coordinates for `annotate`: x in px from the left end of the plotting area, y in data (px from the top)."""
    from matplotlib.transforms import Affine2D, blended_transform_factory

    pixels = Affine2D().scale(1 / (WIDTH - _LEFT - _RIGHT), 1) + axes.transAxes
    return {"xycoords": blended_transform_factory(pixels, axes.transData)}


def _say_missing(axes: Axes, row: _Row) -> None:
    status = row.artifact["status"]
    text = "not run here" if status == Status.OK else str(status)
    colour = _STOP if status == Status.FAILED else _MUTED
    box = {"facecolor": _PANEL, "edgecolor": "none", "pad": 1.5}  # over the grid and the zero line
    axes.annotate(
        text, (4, row.y), **_px(axes), va="center_baseline", fontsize=_SIZE, color=colour, style="italic", bbox=box
    )


def _say_drop(artifact: Mapping[str, Any]) -> str:
    accuracy = artifact["accuracy"]
    if accuracy is None:
        return "not measured"
    low, high = (points(bound) for bound in accuracy["drop_ci95"])
    return f"{points(accuracy['drop_top1'])} points ({low} to {high})"


def _say_latency(artifact: Mapping[str, Any]) -> str:
    latency = artifact["latency"]
    return "not run here" if latency is None else f"{milliseconds(latency['p50_ms'])} ms"


def _say_size(artifact: Mapping[str, Any]) -> str:
    return "no file" if artifact["bytes"] is None else megabytes(artifact["bytes"])
