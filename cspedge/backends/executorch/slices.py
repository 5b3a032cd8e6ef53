"""Splits become slices: XNNPACK has no split, and one left outside cuts the graph into delegates and copies."""

from __future__ import annotations

import copy
import operator
from typing import TYPE_CHECKING, Any

from cspedge.quantize.ops import op_name

if TYPE_CHECKING:
    from torch import fx

SPLITS = frozenset({"split", "split_with_sizes", "chunk"})


def with_slices(graph: fx.GraphModule) -> fx.GraphModule:
    """The same function without split, chunk and split_with_sizes; `graph` itself where it has none of them.

    Every slice reads a dequantize node of its own (XNNPACK takes dq -> slice -> q with single users as int8).
    Tensors are shared with `graph`, which is left as it is.
    """
    from torch import fx

    if not any(_splits(node) for node in graph.graph.nodes):
        return graph
    result = fx.GraphModule(graph, copy.deepcopy(graph.graph))
    for node in list(result.graph.nodes):
        if _splits(node):
            _slice(result.graph, node)
    result.graph.eliminate_dead_code()
    result.graph.lint()
    result.recompile()
    return result


def _splits(node: fx.Node) -> bool:
    """Whether the node is a split whose parts have known sizes and are all taken by index."""
    if op_name(node) not in SPLITS or not node.users:
        return False
    parts = node.meta.get("val")
    taken = all(u.target is operator.getitem for u in node.users)
    return taken and isinstance(parts, (list, tuple)) and all(isinstance(p.shape[_dim(node)], int) for p in parts)


def _dim(node: fx.Node) -> int:
    found: Any = node.args[2] if len(node.args) > 2 else node.kwargs.get("dim", 0)
    return int(found)


def _slice(graph: fx.Graph, node: fx.Node) -> None:
    import torch

    dim = _dim(node)
    sizes = [int(p.shape[dim]) for p in node.meta["val"]]
    source: Any = node.args[0]
    for user in list(node.users):
        index: Any = user.args[1]
        start = sum(sizes[:index])
        with graph.inserting_before(user):
            read = source
            if op_name(source) == "dequantize_per_tensor":
                read = graph.node_copy(source, lambda n: n)
            part = graph.call_function(torch.ops.aten.slice.Tensor, (read, dim, start, start + sizes[index]))
        part.meta = dict(user.meta)
        user.replace_all_uses_with(part)
        graph.erase_node(user)
    graph.erase_node(node)
