"""The learning curve: `history.json`, and `learning-curve.svg`, which is the same bytes for the same training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cspedge import atomic
from cspedge.report import svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One epoch of a training. loss: mean of its steps; lr: at its end; top1: a fraction of 1, None where not taken."""

    epoch: int
    loss: float
    lr: float
    seconds: float
    images_per_s: float
    top1: float | None = None


def write_curve(folder: Path, history: Sequence[Epoch]) -> None:
    """Writes both files. Raises WorkspaceError."""
    atomic.write_json(folder / "history.json", [asdict(epoch) for epoch in history])
    atomic.write_text(folder / "learning-curve.svg", _draw(history))


def _draw(history: Sequence[Epoch]) -> str:
    """Loss, learning rate and top-1 (where it was taken) over the epochs, one below the other; no times in it."""
    from matplotlib import style
    from matplotlib.figure import Figure

    panels: list[tuple[str, list[tuple[int, float]]]] = [
        ("training loss", [(e.epoch, e.loss) for e in history]),
        ("top-1, %", [(e.epoch, 100 * e.top1) for e in history if e.top1 is not None]),
        ("learning rate", [(e.epoch, e.lr) for e in history]),
    ]
    panels = [(label, points) for label, points in panels if points]
    settings: Any = ["default", {"svg.fonttype": "none", "svg.hashsalt": "cspedge-curve", "font.size": 10}]
    with style.context(settings, after_reset=True):  # a matplotlibrc of the user's changes nothing
        figure = Figure(figsize=(6.4, 1.9 * len(panels) + 0.4), dpi=72, layout="constrained")
        axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for axis, (label, points) in zip(axes, panels, strict=True):
            _panel(axis, label, points)
        axes[-1].set_xlabel("epoch")
        return svg.document(figure)


def _panel(axis: Axes, label: str, points: Sequence[tuple[int, float]]) -> None:
    from matplotlib.ticker import MaxNLocator

    marker = "o" if len(points) < 30 else None
    axis.plot(*zip(*points, strict=True), marker=marker, markersize=4, linewidth=1.8, color="#2158a8")
    axis.set_title(label, loc="left", fontsize=10)
    axis.grid(color="#dddddd", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_ylim(0, 1.08 * max(value for _, value in points) or 1)
    axis.ticklabel_format(axis="y", scilimits=(-2, 4), useMathText=True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
