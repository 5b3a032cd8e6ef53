"""MIL operations that move values (any element type), and the quantizers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cspedge.backends.coreml.call import Call, product
from cspedge.backends.coreml.ops_spatial import SPATIAL
from cspedge.errors import TargetError

if TYPE_CHECKING:
    import torch

    from cspedge.backends.coreml.call import Env, Kernel

CODES = {"int8": (-128, 127), "uint8": (0, 255)}


def identity(call: Call) -> Kernel:
    x = call.tensor("x")
    return lambda env: env[x]


def reshape(call: Call) -> Kernel:
    """`shape` may hold one -1 (what is left) and 0 (as in the input); a leading 1 stands for the batch."""
    x, wanted = call.tensor("x"), call.value("shape")
    source, target = call.shape(x), call.out.shape
    fits = len(wanted) == len(target) and all(
        w in (-1, t) or (w == 0 and i < len(source) and source[i] == t)
        for i, (w, t) in enumerate(zip(wanted, target, strict=True))
    )
    if not fits or product(source) != product(target):
        raise call.refuse(f"a reshape of {source} to {wanted} declared as {target}")
    if not source or not target or source[0] != 1 or target[0] != 1:
        call.single("a reshape over the first axis")
        return lambda env: env[x].reshape(target)
    return lambda env: env[x].reshape(env[x].shape[0], *target[1:])


def squeeze(call: Call) -> Kernel:
    x = call.tensor("x")
    rank = len(call.shape(x))
    axes = call.value("axes", [i for i, n in enumerate(call.shape(x)) if n == 1])
    dims = sorted(call.axis(a, rank) for a in axes)
    if 0 in dims:
        call.single("a squeeze of the first axis")
    return lambda env: env[x].squeeze(dims)


def expand_dims(call: Call) -> Kernel:
    x = call.tensor("x")
    rank = len(call.out.shape)
    dims = sorted(call.axis(a, rank) for a in call.value("axes"))
    if 0 in dims:
        call.single("a new first axis")

    def run(env: Env) -> torch.Tensor:
        value = env[x]
        for dim in dims:
            value = value.unsqueeze(dim)
        return value

    return run


def transpose(call: Call) -> Kernel:
    x, perm = call.tensor("x"), call.value("perm")
    perm = [call.axis(p, len(perm)) for p in perm]
    if perm[0] != 0:
        call.single("a transpose of the first axis")
    return lambda env: env[x].permute(perm)


def concat(call: Call) -> Kernel:
    import torch

    values = call.tensors("values")
    axis = call.axis(call.value("axis"), len(call.out.shape))
    call.choice("interleave", (False,), False)
    if axis == 0:
        call.single("a concat along the first axis")
    if any(call.is_constant(v) for v in values):
        call.single("a concat with a constant")
    return lambda env: torch.cat([env[v] for v in values], axis)


def split(call: Call) -> Kernel:
    import torch

    x = call.tensor("x")
    axis = call.axis(call.value("axis"), len(call.shape(x)))
    parts, sizes = call.value("num_splits"), call.value("split_sizes")
    length = call.shape(x)[axis]
    if sizes is None:
        if not parts or length % parts:
            raise call.refuse(f"a split of {length} into {parts} equal parts")
        sizes = [length // parts] * parts
    if axis == 0:
        call.single("a split of the first axis")
    return lambda env: tuple(torch.split(env[x], sizes, axis))


def slice_by_index(call: Call) -> Kernel:
    """numpy's x[begin:end:stride] per axis; masks ignore begin or end; negative strides are refused."""
    x = call.tensor("x")
    shape = call.shape(x)
    none = [False] * len(shape)
    begin, end, stride = call.value("begin"), call.value("end"), call.value("stride", [1] * len(shape))
    begin_mask, end_mask = call.value("begin_mask", none), call.value("end_mask", none)
    if any(call.value("squeeze_mask", none)) or any(s < 1 for s in stride):
        raise call.refuse("squeeze_mask or a negative stride")
    cut: list[slice] = []
    for i in range(len(shape)):
        start = None if begin_mask[i] else begin[i]
        cut.append(slice(start, None if end_mask[i] else end[i], stride[i]))
    return _cut(call, x, cut)


def slice_by_size(call: Call) -> Kernel:
    """x[begin : begin + size] per axis; size -1 means up to the end."""
    x = call.tensor("x")
    shape = call.shape(x)
    starts = [b % n if n else 0 for b, n in zip(call.value("begin"), shape, strict=True)]
    sizes = [n - b if s == -1 else s for s, b, n in zip(call.value("size"), starts, shape, strict=True)]
    return _cut(call, x, [slice(b, b + s) for b, s in zip(starts, sizes, strict=True)])


