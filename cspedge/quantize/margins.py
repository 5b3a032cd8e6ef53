"""How far quantization moves each image's answer from its margin: exactly, and for every tensor at once by first order.

The margin of an image is what separates its answer from another one: of logits, the best minus the second best of the
fp32 reference. A quantization that moves the margin below zero flips the answer. To first order a tensor's
quantization error e moves it by <g, e>, with g the margin's gradient at that tensor: one forward and one backward pass
for all tensors and all weights together.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from cspedge.errors import InputError
from cspedge.quantize.graph import NAME, as_tuple, output_names
from cspedge.quantize.partial import Partial, batches, fake_quantize, is_on_grid

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cspedge.quantize.placement import QuantizedModel

FAR = 0.2  # of an output's norm: there, the cosine similarity of a map or an embedding falls to 0.98
NEAR = 64  # images whose margins count as alike
Outputs = Sequence[torch.Tensor]
_Changes = dict[str, dict[str, list[torch.Tensor]]]


def gives_logits(model: QuantizedModel) -> bool:
    """Whether the model's answer is a class, rather than feature maps or an embedding."""
    return output_names(model.graph) == ("logits",)


def positions(reference: Outputs, outputs: Outputs, *, logits: bool) -> torch.Tensor:
    """Where each image stands, float32 [n], in the terms of its fp32 answer `reference`.

    Logits: the reference's best class minus its second best. Else: a projection on fixed random signs, in units of each
    output's norm, so that its change is on average the relative error.
    """
    if logits:
        (expected,), (found,) = reference, outputs
        if expected.shape[1] < 2:
            return found[:, 0]
        best = expected.topk(2, dim=1).indices
        return found.gather(1, best[:, :1])[:, 0] - found.gather(1, best[:, 1:])[:, 0]
    total = torch.zeros(len(outputs[0]))
    for index, (expected, found) in enumerate(zip(reference, outputs, strict=True)):
        generator = torch.Generator().manual_seed(index)
        signs = torch.randint(0, 2, found.shape[1:], generator=generator).float() * 2 - 1
        norms = expected.flatten(1).norm(dim=1).clamp(min=1e-12)
        total = total + (found * signs).flatten(1).sum(1) / norms
    return total


def lead(reference: Outputs, outputs: Outputs, *, logits: bool) -> torch.Tensor:
    """As `positions`, but of logits the reference's best class minus the best of all others: below 0, it flipped."""
    if not logits or reference[0].shape[1] < 2:
        return positions(reference, outputs, logits=logits)
    best = reference[0].argmax(dim=1, keepdim=True)
    others = outputs[0].scatter(1, best, -torch.inf)
    return outputs[0].gather(1, best)[:, 0] - others.amax(dim=1)


