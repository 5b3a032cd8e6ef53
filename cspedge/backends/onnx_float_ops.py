"""ONNX forms of the operators that compute in float or only move values: normalisations, resizing, padding, products.

Same terms as `onnx_ops`, whose table takes these in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import fx

    from cspedge.backends.onnx_ops import Args, Converter, Result
    from cspedge.backends.onnx_writer import Writer


def _integers(w: Writer, node: fx.Node, name: str, values: list[int]) -> str:
    import numpy as np

    return w.constant(f"{w.base_name(node)}.{name}", np.asarray(values, np.int64))


def _numbers(w: Writer, node: fx.Node, name: str, value: float, count: int) -> str:
    import numpy as np

    return w.constant(f"{w.base_name(node)}.{name}", np.full(count, value, np.float32))


def _layer_norm(w: Writer, node: fx.Node, a: Args) -> Result:
    source, shape, weight, bias, eps = a[:5]
    if len(shape) != 1:
        return None
    scale = _numbers(w, node, "scale", 1.0, shape[0]) if weight is None else w.tensor(weight)
    inputs = [w.tensor(source), scale] + ([] if bias is None else [w.tensor(bias)])
    return w.emit("LayerNormalization", inputs, axis=-1, epsilon=float(eps))


def _group_norm(w: Writer, node: fx.Node, a: Args) -> Result:
    """An instance norm of the groups; opset 20's own GroupNormalization takes one scale for a group."""
    source, groups, weight, bias, eps = a[:5]
    shape = list(w.values[source])
    grouped = w.emit("Reshape", [w.tensor(source), _integers(w, node, "groups", [1, groups, -1])], ".0")
    ones, zeros = _numbers(w, node, "ones", 1.0, groups), _numbers(w, node, "zeros", 0.0, groups)
    found = w.emit("InstanceNormalization", [grouped, ones, zeros], ".1", epsilon=float(eps))
    found = w.emit("Reshape", [found, _integers(w, node, "shape", shape)], ".2")
    for kind, parameter in (("Mul", weight), ("Add", bias)):
        if parameter is not None:
            values = w.array(parameter).reshape(-1, *([1] * (len(shape) - 2)))
            found = w.emit(kind, [found, w.constant(str(parameter.target), values)], f".{kind.lower()}")
    return found


def _softmax(w: Writer, node: fx.Node, a: Args) -> Result:
    """Among quantizers as the exponential of LogSoftmax: ONNX Runtime makes dq -> Softmax -> q a QLinearSoftmax, which
    rounds down (measured with 1.31: up to one code below, which cost a split attention 120 dB)."""
    if w.quantized:
        return w.emit("Exp", [w.emit("LogSoftmax", [w.tensor(a[0])], ".log", axis=int(a[1]))])
    return w.emit("Softmax", [w.tensor(a[0])], axis=int(a[1]))


def reduction(kind: str) -> Converter:
    """One of ONNX's Reduce operators over the axes in the second argument, all of them where it is None."""

    def convert(w: Writer, node: fx.Node, a: Args) -> Result:
        dims = a[1] if isinstance(a[1], (list, tuple)) else list(range(len(w.values[a[0]])))
        return w.emit(kind, [w.tensor(a[0]), _integers(w, node, "axes", list(dims))], keepdims=int(bool(a[2])))

    return convert


def _norm(w: Writer, node: fx.Node, a: Args) -> Result:
    """The square root of the sum of squares; other norms are left to the exporter."""
    source, order, dims, keep = a[:4]
    return reduction("ReduceL2")(w, node, [source, dims, keep]) if order == 2 else None


def _unbind(w: Writer, node: fx.Node, a: Args) -> Result:
    axis = int(a[1])
    parts = w.emit_many("Split", [w.tensor(a[0])], len(w.values[node]), axis=axis, num_outputs=len(w.values[node]))
    axes = _integers(w, node, "axes", [axis])
    return [w.emit("Squeeze", [part, axes], f".{i}") for i, part in enumerate(parts)]


