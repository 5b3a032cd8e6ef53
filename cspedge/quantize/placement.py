"""Placement: which tensors of one target get quantize/dequantize nodes. Same encodings, different subset."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cspedge.errors import TargetError, UsageError
from cspedge.quantize.encodings import QMAX, QMIN, WMAX, WMIN, Encoding, Encodings
from cspedge.quantize.graph import (
    NAME,
    as_tuple,
    output_names,
    output_nodes,
    set_tensor,
    tensor_of,
    weighted_nodes,
)
from cspedge.quantize.ops import Role, arg, module_path, op_name, role
from cspedge.quantize.scaling import fitted, is_scaled

if TYPE_CHECKING:
    import torch
    from torch import fx
    from torch.export import ExportedProgram

    from cspedge.quantize.outliers import Outlier

FUSABLE = ("relu", "relu6", "hardtanh", "clamp", "hardswish", "hardsigmoid", "leaky_relu", "silu", "sigmoid")


@dataclass(frozen=True, kw_only=True)
class Placement:
    """What a target's runtime wants.

    fuse: activations that run inside the op before them, so that one quantizer stands after both;
    activation_dtype: int8, or uint8 (the same codes plus 128); quantize_output: whether the logits are quantized
    too (feature maps always are: the convolutions after them read the same numbers); one_user: a dequantize node for
    each consumer rather than one for all; int8_output: whether a convolution is int8 only where its output is
    quantized as well, so that keeping a tensor in float takes the layers on both sides of it; channel_scales: whether
    a multiplication by a constant per channel behind an activation costs nothing (`cspedge.quantize.scaling`).
    """

    fuse: tuple[str, ...] = ()
    activation_dtype: str = "int8"
    quantize_output: bool = False
    one_user: bool = True
    int8_output: bool = False
    channel_scales: bool = False

    def __post_init__(self) -> None:
        bad = sorted(set(self.fuse) - set(FUSABLE))
        if bad:
            raise UsageError(f"placement cannot fuse {bad[0]!r}; known activations: {', '.join(FUSABLE)}")
        if self.activation_dtype not in {"int8", "uint8"}:
            raise UsageError(f"activation_dtype {self.activation_dtype!r}; allowed: int8, uint8")


@dataclass(frozen=True, kw_only=True)
class QuantizedModel:
    """The fp32 graph, one set of encodings, and the integer weights they describe.

    graph: batch-dynamic GraphModule, float32 [n, 3, H, W] in [0, 1] -> its outputs, equalized; integer_weights: int8
    tensors in torch's layout, by tensor name; biases: corrected ones, float32, by the same names (the graph's own where
    there is none); they belong to the integer weights, and a layer that stays in float keeps its own; equalization:
    what layers' outputs were divided by (`cspedge.quantize.equalize`), and prepared the graph before that, None where
    it is `graph`; outliers: tensors that a few calibration images drive far out of their range.
    """

    graph: fx.GraphModule
    input_shape: tuple[int, int, int]
    encodings: Encodings
    integer_weights: Mapping[str, torch.Tensor]
    biases: Mapping[str, torch.Tensor] = field(default_factory=dict)
    equalization: Mapping[str, torch.Tensor] = field(default_factory=dict)
    prepared: fx.GraphModule | None = None
    outliers: tuple[Outlier, ...] = ()

    @property
    def float_graph(self) -> fx.GraphModule:
        """The fp32 graph as it was prepared, without equalization: what float artifacts are made of."""
        return self.graph if self.prepared is None else self.prepared


@dataclass(frozen=True, kw_only=True)
class PlacedModel:
    """A graph ready for one backend: float (no encodings) or with quantize/dequantize nodes in place.

    activations: the encodings that were placed, by tensor name; weights: names of the weights that are int8.
    """

    graph: fx.GraphModule
    input_shape: tuple[int, int, int]
    activations: Mapping[str, Encoding]
    weights: Mapping[str, torch.Tensor]
    encodings: Encodings | None

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs, in order."""
        return output_names(self.graph)

    def example(self) -> torch.Tensor:
        """A float32 [1, 3, H, W] tensor in [0, 1], always the same."""
        import torch

        return torch.rand((1, *self.input_shape), generator=torch.Generator().manual_seed(0))

    def exported(self) -> ExportedProgram:
        """The graph as an ExportedProgram of static batch 1; TargetError where torch.export refuses it."""
        import torch

        try:
            with torch.no_grad():
                return torch.export.export(self.graph, (self.example(),))
        except Exception as error:  # torch.export raises many types
            raise TargetError(f"torch.export cannot re-trace the placed graph: {error}") from error

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """PT2E's answer: the placed graph in eager torch, float32 [n, 3, H, W] -> each output [n, ...]."""
        import torch

        with torch.no_grad():
            return as_tuple(self.graph(images))


