"""Rewrites that bring a model's exported graph into the few forms that all runtimes know and can run in int8.

timm's families say the same thing in many ways: a weight that is standardised in `forward`, a 1-d convolution over
channels, a stack, a mean without its spatial axes. Each rewrite here is exact in real arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cspedge.quantize.ops import arg, full_arguments, module_path, op_name

if TYPE_CHECKING:
    from torch import fx

    Rewrite = Callable[["Maker", fx.Node], fx.Node | None]

BROADCASTING = frozenset({"add", "sub", "mul", "div"})


def canonical(graph: fx.GraphModule) -> None:
    """Folds what does not depend on the image, and rewrites the operators of `REWRITES`, in place."""
    _fold_constants(graph)
    for node in list(graph.graph.nodes):
        rewrite = REWRITES.get(op_name(node))
        if rewrite is None or not hasattr(node.meta.get("val"), "dtype"):
            continue
        replacement = rewrite(Maker(graph, node), node)
        if replacement is not None:
            node.replace_all_uses_with(replacement)
            graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _fold_constants(graph: fx.GraphModule) -> None:
    """Evaluates once what does not read the image: weight standardisation, blur filters, position embeddings.

    What depends on the number of images is evaluated for one, where all its readers broadcast.
    """
    import torch
    from torch import fx

    from cspedge.quantize.graph import set_tensor, tensor_of

    values: dict[fx.Node, Any] = {}
    sized: set[fx.Node] = set()

    def value(item: Any) -> Any:
        return values[item] if isinstance(item, fx.Node) else item

    for node in list(graph.graph.nodes):
        if node.op == "get_attr" and "val" in node.meta:  # else a submodule: the body of a higher-order operator
            values[node] = tensor_of(graph, node)
        elif op_name(node) == "sym_size":
            values[node] = 1
            sized.add(node)
        elif op_name(node) == "_assert_tensor_metadata":
            graph.graph.erase_node(node)
        elif node.op == "call_function" and node.args and all(n in values for n in node.all_input_nodes):
            args, kwargs = fx.node.map_aggregate(node.args, value), fx.node.map_aggregate(node.kwargs, value)
            values[node] = node.target(*args, **kwargs)
            sized |= {node} if sized.intersection(node.all_input_nodes) else set()
    for node in list(graph.graph.nodes):
        readers = [user for user in node.users if user not in values]
        wanted = node.op == "call_function" and readers and isinstance(values.get(node), torch.Tensor)
        if wanted and (node not in sized or all(_broadcasts(user, values[node].dim()) for user in readers)):
            base = module_path(node).replace(".", "_") or node.name
            node.replace_all_uses_with(set_tensor(graph, node, f"{base}_constant", values[node]))
    graph.graph.eliminate_dead_code()


def _broadcasts(node: fx.Node, rank: int) -> bool:
    """Whether the node takes one row for all images beside another operand of the same rank."""
    value = node.meta.get("val")
    return (
        op_name(node) in BROADCASTING and len(node.all_input_nodes) == 2 and value is not None and value.dim() == rank
    )


class Maker:
    """Adds nodes before the one that is rewritten, with the metadata the quantizer reads."""

    def __init__(self, graph: fx.GraphModule, node: fx.Node) -> None:
        self.graph = graph
        self.node = node

    def call(self, target: Any, *args: Any) -> fx.Node:
        """A call of an ATen operator; its `val` is a fake tensor, made from those of its arguments."""
        from torch import fx

        mode = self.node.meta["val"].fake_mode

        def value(item: Any) -> Any:
            if not isinstance(item, fx.Node):
                return item
            found = item.meta["val"]
            return found if hasattr(found, "fake_mode") else mode.from_tensor(found, static_shapes=True)

        with self.graph.graph.inserting_before(self.node):
            made = self.graph.graph.call_function(target, args)
        made.meta = {k: self.node.meta[k] for k in ("nn_module_stack",) if k in self.node.meta}
        with mode:
            made.meta["val"] = target(*fx.node.map_aggregate(args, value))
        return made

    def constant(self, name: str, value: Any) -> fx.Node:
        """A new buffer."""
        from cspedge.quantize.graph import set_tensor

        return set_tensor(self.graph, self.node, f"{self.node.name}_{name}", value)


def _conv1d(m: Maker, node: fx.Node) -> fx.Node | None:
    """A 1-d convolution (ECA's over channels) is a 2-d one of height 1."""
    import torch

    from cspedge.quantize.graph import tensor_of

    aten = torch.ops.aten
    source, weight, bias, stride, padding, dilation, groups = full_arguments(node)
    kernel = tensor_of(m.graph, weight) if weight.op == "get_attr" else None
    if kernel is None or isinstance(padding, str):
        return None
    channels, length = source.meta["val"].shape[1:]
    flat = m.call(aten.reshape.default, source, [-1, channels, 1, length])  # XNNPACK has reshapes, but no unsqueeze
    new_weight = m.constant("weight", kernel.unsqueeze(2))
    pairs = ([1, *stride], [0, *padding], [1, *dilation])
    made = m.call(aten.conv2d.default, flat, new_weight, bias, *pairs, groups)
    shape = made.meta["val"].shape
    return m.call(aten.reshape.default, made, [-1, shape[1], shape[3]])


def _mean(m: Maker, node: fx.Node) -> fx.Node | None:
    """A mean over height and width keeps its axes, as pooling does, and loses them afterwards."""
    import torch

    source, dims, keep = arg(node, 0), arg(node, 1), bool(arg(node, 2))
    if keep or source.meta["val"].dim() != 4 or not dims or sorted(d % 4 for d in dims) != [2, 3]:
        return None
    pooled = m.call(torch.ops.aten.mean.dim, source, [2, 3], True)
    return m.call(torch.ops.aten.flatten.using_ints, pooled, 1)


def _expand(m: Maker, node: fx.Node) -> fx.Node | None:
    """Repeating along an axis is left out where every reader broadcasts anyway."""
    shape = node.meta["val"].shape
    for user in node.users:
        others = [n for n in user.all_input_nodes if n is not node]
        fits = len(others) == 1 and getattr(others[0].meta.get("val"), "shape", None) == shape
        if op_name(user) not in BROADCASTING or not fits:
            return None
    found: fx.Node = arg(node, 0)
    return found


def _stack(m: Maker, node: fx.Node) -> fx.Node | None:
    """A sum over the stacked axis is a sum of the parts; else each part gets the axis and they are concatenated."""
    import torch

    dim = int(arg(node, 1) or 0) % node.meta["val"].dim()
    for user in list(node.users):
        if op_name(user) == "sum" and arg(user, 1) == [dim] and not arg(user, 2):
            total, *rest = arg(node, 0)
            for part in rest:
                total = m.call(torch.ops.aten.add.Tensor, total, part)
            user.replace_all_uses_with(total)
    parts = [m.call(torch.ops.aten.unsqueeze.default, part, dim) for part in arg(node, 0)]
    return m.call(torch.ops.aten.cat.default, parts, dim)


def _square(m: Maker, node: fx.Node) -> fx.Node | None:
    import torch

    if op_name(node) == "pow" and arg(node, 1) != 2:
        return None
    return m.call(torch.ops.aten.mul.Tensor, arg(node, 0), arg(node, 0))


def _scaled_add(m: Maker, node: fx.Node) -> fx.Node | None:
    """a + alpha * b in two steps."""
    import torch

    alpha = node.kwargs.get("alpha", 1)
    if alpha == 1:
        return None
    scaled = m.call(torch.ops.aten.mul.Tensor, arg(node, 1), alpha)
    return m.call(node.target, arg(node, 0), scaled)


def _reverse_sub(m: Maker, node: fx.Node) -> fx.Node | None:
    """b - a as -a + b."""
    import torch

    if node.kwargs.get("alpha", 1) != 1 or len(node.args) > 2:
        return None
    negative = m.call(torch.ops.aten.mul.Tensor, arg(node, 0), -1.0)
    return m.call(torch.ops.aten.add.Tensor, negative, arg(node, 1))


def _pool(m: Maker, node: fx.Node) -> fx.Node | None:
    """A stride that is left out is the kernel's size; coremltools wants it said.

    An average without cut windows does not round its size up, and one without padding does not count it: runtimes
    know the plain form best.
    """
    arguments = full_arguments(node)
    arguments[2] = list(arguments[2] or arguments[1])
    if op_name(node) == "avg_pool2d":
        kernel, stride, padding = (_pair(v) for v in arguments[1:4])
        sizes = arg(node, 0).meta["val"].shape[2:]
        whole = all((n + 2 * p - k) % s == 0 for n, k, s, p in zip(sizes, kernel, stride, padding, strict=True))
        arguments[4] = bool(arguments[4]) and not whole
        arguments[5] = bool(arguments[5]) and any(padding)
    if arguments == [*node.args, *full_arguments(node)[len(node.args) :]] and len(node.args) > 2:
        return None
    made: fx.Node = m.call(node.target, *arguments)
    return made


def _pair(value: Any) -> list[int]:
    values = [int(v) for v in value] if isinstance(value, (list, tuple)) else [int(value)]
    return values * 2 if len(values) == 1 else values


def _reshape_as(m: Maker, node: fx.Node) -> fx.Node | None:
    """A shape is said in numbers, but for the number of images."""
    import torch

    sizes = [n if isinstance(n, int) else -1 for n in node.meta["val"].shape]
    if sizes.count(-1) > 1:
        return None
    return m.call(torch.ops.aten.reshape.default, arg(node, 0), sizes)


def _addcmul(m: Maker, node: fx.Node) -> fx.Node | None:
    import torch

    aten = torch.ops.aten
    product = m.call(aten.mul.Tensor, arg(node, 1), arg(node, 2))
    if node.kwargs.get("value", 1) != 1:
        product = m.call(aten.mul.Tensor, product, node.kwargs["value"])
    return m.call(aten.add.Tensor, arg(node, 0), product)


def _global_max(m: Maker, node: fx.Node) -> fx.Node | None:
    """A maximum over height and width is a max pool of the image's size."""
    import torch

    source = arg(node, 0)
    if op_name(node) == "getitem":  # the first result of an adaptive pool, which gives the places as well
        if op_name(source) != "adaptive_max_pool2d" or arg(node, 1) != 0 or list(arg(source, 1)) != [1, 1]:
            return None
        source, keep = arg(source, 0), True
    else:
        keep, dims = bool(arg(node, 2)), arg(node, 1)
        if source.meta["val"].dim() != 4 or not dims or sorted(d % 4 for d in dims) != [2, 3]:
            return None
    size = list(source.meta["val"].shape[2:])
    pooled = m.call(torch.ops.aten.max_pool2d.default, source, size, size)
    return pooled if keep else m.call(torch.ops.aten.flatten.using_ints, pooled, 1)


def _same_type(m: Maker, node: fx.Node) -> fx.Node | None:
    """A conversion to the type it has already."""
    source: fx.Node = arg(node, 0)
    return source if source.meta["val"].dtype == node.meta["val"].dtype else None


REWRITES: dict[str, Rewrite] = {
    "conv1d": _conv1d,
    "mean": _mean,
    "expand": _expand,
    "expand_as": _expand,
    "stack": _stack,
    "square": _square,
    "pow": _square,
    "add": _scaled_add,
    "sub": _scaled_add,
    "rsub": _reverse_sub,
    "addcmul": _addcmul,
    "max_pool2d": _pool,
    "avg_pool2d": _pool,
    "amax": _global_max,
    "getitem": _global_max,
    "reshape_as": _reshape_as,
    "view_as": _reshape_as,
    "to": _same_type,
    "_to_copy": _same_type,
}
