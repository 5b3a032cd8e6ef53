"""Accuracy against latency: a point per artifact that ran on a device, those that nothing else beats on a line.

An artifact is on the Pareto front where no other is at least as accurate and at least as fast, and better in one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cspedge.report import svg
from cspedge.report.frame import AXIS, INK, LINE, MUTED, PANEL, SMALL, WIDTH, bare, canvas, colour_of, finish, tick
from cspedge.report.plots import latency_axis
from cspedge.report.schema import artifact_label
from cspedge.report.words import milliseconds, percent, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LEFT, _EDGE, _HIGH, _ENTRY = 40.0, 12.0, 190.0, 17.0  # px: room for the y ticks, at the right; the plot, a line below
# where a number may stand, px from its point: beside the upright interval before on it
_PLACES = ((9, 9), (-9, 9), (9, -9), (-9, -9), (12, 0), (-12, 0), (18, 9), (-18, 9), (0, 12), (0, -12), (18, -9))
_WIDE, _TALL = 7.0, 12.0  # px of a digit


def measured(artifacts: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The artifacts that can be drawn, the fastest first."""
    found = [a for a in artifacts if a["accuracy"] is not None and a["latency"] is not None]
    return sorted(found, key=lambda a: (a["latency"]["p50_ms"], -a["accuracy"]["top1"], artifact_label(a)))


