"""How the MIL reference executor computes: what sums are kept in, and how results and codes are rounded.

Apple documents what each MIL op computes, not in which precision a compute unit adds or how it rounds. The default is
what IEEE 754 hardware with float32 accumulators does; the other choices bound what a device may do differently.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class Accumulate(StrEnum):
    """What the sums of conv, linear, matmul, reduce_sum and reduce_mean are kept in. All other ops use float32.

    fp64 and fp32: the sum in that type, rounded once to the op's type. fp16: in ops whose result is float16, every
    product is formed and added in float32 and the running sum rounded to float16 after each addition, in the order of
    the weight's memory (conv: input channel, kernel row, kernel column), the bias last. Slow: one pass per addition.
    """

    FP64 = "fp64"
    FP32 = "fp32"
    FP16 = "fp16"


class Rounding(StrEnum):
    """How an op's result becomes float16 where the program says float16.

    nearest: to the nearest, ties to even, overflow to infinity (IEEE 754). toward-zero: truncated, overflow to 65504.
    none: kept as float32, as if the program were float32: what is left of a difference is not float16's.
    """

    NEAREST = "nearest"
    TOWARD_ZERO = "toward-zero"
    NONE = "none"


class Ties(StrEnum):
    """Which code a `quantize` op takes half-way between two: the even one, or the one away from zero."""

    EVEN = "even"
    AWAY = "away"


@dataclass(frozen=True, kw_only=True)
class Numerics:
    """The choices for one program; see the enumerations."""

    accumulate: Accumulate = Accumulate.FP32
    rounding: Rounding = Rounding.NEAREST
    ties: Ties = Ties.EVEN

    def to_type(self, value: torch.Tensor, dtype: str) -> torch.Tensor:
        """float32 or float64 `value` as float32 whose values are those of `dtype` (fp16 by `rounding`, or fp32)."""
        if dtype != "fp16" or self.rounding is Rounding.NONE:
            return value.float()
        if self.rounding is Rounding.NEAREST:
            return value.half().float()
        return _truncated(value)

    def to_codes(self, value: torch.Tensor) -> torch.Tensor:
        """float32 `value` rounded to whole numbers, in place."""
        if self.ties is Ties.EVEN:
            return value.round_()
        whole = value.trunc()  # value - whole is exact, value + 0.5 would not be
        return value.sub_(whole).mul_(2).trunc_().add_(whole)


def _truncated(value: torch.Tensor) -> torch.Tensor:
    """float16 toward zero: the nearest one, one step smaller in magnitude where that was too far out."""
    import torch

    nearest = value.half()
    too_far = nearest.abs().to(value.dtype) > value.abs()
    # the bits of a float16 count up with its magnitude, infinity standing above 65504
    return torch.where(too_far, nearest.view(torch.int16) - 1, nearest.view(torch.int16)).view(torch.float16).float()