def place_float(graph: fx.GraphModule, input_shape: tuple[int, int, int]) -> PlacedModel:
    """The fp32 graph as it is, for float artifacts."""
    return PlacedModel(graph=copy.deepcopy(graph), input_shape=input_shape, activations={}, weights={}, encodings=None)


def place(model: QuantizedModel, placement: Placement, keep: Collection[str] = ()) -> PlacedModel:
    """Puts the encodings of `model` into its graph where `placement` wants them; deterministic, no calibration.

    keep: names of tensors that stay in float, and with them the layers that `int8_layers` leaves out.
    """
    import torch.ao.quantization.fx._decomposed  # noqa: F401  registers torch.ops.quantized_decomposed (30 ms)

    model = fitted(model, placement)
    graph = copy.deepcopy(model.graph)
    names = (chosen_tensors(graph, placement) - set(keep)) & set(model.encodings.activations)
    int8 = int8_layers(graph, placement, names) & set(model.encodings.weights)
    placed: dict[str, Encoding] = {}
    for node in list(graph.graph.nodes):
        name = node.meta.get(NAME)
        if name in names:
            placed[name] = model.encodings.activations[name]
            _quantize_node(graph, node, placed[name], placement)
    weights = {}
    for node in weighted_nodes(graph):
        name = node.meta[NAME]
        if name in int8:
            weights[name] = model.integer_weights[name]
            _set_bias(graph, node, model, arg(node, 0).args[1])
            _quantize_weight(graph, node, model)
    graph.graph.eliminate_dead_code()
    graph.graph.lint()
    graph.recompile()
    return PlacedModel(
        graph=graph, input_shape=model.input_shape, activations=placed, weights=weights, encodings=model.encodings
    )


def chosen_tensors(graph: fx.GraphModule, placement: Placement) -> frozenset[str]:
    """Names of the tensors that `placement` quantizes."""
    chosen = set()
    outputs = set(output_nodes(graph))
    for node in graph.graph.nodes:
        if NAME not in node.meta or node.op == "output":
            continue
        is_quantizable = node.op == "placeholder" or role(node) is not Role.FLOAT
        is_list = isinstance(node.meta.get("val"), (list, tuple))
        skipped = fused_into_next(node, placement) or _inside_affine_chain(node) or is_list or _too_deep(node)
        left_float = node in outputs and _only_read_outside(node) and not placement.quantize_output
        if is_quantizable and not skipped and not left_float:
            chosen.add(node.meta[NAME])
    return frozenset(chosen)


def int8_layers(graph: fx.GraphModule, placement: Placement, names: Collection[str]) -> frozenset[str]:
    """Convolutions and linears that run in int8 where the tensors `names` are quantized."""
    return frozenset(layer for layer, needs in int8_needs(graph, placement).items() if needs <= set(names))


def int8_needs(graph: fx.GraphModule, placement: Placement) -> dict[str, frozenset[str]]:
    """Of each convolution and linear, the tensors that must be quantized for it to run in int8."""
    found = {}
    for node in weighted_nodes(graph):
        needs = {str(arg(node, 0).meta.get(NAME, ""))}
        # a matrix product may end in float, but where the logits need a quantizer it needs one as well
        if placement.int8_output and (placement.quantize_output or op_name(node) != "linear"):
            needs.add(result_of(node, placement).meta[NAME])
        found[node.meta[NAME]] = frozenset(needs)
    return found


def _too_deep(node: fx.Node) -> bool:
    """Whether the tensor has more than five axes, halfway through a space-to-depth: Core ML has no such tensors."""
    value: Any = node.meta.get("val")
    return hasattr(value, "dim") and value.dim() > 5


def _only_read_outside(node: fx.Node) -> bool:
    """Whether a vector goes to the user alone. A feature map never counts as such."""
    value: Any = node.meta.get("val")
    return value.dim() != 4 and all(user.op == "output" for user in node.users)


def result_of(node: fx.Node, placement: Placement) -> fx.Node:
    """What the op gives together with all that is fused into it."""
    while fused_into_next(node, placement):
        node = next(iter(node.users))
    return node