def _cut(call: Call, x: str, cut: list[slice]) -> Kernel:
    whole = range(call.shape(x)[0])[cut[0]] == range(call.shape(x)[0])
    if not whole:
        call.single("a slice of the first axis")
    index = (slice(None) if whole else cut[0], *cut[1:])
    return lambda env: env[x][index]


def pad(call: Call) -> Kernel:
    """`pad` holds (before, after) for the last len(pad) / 2 axes."""
    import torch

    x, amounts = call.tensor("x"), call.value("pad")
    mode = call.choice("mode", ("constant", "reflect", "replicate"), "constant")
    value = call.value("constant_val", 0.0)
    count, rank = len(amounts) // 2, len(call.shape(x))
    pairs = [(amounts[2 * i], amounts[2 * i + 1]) for i in range(count)]
    if count == rank:
        if pairs[0] != (0, 0):
            call.single("padding of the first axis")
        elif mode != "constant":
            pairs = pairs[1:]
    while mode != "constant" and len(pairs) > 2 and pairs[0] == (0, 0):
        pairs = pairs[1:]
    flat = [v for pair in reversed(pairs) for v in pair]
    if mode == "constant":
        return lambda env: torch.nn.functional.pad(env[x], flat, value=value)
    if rank != 4 or len(pairs) != 2:
        raise call.refuse(f"mode={mode!r} for {len(pairs)} axes of a tensor of rank {rank}")
    return lambda env: torch.nn.functional.pad(env[x], flat, mode=mode)


def cast(call: Call) -> Kernel:
    import torch

    x = call.tensor("x")
    kind = call.choice("dtype", ("fp16", "fp32", "int32"))
    if call.type(x).dtype not in {"fp16", "fp32", "int32", "int8", "uint8", "bool"}:
        raise call.refuse(f"a cast from {call.type(x).dtype}")
    if kind == "int32":
        return lambda env: env[x].to(torch.int32)
    return lambda env: call.numerics.to_type(env[x].float(), kind)


def quantization(call: Call, data: str) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Scale and zero point as float32, shaped to broadcast along `axis`; scale 0 is refused."""
    import torch

    scale = torch.tensor(call.value("scale"), dtype=torch.float32)
    zero = call.value("zero_point")
    zero_point = None if zero is None else torch.tensor(zero, dtype=torch.float32)
    axis = call.value("axis")
    rank = len(call.shape(data))

    def shaped(t: torch.Tensor) -> torch.Tensor:
        if t.dim() == 0:
            return t
        if axis is None or t.dim() != 1 or t.numel() != call.shape(data)[call.axis(axis, rank)]:
            raise call.refuse(f"a scale or zero point of shape {tuple(t.shape)} along axis {axis}")
        shape = [1] * rank
        shape[call.axis(axis, rank)] = t.numel()
        return t.reshape(shape)

    return shaped(scale), None if zero_point is None or not zero_point.any() else shaped(zero_point)


def quantize(call: Call) -> Kernel:
    """clip(round(input / scale) + zero_point): divided in float32, ties by `Numerics.ties`, saturating."""
    import torch

    x = call.tensor("input")
    scale, zero = quantization(call, x)
    kind = call.choice("output_dtype", tuple(CODES))
    low, high = CODES[kind]
    dtype = getattr(torch, kind)
    place = call.operation.place
    if not bool((scale > 0).all()):
        raise TargetError(f"the scale is not positive: {place}")

    def run(env: Env) -> torch.Tensor:
        codes = call.numerics.to_codes(torch.div(env[x], scale))
        if zero is not None:
            codes += zero
        codes.clamp_(low, high)
        if bool(torch.isnan(codes.sum())):
            raise TargetError(f"NaN reaches {place}: values before it leave the range of float16")
        return codes.to(dtype)

    return run


def dequantize(call: Call) -> Kernel:
    """scale * (input - zero_point), rounded to the scale's type."""
    x = call.tensor("input")
    scale, zero = quantization(call, x)
    kind = call.out.dtype

    def run(env: Env) -> torch.Tensor:
        codes = env[x].float()
        if zero is not None:
            codes -= zero
        return call.numerics.to_type(codes.mul_(scale), kind)

    return run


MOVING: dict[str, Callable[[Call], Any]] = {
    **SPATIAL,
    "cast": cast,
    "concat": concat,
    "dequantize": dequantize,
    "expand_dims": expand_dims,
    "identity": identity,
    "pad": pad,
    "quantize": quantize,
    "reshape": reshape,
    "slice_by_index": slice_by_index,
    "slice_by_size": slice_by_size,
    "split": split,
    "squeeze": squeeze,
    "transpose": transpose,
}
