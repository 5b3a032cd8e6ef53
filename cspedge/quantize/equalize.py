"""Cross-layer equalization: channels scaled so that one encoding for all of them costs the least.

Weights have a scale for each output channel, activations one for the whole tensor, so a channel that stays far below
the largest one gets few codes. Dividing channel c by s_c in the layers that make it and multiplying by s_c in those
that read it changes nothing in real arithmetic (`cspedge.quantize.channels` says where). What the activations win the
readers' weights may lose, because their scale sees all input channels: s minimises the noise of both.

Nagel et al. 2019 (arXiv:1906.04721) equalize the weights' ranges instead, for weights with one scale per layer.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cspedge.errors import InputError
from cspedge.quantize.channels import Channels
from cspedge.quantize.encodings import QMAX, QMIN, WMAX
from cspedge.quantize.graph import NAME, tensor_of
from cspedge.quantize.observe import refuse_non_finite, run
from cspedge.quantize.ops import arg, full_arguments, op_name
from cspedge.quantize.ranges import observed, tied
from cspedge.quantize.scaling import ChannelScales, candidates, names_scale, with_scales

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import fx

IMAGES = 128  # of the calibration images, evenly spread: extremes of channels are steadier than those of tensors
BATCH = 32
STEPS, RATE = 60, 0.1  # Adam's, on log s: more steps change nothing that can be measured
SOFT = 16  # the exponent of the norm that stands for a maximum
LIMIT = 64.0  # largest factor either way


@dataclass(frozen=True, kw_only=True)
class ChannelRange:
    """What the channels of one tensor do, float64: largest magnitude but for one image in a hundred, mean square."""

    largest: torch.Tensor
    energy: torch.Tensor


def channel_ranges(graph: fx.GraphModule, images: NDArray[np.uint8], channels: Channels) -> dict[str, ChannelRange]:
    """Ranges by tensor name, [channels], over up to `IMAGES` of `images` (uint8 [n, 3, H, W]).

    Raises InputError where an activation is NaN or infinite, naming the tensor.
    """
    import torch

    chosen = images[:: max(1, len(images) // IMAGES)][:IMAGES]
    names = {n.meta[NAME]: n for n in observed(graph) if n in channels.ids}
    kept = len(chosen) // 100 + 1  # the furthest images of each channel, of which the last one counts
    tops: dict[str, torch.Tensor] = {}
    squares = {name: torch.zeros(len(channels.ids[node]), dtype=torch.float64) for name, node in names.items()}

    def look(name: str, tensor: torch.Tensor, where: slice) -> None:
        values = tensor.flatten(2) if tensor.dim() > 2 else tensor.unsqueeze(2)
        largest = values.abs().amax(2)
        refuse_non_finite(name, largest)
        so_far = torch.cat([tops[name], largest]) if name in tops else largest
        tops[name] = so_far.topk(min(kept, len(so_far)), dim=0).values
        squares[name] += values.double().square().mean(2).sum(0)

    for start in range(0, len(chosen), BATCH):
        run(graph, chosen[start : start + BATCH], look, names, slice(start, start + BATCH))
    return {name: ChannelRange(largest=tops[name][-1].double(), energy=squares[name] / len(chosen)) for name in names}


def equalize(
    graph: fx.GraphModule, images: NDArray[np.uint8], wanted: ChannelScales = ChannelScales.NONE
) -> dict[str, torch.Tensor]:
    """The scales that suit `graph` on `images` (uint8 [n, 3, H, W], calibration images); `equalized` applies them.

    float32 [channels] by name: what the outputs of a layer, or of a channel scale that is to be put into the graph
    (`wanted`), are to be divided by. Layers whose channels no other layer could take up are not in it; a graph without
    any gives an empty result.
    """
    graph = with_scales(graph, candidates(graph, wanted))
    channels = Channels(graph)
    makers = {**channels.outputs, **channels.scales}
    if not any(channels.free(ids).any() for ids in makers.values()):
        return {}
    scales = _best(graph, channels, channel_ranges(graph, images, channels))
    found = {n.meta[NAME]: scales[channels.root(ids)] for n, ids in makers.items()}
    return {name: values for name, values in found.items() if bool((values != 1.0).any())}


def equalized(graph: fx.GraphModule, scales: Mapping[str, torch.Tensor]) -> fx.GraphModule:
    """A copy of `graph` whose layers' outputs are divided by `scales` and their readers' inputs multiplied with them.

    scales: as `equalize` returned them for the same graph; `graph` itself where there are none. Channel scales that are
    named there are put into the copy. Raises InputError where they do not fit it.
    """
    import torch

    if not scales:
        return graph
    inserted = [name for name in scales if names_scale(name)]
    graph = with_scales(graph, inserted) if inserted else copy.deepcopy(graph)
    channels = Channels(graph)
    by_root = torch.ones(channels.count)
    names = {n.meta[NAME]: ids for n, ids in {**channels.outputs, **channels.scales}.items()}
    for name, values in scales.items():
        ids = names.get(name)
        if ids is None or len(ids) != len(values) or not channels.free(ids)[(values != 1.0).numpy()].all():
            raise InputError(f"the stored equalization of {name!r} does not fit this model; quantize the model again")
        by_root[channels.root(ids)] = values
    for node, ids in channels.scales.items():
        factor = tensor_of(graph, arg(node, 1))
        assert factor is not None
        factor.div_(by_root[channels.root(ids)].reshape(factor.shape))
    for node, ids in channels.outputs.items():
        weight, bias = tensor_of(graph, arg(node, 1)), tensor_of(graph, arg(node, 2))
        assert weight is not None
        out, into = by_root[channels.root(ids)], by_root[channels.root(channels.inputs[node])]
        factor = _columns(node, into, len(weight)) / out[:, None]
        weight.mul_(factor.reshape(*factor.shape, *[1] * (weight.dim() - 2)))
        if bias is not None:
            bias.div_(out)
    return graph


def _groups(node: fx.Node) -> int:
    return 1 if op_name(node) == "linear" else int(full_arguments(node)[6])


def _columns(node: fx.Node, values: torch.Tensor, outputs: int) -> torch.Tensor:
    """Values of the input channels as the columns that each row of the weight reads: [rows or 1, columns]."""
    groups = _groups(node)
    return values.reshape(groups, -1).repeat_interleave(outputs // groups, 0) if groups > 1 else values[None]


class _Reader:
    """The noise that int8 leaves in one layer's output, relative to its signal, as a function of the scales.

    With step d of the activation it reads, rounding gives d^2 / 12 for each value, and so sum_i d^2 / 12 A_i s_i^2 with
    A_i the weights' squares of column i; rounding of row o with step max_i |w_oi| s_i / 127 meets inputs of mean square
    m_i / s_i^2.
    """

    def __init__(self, graph: fx.GraphModule, node: fx.Node, roots: torch.Tensor, seen: ChannelRange) -> None:
        weight = tensor_of(graph, arg(node, 1))
        assert weight is not None
        taps = weight.flatten(2) if weight.dim() > 2 else weight.unsqueeze(2)
        self.node = node
        self.roots = roots
        self.taps = taps.shape[2]
        self.rows = len(weight)
        squares, groups = taps.square().sum(2).double(), _groups(node)
        self.squares = squares.reshape(groups, -1, squares.shape[1]).sum(1).flatten()  # A_i
        self.peaks = taps.abs().amax(2)  # [rows, columns]
        self.energy = seen.energy

    def noise(self, scales: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        """Noise power, summed over output channels; scales: float64, of all channels, by root; step: what it reads."""
        import torch

        own = scales[self.roots]
        columns = _columns(self.node, own, self.rows)
        with torch.no_grad():
            largest = (self.peaks * columns.float()).argmax(1, keepdim=True)
        full = columns.expand(self.rows, -1) if len(columns) == 1 else columns
        steps = (self.peaks.gather(1, largest) * full.gather(1, largest))[:, 0] / WMAX
        met = _columns(self.node, self.energy / own.square(), self.rows).sum(1)
        rounded = self.taps * (steps.square() * met).sum()
        found: torch.Tensor = (step.square() * (self.squares * own.square()).sum() + rounded) / 12
        return found


def _step(largest: torch.Tensor) -> torch.Tensor:
    """The step of an encoding that holds every channel; a norm stands for the maximum, so that all near it count."""
    import torch

    top = largest.detach().max()
    found: torch.Tensor = torch.linalg.vector_norm(largest / top, SOFT) * top / (QMAX - QMIN)
    return found


def _best(graph: fx.GraphModule, channels: Channels, seen: Mapping[str, ChannelRange]) -> torch.Tensor:
    """The scales by root, float32: those of least relative noise, summed over the layers, found by gradient descent."""
    import torch

    roots = {n.meta[NAME]: torch.from_numpy(channels.root(ids)) for n, ids in channels.ids.items() if NAME in n.meta}
    groups = {name: group for name, group in tied(graph).items() if name in seen}
    readers = []
    for node in channels.outputs:
        source, name = arg(node, 0).meta[NAME], node.meta[NAME]
        signal = float(seen[name].energy.sum()) if name in seen else 0.0
        if source in seen and signal > 0.0 and bool((seen[source].largest > 0.0).any()):
            readers.append((_Reader(graph, node, roots[source], seen[source]), groups[source], signal))
    members = {group: [n for n in groups if groups[n] == group] for _, group, _ in readers}
    largest = {group: torch.cat([seen[n].largest for n in names]) for group, names in members.items()}
    where = {group: torch.cat([roots[n] for n in names]) for group, names in members.items()}
    # a channel that is always zero has no best scale
    alive = torch.zeros(channels.count, dtype=torch.bool)
    for name, record in seen.items():
        alive[roots[name][record.largest > 0.0]] = True
    free = alive & torch.from_numpy(channels.free(channels.everything))
    logs = torch.zeros(channels.count, dtype=torch.float64, requires_grad=True)

    def scales() -> torch.Tensor:
        return torch.where(free, logs.clamp(-math.log(LIMIT), math.log(LIMIT)), torch.zeros_like(logs)).exp()

    optimizer = torch.optim.Adam([logs], lr=RATE)
    for _ in range(STEPS if readers else 0):
        now = scales()
        steps = {group: _step(largest[group] / now[where[group]]) for group in members}
        loss = torch.stack([reader.noise(now, steps[group]) / signal for reader, group, signal in readers]).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    found = scales().detach()
    # a root that a channel scale makes: a power of two, which no format rounds
    for ids in channels.scales.values():
        made = torch.from_numpy(channels.root(ids))
        found[made] = torch.exp2(found[made].log2().round())
    found = found.float()
    if not bool(torch.isfinite(found).all()):
        raise InputError(
            "the channels' ranges are too extreme to equalize; check the weights for huge values, or set "
            "equalize = false in the recipe"
        )
    return found
