"""Integer weights: symmetric, one scale for each output channel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from cspedge.digest import sha256_bytes
from cspedge.errors import InputError
from cspedge.quantize.encodings import MAX_SCALE, MIN_SCALE, WMAX, Encoding, WeightEncoding, half_at_least
from cspedge.quantize.graph import NAME, tensor_of, weighted_nodes
from cspedge.quantize.observe import run
from cspedge.quantize.ops import arg

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import fx

# Largest integer by bits. Seven: two products with u8 activations, 2 * 64 * 255, stay inside the int16 that AVX2 sums
# them in (VPMADDUBSW saturates); ONNX Runtime's reduce_range takes the same 64.
LARGEST = {8: WMAX, 7: 64}
IMAGES, BATCH = 64, 32
SHRINK = [1.0 - 0.0125 * step for step in range(40)]


def input_energy(graph: fx.GraphModule, images: NDArray[np.uint8]) -> dict[str, torch.Tensor]:
    """The mean square of each input channel of each layer, float64 [channels] by the name of the tensor that it reads.

    images: uint8 [n, 3, H, W], of which up to `IMAGES`, evenly spread, are used.
    """
    import torch

    chosen = images[:: max(1, len(images) // IMAGES)][:IMAGES]
    found: dict[str, torch.Tensor] = {}

    def look(name: str, tensor: torch.Tensor, where: slice) -> None:
        values = tensor.double().square()
        # channels are the second axis of an image, the last one of anything else
        total = values.mean((2, 3)).sum(0) if values.dim() == 4 else values.flatten(0, -2).mean(0) * len(values)
        found[name] = found.get(name, torch.zeros_like(total)) + total

    names = dict.fromkeys(str(arg(n, 0).meta.get(NAME)) for n in weighted_nodes(graph))
    for start in range(0, len(chosen), BATCH):
        run(graph, chosen[start : start + BATCH], look, names, slice(start, start + BATCH))
    return {name: total / len(chosen) for name, total in found.items()}


def quantize_weights(
    graph: fx.GraphModule,
    *,
    search: bool,
    activations: Mapping[str, Encoding],
    bits: int = 8,
    energy: Mapping[str, torch.Tensor] | None = None,
) -> tuple[dict[str, WeightEncoding], dict[str, torch.Tensor]]:
    """Symmetric integers per output channel. search: the scale of least squared error among 40 shrunken maxima.

    energy: `input_energy`; the search then weighs an error by what it meets, which is the error of the layer's output
    where inputs are independent.

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
        met = (energy or {}).get(arg(node, 0).meta.get(NAME, ""))
        scales = _scales(weight, limit, _columns(weight, met)) if search else _full_scales(weight, limit)
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


def _columns(weight: torch.Tensor, met: torch.Tensor | None) -> torch.Tensor:
    """The energy that each element of a flattened weight meets: [rows or 1, columns times taps]."""
    import torch

    taps = weight.flatten(1).shape[1] // weight.shape[1]
    if met is None or not bool((met > 0).any()):
        return torch.ones((1, 1))
    met = (met / met.mean()).float().clamp(min=1e-6)  # what met nothing still has a rounding
    groups = len(met) // weight.shape[1]
    return met.reshape(groups, -1).repeat_interleave(len(weight) // groups, 0).repeat_interleave(taps, 1)


def _full_scales(weight: torch.Tensor, limit: int, share: float = 1.0) -> torch.Tensor:
    """Scales that hold `share` of every channel's largest weight."""
    largest = weight.flatten(1).abs().amax(1)
    # a nearly dead channel must not fall out of XNNPACK's range of multipliers beside live ones
    floor = max(float(largest.max()) / limit * 2.0**-16, MIN_SCALE)
    return (largest / limit * share).clamp(min=floor)


def _scales(weight: torch.Tensor, limit: int, energy: torch.Tensor) -> torch.Tensor:
    """Scales of least squared error weighted by `energy` ([rows, columns] or one number)."""
    import torch

    flat = weight.flatten(1)
    best = _full_scales(weight, limit)
    best_error = torch.full_like(best, float("inf"))
    for share in SHRINK:
        scale = _full_scales(weight, limit, share)
        wrong = (flat / scale[:, None]).round().clamp(-limit, limit) * scale[:, None] - flat
        error = (wrong.square() * energy).sum(1)
        better = error < best_error
        best, best_error = torch.where(better, scale, best), torch.where(better, error, best_error)
    return best
