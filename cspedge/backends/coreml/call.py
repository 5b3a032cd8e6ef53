"""What an op of the reference executor sees of its MIL operation: parameters, types, and how to refuse."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cspedge.backends.coreml.numerics import Numerics
from cspedge.backends.coreml.package import Argument, Constant, Operation, TensorType
from cspedge.errors import TargetError

if TYPE_CHECKING:
    import torch

    Env = dict[str, torch.Tensor]
    Result = torch.Tensor | tuple[torch.Tensor, ...]
    Kernel = Callable[[Env], Result]

FLOATS = ("fp16", "fp32")


@dataclass(kw_only=True)
class Call:
    """One operation while its kernel is built. Every parameter has to be asked for, or `finish` refuses the op.

    types: declared types of all values so far; constants: the program's; env: where constant tensors are put.
    one_by_one: set by an op that mixes the batch axis with others, so that images have to be run singly.
    """

    operation: Operation
    types: dict[str, TensorType]
    constants: Mapping[str, Constant]
    env: Env
    numerics: Numerics = field(default_factory=Numerics)
    one_by_one: str = ""
    _seen: set[str] = field(default_factory=set)

    def refuse(self, what: str) -> TargetError:
        """The error for something the executor does not implement, with the op's name and place."""
        return TargetError(f"coreml: the reference executor does not implement {what}: {self.operation.place}")

    def single(self, why: str) -> None:
        """Notes that this op is only right for one image at a time."""
        self.one_by_one = self.one_by_one or f"{why} in {self.operation.place}"

    # parameters

    def tensor(self, name: str) -> str:
        """The key in the environment of a required tensor parameter."""
        found = self._arguments(name)
        if len(found) != 1:
            raise self.refuse(f"{len(found)} values for the parameter {name!r}")
        return self._key(found[0], name)

    def maybe_tensor(self, name: str) -> str | None:
        """The key of an optional tensor parameter, or None."""
        return self.tensor(name) if name in self.operation.arguments else None

    def tensors(self, name: str) -> list[str]:
        """The keys of a list parameter."""
        return [self._key(a, f"{name}_{i}") for i, a in enumerate(self._arguments(name))]

    def value(self, name: str, default: Any = None) -> Any:
        """A constant parameter as Python value (float, int, bool, str, or a list of them); TargetError if computed."""
        if name not in self.operation.arguments:
            self._seen.add(name)
            return default
        found = self._arguments(name)
        constant = self._constant(found[0]) if len(found) == 1 else None
        if constant is None:
            raise self.refuse(f"a computed parameter {name!r}")
        return constant.value if isinstance(constant.value, str) else constant.value.tolist()

    def choice(self, name: str, allowed: tuple[Any, ...], default: Any = None) -> Any:
        """A constant parameter that must be one of `allowed`."""
        found = self.value(name, default)
        if found not in allowed:
            raise self.refuse(f"{name}={found!r} (only {', '.join(map(repr, allowed))})")
        return found

    def finish(self) -> None:
        """Refuses the operation if it carries a parameter nobody asked for."""
        for name in sorted(set(self.operation.arguments) - self._seen):
            raise self.refuse(f"the parameter {name!r}")

    # types

    @property
    def out(self) -> TensorType:
        return self.operation.outputs[0].type

    def type(self, key: str) -> TensorType:
        return self.types[key]

    def shape(self, key: str) -> tuple[int, ...]:
        return self.types[key].shape

    def is_constant(self, key: str) -> bool:
        return key in self.env

    def axis(self, value: int, rank: int) -> int:
        """A possibly negative axis as one in [0, rank)."""
        if not -rank <= value < rank:
            raise self.refuse(f"axis {value} of a tensor of rank {rank}")
        return value % rank

    def _arguments(self, name: str) -> tuple[Argument, ...]:
        if name not in self.operation.arguments:
            raise TargetError(f"the parameter {name!r} is missing: {self.operation.place}")
        self._seen.add(name)
        return self.operation.arguments[name]

    def _constant(self, argument: Argument) -> Constant | None:
        return argument if isinstance(argument, Constant) else self.constants.get(argument)

    def _key(self, argument: Argument, name: str) -> str:
        constant = self._constant(argument)
        if constant is None:
            assert isinstance(argument, str)
            if argument not in self.types:
                raise TargetError(f"{argument!r}, read by {self.operation.place}, is defined nowhere before it")
            return argument
        key = argument if isinstance(argument, str) else f"{self.operation.outputs[0].name}.{name}"
        if key not in self.env:
            self.env[key] = to_tensor(constant)
            self.types[key] = constant.type
        return key


def to_tensor(constant: Constant) -> torch.Tensor:
    """A constant as a tensor; fp16 is held as float32 of the same value."""
    import numpy as np
    import torch

    assert not isinstance(constant.value, str)
    array = constant.value
    if constant.type.dtype == "fp16":
        array = array.astype(np.float32)
    return torch.from_numpy(np.array(array, copy=True))


def product(shape: tuple[int, ...]) -> int:
    return math.prod(shape)
