"""The MIL reference executor: runs a saved `.mlpackage` with torch, in the artifact's own precision.

Core ML runs on Apple's systems only. This evaluates the same program op by op from the file: fp16 where the program
says fp16 (float32 arithmetic, one rounding per op), int8 codes where it quantizes. It says what the program means,
not what a Neural Engine's kernels make of it; an op or a parameter it does not know is a TargetError, never a guess.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cspedge.backends.coreml.call import FLOATS, Call, round_to
from cspedge.backends.coreml.ops import ARITHMETIC, CHOOSING
from cspedge.backends.coreml.ops_layout import MOVING
from cspedge.backends.coreml.package import Operation, Program, TensorType, read_program
from cspedge.errors import TargetError
from cspedge.threads import torch_threads
from cspedge.types import Evidence

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from cspedge.backends.coreml.call import Env, Kernel

# Every run has this many images, the last one repeated where there are fewer: torch picks a convolution's algorithm by
# batch size, and int8 rounding makes a whole step of its last bits. 4 costs 1.3 times the time of 8, which a single
# image would also take.
BATCH = 4
KNOWN = frozenset({*ARITHMETIC, *CHOOSING, *MOVING})


@dataclass(frozen=True, kw_only=True)
class _Step:
    operation: Operation
    kernel: Kernel
    rounds: bool
    frees: tuple[str, ...]  # values nobody reads after this step


class Executor:
    """A program made ready: parameters checked, constants resolved, weights dequantized, once.

    The program is static in batch 1; any number of images can be run, and an image's result does not depend on the
    others. Where an op mixes the batch axis with others, `one_by_one` names it and images are run singly.
    """

    def __init__(self, program: Program) -> None:
        """Raises TargetError naming op and place for everything that is not implemented."""
        self.program = program
        self.one_by_one = ""
        self._constants: Env = {}
        self._types: dict[str, TensorType] = {program.input.name: program.input.type}
        shape = program.input.type.shape
        if len(shape) != 4 or shape[0] != 1 or program.input.type.dtype != "fp32":
            raise TargetError(f"the program takes {program.input.type.dtype} {list(shape)}; allowed: fp32 [1, 3, H, W]")
        steps = [step for operation in program.operations if (step := self._build(operation)) is not None]
        for name in program.outputs:
            if name not in self._types:
                raise TargetError(f"the program's output {name!r} is computed nowhere")
        self._steps = _with_frees(steps, program.outputs)

    def _build(self, operation: Operation) -> _Step | None:
        builder = ARITHMETIC.get(operation.type) or CHOOSING.get(operation.type) or MOVING.get(operation.type)
        if builder is None:
            raise TargetError(
                f"coreml: the reference executor does not know the op {operation.type!r}: {operation.place}"
            )
        call = Call(operation=operation, types=self._types, constants=self.program.constants, env=self._constants)
        kernel = builder(call)
        call.finish()
        computing = operation.type in ARITHMETIC or operation.type in CHOOSING
        if computing and call.out.dtype not in FLOATS:
            raise call.refuse(f"arithmetic in {call.out.dtype}")
        for output in operation.outputs:
            if output.name in self._types or output.name in self._constants:
                raise TargetError(f"the name {output.name!r} is defined twice, last by {operation.place}")
            self._types[output.name] = output.type
        step = _Step(operation=operation, kernel=kernel, rounds=operation.type in ARITHMETIC, frees=())
        if operation.type.startswith("constexpr_"):
            self._constants.update(self._evaluate(step, self._constants, 0))
            return None
        if any(not o.type.shape or o.type.shape[0] != 1 for o in operation.outputs):
            call.single("a first axis that is not the batch")
        self.one_by_one = self.one_by_one or call.one_by_one
        return step

    def _evaluate(self, step: _Step, env: Env, batch: int) -> Env:
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
            found[output.name] = round_to(value, output.type.dtype) if step.rounds else value
        return found

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """images: float32 [n, 3, H, W] in [0, 1]; returns the program's outputs, float32 [n, ...]."""
        import torch

        with torch.inference_mode():
            rows = [[o[:count] for o in self._run(batch, None)] for batch, count in self._batches(images)]
            return tuple(torch.cat(column) for column in zip(*rows, strict=True))

    def trace(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Every intermediate value of a run on `images`, by name, in its own type (fp16 as torch.float16).

        Values of several images are joined along their first axis.
        """
        import torch

        parts: dict[str, list[torch.Tensor]] = {}
        with torch.inference_mode():
            for batch, count in self._batches(images):
                kept: Env = {}
                self._run(batch, kept)
                for name, value in kept.items():
                    parts.setdefault(name, []).append(value[:count] if not self.one_by_one else value)
        joined = {name: torch.cat(values) for name, values in parts.items()}
        return {k: v.half() if self._types[k].dtype == "fp16" else v for k, v in joined.items()}

    def _batches(self, images: torch.Tensor) -> Iterator[tuple[torch.Tensor, int]]:
        """Batches of the one size that is run, and how many of each are asked for."""
        import torch

        self._check(images)
        size = 1 if self.one_by_one else BATCH
        for batch in torch.split(images, size):
            missing = size - len(batch)
            yield torch.cat([batch, batch[-1:].expand(missing, -1, -1, -1)]) if missing else batch, len(batch)

    def _check(self, images: torch.Tensor) -> None:
        wanted = self.program.input.type.shape[1:]
        if tuple(images.shape[1:]) != wanted or images.dim() != 4 or len(images) == 0 or not images.is_floating_point():
            raise TargetError(
                f"images of shape {list(images.shape)} and type {images.dtype}; the artifact takes float32 "
                f"[n, {', '.join(map(str, wanted))}], n at least 1"
            )

    def _run(self, images: torch.Tensor, kept: Env | None) -> tuple[torch.Tensor, ...]:
        import torch

        # channels last halves the time of depthwise convolutions on x86
        env: Env = {
            **self._constants,
            self.program.input.name: images.float().contiguous(memory_format=torch.channels_last),
        }
        batch = len(images)
        for step in self._steps:
            found = self._evaluate(step, env, batch)
            env.update(found)
            if kept is not None:
                kept.update(found)
            for name in step.frees:
                env.pop(name, None)
        for name in self.program.outputs:
            if not bool(torch.isfinite(env[name]).all()):
                raise TargetError(
                    f"the output {name!r} is not finite: values leave the range of float16; "
                    "use fp32 precision for this model"
                )
        return tuple(env[name].contiguous() for name in self.program.outputs)


def _with_frees(steps: list[_Step], outputs: tuple[str, ...]) -> tuple[_Step, ...]:
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
    return tuple(
        _Step(operation=s.operation, kernel=s.kernel, rounds=s.rounds, frees=tuple(frees.get(i, ())))
        for i, s in enumerate(steps)
    )


class ReferenceSession:
    """A saved package under the reference executor."""

    evidence = Evidence.REFERENCE_EXECUTOR

    def __init__(self, path: Path, *, threads: int) -> None:
        self.executor = Executor(read_program(path))
        self.threads = threads

    def run(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """images: float32 [n, 3, H, W], RGB in [0, 1]; returns each output, float32 [n, ...]."""
        import numpy as np
        import torch

        with torch_threads(self.threads):
            found = self.executor(torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32)))
        return tuple(output.float().numpy() for output in found)