def fused_into_next(node: fx.Node, placement: Placement) -> bool:
    """Whether the only reader is an activation that the runtime runs inside this op, or a channel scale."""
    if is_scaled(node):
        return True
    if role(node) not in {Role.WEIGHTED, Role.COMBINE} or len(node.users) != 1:
        return False
    return op_name(next(iter(node.users))) in placement.fuse


def _has_constant(node: fx.Node) -> bool:
    return role(node) is Role.COMBINE and any(a.op == "get_attr" for a in node.all_input_nodes)


def _inside_affine_chain(node: fx.Node) -> bool:
    """x - mean, then / std: arithmetic with constants stays float up to its last step (normalisation)."""
    return _has_constant(node) and len(node.users) == 1 and _has_constant(next(iter(node.users)))


def _quantize_node(graph: fx.GraphModule, node: fx.Node, encoding: Encoding, placement: Placement) -> None:
    import torch

    ops = torch.ops.quantized_decomposed
    unsigned = placement.activation_dtype == "uint8"
    shift = 128 if unsigned else 0
    params = (
        encoding.scale,
        encoding.zero_point + shift,
        QMIN + shift,
        QMAX + shift,
        torch.uint8 if unsigned else torch.int8,
    )
    users = list(node.users)
    meta: dict[str, Any] = {k: node.meta[k] for k in ("nn_module_stack", "val") if k in node.meta}
    with graph.graph.inserting_after(node):
        quantized = graph.graph.call_function(ops.quantize_per_tensor.default, (node, *params))
    quantized.meta = dict(meta)
    shared: fx.Node | None = None
    for user in users:
        if shared is None or placement.one_user:
            with graph.graph.inserting_before(_first(users, graph) if not placement.one_user else user):
                shared = graph.graph.call_function(ops.dequantize_per_tensor.default, (quantized, *params))
            shared.meta = dict(meta)
        user.replace_input_with(node, shared)


def _first(users: list[fx.Node], graph: fx.GraphModule) -> fx.Node:
    first: fx.Node = next(n for n in graph.graph.nodes if n in users)
    return first


def snapped(bias: torch.Tensor, weight_scales: torch.Tensor, input_scale: float) -> torch.Tensor:
    """A bias, float32 [channels], rounded to multiples of input scale x weight scale, as int32 biases are."""
    import torch

    step = weight_scales.double() * input_scale
    return (torch.round(bias.double() / step) * step).float()


def _set_bias(graph: fx.GraphModule, node: fx.Node, model: QuantizedModel, input_scale: float) -> None:
    """Puts the corrected bias in place, rounded as runtimes with int32 biases do.

    XNNPACK and ONNX Runtime round it themselves; done here, every runtime adds the same number. lcnet_050's agreement
    of ONNX Runtime with PT2E rose from 93 to 99 %.
    """
    import torch

    name = node.meta[NAME]
    bias = model.biases.get(name, tensor_of(graph, arg(node, 2)))
    if bias is None:
        return
    base = module_path(node).replace(".", "_") or node.name
    old = arg(node, 2)
    value = snapped(bias, torch.tensor(model.encodings.weights[name].scales, dtype=torch.float64), input_scale)
    node.args = (*node.args, *[None] * (3 - len(node.args)))
    node.update_arg(2, set_tensor(graph, node, f"{base}_bias_int32", value))
    if old is not None:
        _forget(graph, old)


def _quantize_weight(graph: fx.GraphModule, node: fx.Node, model: QuantizedModel) -> None:
    import torch

    name = node.meta[NAME]
    encoding = model.encodings.weights[name]
    base = module_path(node).replace(".", "_") or node.name
    values = set_tensor(graph, node, f"{base}_weight_int8", model.integer_weights[name])
    scales = set_tensor(graph, node, f"{base}_weight_scale", torch.tensor(encoding.scales, dtype=torch.float32))
    zeros = set_tensor(graph, node, f"{base}_weight_zero_point", torch.zeros(len(encoding.scales), dtype=torch.int64))
    with graph.graph.inserting_before(node):
        weight = graph.graph.call_function(
            torch.ops.quantized_decomposed.dequantize_per_channel.default,
            (values, scales, zeros, 0, WMIN, WMAX, torch.int8),
        )
    weight.meta = {k: node.meta[k] for k in ("nn_module_stack",) if k in node.meta}
    old = arg(node, 1)
    node.update_arg(1, weight)
    _forget(graph, old)


def _forget(graph: fx.GraphModule, old: fx.Node) -> None:
    """Removes a tensor that nothing reads any more."""
    if not old.users:
        graph.graph.erase_node(old)
        owner, _, leaf = str(old.target).rpartition(".")
        delattr(graph.get_submodule(owner), leaf)
