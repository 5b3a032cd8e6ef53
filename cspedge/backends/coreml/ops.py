"""MIL operations in torch, with the meaning Apple documents for them (coremltools' MIL op reference, iOS 15 to 17).

Each builder takes a `Call`, reads all of its parameters and returns a kernel. fp16 tensors are held as float32 whose
values are fp16; arithmetic runs in float32 and `ARITHMETIC` results are rounded to fp16 once per op (sums: see
`numerics.py` and `sums.py`). `CHOOSING` ops choose values and need no rounding.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cspedge.backends.coreml import sums
from cspedge.backends.coreml.call import Call
from cspedge.backends.coreml.ops_spatial import upsample_bilinear

if TYPE_CHECKING:
    import torch

    from cspedge.backends.coreml.call import Env, Kernel

Builder = Callable[[Call], "Kernel"]


def _unary(function: Callable[[torch.Tensor], torch.Tensor], call: Call) -> Kernel:
    x = call.tensor("x")
    return lambda env: function(env[x])


def unary(name: str) -> Builder:
    """A parameterless activation of torch (or torch.nn.functional)."""

    def build(call: Call) -> Kernel:
        import torch

        function = getattr(torch, name, None) or getattr(torch.nn.functional, name)
        return _unary(function, call)

    return build


def leaky_relu(call: Call) -> Kernel:
    import torch

    alpha = call.value("alpha", 0.01)
    return _unary(lambda t: torch.nn.functional.leaky_relu(t, alpha), call)


def elu(call: Call) -> Kernel:
    import torch

    alpha = call.value("alpha", 1.0)
    return _unary(lambda t: torch.nn.functional.elu(t, alpha), call)


def clip(call: Call) -> Kernel:
    low, high = call.value("alpha"), call.value("beta")
    return _unary(lambda t: t.clamp(low, high), call)


def thresholded_relu(call: Call) -> Kernel:
    """x where x >= alpha, else 0."""
    import numpy as np
    import torch

    # torch keeps x > threshold: the float32 just below alpha makes that x >= alpha, in one pass
    below = float(np.nextafter(np.float32(call.value("alpha", 1.0)), np.float32(-np.inf)))
    return _unary(lambda t: torch.nn.functional.threshold(t, below, 0.0), call)


def sigmoid_hard(call: Call) -> Kernel:
    """min(max(alpha * x + beta, 0), 1), alpha 0.2 and beta 0.5 where not given."""
    alpha, beta = call.value("alpha", 0.2), call.value("beta", 0.5)
    return _unary(lambda t: (t * alpha).add_(beta).clamp_(0.0, 1.0), call)


def gelu(call: Call) -> Kernel:
    import torch

    mode = call.choice("mode", ("EXACT", "TANH_APPROXIMATION"), "EXACT")
    kind = "none" if mode == "EXACT" else "tanh"
    return _unary(lambda t: torch.nn.functional.gelu(t, approximate=kind), call)


def softmax(call: Call) -> Kernel:
    import torch

    x = call.tensor("x")
    axis = call.axis(call.value("axis", -1), len(call.shape(x)))
    if axis == 0:
        call.single("softmax over the first axis")
    return lambda env: torch.softmax(env[x], axis)


def binary(name: str) -> Builder:
    """Element-wise, with numpy's broadcasting."""

    def build(call: Call) -> Kernel:
        import torch

        function = getattr(torch, name)
        x, y = call.tensor("x"), call.tensor("y")
        for key in (x, y):
            if not call.is_constant(key) and len(call.shape(key)) != len(call.out.shape):
                call.single("broadcasting a tensor of lower rank")
        return lambda env: function(env[x], env[y])

    return build


