"""A placed graph in eager torch that can be differentiated: what corrections, learning and the accuracy loop run.

One `Learned` holds the numbers (scales, zero points, weights, biases) and any number of simulations share them, one
for each placement, so that what is learned serves every target. Without learning, a simulation computes what
`place` computes, to the bit.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from cspedge.digest import sha256_bytes
from cspedge.quantize.encodings import MIN_SCALE, QMAX, QMIN, Encodings
from cspedge.quantize.graph import NAME, tensor_of, weighted_nodes
from cspedge.quantize.ops import arg
from cspedge.quantize.placement import Placement, QuantizedModel, chosen_tensors, int8_layers, snapped
from cspedge.quantize.ranges import tied
from cspedge.quantize.scaling import fitted

if TYPE_CHECKING:
    from torch import fx


class _FakeQuantize(torch.autograd.Function):
    """round(x / scale) + zero, clamped, and back; gradients by the straight-through estimator.

    The scale's gradient is LSQ's (Esser et al. 2020, arXiv:1902.08153), the zero point's LSQ+'s (Bhalgat et al. 2020,
    arXiv:2004.09576).
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor) -> torch.Tensor:
        found, inside = _quantized(x, float(scale.detach()), int(zero.detach()))
        ctx.save_for_backward(x, scale, found, inside)
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, scale, found, inside = ctx.saved_tensors
        (gradient,) = gradients
        to_x = gradient * inside
        to_scale = to_zero = None
        if ctx.needs_input_grad[1]:
            # inside, d/dscale is (found - x) / scale; where clamped, found / scale: as two dot products
            to_scale = (_dot(gradient, found) - _dot(to_x, x)) / scale
        if ctx.needs_input_grad[2]:
            to_zero = (to_x.sum() - gradient.sum()) * scale
        return to_x, to_scale, to_zero


