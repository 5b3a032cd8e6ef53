"""Regions: what lies between the quantizers of one placement, as each runtime computes it in one go."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cspedge.quantize.graph import NAME
from cspedge.quantize.ops import Role, role

if TYPE_CHECKING:
    from torch import fx


@dataclass(frozen=True, kw_only=True)
class Region:
    """From the quantized tensors `sources` to the quantized tensor `name`; nodes: in graph order, the last gives it."""

    name: str
    sources: tuple[fx.Node, ...]
    nodes: tuple[fx.Node, ...]

    @property
    def weighted(self) -> tuple[fx.Node, ...]:
        """Its convolutions and linears."""
        return tuple(n for n in self.nodes if role(n) is Role.WEIGHTED)


def regions(graph: fx.GraphModule, names: Collection[str]) -> tuple[Region, ...]:
    """The region before each of the quantized tensors `names`, in graph order; the image itself has none."""
    order = {node: i for i, node in enumerate(graph.graph.nodes)}
    found = []
    for node in order:
        if node.meta.get(NAME) not in names or node.op == "placeholder":
            continue
        inside: set[fx.Node] = set()
        sources: set[fx.Node] = set()
        waiting = [node]
        while waiting:
            at = waiting.pop()
            inside.add(at)
            for before in at.all_input_nodes:
                if before.op == "get_attr" or before in inside:
                    continue
                if before.meta.get(NAME) in names:
                    sources.add(before)
                else:
                    waiting.append(before)
        found.append(
            Region(
                name=node.meta[NAME],
                sources=tuple(sorted(sources, key=order.__getitem__)),
                nodes=tuple(sorted(inside, key=order.__getitem__)),
            )
        )
    return tuple(found)