def expected_flips(margins: NDArray[np.float64], changes: NDArray[np.float64]) -> float:
    """Share of images expected to flip, [n] each: each margin meets the changes of the 64 images of nearest margins.

    Measured on lcnet_050 and fbnetv3_b, 256 images at a time: centred on what 1,024 images show, and with less scatter
    than counting. Choosing the best of many candidates by counting on few images picks the luckiest instead.
    """
    import numpy as np

    order = np.argsort(margins, kind="stable")
    margins, changes = margins[order], changes[order]
    width = min(NEAR, len(margins))
    starts = np.clip(np.arange(len(margins)) - width // 2, 0, len(margins) - width)
    nearby = np.lib.stride_tricks.sliding_window_view(changes, width)[starts]
    return float((margins[:, None] + nearby < 0).mean())


def room(reference: Outputs, *, logits: bool) -> torch.Tensor:
    """How far each image may move before its answer is another one, float32 [n], not negative."""
    if logits:
        return positions(reference, reference, logits=True).abs()
    return torch.full((len(reference[0]),), FAR)


@dataclass(frozen=True, kw_only=True)
class FirstOrder:
    """First-order changes of position, image by image.

    room: float32 [n]; tensors: by name, what quantizing that tensor does, float32 [n]; layers: by name, what the int8
    weights of that layer do, float32 [n].
    """

    room: NDArray[np.float32]
    tensors: Mapping[str, NDArray[np.float32]]
    layers: Mapping[str, NDArray[np.float32]]

    def flips(self, tensors: Collection[str], layers: Collection[str]) -> float:
        """Expected share of images whose answer changes, errors taken as independent: the mean of Q(room / sigma).

        An image that a few activations throw far off counts as one image at most, however far it flies.
        """
        import numpy as np
        from scipy.special import ndtr

        variance = np.zeros(len(self.room), np.float64)
        for name in tensors:
            if name in self.tensors:
                variance += np.square(self.tensors[name], dtype=np.float64)
        for name in layers:
            variance += np.square(self.layers[name], dtype=np.float64)
        return float(ndtr(-self.room / np.sqrt(np.maximum(variance, 1e-30))).mean())


def first_order(
    partial: Partial,
    tensors: Collection[str],
    layers: Collection[str],
    images: NDArray[np.uint8],
    *,
    batch: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> FirstOrder:
    """One forward and one backward pass of the fp32 graph over `images`, uint8 [n, 3, H, W].

    tensors, layers: what is quantized. Raises InputError where the reference's answer is not finite.
    """
    changes: _Changes = {"tensors": {}, "layers": {}}
    rooms = []
    for done, inputs in enumerate(batches(images, batch)):
        rooms.append(_one_batch(partial, frozenset(tensors), frozenset(layers), inputs, changes))
        if progress is not None:
            progress(min((done + 1) * batch, len(images)), len(images))
    found = {
        kind: {name: torch.cat(parts).numpy() for name, parts in sorted(by_name.items())}
        for kind, by_name in changes.items()
    }
    return FirstOrder(room=torch.cat(rooms).numpy(), tensors=found["tensors"], layers=found["layers"])


def _one_batch(
    partial: Partial, tensors: frozenset[str], layers: frozenset[str], inputs: torch.Tensor, changes: _Changes
) -> torch.Tensor:
    """The room of each image; its changes of position go into `changes`."""
    logits = gives_logits(partial.model)
    with torch.enable_grad():
        outputs = as_tuple(_Trace(partial, tensors, layers, changes).run(inputs.requires_grad_(True)))
        reference = [o.detach() for o in outputs]
        where = positions(reference, outputs, logits=logits)
        if not bool(torch.isfinite(where).all()):
            raise InputError("the fp32 reference answers NaN or infinities; check the weights and the images")
        torch.autograd.backward(where.sum())
    return room(reference, logits=logits)


class _Trace(fx.Interpreter):
    """The fp32 graph; in the backward pass every quantization error meets its gradient, and neither is kept."""

    def __init__(self, partial: Partial, tensors: frozenset[str], layers: frozenset[str], changes: _Changes) -> None:
        super().__init__(partial.model.graph)
        self.partial = partial
        self.tensors = tensors
        self.layers = layers
        self.changes = changes

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        return super().get_attr(target, args, kwargs).detach()  # no gradients of weights

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        name = n.meta.get(NAME)
        if name in self.tensors and not is_on_grid(n, self.tensors):
            _meet(value, self.changes["tensors"].setdefault(name, []), self._activation_error(name, value.detach()))
        if name in self.layers:
            arguments, keywords = self.fetch_args_kwargs_from_env(n)
            _meet(value, self.changes["layers"].setdefault(name, []), self._weight_error(n, name, arguments, keywords))
        return value

    # What these return must not hold the interpreter: it holds the values, whose hooks would hold it, and the
    # activations of every batch would wait for the garbage collector.

    def _activation_error(self, name: str, value: torch.Tensor) -> Callable[[], torch.Tensor]:
        encoding = self.partial.model.encodings.activations[name]
        return lambda: fake_quantize(value, encoding) - value

    def _weight_error(self, node: fx.Node, name: str, arguments: Any, keywords: Any) -> Callable[[], torch.Tensor]:
        source, own, rest = arguments[0].detach(), arguments[1], arguments[3:]
        target: Any = node.target
        weight = self.partial.weight(name)
        return lambda: target(source, weight - own, None, *rest, **keywords)


def _meet(value: Any, into: list[torch.Tensor], error: Callable[[], torch.Tensor]) -> None:
    value.register_hook(lambda gradient: into.append((gradient * error()).flatten(1).sum(1)))
