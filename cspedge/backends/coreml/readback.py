"""Scales, zero points and integer weights of a saved program, in cspedge's terms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cspedge.backends.base import Readback, ReadbackActivation, ReadbackWeight
from cspedge.backends.coreml.package import Operation, SavedProgram
from cspedge.errors import TargetError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def readback(program: SavedProgram) -> Readback:
    """Every quantize and dequantize op, and the weight of every op that reads an int8 constant.

    coremltools writes zero point -128 as uint8 without a zero point; here it is -128 again. It merges equal weights;
    here each reader counts. Scales are float16 values wherever the program computes in float16.
    """
    producers = program.producers()
    activations, weights = [], []
    for op in program.operations:
        if op.type in {"quantize", "dequantize"}:
            activations.append(_activation(program, op, producers))
        for name in ("weight", "x", "y"):
            source = producers.get(str(op.arguments.get(name, ("",))[0]))
            if source is not None and source.type == "constexpr_affine_dequantize":
                weights.append(_weight(program, source, op, transposed=op.type == "matmul" and name == "y"))
    half = any(_is_half(program, op) for op in program.operations)
    return Readback(activations=tuple(activations), weights=tuple(weights), half_scales=half)


def _is_half(program: SavedProgram, op: Operation) -> bool:
    scale = program.constant(op, "scale") if op.type == "quantize" else None
    return scale is not None and scale.type.dtype == "fp16"


def _activation(program: SavedProgram, op: Operation, producers: dict[str, Operation]) -> ReadbackActivation:
    scale = _array(program, op, "scale")
    if scale is None or scale.size != 1:
        raise TargetError(f"a quantizer without one scale for its tensor: {op.place}")
    zero = _array(program, op, "zero_point")
    if op.type == "quantize":
        kind = op.outputs[0].type.dtype
        where = f"{op.arguments['input'][0]} ({op.name})"
    else:
        source = str(op.arguments["input"][0])
        producer = producers.get(source)
        if producer is None:
            raise TargetError(f"a dequantize op that reads no quantized activation: {op.place}")
        kind = next(o.type.dtype for o in producer.outputs if o.name == source)
        where = op.name
    shift = 128 if kind == "uint8" else 0
    point = 0 if zero is None else int(zero.reshape(-1)[0])
    return ReadbackActivation(where=where, scale=float(scale.reshape(-1)[0]), zero_point=point - shift)


def _weight(program: SavedProgram, source: Operation, reader: Operation, *, transposed: bool) -> ReadbackWeight:
    import numpy as np

    data, scale = _array(program, source, "quantized_data"), _array(program, source, "scale")
    zero, axis = _array(program, source, "zero_point"), _array(program, source, "axis")
    if data is None or scale is None:
        raise TargetError(f"a quantized weight without data or scale: {source.place}")
    values = data.astype(np.int16)
    if zero is not None:
        shape = [1] * data.ndim
        if zero.size > 1:
            shape[int(axis) if axis is not None else 0] = zero.size
        values = values - zero.astype(np.int16).reshape(shape)
    along = int(axis) % data.ndim if axis is not None else 0
    channel = 0
    if transposed:  # a linear written as a product with [I, O]
        flip = program.constant(reader, "transpose_y")
        channel = 0 if flip is not None and bool(np.asarray(flip.value)) else data.ndim - 1
    if along != channel and scale.size > 1:
        raise TargetError(f"a weight quantized along axis {along}, not its output channels: {source.place}")
    if values.min() < -128 or values.max() > 127:
        raise TargetError(f"a quantized weight whose values do not fit int8: {source.place}")
    values = np.moveaxis(values, channel, 0)
    scales = np.broadcast_to(scale.astype(np.float32).reshape(-1), (values.shape[0],))
    return ReadbackWeight(
        where=f"{source.name} ({reader.name})",
        values=np.ascontiguousarray(values.astype(np.int8)),
        scales=np.ascontiguousarray(scales),
    )


def _array(program: SavedProgram, op: Operation, name: str) -> NDArray[Any] | None:
    constant = program.constant(op, name)
    if constant is None:
        return None
    if isinstance(constant.value, str):
        raise TargetError(f"the parameter {name!r} is a string: {op.place}")
    return constant.value
