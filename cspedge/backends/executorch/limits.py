"""XNNPACK's rules for scales, checked before lowering: executorch lowers a graph that breaks one and fails at load.

Measured with executorch 1.5.1: a convolution is refused from 256 on, and concat, max pool and their kin where scale or
zero point differ. XNNPACK's sources also bound the multipliers of add, sub and mul from above. The lower bounds it
documents (2^-32 for a convolution, 2^-10 for an add, 2^-16 for a mul) are not enforced, and below them every code is
the zero point, which is right: a dead branch must not cost the whole target.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cspedge.errors import TargetError
from cspedge.quantize.ops import Role, module_path, op_name, role

if TYPE_CHECKING:
    from torch import fx

MULTIPLIER_BELOW = 256.0
FUSED = frozenset({"relu", "relu6", "hardtanh", "clamp"})


def check_limits(graph: fx.GraphModule) -> None:
    """Raises TargetError naming op, module path, value and range for the first rule that is broken."""
    for node in graph.graph.nodes:
        if op_name(node) == "conv3d":  # it lowers, and fails when it runs
            path = module_path(node) or "model"
            raise TargetError(f"executorch cannot run conv3d at {path!r}: its kernels take 1-d and 2-d convolutions")
        kind = role(node)
        inputs = [found for a in node.all_input_nodes if (found := _read_encoding(a)) is not None]
        output = _written_encoding(node)
        if not inputs or output is None:
            continue
        if kind is Role.WEIGHTED:
            _bounded(node, inputs[0][0] * _largest_weight_scale(graph, node) / output[0], "sx * sw / so")
        elif kind is Role.COMBINE and len(inputs) == 2:
            if op_name(node) == "mul":
                _bounded(node, inputs[0][0] * inputs[1][0] / output[0], "sa * sb / so")
            elif op_name(node) in {"add", "sub"}:
                _bounded(node, max(inputs[0][0], inputs[1][0]) / output[0], "max(sa, sb) / so")
        elif kind in {Role.SHARE, Role.CONCAT}:
            for found in inputs:
                if found != output:
                    _fail(
                        node,
                        f"an input has scale {found[0]:.9g} and zero point {found[1]}, the output {output[0]:.9g} and "
                        f"{output[1]}; XNNPACK takes equal ones only",
                    )


def _bounded(node: fx.Node, ratio: float, formula: str) -> None:
    if not ratio < MULTIPLIER_BELOW:
        _fail(node, f"{formula} = {ratio:.6g}; XNNPACK takes values below {MULTIPLIER_BELOW:g}")


def _fail(node: fx.Node, what: str) -> None:
    raise TargetError(
        f"executorch cannot run {op_name(node)} at {module_path(node) or 'model'!r} in int8: {what}; "
        "look at its ranges in encodings.json, or leave int8 out of this target's precisions"
    )


def _read_encoding(node: fx.Node) -> tuple[float, int] | None:
    if op_name(node) != "dequantize_per_tensor":
        return None
    scale, zero_point = _numbers(node)
    return scale, zero_point


def _written_encoding(node: fx.Node) -> tuple[float, int] | None:
    """The encoding behind `node`, or behind the clamp that runs inside it; None where it stays in float."""
    while len(node.users) == 1:
        user = next(iter(node.users))
        if op_name(user) == "quantize_per_tensor":
            return _numbers(user)
        if op_name(user) not in FUSED:
            return None
        node = user
    return None


def _numbers(node: fx.Node) -> tuple[float, int]:
    scale: Any = node.args[1]
    zero_point: Any = node.args[2]
    return float(scale), int(zero_point)


def _largest_weight_scale(graph: fx.GraphModule, node: fx.Node) -> float:
    weight: Any = node.args[1]
    if op_name(weight) != "dequantize_per_channel":
        return 0.0
    scales: Any = graph
    for part in str(weight.args[1].target).split("."):
        scales = getattr(scales, part)
    return float(scales.max())
