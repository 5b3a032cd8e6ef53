"""The fp32 graph that is calibrated and placed: exported, batch norms folded, hard-sigmoid made linear.

Every rewrite here is exact in real arithmetic; `prepare` measures what rounding leaves of it.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cspedge.errors import InputError, TargetError
from cspedge.quantize.canonical import canonical
from cspedge.quantize.ops import Role, arg, is_tensor, module_path, op_name, role

if TYPE_CHECKING:
    import torch
    from torch import fx, nn

NAME = "cspedge_name"  # key in node.meta: the tensor's name in encodings.json
MAX_BATCH = 4096


def prepare(
    module: nn.Module, input_shape: tuple[int, int, int], outputs: Sequence[str] = ("logits",)
) -> fx.GraphModule:
    """Exports `module` (eval mode, input float32 [n, 3, H, W]) and rewrites it for quantization.

    outputs: names of what the module gives, in order. The result takes any batch size, holds one float32 weight and
    bias per convolution and linear, and names every tensor in `node.meta[NAME]`. Raises TargetError where torch.export
    cannot trace the model, and InputError where it answers NaN or infinity, or where the rewritten graph does not
    reproduce it (relative error above 1e-3 in any output).
    """
    import torch

    example = torch.rand((2, *input_shape), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = as_tuple(module(example))
        _refuse_non_finite(module, outputs, expected)
        graph = _export(module, example)
        _functionalise(graph)
        canonical(graph)
        _fold_batch_norm(graph)
        _linear_hardsigmoid(graph)
        _drop_unused(graph)
        found = as_tuple(graph(example))
    for name, wanted, got in zip(outputs, expected, found, strict=True):
        error = float((got - wanted).abs().max()) / (float(wanted.abs().max()) or 1.0)
        if not error < 1e-3:
            raise InputError(
                f"the prepared graph differs from the model by {error:.2e} of the largest value of its {name}; "
                "the weights are too extreme for batch-norm folding: check them for huge or vanishing variances"
            )
    name_tensors(graph)
    _output(graph).meta[NAME] = tuple(outputs)
    return graph


def _refuse_non_finite(module: nn.Module, outputs: Sequence[str], found: Sequence[torch.Tensor]) -> None:
    import torch

    bad = [name for name, value in zip(outputs, found, strict=True) if not bool(torch.isfinite(value).all())]
    if bad:
        state = {k: v for k, v in module.state_dict().items() if v.is_floating_point()}
        broken = [k for k, v in state.items() if not bool(torch.isfinite(v).all())]
        where = f"the weight {broken[0]!r} holds such values: " if broken else ""
        raise InputError(
            f"the model's output {bad[0]!r} is NaN or infinite on an ordinary image; {where}check the weights for NaN, "
            "infinite or huge values"
        )


def as_tuple(result: Any) -> tuple[torch.Tensor, ...]:
    """A model's result as a tuple of its outputs."""
    return tuple(result) if isinstance(result, (tuple, list)) else (result,)


def _output(graph: fx.GraphModule) -> fx.Node:
    found: fx.Node = next(n for n in graph.graph.nodes if n.op == "output")
    return found


def output_nodes(graph: fx.GraphModule) -> tuple[fx.Node, ...]:
    """The node behind each output, in order; one node may stand behind several."""
    return as_tuple(arg(_output(graph), 0))  # type: ignore[return-value]


def output_names(graph: fx.GraphModule) -> tuple[str, ...]:
    """Names of the outputs, in order, as `prepare` was told."""
    found: tuple[str, ...] = _output(graph).meta[NAME]
    return found


def _export(module: nn.Module, example: torch.Tensor) -> fx.GraphModule:
    import torch

    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH)
    try:
        program = torch.export.export(module, (example,), dynamic_shapes=({0: batch},))
    except Exception as error:  # torch.export raises many types; all mean that the model cannot be traced
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise TargetError(f"torch.export cannot trace this model: {first}") from error
    graph: fx.GraphModule = program.module(check_guards=False)
    return graph


