"""QDQ ONNX in forms whose quantizers OpenVINO's CPU plugin carries out as they stand."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

# What may stand between a convolution and the quantizer that the plugin runs inside it.
INSIDE = frozenset({"Clip", "HardSwish", "LeakyRelu", "Mul", "Relu", "Sigmoid"})


def share_dequantize(proto: onnx.ModelProto) -> None:
    """One dequantize node for all readers of a quantized tensor: each would become a FakeQuantize of its own, and a
    tensor with two of those leaves the convolution as float and is quantized twice."""
    from onnx import helper

    first: dict[str, str] = {}
    same: dict[str, str] = {}
    outputs = {o.name for o in proto.graph.output}
    kept = []
    for node in proto.graph.node:
        for position, name in enumerate(node.input):
            node.input[position] = same.get(name, name)
        if node.op_type == "DequantizeLinear" and node.input[0] in first:
            source, name = first[node.input[0]], node.output[0]
            if name in outputs:
                kept.append(helper.make_node("Identity", [source], [name], name=name))
            same[name] = source
            continue
        if node.op_type == "DequantizeLinear":
            first[node.input[0]] = node.output[0]
        kept.append(node)
    del proto.graph.node[:]
    proto.graph.node.extend(kept)


def round_before_sums(proto: onnx.ModelProto) -> None:
    """Puts a Clip to the quantizer's own range between a quantized convolution and an addition; it changes no value.

    Without it the plugin runs the addition inside the convolution and leaves the rounding of the quantizer between
    them out (measured with OpenVINO 2026.4 on fbnetv3_b: 19 % of the first sum's codes differ by one, and no image
    gives the logits that the other runtimes give).
    """
    from onnx import helper

    makers = {output: node for node in proto.graph.node for output in node.output}
    kept = []
    for node in proto.graph.node:
        if node.op_type == "Add":
            for position, name in enumerate(node.input):
                found = makers.get(name)
                if found is None or found.op_type != "DequantizeLinear" or not _ends_convolution(found, makers):
                    continue
                clipped = f"{name}.kept"
                if clipped not in makers:
                    low, high = _range_of(found, proto)
                    bounds = [
                        helper.make_tensor(f"{clipped}.{end}", _FLOAT, [], [value])
                        for end, value in (("low", low), ("high", high))
                    ]
                    proto.graph.initializer.extend(bounds)
                    makers[clipped] = helper.make_node("Clip", [name, *(b.name for b in bounds)], [clipped], clipped)
                    kept.append(makers[clipped])
                node.input[position] = clipped
        kept.append(node)
    del proto.graph.node[:]
    proto.graph.node.extend(kept)


_FLOAT = 1  # onnx.TensorProto.FLOAT


def _ends_convolution(node: onnx.NodeProto, makers: dict[str, onnx.NodeProto]) -> bool:
    """Whether a dequantize node gives what a convolution, with what runs inside it, ended in."""
    source = makers.get(node.input[0])
    if source is None or source.op_type != "QuantizeLinear":
        return False
    source = makers.get(source.input[0])
    while source is not None and source.op_type in INSIDE:
        source = makers.get(source.input[0])
    return source is not None and source.op_type == "Conv"


def _range_of(node: onnx.NodeProto, proto: onnx.ModelProto) -> tuple[float, float]:
    """The least and the largest value that a dequantize node gives."""
    import numpy as np
    from onnx import numpy_helper

    constants = {i.name: i for i in proto.graph.initializer}
    scale, zero = (numpy_helper.to_array(constants[name]) for name in node.input[1:3])
    ends = np.iinfo(zero.dtype)
    low, high = ((np.float32(end) - np.float32(zero)) * scale for end in (ends.min, ends.max))
    return float(low), float(high)
