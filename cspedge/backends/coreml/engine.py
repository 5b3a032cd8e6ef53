"""A MIL program made ready and run, op by op, with torch: what the reference executor's two faces share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cspedge.backends.coreml.call import FLOATS, Call
from cspedge.backends.coreml.numerics import Numerics
from cspedge.backends.coreml.ops import ARITHMETIC, CHOOSING
from cspedge.backends.coreml.ops_constexpr import CONSTEXPR
from cspedge.backends.coreml.ops_layout import MOVING
from cspedge.backends.coreml.opsets import unknown
from cspedge.backends.coreml.package import Operation, SavedProgram, TensorType
from cspedge.errors import TargetError

if TYPE_CHECKING:
    from cspedge.backends.coreml.call import Env, Kernel

BUILDERS: Mapping[str, Callable[[Call], Any]] = {**ARITHMETIC, **CHOOSING, **MOVING, **CONSTEXPR}
KNOWN = frozenset(BUILDERS)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One op: what it computes, whether the result is rounded to its type, and the values nobody reads after it."""

    operation: Operation
    kernel: Kernel
    rounds: bool
    frees: tuple[str, ...]


class Engine:
    """A program made ready: parameters checked, constants resolved, weights decompressed, once.

    `one_by_one` names an op that mixes the first axis with others (or is ""): such a program takes one image at a time.
    types: the declared type of every value.
    """

    def __init__(self, program: SavedProgram, numerics: Numerics) -> None:
        """Raises TargetError naming op and place for everything that is not implemented."""
        self.program = program
        self.numerics = numerics
        self.one_by_one = ""
        self.constants: Env = {}
        self.types: dict[str, TensorType] = {i.name: i.type for i in program.inputs}
        steps = [step for operation in program.operations if (step := self._build(operation)) is not None]
        for name in program.outputs:
            if name not in self.types:
                raise TargetError(f"the program's output {name!r} is computed nowhere")
        self._steps = _with_frees(steps, program.outputs)

    def run(self, inputs: Env, batch: int, kept: Env | None = None, given: Env | None = None) -> Env:
        """The outputs by name. batch: images along the first axis, 1 for the shapes that the program declares.

        inputs: tensors of the program's inputs (fp16 held as float32). kept: where every result is put as well. given:
        values by name that later ops read in place of what was computed here.
        """
        env: Env = {**self.constants, **inputs}
        for step in self._steps:
            found = self._evaluate(step, env, batch)
            env.update(found)
            if kept is not None:
                kept.update(found)
            if given is not None:
                env.update({name: given[name] for name in found if name in given})
            for name in step.frees:
                env.pop(name, None)
        return {name: env[name] for name in self.program.outputs}

    def _build(self, operation: Operation) -> Step | None:
        builder = BUILDERS.get(operation.type)
        if builder is None:
            raise unknown(operation, self.program.opset, KNOWN)
        call = Call(
            operation=operation,
            types=self.types,
            constants=self.program.constants,
            env=self.constants,
            numerics=self.numerics,
        )
        kernel = builder(call)
        call.finish()
        computing = operation.type in ARITHMETIC or operation.type in CHOOSING
        if computing and call.out.dtype not in FLOATS:
            raise call.refuse(f"arithmetic in {call.out.dtype}")
        for output in operation.outputs:
            if output.name in self.types or output.name in self.constants:
                raise TargetError(f"the name {output.name!r} is defined twice, last by {operation.place}")
            self.types[output.name] = output.type
        step = Step(operation=operation, kernel=kernel, rounds=operation.type in ARITHMETIC, frees=())
        if operation.type in CONSTEXPR:
            self.constants.update(self._evaluate(step, self.constants, 0))
            return None
        if any(not o.type.shape or o.type.shape[0] != 1 for o in operation.outputs):
            call.single("a first axis that is not the batch")
        self.one_by_one = self.one_by_one or call.one_by_one
        return step

    def _evaluate(self, step: Step, env: Env, batch: int) -> Env:
        """The step's results, rounded and checked against their declared shapes. batch: 0 for constants."""
        result = step.kernel(env)
        values = result if isinstance(result, tuple) else (result,)
        outputs = step.operation.outputs
        if len(values) != len(outputs):
            raise TargetError(f"{len(values)} results where {len(outputs)} are declared: {step.operation.place}")
        found: Env = {}
        for value, output in zip(values, outputs, strict=True):
            declared = output.type.shape
            wanted = declared if batch <= 1 else (batch, *declared[1:])
            if tuple(value.shape) != wanted:
                raise TargetError(f"shape {tuple(value.shape)} where {wanted} is declared: {step.operation.place}")
            found[output.name] = self.numerics.to_type(value, output.type.dtype) if step.rounds else value
        return found


def _with_frees(steps: list[Step], outputs: tuple[str, ...]) -> tuple[Step, ...]:
    """Notes at each step which values it is the last to read."""
    last: dict[str, int] = {}
    for i, step in enumerate(steps):
        for arguments in step.operation.arguments.values():
            last |= {a: i for a in arguments if isinstance(a, str)}
        last |= {o.name: i for o in step.operation.outputs}
    for output in outputs:
        last.pop(output, None)
    frees: dict[int, list[str]] = {}
    for name, i in last.items():
        frees.setdefault(i, []).append(name)
    return tuple(replace(step, frees=tuple(frees.get(i, ()))) for i, step in enumerate(steps))
