"""The report's plots: what int8 changes (by head), latency and size; one row per artifact, grouped by target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cspedge.report.frame import INK, PANEL, Row, beyond, dot, rows_plot, span, tick, write_value
from cspedge.report.words import cosine, megabytes, milliseconds, points

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def drop_plot(artifacts: list[Mapping[str, Any]]) -> str:
    """Top-1 lost against fp32 in points, with its 95 % interval; 0 is the reference."""

    def draw(axes: Axes, rows: list[Row]) -> None:
        shown = [(row, row.artifact["accuracy"]) for row in rows if row.artifact["accuracy"] is not None]
        lows = [100 * accuracy["drop_ci95"][0] for _, accuracy in shown]
        highs = [100 * accuracy["drop_ci95"][1] for _, accuracy in shown]
        low, high = min([0.0, *lows]), max([0.0, *highs])
        pad = max(0.06 * (high - low), 0.5 * (0.5 - (high - low)))
        axes.set_xlim(low - pad, high + pad)
        axes.axvline(0, color=INK, linewidth=1)
        for row, accuracy in shown:
            ends = [100 * bound for bound in accuracy["drop_ci95"]]
            span(axes, row, (ends[0], ends[1]))
            dot(axes, row, 100 * accuracy["drop_top1"])
            write_value(axes, row, points(accuracy["drop_top1"]))

    return rows_plot(
        artifacts,
        draw,
        name="drop",
        axis="points of top-1 lost (right is worse)",
        title="Top-1 drop against fp32, with 95 % intervals",
        describe=_say_drop,
        shown=lambda artifact: artifact["accuracy"] is not None,
    )


def cosine_plot(artifacts: list[Mapping[str, Any]]) -> str:
    """Cosine similarity of each image's embedding to fp32's: the mean, and a line to the image that is furthest off."""

    def draw(axes: Axes, rows: list[Row]) -> None:
        shown = [(row, row.artifact["outputs"][0]) for row in rows if row.artifact["outputs"]]
        least = min([0.999, *(output["cosine_min"] for _, output in shown)])
        axes.set_xlim(1 - 1.05 * (1 - least), 1 + 0.03 * (1 - least))
        axes.axvline(1, color=INK, linewidth=1)
        for row, output in shown:
            span(axes, row, (output["cosine_min"], output["cosine_mean"]))
            dot(axes, row, output["cosine_mean"])
            write_value(axes, row, cosine(output["cosine_mean"]))

    return rows_plot(
        artifacts,
        draw,
        name="cosine",
        axis="cosine similarity to fp32 (left is worse)",
        title="Cosine similarity of the embedding to fp32, the mean and the least of any image",
        describe=_say_cosine,
        shown=lambda artifact: bool(artifact["outputs"]),
    )


def latency_plot(artifacts: list[Mapping[str, Any]]) -> str:
    """Single-image latency in milliseconds: the median, a bar to the 90th and a line to the 99th percentile."""

    def draw(axes: Axes, rows: list[Row]) -> None:
        shown = [(row, row.artifact["latency"]) for row in rows if row.artifact["latency"] is not None]
        limit = latency_axis(axes, [latency for _, latency in shown])
        for row, latency in shown:
            p50, p90, p99 = latency["p50_ms"], latency["p90_ms"], latency["p99_ms"]
            axes.plot([p50, min(p99, limit)], [row.y, row.y], color=row.colour, linewidth=1.2)
            axes.plot([p50, min(p90, limit)], [row.y, row.y], color=row.colour, linewidth=5, solid_capstyle="butt")
            if p99 > limit:  # a long tail would squeeze every other row
                beyond(axes, row, limit)
            axes.plot([p50], [row.y], "o", markersize=7.5, color=row.colour, markeredgecolor=PANEL, clip_on=False)
            write_value(axes, row, f"{milliseconds(p50)} ms")

    return rows_plot(
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

    def draw(axes: Axes, rows: list[Row]) -> None:
        shown = [row for row in rows if row.artifact["bytes"] is not None]
        axes.set_xlim(0, 1.04 * max([0.1, *(row.artifact["bytes"] / 1e6 for row in shown)]))
        for row in shown:
            axes.barh(row.y, row.artifact["bytes"] / 1e6, height=9, color=row.colour, linewidth=0)
            write_value(axes, row, megabytes(row.artifact["bytes"]))

    return rows_plot(
        artifacts,
        draw,
        name="size",
        axis="megabytes on disk",
        title="Size of each artifact",
        describe=_say_size,
        shown=lambda artifact: artifact["bytes"] is not None,
    )


def latency_axis(axes: Axes, latencies: list[Mapping[str, Any]], *, tails: bool = True) -> float:
    """Sets the x axis and returns its right end: linear from 0, or logarithmic where medians differ thirtyfold.

    tails: whether slow inferences need room too, or medians alone.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    if not latencies:
        axes.set_xlim(0, 1)
        return 1.0
    medians = [latency["p50_ms"] for latency in latencies]
    most = max(latency["p99_ms"] for latency in latencies) if tails else 1.15 * max(medians)
    limit: float = max(min(most, 1.6 * max(latency["p90_ms"] for latency in latencies)), 1e-6)
    if min(medians) > 0 and max(medians) > 30 * min(medians):
        axes.set_xscale("log")  # which brings its own ticks and labels
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(tick))
        axes.set_xlim(0.7 * min(medians), 1.1 * limit)
    else:
        axes.set_xlim(0, 1.03 * limit)
    return limit


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


def _say_cosine(artifact: Mapping[str, Any]) -> str:
    if not artifact["outputs"]:
        return "not measured"
    output = artifact["outputs"][0]
    return f"{cosine(output['cosine_mean'])} (least {cosine(output['cosine_min'])})"
