"""ATen operators in ONNX terms (opset 20), one small function each; `CONVERTERS` is the table.

A converter gets the fx node and its arguments in the order of the ATen schema, defaults filled in. It emits nodes
through the `Writer` and returns the name of the result, the names for an operator that gives several tensors, or
None where these arguments are not covered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cspedge.backends.onnx_float_ops import FLOAT_CONVERTERS, reduction
from cspedge.quantize.ops import op_name

if TYPE_CHECKING:
    from torch import fx

    from cspedge.backends.onnx_writer import Writer

    Args = list[Any]
    Result = str | list[str] | None
    Converter = Callable[[Writer, fx.Node, Args], Result]


def _pair(value: Any) -> list[int]:
    values = [int(v) for v in value] if isinstance(value, (list, tuple)) else [int(value)]
    return values * 2 if len(values) == 1 else values


def _conv2d(w: Writer, node: fx.Node, a: Args) -> Result:
    source, weight, bias, stride, padding, dilation, groups = a
    kernel = [int(k) for k in w.values[weight][2:]]
    if padding == "same":
        totals = [d * (k - 1) for d, k in zip(_pair(dilation), kernel, strict=True)]
        pads = [t // 2 for t in totals] + [t - t // 2 for t in totals]
    else:
        pads = _pair(0 if padding == "valid" else padding) * 2
    inputs = [w.tensor(source), w.tensor(weight)] + ([] if bias is None else [w.tensor(bias)])
    return w.emit(
        "Conv",
        inputs,
        kernel_shape=kernel,
        strides=_pair(stride),
        pads=pads,
        dilations=_pair(dilation),
        group=int(groups),
    )


def _linear(w: Writer, node: fx.Node, a: Args) -> Result:
    """Gemm and Add apart: dq, dq -> Gemm runs in int8 with a float result; with a float bias inside it does not."""
    source, weight, bias = a
    suffix = "" if bias is None else ".product"
    if len(w.values[source]) == 2:
        product = w.emit("Gemm", [w.tensor(source), w.tensor(weight)], suffix, transB=1)
    elif weight.op == "get_attr":
        product = w.emit("MatMul", [w.tensor(source), w.constant(str(weight.target), w.array(weight).T)], suffix)
    else:  # an int8 weight, which `_dequantize_weight` has turned
        product = w.emit("MatMul", [w.tensor(source), w.tensor(weight)], suffix)
    return product if bias is None else w.emit("Add", [product, w.tensor(bias)])


def _quantize(w: Writer, node: fx.Node, a: Args) -> Result:
    return w.emit("QuantizeLinear", [w.tensor(a[0]), *_parameters(w, node, a)])


def _dequantize(w: Writer, node: fx.Node, a: Args) -> Result:
    return w.emit("DequantizeLinear", [w.tensor(a[0]), *_parameters(w, node, a)])


def _parameters(w: Writer, node: fx.Node, a: Args) -> list[str]:
    """Scale and zero point, new initializers for every node: with shared ones ONNX Runtime's
    session.x64quantprecision fails at load ("Attempt to replace the existing tensor")."""
    import numpy as np
    import torch

    dtype = np.uint8 if a[5] is torch.uint8 else np.int8
    name = w.base_name(node)
    return [
        w.constant(f"{name}.scale", np.asarray(a[1], np.float32)),
        w.constant(f"{name}.zero_point", np.asarray(a[2], dtype)),
    ]


def _dequantize_weight(w: Writer, node: fx.Node, a: Args) -> Result:
    """The weight of a linear over more than two axes is stored turned, as MatMul wants it: [in, out]."""
    values, scales, zeros = (w.array(source) for source in a[:3])
    axis = int(a[3])
    if any(op_name(user) == "linear" and len(w.values[user]) != 2 for user in node.users):
        values, axis = values.T, 1 - axis
    inputs = [
        w.constant(str(a[0].target), values),
        w.constant(str(a[1].target), scales),
        w.constant(str(a[2].target), zeros.astype(values.dtype)),
    ]
    return w.emit("DequantizeLinear", inputs, axis=axis)


def _unary(kind: str, *attributes: str) -> Converter:
    """One tensor in, one out; attributes: ONNX names of the ATen arguments after the tensor, all floats."""

    def convert(w: Writer, node: fx.Node, a: Args) -> Result:
        values: dict[str, Any] = dict(zip(attributes, map(float, a[1:]), strict=False))
        return w.emit(kind, [w.tensor(a[0])], **values)

    return convert


def _clip(w: Writer, node: fx.Node, a: Args) -> Result:
    return w.emit("Clip", [w.tensor(a[0]), *("" if bound is None else w.tensor(bound) for bound in a[1:3])])


def _clamp_min(w: Writer, node: fx.Node, a: Args) -> Result:
    return _clip(w, node, [a[0], a[1], None])


def _relu6(w: Writer, node: fx.Node, a: Args) -> Result:
    return _clip(w, node, [a[0], 0.0, 6.0])


def _elu(w: Writer, node: fx.Node, a: Args) -> Result:
    return w.emit("Elu", [w.tensor(a[0])], alpha=float(a[1])) if tuple(a[2:]) == (1, 1) else None


def _silu(w: Writer, node: fx.Node, a: Args) -> Result:
    source = w.tensor(a[0])
    return w.emit("Mul", [source, w.emit("Sigmoid", [source], ".sigmoid")])


def _hardsigmoid(w: Writer, node: fx.Node, a: Args) -> Result:
    return w.emit("HardSigmoid", [w.tensor(a[0])], alpha=1.0 / 6.0, beta=0.5)


def _gelu(w: Writer, node: fx.Node, a: Args) -> Result:
    return w.emit("Gelu", [w.tensor(a[0])], approximate=str(a[1]))


def _binary(kind: str) -> Converter:
    def convert(w: Writer, node: fx.Node, a: Args) -> Result:
        if any(extra not in {1, None} for extra in a[2:]):  # alpha, rounding_mode
            return None
        return w.emit(kind, [w.tensor(a[0]), w.tensor(a[1])])

    return convert


def _mean(w: Writer, node: fx.Node, a: Args) -> Result:
    """Over height and width it is GlobalAveragePool, which ONNX Runtime has in int8; ReduceMean it has not."""
    source, dims, keep = a[:3]
    if len(w.values[source]) != 4 or dims is None or sorted(d % 4 for d in dims) != [2, 3]:
        return _reduce_mean(w, node, a)
    pooled = w.emit("GlobalAveragePool", [w.tensor(source)], "" if keep else ".pool")
    return pooled if keep else _reshape_to(w, node, pooled)


_reduce_mean = reduction("ReduceMean")


def _adaptive_average(w: Writer, node: fx.Node, a: Args) -> Result:
    size, wanted = w.values[a[0]][2:], _pair(a[1])
    if wanted == [1, 1]:
        return w.emit("GlobalAveragePool", [w.tensor(a[0])])
    if size[0] % wanted[0] or size[1] % wanted[1]:
        return None
    kernel = [size[0] // wanted[0], size[1] // wanted[1]]
    return w.emit("AveragePool", [w.tensor(a[0])], kernel_shape=kernel, strides=kernel)


def _average_pool(w: Writer, node: fx.Node, a: Args) -> Result:
    source, kernel, stride, padding, ceil, include, divisor = a
    if ceil or divisor is not None:  # the two standards count the cells of a cut window differently
        return None
    return w.emit(
        "AveragePool",
        [w.tensor(source)],
        kernel_shape=_pair(kernel),
        strides=_pair(stride or kernel),
        pads=_pair(padding) * 2,
        count_include_pad=int(include),
    )


def _max_pool(w: Writer, node: fx.Node, a: Args) -> Result:
    source, kernel, stride, padding, dilation, ceil = a
    return w.emit(
        "MaxPool",
        [w.tensor(source)],
        kernel_shape=_pair(kernel),
        strides=_pair(stride or kernel),
        pads=_pair(padding) * 2,
        dilations=_pair(dilation),
        ceil_mode=int(ceil),
    )


def _reshape(w: Writer, node: fx.Node, a: Args) -> Result:
    return _reshape_to(w, node, w.tensor(a[0]))


def _reshape_to(w: Writer, node: fx.Node, source: str) -> str:
    import numpy as np

    shape = w.constant(f"{w.base_name(node)}.shape", np.asarray(w.values[node], np.int64))
    return w.emit("Reshape", [source, shape])


def _permute(w: Writer, node: fx.Node, a: Args) -> Result:
    return w.emit("Transpose", [w.tensor(a[0])], perm=[int(d) % len(a[1]) for d in a[1]])


def _transpose(w: Writer, node: fx.Node, a: Args) -> Result:
    order = list(range(len(w.values[a[0]])))
    order[a[1]], order[a[2]] = order[a[2]], order[a[1]]
    return w.emit("Transpose", [w.tensor(a[0])], perm=order)


def _slice(w: Writer, node: fx.Node, a: Args) -> Result:
    import numpy as np

    source, axis, start, end, step = (w.number(value) for value in a)
    limits = {"start": start or 0, "end": np.iinfo(np.int64).max if end is None else end, "axis": axis, "step": step}
    name = w.base_name(node)
    return w.emit(
        "Slice",
        [w.tensor(source), *(w.constant(f"{name}.{k}", np.asarray([v], np.int64)) for k, v in limits.items())],
    )


def _split(w: Writer, node: fx.Node, a: Args) -> Result:
    import numpy as np

    axis = int(a[2])
    sizes = [piece.shape[axis] for piece in w.values[node]]
    lengths = w.constant(f"{w.base_name(node)}.sizes", np.asarray(sizes, np.int64))
    return w.emit_many("Split", [w.tensor(a[0]), lengths], len(sizes), axis=axis)


def _getitem(w: Writer, node: fx.Node, a: Args) -> Result:
    return str(w.names[a[0]][int(a[1])])


def _concat(w: Writer, node: fx.Node, a: Args) -> Result:
    return w.emit("Concat", [w.tensor(source) for source in a[0]], axis=int(a[1]))


CONVERTERS: dict[str, Converter] = {
    **FLOAT_CONVERTERS,
    "conv2d": _conv2d,
    "linear": _linear,
    "quantize_per_tensor": _quantize,
    "dequantize_per_tensor": _dequantize,
    "dequantize_per_channel": _dequantize_weight,
    "relu": _unary("Relu"),
    "hardswish": _unary("HardSwish"),
    "hardsigmoid": _hardsigmoid,
    "sigmoid": _unary("Sigmoid"),
    "tanh": _unary("Tanh"),
    "leaky_relu": _unary("LeakyRelu", "alpha"),
    "elu": _elu,
    "relu6": _relu6,
    "hardtanh": _clip,
    "clamp": _clip,
    "clamp_min": _clamp_min,
    "silu": _silu,
    "gelu": _gelu,
    "selu": _unary("Selu"),
    "celu": _unary("Celu", "alpha"),
    "mish": _unary("Mish"),
    "exp": _unary("Exp"),
    "neg": _unary("Neg"),
    "abs": _unary("Abs"),
    "sqrt": _unary("Sqrt"),
    "add": _binary("Add"),
    "sub": _binary("Sub"),
    "mul": _binary("Mul"),
    "div": _binary("Div"),
    "mean": _mean,
    "adaptive_avg_pool2d": _adaptive_average,
    "avg_pool2d": _average_pool,
    "max_pool2d": _max_pool,
    "view": _reshape,
    "reshape": _reshape,
    "flatten": _reshape,
    "squeeze": _reshape,
    "unsqueeze": _reshape,
    "permute": _permute,
    "transpose": _transpose,
    "slice": _slice,
    "split": _split,
    "split_with_sizes": _split,
    "chunk": _split,
    "getitem": _getitem,
    "cat": _concat,
}
