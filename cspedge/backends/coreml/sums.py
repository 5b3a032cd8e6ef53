"""The ops of the reference executor that add up products, in the precision that `Numerics.accumulate` names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from cspedge.backends.coreml.numerics import Accumulate

if TYPE_CHECKING:
    import torch

    from cspedge.backends.coreml.call import Call

    Summing = Callable[..., torch.Tensor]


def convolution(call: Call, spatial: int) -> Summing:
    """torch's conv1d or conv2d (x, weight, bias, stride, padding, dilation, groups) for the op's numerics."""
    import torch

    plain = torch.nn.functional.conv1d if spatial == 1 else torch.nn.functional.conv2d
    if not _stepwise(call):
        return _wide(call, plain)

    def run(
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        stride: list[int],
        padding: list[int],
        dilation: list[int],
        groups: int,
    ) -> torch.Tensor:
        one = [1] * (2 - spatial)  # a 1-d convolution is one over rows of height 1
        if spatial == 1:
            x, weight = x.unsqueeze(2), weight.unsqueeze(2)
        size, apart, steps = weight.shape[2:], (*one, *dilation), (*one, *stride)
        pads = (*[0] * (2 - spatial), *padding)
        columns = torch.nn.functional.unfold(x, size, dilation=apart, padding=pads, stride=steps)
        columns = columns.reshape(len(x), groups, -1, columns.shape[-1])
        rows = weight.reshape(groups, weight.shape[0] // groups, -1)
        total = _running(call, (rows[:, :, k : k + 1] * columns[:, :, k, None] for k in range(rows.shape[-1])))
        total = total.reshape(len(x), *call.out.shape[1:])
        return _plus(call, total, None if bias is None else bias.reshape(-1, *[1] * spatial))

    return run


def linear(call: Call) -> Summing:
    """torch's linear (x, weight [O, I], bias) for the op's numerics."""
    import torch

    if not _stepwise(call):
        return _wide(call, torch.nn.functional.linear)

    def run(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        products = (x[..., k : k + 1] * weight[:, k] for k in range(weight.shape[1]))
        return _plus(call, _running(call, products), bias)

    return run


def matmul(call: Call) -> Summing:
    """The matrix product of two tensors of rank 2 or more for the op's numerics."""
    import torch

    if not _stepwise(call):
        return _wide(call, torch.matmul)

    def run(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return _running(call, (x[..., k : k + 1] * y[..., k : k + 1, :] for k in range(y.shape[-2])))

    return run


def reduction(call: Call, name: str) -> Summing:
    """torch's sum or mean (x, dim, keepdim) for the op's numerics; the mean divides the sum by the count."""
    import torch

    if not _stepwise(call):
        return _wide(call, getattr(torch, name))

    def run(x: torch.Tensor, dim: Sequence[int], keepdim: bool) -> torch.Tensor:
        kept = [d for d in range(x.dim()) if d not in dim]
        flat = x.permute(*kept, *dim).reshape(*(x.shape[d] for d in kept), -1)
        total = _running(call, flat.unbind(-1))
        total = total / flat.shape[-1] if name == "mean" else total
        return total.reshape([1 if d in dim else n for d, n in enumerate(x.shape)]) if keepdim else total

    return run


def _stepwise(call: Call) -> bool:
    return call.numerics.accumulate is Accumulate.FP16 and call.out.dtype == "fp16"


def _wide(call: Call, function: Summing) -> Summing:
    """The function in float32, or in float64 and back."""
    import torch

    if call.numerics.accumulate is not Accumulate.FP64:
        return function

    def run(*arguments: object, **options: object) -> torch.Tensor:
        wide = [a.double() if isinstance(a, torch.Tensor) else a for a in arguments]
        return function(*wide, **options)

    return run


def _running(call: Call, terms: Iterable[torch.Tensor]) -> torch.Tensor:
    """The sum of float32 terms, one or more, rounded after each addition."""
    remaining = iter(terms)
    total = call.numerics.to_type(next(remaining), "fp16")
    for term in remaining:
        total = call.numerics.to_type(total + term, "fp16")
    return total


def _plus(call: Call, total: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return total if bias is None else call.numerics.to_type(total + bias, "fp16")