def _functionalise(graph: fx.GraphModule) -> None:
    """In-place activations and adds become their functional forms; dropout and copies disappear."""
    import torch

    aten = torch.ops.aten
    for node in list(graph.graph.nodes):
        name = op_name(node)
        if name in {
            "dropout",
            "dropout_",
            "feature_dropout",
            "alias",
            "detach",
            "clone",
            "contiguous",
            "lift_fresh_copy",
        }:
            for user in node.users:
                if op_name(user) == "view":  # of a tensor whose strides may not allow a view any more
                    user.target = aten.reshape.default
            node.replace_all_uses_with(arg(node, 0))
            graph.graph.erase_node(node)
        elif name.endswith("_") and hasattr(aten, name[:-1]):
            packet = getattr(aten, name[:-1])
            source = arg(node, 0)
            overload = str(node.target).rpartition(".")[2]
            node.target = getattr(packet, overload if overload in packet.overloads() else "default")
            # an in-place op also changes what later readers of its input see
            later = False
            for user in list(graph.graph.nodes):
                if user is node:
                    later = True
                elif later and source in user.all_input_nodes:
                    user.replace_input_with(source, node)
    graph.recompile()


def tensor_of(graph: fx.GraphModule, node: Any) -> torch.Tensor | None:
    """The parameter or buffer behind a get_attr node; None for None."""
    if node is None:
        return None
    value: Any = graph
    for part in str(node.target).split("."):
        value = getattr(value, part)
    return value.detach()  # type: ignore[no-any-return]


def set_tensor(graph: fx.GraphModule, before: fx.Node, name: str, value: torch.Tensor) -> fx.Node:
    """Registers `value` as a buffer under a fresh name and returns a get_attr node placed before `before`."""
    unique, count = name, 1
    while hasattr(graph, unique):
        unique, count = f"{name}_{count}", count + 1
    graph.register_buffer(unique, value.detach().clone().contiguous())
    with graph.graph.inserting_before(before):
        node = graph.graph.get_attr(unique)
    node.meta["val"] = value.detach()
    return node


def _replace_weight(graph: fx.GraphModule, node: fx.Node, weight: torch.Tensor, bias: torch.Tensor) -> None:
    base = module_path(node).replace(".", "_") or node.name
    args = list(node.args) + [None] * (3 - len(node.args))
    args[1] = set_tensor(graph, node, f"{base}_weight", weight)
    args[2] = set_tensor(graph, node, f"{base}_bias", bias)
    node.args = tuple(args)


def _foldable(node: fx.Node) -> bool:
    """A convolution or linear with constant weights and one reader, which may become part of it."""
    return role(node) is Role.WEIGHTED and arg(node, 1).op == "get_attr" and len(node.users) == 1


