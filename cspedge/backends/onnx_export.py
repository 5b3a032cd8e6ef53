"""A placed graph as one self-contained ONNX file: checked, named after the model, the same bytes every time.

ONNX Runtime ships this file; OpenVINO converts it (from its own placement). Batch 1, input `image` float32
[1, 3, H, W] in [0, 1], outputs float32 under the model's names for them, opset 20.
"""

from __future__ import annotations

import ast
import contextlib
import io
import logging
from typing import TYPE_CHECKING, Any

from cspedge.backends.onnx_writer import INPUT, OPSET, Unwritable, record_values, write
from cspedge.errors import TargetError
from cspedge.quantize.graph import NAME
from cspedge.quantize.ops import Role, op_name, role

if TYPE_CHECKING:
    import onnx

    from cspedge.quantize.placement import PlacedModel

QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")


def export_onnx(model: PlacedModel, backend: str) -> onnx.ModelProto:
    """The placed graph as a checked ModelProto without stack traces, paths or producer.

    Written directly where every operator is known to `onnx_ops`, else through torch.onnx.export (slow, but it
    covers ATen). Raises TargetError naming the operator and its module where neither can.
    """
    import onnx

    try:
        proto = write(model)
    except Unwritable as unknown:
        proto = _exporter(model, unknown, backend)
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise TargetError(f"the ONNX graph made for {backend} is not valid: {_first_line(error)}") from error
    return proto


def serialize(proto: onnx.ModelProto) -> bytes:
    """The file's bytes, equal for equal graphs."""
    return bytes(proto.SerializeToString(deterministic=True))


def multiply_accumulates(model: PlacedModel) -> dict[str, int]:
    """Multiply-accumulates of each convolution and linear for one image, by tensor name."""
    shapes = record_values(model)
    counts = {}
    for node in model.graph.graph.nodes:
        if role(node) is Role.WEIGHTED:
            weight, outputs = shapes[node.args[1]], 1
            for size in shapes[node]:
                outputs *= size
            for size in weight[1:]:
                outputs *= size
            counts[str(node.meta[NAME])] = outputs
    return counts


def compute_ops(model: PlacedModel) -> tuple[str, ...]:
    """Names of the ops that calculate (convolutions, activations, arithmetic, pools, concats), in graph order."""
    moves = {Role.SHARE, Role.FLOAT}
    return tuple(
        str(n.meta[NAME])
        for n in model.graph.graph.nodes
        if NAME in n.meta and n.op == "call_function" and (role(n) not in moves or op_name(n) == "max_pool2d")
    )


def _exporter(model: PlacedModel, unknown: Unwritable, backend: str) -> onnx.ModelProto:
    """torch.onnx.export, its output stripped and renamed."""
    import torch

    noisy = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir", "torch.onnx")]
    levels = [logger.level for logger in noisy]
    try:
        for logger in noisy:
            logger.setLevel(logging.ERROR)
        with contextlib.redirect_stdout(io.StringIO()):  # the exporter prints its progress there
            program = torch.onnx.export(
                model.exported(),
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=list(model.outputs),
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # the exporter raises many types; all mean that an operator has no ONNX form
        raise TargetError(f"{backend} cannot take {unknown}: {_first_line(error)}") from error
    finally:
        for logger, level in zip(noisy, levels, strict=True):
            logger.setLevel(level)
    assert program is not None
    proto = program.model_proto
    _rename_nodes(proto)
    _split_linear_bias(proto)
    _strip(proto)
    _separate_parameters(proto)
    return proto


def _rename_nodes(proto: onnx.ModelProto) -> None:
    """Names nodes as the direct writer does, from the scopes the exporter leaves in their metadata."""
    makers: dict[str, str] = {}  # of each value, the name of the op behind it
    numbered: dict[str, list[str]] = {}  # `module.path:op` -> the fx nodes that share it
    taken: set[str] = set()
    for node in proto.graph.node:
        notes = {entry.key: entry.value for entry in node.metadata_props}
        scopes = ast.literal_eval(notes.get("pkg.torch.onnx.name_scopes", "[]")) or ["", node.name]
        kinds = ast.literal_eval(notes.get("pkg.torch.onnx.class_hierarchy", "[]")) or [node.op_type]
        if node.op_type in QUANTIZERS and node.input[0] in makers:
            base = makers[node.input[0]]
            name = f"{base}.{'q' if node.op_type == 'QuantizeLinear' else 'dq'}"
        else:
            path = ".".join(s for s in scopes[-2:-1] if s).removeprefix("model.") or "model"
            kind = kinds[-1].removeprefix("aten.").partition(".")[0].lower()
            siblings = numbered.setdefault(f"{path}:{kind}", [])
            if scopes[-1] not in siblings:
                siblings.append(scopes[-1])
            place = siblings.index(scopes[-1]) + 1
            base = name = f"{path}:{kind}" + (f"#{place}" if place > 1 else "")
        count = 1
        while name in taken:
            count, name = count + 1, f"{name}.{count}"
        taken.add(name)
        node.name = name
        makers.update(dict.fromkeys(node.output, base))


def _split_linear_bias(proto: onnx.ModelProto) -> None:
    """Gemm and Add apart, for the reason given at `onnx_ops._linear`."""
    from onnx import helper

    for index, node in reversed(list(enumerate(proto.graph.node))):
        if node.op_type == "Gemm" and len(node.input) == 3 and not {a.name for a in node.attribute} & {"alpha", "beta"}:
            bias, output, name = node.input.pop(), node.output[0], node.name
            node.output[0], node.name = f"{output}.product", f"{name}.product"
            proto.graph.node.insert(index + 1, helper.make_node("Add", [node.output[0], bias], [output], name=name))


def _strip(proto: onnx.ModelProto) -> None:
    """Removes what differs between machines: 280 kB of stack traces and paths, producer strings, doc strings."""
    proto.producer_name = proto.producer_version = proto.domain = proto.doc_string = ""
    proto.graph.name, proto.graph.doc_string = "cspedge", ""
    del proto.metadata_props[:]
    del proto.graph.metadata_props[:]
    del proto.graph.value_info[:]
    graph = proto.graph
    for entry in (*graph.node, *graph.initializer, *graph.input, *graph.output):
        entry.doc_string = ""
        del entry.metadata_props[:]


def _separate_parameters(proto: onnx.ModelProto) -> None:
    """Gives each quantize and dequantize node its own scale and zero point (why: `onnx_ops`)."""
    constants = {i.name: i for i in proto.graph.initializer}
    used: set[str] = set()
    for node in proto.graph.node:
        if node.op_type not in QUANTIZERS:
            continue
        for position, suffix in ((1, "scale"), (2, "zero_point")):
            name = node.input[position]
            if name in used and name in constants:
                copy = proto.graph.initializer.add()
                copy.CopyFrom(constants[name])
                copy.name = node.input[position] = f"{node.name}.{suffix}"
            used.add(node.input[position])


def _first_line(error: Any) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
