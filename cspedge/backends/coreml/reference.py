"""The MIL reference executor: runs a saved `.mlpackage` with torch, in the artifact's own precision, on any system.

Core ML runs on Apple's systems only. This evaluates the same program op by op from the file:

    program = load("model.mlpackage")
    logits = program.run({"image": image})["logits"]

fp16 where the program says fp16 (by default float32 arithmetic, one rounding per op; `Numerics` names the other
choices), int8 codes where it quantizes. It says what the program means, not what a Neural Engine's kernels make of it;
an op or a parameter it does not know is a TargetError, never a guess. docs/coreml.md lists what is known.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cspedge.backends.coreml.engine import KNOWN, Engine
from cspedge.backends.coreml.numerics import Accumulate, Numerics, Rounding, Ties
from cspedge.backends.coreml.package import SavedProgram, Value, read_program
from cspedge.errors import InputError, TargetError
from cspedge.threads import torch_threads
from cspedge.types import Evidence

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import ArrayLike, NDArray

    from cspedge.backends.coreml.call import Env

__all__ = ["KNOWN", "Accumulate", "Executor", "Numerics", "Program", "ReferenceSession", "Rounding", "Ties", "load"]

# Every run has this many images, the last one repeated where there are fewer: torch picks a convolution's algorithm by
# batch size, and int8 rounding makes a whole step of its last bits. 4 costs 1.3 times the time of 8, which a single
# image would also take.
BATCH = 4


def load(path: str | os.PathLike[str], *, numerics: Numerics | None = None) -> Program:
    """Reads a saved `.mlpackage` with an ML program and makes it ready to run.

    Nothing in the file is trusted: paths out of the package, damaged weights and values without a definition raise
    TargetError, which names the op, its place, its opset and what is allowed. numerics: see `Numerics`.
    """
    return Program(Engine(read_program(Path(path)), numerics or Numerics()))


class Program:
    """A package that `load` made ready. It takes the shapes that the file declares, usually one image."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def inputs(self) -> tuple[Value, ...]:
        """Name, element type and shape of each input. An image input is a tensor [1, channels, H, W] of 0 to 255."""
        return self._engine.program.inputs

    @property
    def outputs(self) -> tuple[Value, ...]:
        """Name, element type and shape of each output."""
        return tuple(Value(name=name, type=self._engine.types[name]) for name in self._engine.program.outputs)

    @property
    def opset(self) -> str:
        """MIL's name of the opset, from `CoreML5` (iOS 15) to `CoreML8` (iOS 18)."""
        return self._engine.program.opset

    @property
    def source(self) -> SavedProgram:
        """The operations and constants as the file has them."""
        return self._engine.program

    def run(self, inputs: Mapping[str, ArrayLike]) -> dict[str, NDArray[Any]]:
        """The outputs by name, in their declared types (fp16 as numpy.float16).

        inputs: one array per input, of its shape; numbers are converted to its type. Raises InputError naming the
        input that is missing, unknown or of another shape, and TargetError where NaN reaches a quantizer.
        """
        import torch

        with torch.inference_mode():
            found = self._engine.run(self._tensors(inputs), 1)
        return {name: self._array(name, value) for name, value in found.items()}

    def trace(self, inputs: Mapping[str, ArrayLike]) -> dict[str, NDArray[Any]]:
        """Every value that the program computes, by name, in program order and as `run` gives them."""
        import torch

        kept: Env = {}
        with torch.inference_mode():
            self._engine.run(self._tensors(inputs), 1, kept)
        return {name: self._array(name, value) for name, value in kept.items()}

    def _tensors(self, inputs: Mapping[str, ArrayLike]) -> Env:
        names = {i.name for i in self.inputs}
        for name in sorted(set(inputs) ^ names):
            what = "is missing" if name in names else "is not one of the program's"
            raise InputError(f"the input {name!r} {what}; it takes {', '.join(map(repr, sorted(names)))}")
        return {i.name: _tensor(i, inputs[i.name]) for i in self.inputs}

    def _array(self, name: str, value: torch.Tensor) -> NDArray[Any]:
        import numpy as np

        array: NDArray[Any] = value.contiguous().numpy()
        if self._engine.types[name].dtype == "fp16" and self._engine.numerics.rounding is not Rounding.NONE:
            return array.astype(np.float16)
        return array


