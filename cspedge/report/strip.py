"""Every timed inference of every artifact, as ticks that are the higher the more samples fall on one spot."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cspedge.report.frame import INK, LEFT, RIGHT, WIDTH, Row, beyond, rows_plot, write_value
from cspedge.report.plots import latency_axis
from cspedge.report.words import milliseconds

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BIN, _LOW, _HIGH = 2.0, 4.0, 17.0  # px: the width that a tick stands for, the height of one and of the most samples


def samples_plot(artifacts: list[Mapping[str, Any]]) -> str:
    """The raw samples in milliseconds, one row of ticks per artifact, the median in the page's ink.

    A page's size depends on the spots that are taken, not on how many samples there are. At the right stands the
    slowest inference, which may lie beyond the axis.
    """

    def draw(axes: Axes, rows: list[Row]) -> None:
        shown = [(row, row.artifact["latency"]) for row in rows if row.artifact["latency"] is not None]
        limit = latency_axis(axes, [latency for _, latency in shown])
        for row, latency in shown:
            inside = [sample for sample in latency["samples_ms"] if sample <= limit]
            _ticks(axes, row, inside)
            if len(inside) < len(latency["samples_ms"]):
                beyond(axes, row, limit)
            p50 = latency["p50_ms"]
            axes.plot([p50, p50], [row.y - _HIGH / 2, row.y + _HIGH / 2], color=INK, linewidth=1.6)
            write_value(axes, row, f"{milliseconds(max(latency['samples_ms']))} ms")

    return rows_plot(
        artifacts,
        draw,
        name="samples",
        axis="milliseconds per image",
        title="Every timed inference",
        describe=_say,
        shown=lambda artifact: artifact["latency"] is not None,
    )


def _ticks(axes: Axes, row: Row, samples: list[float]) -> None:
    """One path for all: an element per tick would swell the page."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    width = WIDTH - LEFT - RIGHT
    along = [axes.transAxes.inverted().transform(axes.transData.transform((s, row.y)))[0] * width for s in samples]
    counts = Counter(round(x / _BIN) for x in along if 0 <= x <= width)
    most = max(counts.values(), default=1)
    points: list[tuple[float, float]] = []
    for spot, count in sorted(counts.items()):
        half = (_LOW + (_HIGH - _LOW) * math.sqrt(count / most)) / 2
        x = axes.transData.inverted().transform(axes.transAxes.transform((spot * _BIN / width, 0)))[0]
        points += [(x, row.y - half), (x, row.y + half)]
    if points:
        path = Path(points, [Path.MOVETO, Path.LINETO] * (len(points) // 2))
        axes.add_patch(PathPatch(path, fill=False, edgecolor=row.colour, linewidth=1.2))


def _say(artifact: Mapping[str, Any]) -> str:
    latency = artifact["latency"]
    if latency is None:
        return "not run here"
    samples = latency["samples_ms"]
    low, high = (milliseconds(bound) for bound in (min(samples), max(samples)))
    return f"{len(samples):,} inferences from {low} to {high} ms"