def _quantized(x: torch.Tensor, scale: float, zero_point: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantized and back, and where nothing was clamped.

    The product with the reciprocal is `torch.ops.quantized_decomposed`'s arithmetic; whole passes of vector
    instructions take half the time of torch's own fake_quantize on a CPU.
    """
    codes = (x * float(1.0 / torch.tensor(scale))).round_()
    steps = codes.clamp(QMIN - zero_point, QMAX - zero_point)
    inside = steps == codes
    return steps.mul_(scale), inside


def _dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.dot(a.flatten(), b.flatten())


class _Frozen(torch.autograd.Function):
    """The same with fixed numbers: the gradient goes to x alone."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, scale: float, zero_point: int) -> torch.Tensor:
        found, inside = _quantized(x, scale, zero_point)
        ctx.save_for_backward(inside)
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (inside,) = ctx.saved_tensors
        return gradients[0] * inside, None, None


class ActivationQuantizer(nn.Module):
    """Per-tensor int8 of one group of activations; scale and zero point are learned unless `fixed`."""

    def __init__(self, scale: float, zero_point: int, *, fixed: bool) -> None:
        super().__init__()
        self.initial = (scale, zero_point)
        self.log_scale = nn.Parameter(torch.tensor(float(scale)).log(), requires_grad=not fixed)
        self.start = float(self.log_scale.detach())
        self.zero = nn.Parameter(torch.tensor(float(zero_point)), requires_grad=not fixed)
        self.frozen: tuple[float, int] | None = self.initial
        self.skipped = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.skipped:
            return x
        if self.frozen is not None:
            scale, zero_point = self.frozen
            return _Frozen.apply(x, scale, zero_point)  # type: ignore[no-any-return]
        zero = self.zero.clamp(QMIN, QMAX)
        zero = zero + (zero.round() - zero).detach()
        found: torch.Tensor = _FakeQuantize.apply(x, self.log_scale.exp(), zero)
        return found

    def settle(self) -> tuple[float, int]:
        """Scale and zero point as they will be written: the scale a number that fp16 holds."""
        if not self.log_scale.requires_grad:
            return self.initial
        scale = self.initial[0]
        if float(self.log_scale.detach()) != self.start:
            scale = max(float(self.log_scale.detach().exp().half()), MIN_SCALE)
        return scale, int(self.zero.detach().round().clamp(QMIN, QMAX))


class WeightQuantizer(nn.Module):
    """One layer's weight in units of its channel's step; the integers are its rounding, gradients pass straight."""

    def __init__(self, weight: torch.Tensor, integers: torch.Tensor, scales: torch.Tensor, limit: int) -> None:
        super().__init__()
        shape = (-1, *([1] * (weight.dim() - 1)))
        self.limit = limit
        self.skipped = False
        self.initial = scales
        self.register_buffer("scales", scales.reshape(shape))
        steps = weight / scales.reshape(shape)
        # what was rounded elsewhere (a correction that was stored) stays as it was rounded
        steps = torch.where(steps.round().clamp(-limit, limit) == integers, steps, integers.to(steps.dtype))
        self.steps = nn.Parameter(steps)

    def integers(self) -> torch.Tensor:
        return self.steps.detach().round().clamp(-self.limit, self.limit).to(torch.int8)

    def forward(self) -> torch.Tensor:
        steps = self.steps
        rounded = steps + (steps.round().clamp(-self.limit, self.limit) - steps).detach()
        found: torch.Tensor = rounded * self.scales  # type: ignore[operator]
        return found


class Learned(nn.Module):
    """The numbers of a quantized model as parameters: activations by group, weights and biases by tensor name."""

    def __init__(self, model: QuantizedModel) -> None:
        super().__init__()
        self.model = model
        self.groups: Mapping[str, str] = tied(model.graph)
        self.activations: dict[str, ActivationQuantizer] = {}
        for name, found in model.encodings.activations.items():
            quantizer = ActivationQuantizer(found.scale, found.zero_point, fixed=found.observer == "fixed")
            self.activations.setdefault(self.groups[name], quantizer)
        self.weights: dict[str, WeightQuantizer] = {}
        self.biases: dict[str, nn.Parameter] = {}
        for node in weighted_nodes(model.graph):
            name = node.meta[NAME]
            weight, bias = tensor_of(model.graph, arg(node, 1)), tensor_of(model.graph, arg(node, 2))
            encoding = model.encodings.weights.get(name)
            if weight is None or encoding is None:
                continue
            scales = torch.tensor(encoding.scales, dtype=torch.float32)
            self.weights[name] = WeightQuantizer(weight, model.integer_weights[name], scales, encoding.qmax)
            start = model.biases.get(name, torch.zeros(len(weight)) if bias is None else bias)
            self.biases[name] = nn.Parameter(start.clone())
        for kind, parts in (("activation", self.activations), ("weight", self.weights)):
            for index, part in enumerate(parts.values()):
                self.add_module(f"{kind}_{index}", part)
        for index, bias_value in enumerate(self.biases.values()):
            self.register_parameter(f"bias_{index}", bias_value)

    def learning(self, on: bool) -> None:
        """While on, activations are quantized by the parameters; off, by the numbers that will be written."""
        for quantizer in self.activations.values():
            quantizer.frozen = None if on and quantizer.log_scale.requires_grad else quantizer.settle()

    def skip(self, groups: Collection[str] = (), layers: Collection[str] = ()) -> None:
        """Lets groups of activations and layers pass in float, until the next call."""
        for name, quantizer in self.activations.items():
            quantizer.skipped = name in groups
        for name, weight in self.weights.items():
            weight.skipped = name in layers

    def result(self) -> QuantizedModel:
        """The numbers as they stand now, as a quantized model: encodings, integers, biases."""
        activations, weights, integers = {}, {}, {}
        for name, encoding in self.model.encodings.activations.items():
            scale, zero_point = self.activations[self.groups[name]].settle()
            activations[name] = replace(encoding, scale=scale, zero_point=zero_point)
        for name, quantizer in self.weights.items():
            integers[name] = quantizer.integers().cpu()
            digest = sha256_bytes(integers[name].contiguous().numpy().tobytes())
            weights[name] = replace(self.model.encodings.weights[name], sha256=digest)
        biases = {name: bias.detach().cpu().clone() for name, bias in self.biases.items()}
        encodings = Encodings(activations=activations, weights=weights)
        return replace(self.model, encodings=encodings, integer_weights=integers, biases=biases)


class _Weight(nn.Module):
    """Puts a layer's quantized weight into the graph of one simulation."""

    def __init__(self, quantizer: WeightQuantizer, rows: torch.Tensor, own: torch.Tensor) -> None:
        super().__init__()
        self.quantizer = quantizer
        self.own: torch.Tensor
        self.register_buffer("own", own)
        self.rows: torch.Tensor
        self.register_buffer("rows", rows.reshape(-1, *([1] * (quantizer.steps.dim() - 1))))
        self.plain = bool((rows == 1.0).all())

    def forward(self) -> torch.Tensor:
        if self.quantizer.skipped:
            return self.own
        found: torch.Tensor = self.quantizer()
        return found if self.plain else found * self.rows


class _Bias(nn.Module):
    """A layer's bias, rounded to multiples of input scale x weight scale, gradients passing straight."""

    def __init__(
        self,
        bias: nn.Parameter,
        weight: WeightQuantizer,
        source: ActivationQuantizer,
        rows: torch.Tensor,
        own: torch.Tensor | None,
    ) -> None:
        super().__init__()
        self.own: torch.Tensor
        self.register_buffer("own", torch.zeros(len(bias)) if own is None else own)
        self.rows: torch.Tensor
        self.register_buffer("rows", rows)
        self.bias = bias
        self.weight = weight
        self.source = source

    def forward(self) -> torch.Tensor:
        if self.weight.skipped:
            return self.own
        if self.source.frozen is None:
            return self.bias
        scales: torch.Tensor = self.weight.scales.flatten()  # type: ignore[operator]
        return self.bias + (snapped(self.bias.detach(), scales * self.rows, self.source.frozen[0]) - self.bias).detach()


def simulation(learned: Learned, placement: Placement, keep: Collection[str] = ()) -> fx.GraphModule:
    """The graph of `learned.model` with quantizers where `placement` wants them, reading the numbers of `learned`.

    keep: names of tensors that stay in float. The result takes float32 [n, 3, H, W] in [0, 1] like the graph itself.
    """
    model = fitted(learned.model, placement)
    graph = copy.deepcopy(model.graph)
    names = (chosen_tensors(graph, placement) - set(keep)) & set(model.encodings.activations)
    int8 = int8_layers(graph, placement, names) & set(learned.weights)
    added = 0

    def call(module: nn.Module, before: fx.Node | None, after: fx.Node | None, *args: Any) -> fx.Node:
        nonlocal added
        target, added = f"cspedge_{added}", added + 1
        graph.add_module(target, module)
        place = graph.graph.inserting_after(after) if after is not None else graph.graph.inserting_before(before)
        with place:
            return graph.graph.call_module(target, args)

    for node in list(graph.graph.nodes):
        name = node.meta.get(NAME)
        if name in int8:
            weight = learned.weights[name]
            # what `fitted` changed of the weights' scales
            rows = torch.tensor(model.encodings.weights[name].scales, dtype=torch.float32) / weight.initial
            source = learned.activations[learned.groups[arg(node, 0).args[0].meta[NAME]]]
            has_bias = arg(node, 2) is not None or name in model.biases
            own, own_bias = tensor_of(graph, arg(node, 1)), tensor_of(graph, arg(node, 2))
            assert own is not None
            node.args = (*node.args, *[None] * (3 - len(node.args)))
            node.update_arg(1, call(_Weight(weight, rows, own), node, None))
            if has_bias:
                node.update_arg(2, call(_Bias(learned.biases[name], weight, source, rows, own_bias), node, None))
        if isinstance(name, str) and name in names:
            quantized = call(learned.activations[learned.groups[name]], None, node, node)
            quantized.meta = {"val": node.meta.get("val")}
            node.replace_all_uses_with(quantized, delete_user_cb=lambda user, own=quantized: user is not own)
    graph.graph.eliminate_dead_code()
    graph.graph.lint()
    graph.recompile()
    return graph
