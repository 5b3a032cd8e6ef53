"""Scales, zero points and integer weights of a saved `.pte`, in torch's layouts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cspedge.backends.base import Readback, ReadbackActivation, ReadbackWeight
from cspedge.backends.executorch.program import Graph, Node, OutsideOp, Value, read_program
from cspedge.errors import TargetError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def readback(path: Path) -> Readback:
    """Every quantizer in the file: in XNNPACK graphs and in q/dq operators outside them.

    Biases (int32 at sx * sw) follow from the rest and are left out. Raises TargetError for a damaged file.
    """
    program = read_program(path)
    activations: list[ReadbackActivation] = []
    weights: list[ReadbackWeight] = []
    for number, graph in enumerate(program.graphs):
        activations.extend(_activations(graph, f"xnnpack{number}"))
        weights.extend(_weights(graph, f"xnnpack{number}"))
    for number, op in enumerate(program.outside):
        if op.name.startswith("quantized_decomposed::"):
            where = f"plan[{number}]:{op.name}"
            if "per_channel" in op.name:
                weights.append(_outside_weight(op, where))
            else:
                activations.append(_outside_activation(op, where))
    return Readback(activations=tuple(activations), weights=tuple(weights))


def _activations(graph: Graph, prefix: str) -> Iterator[ReadbackActivation]:
    written = {node.output: node for node in graph.nodes}
    for number, value in graph.values.items():
        if value.datatype != "qint8" or value.constant is not None:
            continue
        node = written.get(number)
        where = f"{prefix}[{node.index}]:{node.kind}" if node is not None else f"{prefix}:input{number}"
        yield ReadbackActivation(where=where, scale=value.scales[0], zero_point=value.zero_point)


def _weights(graph: Graph, prefix: str) -> Iterator[ReadbackWeight]:
    import numpy as np

    for node in graph.nodes:
        weight = graph.values.get(node.fields.get("filter_id", -1))
        if weight is None or weight.datatype != "qcint8":
            continue
        yield ReadbackWeight(
            where=f"{prefix}[{node.index}]:{node.kind}",
            values=torch_layout(node, weight),
            scales=np.asarray(weight.scales, np.float32),
        )


def torch_layout(node: Node, weight: Value) -> NDArray[np.int8]:
    """int8 [O, rest] in torch's order; XNNPACK has OHWI for a conv, 1HWO for a depthwise one, OI for linear."""
    import numpy as np

    if weight.constant is None or len(weight.constant) != int(np.prod(weight.dims)):
        raise TargetError(f"executorch: the weight of node {node.index} ({node.kind}) is not constant or not whole")
    values = np.frombuffer(weight.constant, np.int8).reshape(weight.dims)
    if node.kind == "DepthwiseConv2d":
        values = values[0].transpose(2, 0, 1)
    elif node.kind == "Conv2d":
        values = values.transpose(0, 3, 1, 2)
    elif node.kind != "FullyConnected":
        raise TargetError(
            f"executorch: int8 weights in a {node.kind} (node {node.index}), whose layout is not known here"
        )
    return np.ascontiguousarray(values.reshape(values.shape[0], -1))


def _outside_activation(op: OutsideOp, where: str) -> ReadbackActivation:
    scale, zero_point, low = op.args[1]["double_val"], op.args[2]["int_val"], op.args[3]["int_val"]
    return ReadbackActivation(where=where, scale=float(scale), zero_point=int(zero_point) - (128 if low == 0 else 0))


def _outside_weight(op: OutsideOp, where: str) -> ReadbackWeight:
    import numpy as np

    def constant(arg: dict[str, Any], dtype: type) -> Any:
        if "bytes" not in arg:
            raise TargetError(f"executorch: {where} reads a tensor that is not constant; per channel is for weights")
        count = int(np.prod(arg["sizes"]))
        return np.frombuffer(arg["bytes"], dtype, count).reshape(arg["sizes"])

    values = constant(op.args[0], np.int8)
    return ReadbackWeight(
        where=where, values=values.reshape(values.shape[0], -1), scales=constant(op.args[1], np.float32).reshape(-1)
    )
