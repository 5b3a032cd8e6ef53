"""Integer weights: symmetric, one scale for each output channel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from cspedge.digest import sha256_bytes
from cspedge.errors import InputError
from cspedge.quantize.encodings import MAX_SCALE, MIN_SCALE, WMAX, Encoding, WeightEncoding, half_at_least
from cspedge.quantize.graph import NAME, tensor_of, weighted_nodes
from cspedge.quantize.ops import arg

if TYPE_CHECKING:
    import torch
    from torch import fx

# Largest integer by bits. Seven: two products with u8 activations, 2 * 64 * 255, stay inside the int16 that AVX2 sums
# them in (VPMADDUBSW saturates); ONNX Runtime's reduce_range takes the same 64.
LARGEST = {8: WMAX, 7: 64}
SHRINK = [1.0 - 0.0125 * step for step in range(40)]


def quantize_weights(
    graph: fx.GraphModule, *, search: bool, activations: Mapping[str, Encoding], bits: int = 8
) -> tuple[dict[str, WeightEncoding], dict[str, torch.Tensor]]:
    """Symmetric integers per output channel. search: the scale of least squared error among 40 shrunken maxima.

    A channel of zeros gets the smallest scale allowed and zeros; nothing divides by zero. A nearly dead channel with a
    large bias gets a scale that keeps the bias, in steps of input scale x weight scale, inside 30 bits: runtimes hold
    it as int32, and ONNX Runtime wraps around without a word. bits: 8 or 7; the integers are int8 either way.
    """
    import torch

    encodings, integers = {}, {}
    limit = LARGEST[bits]
    for node in weighted_nodes(graph):
        weight = tensor_of(graph, arg(node, 1))
        assert weight is not None
        scales = _scales(weight, search, limit)
        bias, source = tensor_of(graph, arg(node, 2)), activations.get(arg(node, 0).meta.get(NAME, ""))
        if bias is not None and source is not None:
            scales = torch.maximum(scales, bias.abs() / (source.scale * 2.0**30))
        if not float(scales.max()) <= MAX_SCALE:
            raise InputError(
                f"the weight {node.meta[NAME]!r} reaches {float(weight.abs().max()):.3g}, more than int8 with an fp16 "
                "scale holds; check the weights for NaN, infinite or huge values"
            )
        scales = torch.from_numpy(half_at_least(scales.numpy()))
        shape = (-1, *([1] * (weight.dim() - 1)))
        values = (weight / scales.reshape(shape)).round().clamp(-limit, limit).to(torch.int8)
        name = node.meta[NAME]
        integers[name] = values
        encodings[name] = WeightEncoding(
            scales=tuple(float(s) for s in scales),
            sha256=sha256_bytes(values.contiguous().numpy().tobytes()),
            shape=tuple(weight.shape),
            qmin=-limit,
            qmax=limit,
        )
    return encodings, integers


def _scales(weight: torch.Tensor, search: bool, limit: int) -> torch.Tensor:
    import torch

    flat = weight.flatten(1)
    largest = flat.abs().amax(1)
    # a nearly dead channel must not fall out of XNNPACK's range of multipliers beside live ones
    floor = max(float(largest.max()) / limit * 2.0**-16, MIN_SCALE)
    full = (largest / limit).clamp(min=floor)
    if not search:
        return full
    best, best_error = full.clone(), torch.full_like(full, float("inf"))
    for share in SHRINK:
        scale = (full * share).clamp(min=floor)
        error = ((flat / scale[:, None]).round().clamp(-limit, limit) * scale[:, None] - flat).square().sum(1)
        better = error < best_error
        best, best_error = torch.where(better, scale, best), torch.where(better, error, best_error)
    return best
