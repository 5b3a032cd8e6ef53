"""What a graph's structure says about ranges: tensors that share one, ranges that are known, ends that cost nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cspedge.quantize.graph import NAME
from cspedge.quantize.observers import activation_function
from cspedge.quantize.ops import FIXED_RANGE, LOSSLESS, Role, arg, full_arguments, op_name, role

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import fx

Bounds = tuple[float, float]
EVERYTHING: Bounds = (float("-inf"), float("inf"))


def observed(graph: fx.GraphModule) -> list[fx.Node]:
    """The tensors that any target may quantize, in graph order."""
    return [
        n
        for n in graph.graph.nodes
        if NAME in n.meta
        and (n.op == "placeholder" or role(n) is not Role.FLOAT)
        and not isinstance(n.meta.get("val"), (list, tuple))
    ]


def tied(graph: fx.GraphModule) -> dict[str, str]:
    """Tensor name -> name of its group: pass-through ops and concats tie tensors to one encoding (union-find)."""
    parent: dict[fx.Node, fx.Node] = {n: n for n in graph.graph.nodes}

    def root(node: fx.Node) -> fx.Node:
        while parent[node] is not node:
            node = parent[node]
        return node

    order = {n: i for i, n in enumerate(graph.graph.nodes)}
    for node in graph.graph.nodes:
        partners: list[fx.Node] = []
        if role(node) is Role.SHARE:
            partners = [arg(node, 0)]
        elif role(node) is Role.CONCAT:
            partners = list(arg(node, 0))
        for other in partners:
            first, second = sorted((root(node), root(other)), key=order.__getitem__)
            parent[second] = first
    return {n.meta[NAME]: str(root(n).meta.get(NAME, root(n).name)) for n in observed(graph)}


def fixed_ranges(graph: fx.GraphModule) -> dict[str, Bounds]:
    """Groups whose range is known: 8-bit images (scale 1/255, exact), gates in [0, 1], tanh."""
    fixed = {}
    groups = tied(graph)
    for node in observed(graph):
        name = node.meta[NAME]
        if groups[name] != name:
            continue
        if node.op == "placeholder":
            fixed[name] = (0.0, 1.0)
        elif op_name(node) in FIXED_RANGE:
            fixed[name] = FIXED_RANGE[op_name(node)]
        elif _flat_outside(node) == (0.0, 1.0):
            fixed[name] = (0.0, 1.0)
    joined = {groups[n.meta[NAME]] for n in observed(graph) if role(n) is Role.CONCAT}
    return {group: bounds for group, bounds in fixed.items() if group not in joined}  # others may bring other ranges


def _flat_outside(node: fx.Node) -> Bounds:
    """Bounds beyond which the activation is constant."""
    name = op_name(node)
    if name in {"hardtanh", "clamp"}:
        low, high = full_arguments(node)[1:3]
        return (EVERYTHING[0] if low is None else float(low), EVERYTHING[1] if high is None else float(high))
    return LOSSLESS.get(name, EVERYTHING)


def lossless_clips(graph: fx.GraphModule) -> dict[str, Bounds]:
    """Where every reader is constant beyond a bound, the bound: clipping a tensor there loses nothing.

    Readers are also found behind operators that only move or select values (a pool's maximum, a reshape, a
    concatenation). Interpolation does not count: it mixes values before the reader sees them.
    """
    clips: dict[fx.Node, Bounds] = {}
    for node in reversed(list(graph.graph.nodes)):
        lows, highs = zip(*(_wanted(user, clips) for user in node.users), strict=True) if node.users else ((), ())
        clips[node] = (min(lows, default=EVERYTHING[0]), max(highs, default=EVERYTHING[1]))
    return {n.meta[NAME]: clips[n] for n in observed(graph) if clips[n] != EVERYTHING}


def _wanted(reader: fx.Node, clips: dict[fx.Node, Bounds]) -> Bounds:
    """Bounds outside which `reader` makes no difference between values."""
    if role(reader) is Role.ACTIVATION:
        return _flat_outside(reader)
    if role(reader) not in {Role.SHARE, Role.CONCAT} or op_name(reader) == "upsample_bilinear2d":
        return EVERYTHING
    low, high = clips[reader]
    # padded zeros are not clipped
    return EVERYTHING if op_name(reader) == "pad" and not low <= 0.0 <= high else (low, high)


def readers_function(graph: fx.GraphModule) -> dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]]:
    """Tensors that one activation alone reads, and that activation's function."""
    found = {}
    for node in observed(graph):
        if len(node.users) == 1:
            user: fx.Node = next(iter(node.users))
            rest: list[Any] = full_arguments(user)[1:]
            function = activation_function(op_name(user), rest)
            if function is not None:
                found[node.meta[NAME]] = function
    return found
