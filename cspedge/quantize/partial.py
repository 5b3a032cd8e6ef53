"""A quantized model with any part of it in float: one graph, run with the tensors and layers that each call names.

The accuracy loop and the sensitivity ranking try hundreds of parts; building a placed graph for each would cost more
than running it. With the tensors of a placement and the layers that `int8_layers` gives for them, the answers are
those of `place`, to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from cspedge.quantize.encodings import QMAX, QMIN, Encoding
from cspedge.quantize.graph import NAME, as_tuple, tensor_of, weighted_nodes
from cspedge.quantize.ops import Role, arg, op_name, role
from cspedge.quantize.placement import QuantizedModel, snapped

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Watch = Callable[[fx.Node, torch.Tensor], None]


def fake_quantize(values: torch.Tensor, encoding: Encoding) -> torch.Tensor:
    """float32 to int8 by `encoding` and back, in a new tensor."""
    return _on_grid(torch.empty_like(values), values, encoding)


def _on_grid(out: torch.Tensor, values: torch.Tensor, encoding: Encoding) -> torch.Tensor:
    """What `quantize_per_tensor` and `dequantize_per_tensor` give, to the bit, in a sixth of their time."""
    import numpy as np

    inverse = float(np.float32(1) / np.float32(encoding.scale))
    zero = encoding.zero_point
    torch.mul(values, inverse, out=out)
    return out.round_().clamp_(QMIN - zero, QMAX - zero).mul_(encoding.scale)


def batches(images: NDArray[np.uint8], size: int) -> Iterator[torch.Tensor]:
    """uint8 [n, 3, H, W] as float32 in [0, 1], `size` images at a time, divided as every artifact's input is."""
    import numpy as np

    for start in range(0, len(images), size):
        yield torch.from_numpy(images[start : start + size].astype(np.float32) / np.float32(255))


class Partial:
    """A quantized model that runs with any of its tensors and layers in int8, the others in float."""

    def __init__(self, model: QuantizedModel) -> None:
        self.model = model
        self._weights: dict[str, torch.Tensor] = {}

    def run(
        self,
        batch: torch.Tensor,
        tensors: Collection[str] = (),
        layers: Collection[str] = (),
        watch: Watch | None = None,
    ) -> tuple[torch.Tensor, ...]:
        """The outputs for float32 [n, 3, H, W] in [0, 1] with `tensors` and the weights of `layers` quantized.

        watch: called with each named node and its value, before the value is quantized itself.
        """
        return as_tuple(_Run(self, frozenset(tensors), frozenset(layers), watch).run(batch))

    def weight(self, name: str) -> torch.Tensor:
        """The int8 weight of a layer as float32, in torch's layout; kept, since every batch asks for it."""
        if name not in self._weights:
            integers = self.model.integer_weights[name]
            scales = torch.tensor(self.model.encodings.weights[name].scales, dtype=torch.float32)
            self._weights[name] = integers.float() * scales.reshape(-1, *([1] * (integers.dim() - 1)))
        return self._weights[name]

    def bias(self, name: str, own: torch.Tensor | None, source: Encoding) -> torch.Tensor | None:
        """The bias that an int8 layer adds: corrected, and rounded as int32; own: the float layer's."""
        bias = self.model.biases.get(name, own)
        if bias is None:
            return None
        scales = torch.tensor(self.model.encodings.weights[name].scales, dtype=torch.float64)
        return snapped(bias.detach(), scales, source.scale)


class _Run(fx.Interpreter):
    """One batch through the graph."""

    def __init__(self, partial: Partial, tensors: frozenset[str], layers: frozenset[str], watch: Watch | None) -> None:
        super().__init__(partial.model.graph)
        self.partial = partial
        self.tensors = tensors
        self.layers = layers
        self.watch = watch
        self.encodings = partial.model.encodings.activations

    def run_node(self, n: fx.Node) -> Any:
        name = n.meta.get(NAME)
        value = self._int8_layer(n, name) if name in self.layers else super().run_node(n)
        if name is None or n.op == "output":
            return value
        if self.watch is not None:
            self.watch(n, value)
        if name not in self.tensors or is_on_grid(n, self.tensors):
            return value
        fresh = self.watch is None and role(n) is Role.WEIGHTED  # nobody else holds it
        return _on_grid(value if fresh else torch.empty_like(value), value, self.encodings[name])

    def _int8_layer(self, node: fx.Node, name: str) -> Any:
        arguments, keywords = self.fetch_args_kwargs_from_env(node)
        inputs = list(arguments) + [None] * (3 - len(arguments))
        inputs[1] = self.partial.weight(name)
        source = arg(node, 0).meta[NAME]
        if source in self.tensors:  # alone, a layer's weights are tried with its own bias
            inputs[2] = self.partial.bias(name, inputs[2], self.encodings[source])
        target: Any = node.target
        return target(*inputs, **keywords)


def elements(model: QuantizedModel) -> dict[str, int]:
    """Number of values of each named tensor for one image."""
    found: dict[str, int] = {}

    def count(node: fx.Node, value: Any) -> None:
        if isinstance(value, torch.Tensor):
            found[node.meta[NAME]] = value.numel()

    with torch.no_grad():
        Partial(model).run(torch.zeros(1, *model.input_shape), watch=count)
    return found


def multiply_accumulates(model: QuantizedModel, sizes: Mapping[str, int]) -> dict[str, int]:
    """Multiply-accumulates of each convolution and linear for one image; sizes: what `elements` gives."""
    found = {}
    for node in weighted_nodes(model.graph):
        weight = tensor_of(model.graph, arg(node, 1))
        assert weight is not None
        found[node.meta[NAME]] = sizes[node.meta[NAME]] * weight[0].numel()
    return found


def is_on_grid(node: fx.Node, tensors: Collection[str]) -> bool:
    """Whether the op only moves or selects values that are on the grid of the one encoding they share already."""
    moves = role(node) in {Role.SHARE, Role.CONCAT} and op_name(node) != "upsample_bilinear2d"
    return moves and all(source.meta.get(NAME) in tensors for source in node.all_input_nodes)