def _pad(w: Writer, node: fx.Node, a: Args) -> Result:
    import numpy as np

    source, amounts, mode, value = a
    modes = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}
    if mode not in modes:
        return None
    rank, given = len(w.values[source]), len(amounts) // 2
    before, after = [0] * (rank - given), [0] * (rank - given)
    before += [int(amounts[2 * i]) for i in reversed(range(given))]
    after += [int(amounts[2 * i + 1]) for i in reversed(range(given))]
    inputs = [w.tensor(source), _integers(w, node, "pads", before + after)]
    if mode == "constant":
        inputs.append(w.constant(f"{w.base_name(node)}.value", np.asarray(value or 0.0, np.float32)))
    return w.emit("Pad", inputs, mode=modes[mode])


def _nearest(w: Writer, node: fx.Node, a: Args) -> Result:
    return _resize(w, node, a[0], mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")


def _bilinear(w: Writer, node: fx.Node, a: Args) -> Result:
    where = "align_corners" if a[2] else "pytorch_half_pixel"
    return _resize(w, node, a[0], mode="linear", coordinate_transformation_mode=where)


def _resize(w: Writer, node: fx.Node, source: fx.Node, **attributes: Any) -> str:
    sizes = _integers(w, node, "sizes", list(w.values[node]))
    return w.emit("Resize", [w.tensor(source), "", "", sizes], **attributes)


def _prelu(w: Writer, node: fx.Node, a: Args) -> Result:
    slope = w.array(a[1]).reshape(-1, *([1] * (len(w.values[a[0]]) - 2)))
    return w.emit("PRelu", [w.tensor(a[0]), w.constant(str(a[1].target), slope)])


def _expand(w: Writer, node: fx.Node, a: Args) -> Result:
    return w.emit("Expand", [w.tensor(a[0]), _integers(w, node, "shape", list(w.values[node]))])


def _select(w: Writer, node: fx.Node, a: Args) -> Result:
    import numpy as np

    index = w.constant(f"{w.base_name(node)}.index", np.asarray(int(a[2]), np.int64))
    return w.emit("Gather", [w.tensor(a[0]), index], axis=int(a[1]))


def _product(w: Writer, node: fx.Node, a: Args) -> Result:
    return w.emit("MatMul", [w.tensor(a[0]), w.tensor(a[1])])


def _attention(w: Writer, node: fx.Node, a: Args) -> Result:
    """softmax(q k^T * scale + mask) v; the scale is 1 / sqrt(the head's width) where none is given."""
    query, key, value, mask, dropout, causal, scale = a[:7]
    if dropout or causal:
        return None
    rank, width = len(w.values[key]), w.values[query][-1]
    order = [*range(rank - 2), rank - 1, rank - 2]
    turned = w.emit("Transpose", [w.tensor(key)], ".0", perm=order)
    scores = w.emit("MatMul", [w.tensor(query), turned], ".1")
    factor = _numbers(w, node, "scale", float(scale or width**-0.5), 1)
    scores = w.emit("Mul", [scores, factor], ".2")
    if mask is not None:
        scores = w.emit("Add", [scores, w.tensor(mask)], ".3")
    return w.emit("MatMul", [w.emit("Softmax", [scores], ".4", axis=-1), w.tensor(value)])


def _softplus(w: Writer, node: fx.Node, a: Args) -> Result:
    return w.emit("Softplus", [w.tensor(a[0])]) if tuple(a[1:3]) == (1, 20) else None


def _pixel_shuffle(w: Writer, node: fx.Node, a: Args) -> Result:
    return w.emit("DepthToSpace", [w.tensor(a[0])], blocksize=int(a[1]), mode="CRD")


FLOAT_CONVERTERS: dict[str, Converter] = {
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    "softmax": _softmax,
    "sum": reduction("ReduceSum"),
    "amax": reduction("ReduceMax"),
    "linalg_vector_norm": _norm,
    "unbind": _unbind,
    "pad": _pad,
    "upsample_nearest2d": _nearest,
    "upsample_bilinear2d": _bilinear,
    "prelu": _prelu,
    "expand": _expand,
    "expand_as": _expand,
    "select": _select,
    "matmul": _product,
    "bmm": _product,
    "scaled_dot_product_attention": _attention,
    "softplus": _softplus,
    "pixel_shuffle": _pixel_shuffle,
}
