"""What an ONNX file carries (read back), and what ONNX Runtime makes of it (audit of the optimized graph)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from cspedge.backends.base import Readback, ReadbackActivation, ReadbackWeight
from cspedge.backends.onnx_export import QUANTIZERS, multiply_accumulates
from cspedge.errors import TargetError
from cspedge.types import Audit

if TYPE_CHECKING:
    import onnx

    from cspedge.quantize.placement import PlacedModel

# These move values or change their type; everything else in an optimized graph calculates.
MOVES = frozenset(
    {"Reshape", "Transpose", "Split", "Slice", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Cast", "Shape", "Gather"}
    | {"Constant", "ReorderInput", "ReorderOutput", *QUANTIZERS}
)
# Operators of ONNX Runtime that take int8 and return float.
FLOAT_RESULT = frozenset({"DequantizeLinear", "QGemm", "MatMulIntegerToFloat"})


def readback(proto: onnx.ModelProto) -> Readback:
    """Scales and zero points of every quantize and dequantize node, and the integer weights."""
    import numpy as np
    from onnx import numpy_helper

    constants = {i.name: i for i in proto.graph.initializer}
    activations, weights = [], []
    for node in proto.graph.node:
        if node.op_type not in QUANTIZERS:
            continue
        try:
            scale, zero = (numpy_helper.to_array(constants[name]) for name in node.input[1:3])
        except (KeyError, ValueError) as error:
            raise TargetError(f"{node.name!r} has no constant scale and zero point; lower the model again") from error
        if node.input[0] in constants:
            values = numpy_helper.to_array(constants[node.input[0]])
            axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
            channels_first = np.ascontiguousarray(np.moveaxis(values, axis, 0))
            weights.append(ReadbackWeight(where=node.name, values=channels_first, scales=scale.astype(np.float32)))
        else:
            shift = 128 if zero.dtype == np.uint8 else 0
            activations.append(ReadbackActivation(where=node.name, scale=float(scale), zero_point=int(zero) - shift))
    return Readback(activations=tuple(activations), weights=tuple(weights))


def audit(optimized: onnx.ModelProto, model: PlacedModel) -> Audit:
    """Counts ops by name: an op that the runtime splits into several nodes is int8 if one of them is."""
    if not model.activations:
        return Audit(int8_op_share=0.0, int8_mac_share=0.0, fp32_islands=(), encodings_match=None)
    int8 = _int8_ops(optimized)
    macs = multiply_accumulates(model)
    total = sum(macs.values())
    done = sum(count for name, count in macs.items() if int8.get(name, False))
    fused = tuple(name for name in macs if name not in int8)  # a float convolution goes by its activation's name
    return Audit(
        int8_op_share=sum(int8.values()) / len(int8) if int8 else 0.0,
        int8_mac_share=done / total if total else 0.0,
        fp32_islands=(*fused, *(name for name, quantized in int8.items() if not quantized)),
        encodings_match=None,
    )


def _int8_ops(optimized: onnx.ModelProto) -> dict[str, bool]:
    """Name of each calculating op, in the order of the graph, and whether it runs on integers."""
    integer: dict[str, bool] = {}  # of each value, whether it is int8 or uint8
    readers: dict[str, Any] = {}
    for node in optimized.graph.node:
        for name in node.input:
            readers.setdefault(name, node)
    found: dict[str, bool] = {}
    for node in optimized.graph.node:
        takes = any(integer.get(name, False) for name in node.input)
        gives = node.op_type == "QuantizeLinear" or (takes and not _gives_float(node))
        integer.update(dict.fromkeys(node.output, gives))
        if node.op_type not in MOVES:
            name = _name(node, readers)
            found[name] = found.get(name, False) or takes
    return found


def _gives_float(node: Any) -> bool:
    if node.op_type == "QGemm":  # with a scale for its result it returns int8
        return len(node.input) < 8 or not node.input[7]
    return node.op_type in FLOAT_RESULT


def _name(node: Any, readers: dict[str, Any]) -> str:
    """The model's own name: ONNX Runtime appends `_token_N`, `_nchwc` or a fusion's; h-swish's parts are nameless."""
    while node is not None:
        name = re.sub(r"(_token_\d+|_nchwc|/\w+Fusion)+$", "", node.name)
        name = re.sub(r"\.(q|dq|product|bias|pool|sigmoid|log|mul|add|\d+)(#\d+)?$", "", name)
        if ":" in name:
            return name
        node = next((readers[o] for o in node.output if o in readers), None)
    return "unnamed"
