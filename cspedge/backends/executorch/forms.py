"""Operators that XNNPACK has no form of, rewritten in ones it has.

A split left outside cuts the graph into delegates and copies. Softplus decomposes into comparisons and log1p that stay
outside; executorch 1.5.1 then loses the channels-last order between them and fails to lower or to run.
"""

from __future__ import annotations

import copy
import operator
from typing import TYPE_CHECKING, Any

from cspedge.quantize.ops import op_name

if TYPE_CHECKING:
    from torch import fx

SPLITS = frozenset({"split", "split_with_sizes", "chunk"})
SOFTPLUS = frozenset({"softplus", "mish"})


def xnnpack_forms(graph: fx.GraphModule) -> fx.GraphModule:
    """The same function without splits, softplus and mish; `graph` itself where it has none of them.

    Every slice reads a dequantize node of its own (XNNPACK takes dq -> slice -> q with single users as int8).
    Tensors are shared with `graph`, which is left as it is.
    """
    from torch import fx

    if not any(_splits(node) or op_name(node) in SOFTPLUS for node in graph.graph.nodes):
        return graph
    result = fx.GraphModule(graph, copy.deepcopy(graph.graph))
    for node in list(result.graph.nodes):
        if _splits(node):
            _slice(result.graph, node)
        elif op_name(node) in SOFTPLUS and tuple(node.args[1:]) in {(), (1, 20)}:
            _softplus(result.graph, node)
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


def _softplus(graph: fx.Graph, node: fx.Node) -> None:
    """softplus(x) = relu(x) + log(1 + exp(-|x|)), which overflows nowhere; mish(x) = x * tanh(softplus(x))."""
    import torch

    aten = torch.ops.aten
    source = node.args[0]

    def call(target: Any, *args: Any) -> fx.Node:
        made = graph.call_function(target, args)
        made.meta = dict(node.meta)
        return made

    with graph.inserting_before(node):
        small = call(aten.exp.default, call(aten.neg.default, call(aten.abs.default, source)))
        found = call(aten.log.default, call(aten.add.Tensor, small, 1.0))
        found = call(aten.add.Tensor, call(aten.relu.default, source), found)
        if op_name(node) == "mish":
            found = call(aten.mul.Tensor, source, call(aten.tanh.default, found))
    node.replace_all_uses_with(found)
    graph.erase_node(node)