def _tensor(wanted: Value, given: ArrayLike) -> torch.Tensor:
    """The array in the type an input declares, fp16 held as float32."""
    import numpy as np
    import torch

    array = np.asarray(given)
    if array.shape != wanted.type.shape or array.dtype.kind not in "fiub":
        raise InputError(
            f"the input {wanted.name!r} got {array.dtype} {list(array.shape)}; "
            f"it takes {wanted.type.dtype} {list(wanted.type.shape)}"
        )
    kinds: dict[str, type] = {"fp16": np.float16, "fp32": np.float32, "int32": np.int32, "bool": np.bool_}
    if wanted.type.dtype not in kinds:
        raise TargetError(f"the input {wanted.name!r} is {wanted.type.dtype}; implemented: {', '.join(kinds)}")
    converted: NDArray[Any] = array.astype(kinds[wanted.type.dtype])
    return torch.from_numpy(converted.astype(np.float32) if wanted.type.dtype == "fp16" else converted)


class Executor:
    """An image classifier's program, for any number of images.

    The program is static in batch 1; any number of images can be run, and an image's result does not depend on the
    others. Where an op mixes the batch axis with others, `one_by_one` names it and images are run singly.
    """

    def __init__(self, program: SavedProgram, numerics: Numerics | None = None) -> None:
        """Raises TargetError naming op and place for everything that is not implemented."""
        kind = program.input.type
        if len(kind.shape) != 4 or kind.shape[0] != 1 or kind.dtype != "fp32":
            raise TargetError(f"the program takes {kind.dtype} {list(kind.shape)}; allowed: fp32 [1, 3, H, W]")
        self.program = program
        self._engine = Engine(program, numerics or Numerics())
        self.one_by_one = self._engine.one_by_one

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """images: float32 [n, 3, H, W] in [0, 1]; returns the program's outputs, float32 [n, ...]."""
        import torch

        with torch.inference_mode():
            rows = [[o[:count] for o in self._run(batch, None)] for batch, count in self._batches(images)]
            return tuple(torch.cat(column) for column in zip(*rows, strict=True))

    def trace(self, images: torch.Tensor, given: Mapping[str, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
        """Every intermediate value of a run on `images`, by name, in its own type (fp16 as torch.float16).

        Values of several images are joined along their first axis. given: values of all images by name, which later
        ops read in place of those computed here; a value of type fp16 is rounded to it.
        """
        import torch

        parts: dict[str, list[torch.Tensor]] = {}
        done = 0
        with torch.inference_mode():
            for batch, count in self._batches(images):
                kept: Env = {}
                others = {k: self._held(k, v[done : done + count], len(batch)) for k, v in (given or {}).items()}
                self._run(batch, kept, others)
                done += count
                for name, value in kept.items():
                    parts.setdefault(name, []).append(value[:count] if not self.one_by_one else value)
        joined = {name: torch.cat(values) for name, values in parts.items()}
        return {k: v.half() if self._engine.types[k].dtype == "fp16" else v for k, v in joined.items()}

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

    def _held(self, name: str, value: torch.Tensor, size: int) -> torch.Tensor:
        """A value as the engine holds it, filled up to a batch of `size` with its last image."""
        import torch

        if self._engine.types[name].dtype == "fp16" and self._engine.numerics.rounding is not Rounding.NONE:
            value = value.half().float()
        missing = size - len(value)
        return torch.cat([value, value[-1:].expand(missing, *value.shape[1:])]) if missing else value

    def _run(self, images: torch.Tensor, kept: Env | None, given: Env | None = None) -> tuple[torch.Tensor, ...]:
        import torch

        # channels last halves the time of depthwise convolutions on x86
        inputs = {self.program.input.name: images.float().contiguous(memory_format=torch.channels_last)}
        found = self._engine.run(inputs, len(images), kept, given)
        for name, value in found.items():
            if not bool(torch.isfinite(value).all()):
                raise TargetError(
                    f"the output {name!r} is not finite: values leave the range of float16; "
                    "use fp32 precision for this model"
                )
        return tuple(value.contiguous() for value in found.values())


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