def front(artifacts: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those of `measured` that no other beats, the fastest first; of equals the first."""
    found: list[Mapping[str, Any]] = []
    for artifact in measured(artifacts):
        if not found or artifact["accuracy"]["top1"] > found[-1]["accuracy"]["top1"]:
            found.append(artifact)
    return found


def pareto_plot(artifacts: list[Mapping[str, Any]], reference_top1: float | None) -> str:
    """Top-1 in percent over median milliseconds; bars are 95 % intervals, the dashed line is fp32.

    The upright interval is that of the drop, taken from the reference's top-1; the level one is a bootstrap of the
    median. Numbers at the points are explained below the plot; where no room is left a point goes without.
    """
    drawn, best = measured(artifacts), [id(a) for a in front(artifacts)]
    height = _HIGH + AXIS + _ENTRY * max(len(drawn), 1)
    with canvas("pareto", height) as figure:
        size = (_LEFT / WIDTH, 1 - _HIGH / height, 1 - (_LEFT + _EDGE) / WIDTH, (_HIGH - 8) / height)
        axes = figure.add_axes(size)
        _dress(axes, drawn, reference_top1)
        line = [a for a in drawn if id(a) in best]
        axes.plot(*_steps(line), color=INK, linewidth=1, zorder=1)
        for artifact in drawn:
            _point(axes, artifact, reference_top1, id(artifact) in best)
        _numbers(axes, drawn)
        below = figure.add_axes((0, 0, 1, _ENTRY * max(len(drawn), 1) / height))
        _list(below, drawn, best)
        document = svg.document(figure)
    return finish(
        document,
        name="pareto",
        height=height,
        title="Top-1 against median latency",
        artifacts=drawn,
        describe=lambda a: (
            f"{percent(a['accuracy']['top1'])} in {milliseconds(a['latency']['p50_ms'])} ms"
            + (", on the Pareto front" if id(a) in best else "")
        ),
    )


def _dress(axes: Axes, drawn: list[Mapping[str, Any]], reference: float | None) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    bare(axes, 1)
    latency_axis(axes, [a["latency"] for a in drawn], tails=False)
    bounds = [100 * bound for a in drawn for bound in _interval(a, reference)] or [0.0, 100.0]
    bounds += [] if reference is None else [100 * reference]
    pad = max(0.08 * (max(bounds) - min(bounds)), 0.1)
    axes.set_ylim(min(bounds) - pad, max(bounds) + pad)
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(tick))
    axes.tick_params(axis="both", which="both", length=0, pad=5, labelsize=SMALL, labelcolor=MUTED)
    axes.grid(color=LINE, linewidth=1)
    axes.set_axisbelow(True)
    axes.set_xlabel("median milliseconds per image (left is better)", fontsize=SMALL, color=MUTED, labelpad=4)
    if reference is not None:
        axes.axhline(100 * reference, color=INK, linewidth=1, linestyle=(0, (4, 3)))


def _interval(artifact: Mapping[str, Any], reference: float | None) -> tuple[float, float]:
    accuracy = artifact["accuracy"]
    base = accuracy["top1"] + accuracy["drop_top1"] if reference is None else reference
    low, high = accuracy["drop_ci95"]
    return max(base - high, 0.0), min(base - low, 1.0)


def _steps(line: list[Mapping[str, Any]]) -> tuple[list[float], list[float]]:
    """Corners of the front: until a slower artifact is reached, the faster one is the best there is."""
    xs: list[float] = []
    ys: list[float] = []
    for artifact in line:
        x, y = _place(artifact)
        xs += [x, x] if xs else [x]
        ys += [ys[-1], y] if ys else [y]
    return xs, ys


def _place(artifact: Mapping[str, Any]) -> tuple[float, float]:
    return artifact["latency"]["p50_ms"], 100 * artifact["accuracy"]["top1"]


def _point(axes: Axes, artifact: Mapping[str, Any], reference: float | None, best: bool) -> None:
    from cspedge.evaluate.between import median_interval

    (x, y), colour = _place(artifact), colour_of(artifact)
    low, high = _interval(artifact, reference)
    axes.plot([x, x], [100 * low, 100 * high], color=colour, linewidth=1.6, solid_capstyle="round")
    latency = artifact["latency"]
    across = latency.get("p50_ci95") or median_interval(latency["samples_ms"])
    if across is not None:
        axes.plot(across, [y, y], color=colour, linewidth=1.6, solid_capstyle="round")
    edge, face = (INK, colour) if best else (colour, PANEL)
    axes.plot([x], [y], "o", markersize=8, markerfacecolor=face, markeredgecolor=edge, mew=1.6, clip_on=False)


def _numbers(axes: Axes, drawn: list[Mapping[str, Any]]) -> None:
    """A number beside each point where nothing else stands; in px of the canvas."""
    from matplotlib.transforms import IdentityTransform

    points = [tuple(axes.transData.transform(_place(a))) for a in drawn]
    window = axes.get_window_extent()
    taken = [(x, y, 9.0, 9.0) for x, y in points]
    for number, (x, y) in enumerate(points, 1):
        wide = _WIDE * len(str(number))
        for dx, dy in _PLACES:
            box = (x + dx, y + dy, wide, _TALL)
            inside = window.x0 <= box[0] - wide / 2 and box[0] + wide / 2 <= window.x1
            inside = inside and window.y0 <= box[1] - _TALL / 2 and box[1] + _TALL / 2 <= window.y1
            if inside and not any(_meet(box, other) for other in taken):
                taken.append(box)
                place: dict[str, Any] = {"ha": "center", "va": "center_baseline", "transform": IdentityTransform()}
                axes.text(box[0], box[1], str(number), fontsize=SMALL, color=INK, **place)
                break


def _meet(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    """Whether two boxes (middle x, middle y, width, height) overlap."""
    return abs(a[0] - b[0]) < (a[2] + b[2]) / 2 and abs(a[1] - b[1]) < (a[3] + b[3]) / 2


def _list(axes: Axes, drawn: list[Mapping[str, Any]], best: list[int]) -> None:
    bottom = _ENTRY * max(len(drawn), 1)
    bare(axes, bottom)
    axes.set_xticks([])
    axes.set_xlim(0, WIDTH)
    place: dict[str, Any] = {"va": "center_baseline", "fontsize": SMALL}
    if not drawn:
        axes.text(0, bottom / 2, "no artifact has both figures", color=MUTED, style="italic", **place)
    for index, artifact in enumerate(drawn):
        y, chosen = _ENTRY * (index + 0.5), id(artifact) in best
        colour, weight = (INK, "bold") if chosen else (MUTED, "normal")
        name = shorten(artifact_label(artifact).replace("/", " "), 22)
        axes.text(14, y, str(index + 1), ha="right", color=colour, **place)
        axes.text(20, y, name, color=colour, weight=weight, **place)
        axes.text(WIDTH - 72, y, percent(artifact["accuracy"]["top1"]), ha="right", color=colour, **place)
        took = f"{milliseconds(artifact['latency']['p50_ms'])} ms"
        axes.text(WIDTH - 2, y, took, ha="right", color=colour, **place)
