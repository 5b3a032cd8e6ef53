"""MIL's compressed constants: integers with scales, lookup tables, sparse data and their combinations.

The formulas are those of coremltools' op reference (`defs/iOS16/constexpr_ops.py`, `defs/iOS18/compression.py`). All
are evaluated once, when a program is loaded; results are rounded to the op's type once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cspedge.backends.coreml.blob import BITS, unpack
from cspedge.backends.coreml.call import Call, product
from cspedge.backends.coreml.ops_layout import quantization

if TYPE_CHECKING:
    import torch

    from cspedge.backends.coreml.call import Kernel


def affine_dequantize(call: Call) -> Kernel:
    """scale * (quantized_data - zero_point), per channel along `axis`."""
    x = _constant(call, "quantized_data")
    scale, zero = quantization(call, x)
    kind = call.out.dtype
    return lambda env: call.numerics.to_type((env[x].float() - (0 if zero is None else zero)) * scale, kind)


def cast(call: Call) -> Kernel:
    """A constant stored in fp16 and used in fp32."""
    x = _constant(call, "source_val")
    call.choice("output_dtype", ("fp32",))
    return lambda env: env[x]


def blockwise_shift_scale(call: Call) -> Kernel:
    """scale * (data - offset); a scale (and offset) for each block of data.shape / scale.shape elements."""
    data = _constant(call, "data")
    shifted = _shift_scale(call, call.shape(data))
    return lambda env: shifted(env[data])


def sparse_blockwise_shift_scale(call: Call) -> Kernel:
    """The same for the elements that the mask names; gives the mask and the new elements."""
    mask, data = _constant(call, "data_mask"), _constant(call, "nonzero_data")
    _check_mask(call, mask, data)
    shifted = _shift_scale(call, call.shape(mask))
    return lambda env: (env[mask], shifted(_spread(env[data], env[mask]))[env[mask] != 0])


def lut_to_dense(call: Call) -> Kernel:
    """iOS 16: one table for packed indices and a `shape`. iOS 18: a table for each block, of values or vectors."""
    if "shape" in call.operation.arguments:
        return _packed_lut(call)
    indices = _constant(call, "indices")
    look_up, _ = _tables(call, call.shape(indices), call.type(indices).dtype)
    return lambda env: look_up(env[indices])


def lut_to_sparse(call: Call) -> Kernel:
    """A table's values for the elements that the mask names; gives the mask (vectors: repeated) and the values."""
    mask, data = _constant(call, "indices_mask"), _constant(call, "indices_nonzero_data")
    _check_mask(call, mask, data)
    look_up, widen = _tables(call, call.shape(mask), call.type(data).dtype)

    def run(env: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        wide = widen(env[mask])
        return wide, look_up(_spread(env[data], env[mask]))[wide != 0]

    return run


def sparse_to_dense(call: Call) -> Kernel:
    """The non-zero elements in row-major order where the mask has a 1, else 0. iOS 16 packs 8 of the mask in a byte."""
    import numpy as np
    import torch

    mask, data = _constant(call, "mask"), _constant(call, "nonzero_data")
    if "shape" not in call.operation.arguments:
        _check_mask(call, mask, data)
        return lambda env: _spread(env[data], env[mask])
    shape = call.value("shape")
    if call.shape(mask) != (-(-product(shape) // 8),):
        raise call.refuse(f"a mask of {call.shape(mask)} bytes for the shape {shape}")
    bits = np.unpackbits(np.asarray(call.value("mask"), np.uint8), bitorder="little")[: product(shape)]
    places = torch.from_numpy(bits.reshape(shape))
    if int(bits.sum()) != product(call.shape(data)):
        raise call.refuse(f"{product(call.shape(data))} elements for a mask of {int(bits.sum())}")
    return lambda env: _spread(env[data], places)


def _constant(call: Call, name: str) -> str:
    """The key of a parameter that is a constant, or made of constants only."""
    key = call.tensor(name)
    if not call.is_constant(key):
        raise call.refuse(f"a computed parameter {name!r}")
    return key


def _shift_scale(call: Call, shape: tuple[int, ...]) -> Callable[[torch.Tensor], torch.Tensor]:
    import torch

    scale = call.env[_constant(call, "scale")].float()
    offset = call.env[_constant(call, "offset")].float() if "offset" in call.operation.arguments else None
    if scale.dim() != len(shape):
        raise call.refuse(f"scales of shape {tuple(scale.shape)} for data of shape {shape}")
    if offset is not None and offset.shape != scale.shape:
        raise call.refuse(f"offsets of shape {tuple(offset.shape)} beside scales of shape {tuple(scale.shape)}")

    def spread(blocks: torch.Tensor) -> torch.Tensor:
        for axis, size in enumerate(_blocks(call, shape, tuple(scale.shape))):
            blocks = torch.repeat_interleave(blocks, size, axis)
        return blocks

    kind = call.operation.outputs[-1].type.dtype
    factor, shift = spread(scale), None if offset is None else spread(offset)
    return lambda data: call.numerics.to_type((data.float() if shift is None else data.float() - shift) * factor, kind)


def _tables(
    call: Call, shape: tuple[int, ...], indices: str
) -> tuple[Callable[[torch.Tensor], torch.Tensor], Callable[[torch.Tensor], torch.Tensor]]:
    """What looks indices of `shape` up, and what repeats a mask of that shape for vectors.

    The table's shape is that of its blocks, then [entries, vector size].
    """
    import torch

    lut, axis = call.env[_constant(call, "lut")], call.value("vector_axis")
    *grid, entries, vector = lut.shape
    if len(grid) != len(shape) or BITS.get(indices, 8) != entries.bit_length() - 1 or entries & (entries - 1):
        raise call.refuse(f"a table of shape {tuple(lut.shape)} for {indices} indices of shape {shape}")
    if vector > 1 and axis is None:
        raise call.refuse("a table of vectors without vector_axis")
    along = call.axis(axis or 0, len(shape))
    block = torch.zeros(shape, dtype=torch.long)  # which table an index looks into
    for i, size in enumerate(_blocks(call, shape, tuple(grid))):
        step = torch.arange(shape[i]) // size
        block = block * grid[i] + step.reshape([-1 if a == i else 1 for a in range(len(shape))])
    flat = lut.reshape(-1, entries, vector)

    def look_up(data: torch.Tensor) -> torch.Tensor:
        found = flat[block, data.long()]
        return found.squeeze(-1) if vector == 1 else found.movedim(-1, along + 1).flatten(along, along + 1)

    return look_up, lambda mask: torch.repeat_interleave(mask, vector, along)


def _packed_lut(call: Call) -> Kernel:
    import numpy as np
    import torch

    lut, shape = _constant(call, "lut"), call.value("shape")
    entries = call.shape(lut)[0] if len(call.shape(lut)) == 1 else 0
    packed = np.asarray(call.value("indices"), np.uint8)
    if entries not in {2, 4, 16, 64, 256}:
        raise call.refuse(f"a table of shape {call.shape(lut)}")
    bits = entries.bit_length() - 1
    if packed.shape != (-(-bits * product(shape) // 8),):
        raise call.refuse(f"indices of {packed.shape} bytes for {bits} bits of the shape {shape}")
    indices = torch.from_numpy(unpack(packed.tobytes(), bits, product(shape), signed=False).astype(np.int64))
    return lambda env: env[lut][indices].reshape(shape)


def _blocks(call: Call, shape: tuple[int, ...], grid: tuple[int, ...]) -> list[int]:
    """Elements of `shape` per entry of `grid`, axis by axis."""
    if any(count < 1 or size % count for size, count in zip(shape, grid, strict=True)):
        raise call.refuse(f"{grid} blocks over data of shape {shape}")
    return [size // count for size, count in zip(shape, grid, strict=True)]


def _check_mask(call: Call, mask: str, data: str) -> None:
    ones = int((call.env[mask] != 0).sum())
    if call.shape(data) != (ones,):
        raise call.refuse(f"elements of shape {call.shape(data)} for a mask of {ones}")


def _spread(data: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    dense = data.new_zeros(mask.shape)
    dense[mask != 0] = data
    return dense


CONSTEXPR: dict[str, Callable[[Call], Any]] = {
    "constexpr_affine_dequantize": affine_dequantize,
    "constexpr_blockwise_shift_scale": blockwise_shift_scale,
    "constexpr_cast": cast,
    "constexpr_lut_to_dense": lut_to_dense,
    "constexpr_lut_to_sparse": lut_to_sparse,
    "constexpr_sparse_blockwise_shift_scale": sparse_blockwise_shift_scale,
    "constexpr_sparse_to_dense": sparse_to_dense,
}