def _fold_batch_norm(graph: fx.GraphModule) -> None:
    """conv -> batch norm becomes conv (Jacob et al. 2018, section 3.2); a batch norm alone becomes mul and add."""
    import torch

    aten = torch.ops.aten
    for node in list(graph.graph.nodes):
        if op_name(node) not in {"batch_norm", "_native_batch_norm_legit_no_training"}:
            continue
        weight, bias, mean, var = (tensor_of(graph, a) for a in node.args[1:5])
        eps = float(arg(node, 7) if op_name(node) == "batch_norm" else arg(node, 6))
        assert mean is not None
        assert var is not None
        gamma = torch.ones_like(mean) if weight is None else weight
        beta = torch.zeros_like(mean) if bias is None else bias
        # in float64: the folded weight is rounded once
        factor = gamma.double() / torch.sqrt(var.double() + eps)
        shift = beta.double() - mean.double() * factor
        conv = arg(node, 0)
        if _foldable(conv) and (op_name(conv) == "conv2d" or conv.meta["val"].dim() == 2):
            old = tensor_of(graph, arg(conv, 1))
            old_bias = tensor_of(graph, arg(conv, 2))
            assert old is not None
            new = old.double() * factor.reshape(-1, *([1] * (old.dim() - 1)))
            new_bias = shift if old_bias is None else shift + old_bias.double() * factor
            _replace_weight(graph, conv, new.float(), new_bias.float())
            result: fx.Node = conv
        else:
            with graph.graph.inserting_before(node):
                shape = (1, -1, *([1] * (conv.meta["val"].dim() - 2)))
                base = module_path(node).replace(".", "_") or node.name
                scale = set_tensor(graph, node, f"{base}_factor", factor.float().reshape(shape))
                offset = set_tensor(graph, node, f"{base}_shift", shift.float().reshape(shape))
                product = graph.graph.call_function(aten.mul.Tensor, (conv, scale))
                result = graph.graph.call_function(aten.add.Tensor, (product, offset))
            for new_node in (product, result):
                new_node.meta = {k: node.meta[k] for k in ("nn_module_stack",) if k in node.meta}
                new_node.meta["val"] = conv.meta["val"]
        users = [u for u in node.users if u.target is operator.getitem] or [node]
        for user in users:
            user.replace_all_uses_with(result)
            if user is not node:
                graph.graph.erase_node(user)
        graph.graph.erase_node(node)
    graph.recompile()


def _linear_hardsigmoid(graph: fx.GraphModule) -> None:
    """conv -> hard-sigmoid becomes conv(w / 6, b / 6 + 1/2) -> clamp(0, 1): the gate is then int8 everywhere.

    XNNPACK has no hard-sigmoid (it decomposes into fp32 arithmetic) and OpenVINO runs ONNX's as a float reference
    kernel (FACTS), while every runtime fuses a clamp into the convolution.
    """
    import torch

    for node in list(graph.graph.nodes):
        if op_name(node) != "hardsigmoid":
            continue
        conv = arg(node, 0)
        if not _foldable(conv):
            continue
        weight = tensor_of(graph, arg(conv, 1))
        bias = tensor_of(graph, arg(conv, 2))
        assert weight is not None
        old_bias = torch.zeros(weight.shape[0]) if bias is None else bias
        _replace_weight(graph, conv, (weight.double() / 6).float(), (old_bias.double() / 6 + 0.5).float())
        node.target = torch.ops.aten.hardtanh.default
        node.args = (conv, 0.0, 1.0)
    graph.recompile()


def _drop_unused(graph: fx.GraphModule) -> None:
    for node in list(graph.graph.nodes):
        if node.op == "call_module" and node.name.startswith("_guards"):
            graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code()
    graph.delete_all_unused_submodules()
    used = {str(n.target) for n in graph.graph.nodes if n.op == "get_attr"}
    for name, _ in list(graph.named_parameters()) + list(graph.named_buffers()):
        if name not in used:
            owner, _, leaf = name.rpartition(".")
            delattr(graph.get_submodule(owner), leaf)
    graph.graph.lint()
    graph.recompile()


def name_tensors(graph: fx.GraphModule) -> None:
    """Gives each float tensor its name: `input`, or `module.path:op`, with `#2`, `#3` where that repeats."""
    seen: dict[str, int] = {}
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            node.meta[NAME] = "input"
            continue
        if node.op != "call_function" or not is_tensor(node):
            continue
        base = f"{module_path(node) or 'model'}:{op_name(node)}"
        seen[base] = seen.get(base, 0) + 1
        node.meta[NAME] = base if seen[base] == 1 else f"{base}#{seen[base]}"


def weighted_nodes(graph: fx.GraphModule) -> list[fx.Node]:
    """Convolutions and linears with constant weights, in graph order."""
    return [n for n in graph.graph.nodes if role(n) is Role.WEIGHTED and arg(n, 1).op == "get_attr"]