def same_padding(call: Call, size: tuple[int, ...], kernel: list[int], stride: list[int], dilation: list[int]) -> Any:
    """Pads (before, after) per spatial axis for the four `pad_type`s; output ceil(size / stride) for `same`."""
    kind = call.choice("pad_type", ("valid", "custom", "same", "same_lower"), "valid")
    given = call.value("pad", [0] * 2 * len(size))
    if kind == "valid":
        return [(0, 0)] * len(size)
    if kind == "custom":
        return [(given[2 * i], given[2 * i + 1]) for i in range(len(size))]
    pads = []
    for n, k, s, d in zip(size, kernel, stride, dilation, strict=True):
        total = max(0, (-(-n // s) - 1) * s + (k - 1) * d + 1 - n)
        less, more = total // 2, total - total // 2
        pads.append((less, more) if kind == "same" else (more, less))
    return pads


def conv(call: Call) -> Kernel:
    """1-D or 2-D convolution. Zeros are padded in the real domain."""
    import torch

    x, weight, bias = call.tensor("x"), call.tensor("weight"), call.maybe_tensor("bias")
    spatial = len(call.shape(x)) - 2
    if spatial not in {1, 2}:
        raise call.refuse(f"a convolution of rank {len(call.shape(x))}")
    convolve = sums.convolution(call, spatial)
    stride, dilation = call.value("strides", [1] * spatial), call.value("dilations", [1] * spatial)
    groups = call.value("groups", 1)
    pads = same_padding(call, call.shape(x)[2:], list(call.shape(weight)[2:]), stride, dilation)
    padding, extra = _split_padding(pads)

    def run(env: Env) -> torch.Tensor:
        value = env[x] if extra is None else torch.nn.functional.pad(env[x], extra)
        b = None if bias is None else env[bias]
        return convolve(value, env[weight], b, stride, padding, dilation, groups)

    return run


def _split_padding(pads: list[tuple[int, int]]) -> tuple[list[int], list[int] | None]:
    """Symmetric pads as torch's `padding`; others as an explicit `F.pad` list (last axis first)."""
    if all(before == after for before, after in pads):
        return [p[0] for p in pads], None
    return [0] * len(pads), [v for pair in reversed(pads) for v in pair]


def linear(call: Call) -> Kernel:
    x, weight, bias = call.tensor("x"), call.tensor("weight"), call.maybe_tensor("bias")
    product = sums.linear(call)
    return lambda env: product(env[x], env[weight], None if bias is None else env[bias])


def matmul(call: Call) -> Kernel:
    x, y = call.tensor("x"), call.tensor("y")
    flip_x, flip_y = bool(call.value("transpose_x", False)), bool(call.value("transpose_y", False))
    if min(len(call.shape(k)) for k in (x, y)) < 2:
        raise call.refuse("a matrix product with a vector")
    rank = len(call.out.shape)
    plain = len(call.shape(x)) == rank and not call.is_constant(x) and (rank > 2 or not flip_x)
    if not plain or not (call.is_constant(y) or (len(call.shape(y)) == rank and rank > 2)):
        call.single("a matrix product over the first axis")
    product = sums.matmul(call)

    def run(env: Env) -> torch.Tensor:
        a = env[x].transpose(-1, -2) if flip_x else env[x]
        return product(a, env[y].transpose(-1, -2) if flip_y else env[y])

    return run


def pool(kind: str) -> Builder:
    """max_pool and avg_pool over two spatial axes; `ceil_mode` as PyTorch's, which MIL adopts."""

    def build(call: Call) -> Kernel:
        import torch

        x, kernel = call.tensor("x"), call.value("kernel_sizes")
        if len(call.shape(x)) != 4:
            raise call.refuse(f"pooling of rank {len(call.shape(x))}")
        stride, ceil = call.value("strides", [1, 1]), bool(call.value("ceil_mode", False))
        exclude = bool(call.value("exclude_padding_from_average", False)) if kind == "avg" else False
        padding, extra = _split_padding(same_padding(call, call.shape(x)[2:], kernel, stride, [1, 1]))
        too_wide = any(2 * p > k for p, k in zip(padding, kernel, strict=True))
        if too_wide or (extra is not None and (ceil or exclude)):
            raise call.refuse("this combination of padding, ceil_mode and exclude_padding_from_average")
        pool2d: Callable[..., torch.Tensor] = (
            torch.nn.functional.max_pool2d
            if kind == "max"
            else functools.partial(torch.nn.functional.avg_pool2d, count_include_pad=not exclude)
        )
        fill = float("-inf") if kind == "max" else 0.0

        def run(env: Env) -> torch.Tensor:
            value = env[x] if extra is None else torch.nn.functional.pad(env[x], extra, value=fill)
            return pool2d(value, kernel, stride, padding, ceil_mode=ceil)

        return run

    return build


def reduce(name: str) -> Builder:
    """reduce_mean, reduce_sum, reduce_max, reduce_min, reduce_l2_norm over `axes` (all of them where not given)."""

    def build(call: Call) -> Kernel:
        import torch

        x = call.tensor("x")
        rank = len(call.shape(x))
        axes = call.value("axes", list(range(rank)))
        dims = [call.axis(a, rank) for a in (axes if isinstance(axes, list) else [axes])]
        keep = bool(call.value("keep_dims", False))
        if 0 in dims:
            call.single("a reduction over the first axis")
        function: Callable[..., torch.Tensor]
        if name in {"sum", "mean"}:
            function = sums.reduction(call, name)
        else:
            function = torch.linalg.vector_norm if name == "norm" else getattr(torch, name)
        return lambda env: function(env[x], dim=dims, keepdim=keep)

    return build


def batch_norm(call: Call) -> Kernel:
    """gamma * (x - mean) / sqrt(variance + epsilon) + beta, channels on axis 1."""
    import torch

    x, mean, variance = call.tensor("x"), call.tensor("mean"), call.tensor("variance")
    gamma, beta = call.maybe_tensor("gamma"), call.maybe_tensor("beta")
    epsilon = call.value("epsilon", 1e-5)
    return lambda env: torch.nn.functional.batch_norm(
        env[x],
        env[mean],
        env[variance],
        None if gamma is None else env[gamma],
        None if beta is None else env[beta],
        training=False,
        eps=epsilon,
    )


def layer_norm(call: Call) -> Kernel:
    """gamma * (x - mean) / sqrt(variance + epsilon) + beta, over the last axes."""
    import torch

    x, gamma, beta = call.tensor("x"), call.maybe_tensor("gamma"), call.maybe_tensor("beta")
    shape, epsilon = call.shape(x), call.value("epsilon", 1e-5)
    axes = sorted(call.axis(a, len(shape)) for a in call.value("axes"))
    if axes != list(range(len(shape) - len(axes), len(shape))) or 0 in axes:
        raise call.refuse(f"a normalisation over the axes {axes} of {len(shape)}")
    sizes = [shape[a] for a in axes]
    return lambda env: torch.nn.functional.layer_norm(
        env[x],
        sizes,
        None if gamma is None else env[gamma],
        None if beta is None else env[beta],
        epsilon,
    )


def prelu(call: Call) -> Kernel:
    """x where it is positive, else alpha * x, alpha per channel (axis 1)."""
    import torch

    x, alpha = call.tensor("x"), call.tensor("alpha")
    return lambda env: torch.nn.functional.prelu(env[x], env[alpha])


def rsqrt(call: Call) -> Kernel:
    """1 / sqrt(x + epsilon)."""
    import torch

    epsilon = call.value("epsilon", 1e-12)
    return _unary(lambda t: torch.rsqrt(t + epsilon), call)


# Rounded to fp16 where the program says fp16.
ARITHMETIC: dict[str, Builder] = {
    "add": binary("add"),
    "avg_pool": pool("avg"),
    "batch_norm": batch_norm,
    "conv": conv,
    "cos": unary("cos"),
    "elu": elu,
    "exp": unary("exp"),
    "gelu": gelu,
    "layer_norm": layer_norm,
    "leaky_relu": leaky_relu,
    "linear": linear,
    "matmul": matmul,
    "mul": binary("mul"),
    "pow": binary("pow"),
    "prelu": prelu,
    "real_div": binary("true_divide"),
    "reduce_l2_norm": reduce("norm"),
    "reduce_mean": reduce("mean"),
    "reduce_sum": reduce("sum"),
    "rsqrt": rsqrt,
    "sigmoid": unary("sigmoid"),
    "sigmoid_hard": sigmoid_hard,
    "sin": unary("sin"),
    "silu": unary("silu"),
    "softmax": softmax,
    "softplus": unary("softplus"),
    "sqrt": unary("sqrt"),
    "square": unary("square"),
    "sub": binary("sub"),
    "tanh": unary("tanh"),
    "upsample_bilinear": upsample_bilinear,
}

# Their results are values of their inputs (or fp16 constants) already.
CHOOSING: dict[str, Builder] = {
    "abs": unary("abs"),
    "clip": clip,
    "max_pool": pool("max"),
    "maximum": binary("maximum"),
    "minimum": binary("minimum"),
    "reduce_max": reduce("amax"),
    "reduce_min": reduce("amin"),
    "relu": unary("relu"),
    "relu6": unary("relu6"),
    "thresholded_relu": thresholded_relu,
}
