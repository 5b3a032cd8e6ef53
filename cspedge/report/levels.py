"""The plot for feature maps: SQNR level by level, a small row of bars for each artifact."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cspedge.report import svg
from cspedge.report.frame import (
    AXIS,
    HEADING,
    INK,
    LINE,
    MUTED,
    SIZE,
    SMALL,
    WIDTH,
    bare,
    canvas,
    colour_of,
    face_of,
    finish,
    missing,
)
from cspedge.report.schema import artifact_label
from cspedge.report.words import decibels, shorten
from cspedge.types import Precision

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BARS, _LABEL, _GAP = 40.0, 15.0, 11.0  # px: the longest bar, the figure above it, the room to the next artifact
_NARROW = 27.0  # px a figure such as "29.4" needs


def drawn_artifacts(artifacts: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The int8 artifacts, or all where there are none: next to fp32's 120 dB, int8's bars would vanish."""
    return [a for a in artifacts if a["precision"] == Precision.INT8] or artifacts


def levels_plot(artifacts: list[Mapping[str, Any]], outputs: list[Mapping[str, Any]]) -> str:
    """SQNR in dB of every level of `outputs` (report.json's model.outputs), from fine to coarse.

    A level equal to fp32 bit for bit has a full bar; SQNR of 0 dB or less, noise as strong as the signal, has none.
    """
    chosen = drawn_artifacts(artifacts)
    most = max((row["sqnr_db"] for a in chosen for row in a["outputs"] if row["sqnr_db"] is not None), default=1.0)
    block = HEADING + _LABEL + _BARS + _GAP
    bottom = max(len(chosen), 1) * block
    height = bottom + AXIS
    with canvas("levels", height) as figure:
        axes = figure.add_axes((0, AXIS / height, 1, bottom / height))
        bare(axes, bottom)
        axes.set_xlim(0, WIDTH)
        step = WIDTH / max(len(outputs), 1)
        for index, artifact in enumerate(chosen):
            top = index * block
            heading = shorten(artifact_label(artifact).replace("/", " "), 40)
            axes.text(0, top + HEADING / 2, heading, va="center_baseline", fontsize=SIZE, color=INK, weight="bold")
            _bars(axes, artifact, base=top + block - _GAP, step=step, most=max(most, 1e-6))
        axes.set_xticks([step * (i + 0.5) for i in range(len(outputs))])
        axes.set_xticklabels([_tick_name(output, step) for output in outputs])
        axes.tick_params(axis="x", length=0, pad=1, labelsize=SMALL, labelcolor=MUTED)
        axes.set_xlabel("stride of the feature map", fontsize=SMALL, color=MUTED, labelpad=4)
        document = svg.document(figure)
    return finish(
        document,
        name="levels",
        height=height,
        title="SQNR in dB against fp32, by level of the feature maps",
        artifacts=chosen,
        describe=lambda artifact: _say(artifact, outputs),
    )


def _bars(axes: Axes, artifact: Mapping[str, Any], *, base: float, step: float, most: float) -> None:
    axes.plot([0, WIDTH], [base, base], color=LINE, linewidth=1)
    if not artifact["outputs"]:
        text, colour = missing(artifact)
        axes.text(0, base - _BARS / 2, text, va="center_baseline", fontsize=SIZE, color=colour, style="italic")
    for index, row in enumerate(artifact["outputs"]):
        share = 1.0 if row["sqnr_db"] is None else max(row["sqnr_db"] / most, 0.0)
        middle, length = step * (index + 0.5), _BARS * share
        wide = min(0.55 * step, 34.0)
        face, edge = face_of(artifact), colour_of(artifact)
        axes.bar(middle, -length, width=wide, bottom=base, facecolor=face, edgecolor=edge, linewidth=1.6)
        if step >= _NARROW:
            text = decibels(row["sqnr_db"])
            axes.text(middle, base - length - 5, text, ha="center", va="baseline", fontsize=SMALL, color=INK)


def _tick_name(output: Mapping[str, Any], step: float) -> str:
    text = str(output["stride"]) if output["stride"] is not None else output["name"]
    return shorten(text, max(2, int(step / 7)))


def _say(artifact: Mapping[str, Any], outputs: list[Mapping[str, Any]]) -> str:
    if not artifact["outputs"]:
        return missing(artifact)[0]
    pairs = zip(outputs, artifact["outputs"], strict=True)
    return ", ".join(f"{output['name']} {decibels(row['sqnr_db'])} dB" for output, row in pairs)
