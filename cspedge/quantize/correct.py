"""Bias correction: each layer's output keeps its mean, one layer after the other, on the placed graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from cspedge.quantize.graph import NAME, weighted_nodes
from cspedge.quantize.simulate import Learned, simulation

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cspedge.quantize.placement import Placement

IMAGES = 64  # live tensors of this many images are in memory at once, as in an evaluation


def correct_biases(learned: Learned, placements: Sequence[Placement], images: NDArray[np.uint8]) -> None:
    """Full sequential bias correction (Nagel et al. 2019, arXiv:1906.04721, section 4.2, with real images).

    Layers are visited in order; each one's mean output per channel, behind everything that is quantized and corrected
    before it, is moved to the fp32 graph's. One pass for each placement; a bias gets the mean of their corrections.
    The mean over images leaves out the eighth that differs most on either side: one image that drives a network out of
    its range would shift every bias for all others (fbnetv3_b on Caltech-101 then gives fp32's answer on 4 % of them).
    images: uint8 [n, 3, H, W], of which `IMAGES`, evenly spread, are used. Changes the biases of `learned`.
    """
    step = max(1, len(images) // IMAGES)
    batch = torch.from_numpy(images[::step][:IMAGES].astype("float32") / 255)
    graph = learned.model.graph
    names = {n.meta[NAME] for n in weighted_nodes(graph)} & set(learned.biases)
    wanted: dict[str, torch.Tensor] = {}
    _Visitor(graph, names, lambda name, value: wanted.__setitem__(name, _means(value))).visit(batch)
    found: dict[str, list[torch.Tensor]] = {name: [] for name in names}
    for placement in placements:

        def shift(name: str, value: torch.Tensor) -> torch.Tensor:
            difference = _trimmed(wanted[name] - _means(value))
            found[name].append(difference)
            axes = (1, -1, *([1] * (value.dim() - 2))) if value.dim() == 4 else (-1,)
            return value + difference.reshape(axes)

        _Visitor(simulation(learned, placement), names, shift).visit(batch)
    with torch.no_grad():
        for name, differences in found.items():
            learned.biases[name].add_(torch.stack(differences).mean(0))


def _means(value: torch.Tensor) -> torch.Tensor:
    """Per image and channel (the second of four axes, else the last), float32 [n, channels]."""
    return value.mean((2, 3)) if value.dim() == 4 else value.flatten(1, -2).mean(1) if value.dim() > 2 else value


def _trimmed(differences: torch.Tensor) -> torch.Tensor:
    """The mean over images without the eighth on either side, float32 [channels]."""
    cut = len(differences) // 8
    return differences.sort(0).values[cut : len(differences) - cut].mean(0)


class _Visitor(fx.Interpreter):
    """Runs a graph and lets a function look at, or replace, the outputs of the layers `names`."""

    def __init__(self, graph: fx.GraphModule, names: set[str], look: Any) -> None:
        super().__init__(graph)
        self.names = names
        self.look = look

    def visit(self, batch: torch.Tensor) -> None:
        with torch.no_grad():
            self.run(batch)

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        name = n.meta.get(NAME) if n.op == "call_function" else None
        if isinstance(name, str) and name in self.names:
            replaced = self.look(name, result)
            return result if replaced is None else replaced
        return result
