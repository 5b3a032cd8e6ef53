"""Channel scales behind activations that no scale passes through (h-swish, SiLU): one more multiplication, exact.

Equalization cannot reach the tensor behind an h-swish, and there most of an h-swish net's noise is made: one scale must
serve channels whose ranges differ by 2 to 10 (lcnet_050). A multiplication by one number per channel behind it gives
`cspedge.quantize.equalize` something to divide, and the layers that read the tensor take the factor into their
weights. All factors are powers of two, which fp32 and fp16 multiply without rounding.

What that costs depends on the runtime. OpenVINO runs the multiplication inside the convolution (lcnet_050: 5 % more
time); XNNPACK and ONNX Runtime turn an int8 table into float arithmetic (29 and 27 %). Where only depthwise layers
read the tensor, the factor is a factor of their weights' scales and leaves the integers as they are: such a
multiplication is optional, and `fitted` takes it out of the graph for targets that would pay for it. All targets still
share one set of integer weights.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING

from cspedge.errors import InputError
from cspedge.quantize.graph import NAME, set_tensor, tensor_of
from cspedge.quantize.ops import CLAMPS, HOMOGENEOUS, Role, arg, full_arguments, module_path, op_name, role

if TYPE_CHECKING:
    import torch
    from torch import fx

    from cspedge.quantize.placement import Placement, QuantizedModel

OPTIONAL = ":scale_where_free"  # ends the tensor's name in encodings.json
ALWAYS = ":scale"


class ChannelScales(StrEnum):
    """Where a recipe wants them.

    none: nowhere; where-cheap: before depthwise layers, on the targets whose placement says that they cost nothing
    (`Placement.channel_scales`), and on all targets behind activations that several operators read (a squeeze-excite)
    and those of vectors, few and small in most networks; everywhere: behind every such activation, on every target.
    """

    NONE = "none"
    WHERE_CHEAP = "where-cheap"
    EVERYWHERE = "everywhere"


def names_scale(name: str) -> bool:
    """Whether a tensor of that name is what a channel scale gives."""
    return name.endswith((OPTIONAL, ALWAYS))


def is_scale(node: fx.Node) -> bool:
    """Whether the node is a multiplication that `with_scales` put there."""
    return names_scale(str(node.meta.get(NAME, "")))


def is_scaled(node: fx.Node) -> bool:
    """Whether a scale is the only reader of the node, so that nothing is quantized between the two."""
    return len(node.users) == 1 and is_scale(next(iter(node.users)))


def candidates(graph: fx.GraphModule, wanted: ChannelScales) -> tuple[str, ...]:
    """Names for `with_scales`: behind which activations a scale may help, whether or not a reader can take it up."""
    found = []
    for node in graph.graph.nodes:
        if role(node) is not Role.ACTIVATION or op_name(node) in HOMOGENEOUS | CLAMPS or NAME not in node.meta:
            continue
        if node.meta["val"].dim() not in (2, 4):
            continue
        if wanted == ChannelScales.EVERYWHERE:
            found.append(node.meta[NAME] + ALWAYS)
        elif wanted == ChannelScales.WHERE_CHEAP:
            if all(_is_depthwise(user, node) for user in node.users):
                found.append(node.meta[NAME] + OPTIONAL)
            elif len(node.users) > 1 or math.prod(node.meta["val"].shape[2:]) == 1:
                found.append(node.meta[NAME] + ALWAYS)
    return tuple(found)


def with_scales(graph: fx.GraphModule, names: Collection[str]) -> fx.GraphModule:
    """A copy of `graph` with a multiplication by ones, one per channel, behind the activations of `names`.

    names: as `candidates` gave them; `graph` itself where there are none. Raises InputError where one does not fit.
    """
    import torch

    if not names:
        return graph
    graph = copy.deepcopy(graph)
    nodes = {node.meta.get(NAME): node for node in graph.graph.nodes}
    for name in names:
        node = nodes.get(name.removesuffix(OPTIONAL).removesuffix(ALWAYS))
        if node is None or node.meta["val"].dim() not in (2, 4):
            raise InputError(f"the stored channel scales {name!r} do not fit this model; quantize the model again")
        value = node.meta["val"]
        following: fx.Node = node.next
        base = module_path(node).replace(".", "_") or node.name
        ones = set_tensor(graph, following, f"{base}_scale", torch.ones(1, value.shape[1], *[1] * (value.dim() - 2)))
        with graph.graph.inserting_before(following):
            product = graph.graph.call_function(torch.ops.aten.mul.Tensor, (node, ones))
        product.meta = {key: node.meta[key] for key in ("nn_module_stack", "val") if key in node.meta}
        product.meta[NAME] = name
        node.replace_all_uses_with(product, delete_user_cb=lambda user, own=product: user is not own)
    graph.graph.lint()
    graph.recompile()
    return graph


def fitted(model: QuantizedModel, placement: Placement) -> QuantizedModel:
    """The model as `placement` runs it: without the optional scales, where they are not free.

    The integers stay; a depthwise layer's weights and their scales take the factor back. The tensor before the scale,
    which has an encoding of its own, is the one to quantize then. To be called again on its result without harm.
    """
    import torch

    factors = _factors(model)
    if placement.channel_scales or not factors:
        return model
    graph, weights = copy.deepcopy(model.graph), dict(model.encodings.weights)
    for node in [n for n in graph.graph.nodes if _is_optional(n)]:
        for layer in node.users:
            name = layer.meta[NAME]
            weight = tensor_of(graph, arg(layer, 1))
            assert weight is not None
            weight.mul_(factors[name].reshape(-1, *[1] * (weight.dim() - 1)))
            if name in weights:
                scales = torch.tensor(weights[name].scales, dtype=torch.float32) * factors[name]
                weights[name] = replace(weights[name], scales=tuple(scales.tolist()))
        node.replace_all_uses_with(arg(node, 0))
        graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return replace(model, graph=graph, encodings=replace(model.encodings, weights=weights))


def unfitted(model: QuantizedModel, plain: QuantizedModel) -> QuantizedModel:
    """`model` with the numbers of `plain`, its own `fitted`: what was changed there, in the graph with scales."""
    if plain.graph is model.graph:  # there was nothing to take out
        return plain
    weights = dict(plain.encodings.weights)
    for name, factors in _factors(model).items():
        if name in weights:
            scales = zip(weights[name].scales, factors.tolist(), strict=True)
            weights[name] = replace(weights[name], scales=tuple(scale / factor for scale, factor in scales))
    return replace(model, encodings=replace(plain.encodings, weights=weights))


def _factors(model: QuantizedModel) -> Mapping[str, torch.Tensor]:
    """Of each layer behind an optional scale what `fitted` multiplies its rows with, float32 [rows]."""
    found = {}
    for node in model.graph.graph.nodes:
        if _is_optional(node):
            factor = tensor_of(model.graph, arg(node, 1))
            assert factor is not None
            for layer in node.users:
                rows = int(layer.meta["val"].shape[1])
                found[layer.meta[NAME]] = factor.flatten().repeat_interleave(rows // factor.numel())
    return found


def _is_optional(node: fx.Node) -> bool:
    return str(node.meta.get(NAME, "")).endswith(OPTIONAL)


def _is_depthwise(node: fx.Node, source: fx.Node) -> bool:
    """Whether the node is a depthwise convolution of `source` with constant weights."""
    if role(node) is not Role.WEIGHTED or op_name(node) != "conv2d" or arg(node, 0) is not source:
        return False
    constant = arg(node, 1).op == "get_attr"
    return constant and int(full_arguments(node)[6]) == int(source.meta["val"].shape[1])
