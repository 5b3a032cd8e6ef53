"""Runs a `.pte` in this process with the runtime of the executorch wheel."""

from __future__ import annotations

import os
import re
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cspedge.backends.executorch.program import whole_problem
from cspedge.errors import RuntimeMissingError, TargetError, UsageError
from cspedge.types import Evidence

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# XNNPACK's thread pool is one per process and a loaded method keeps a pointer to it: a new pool leaves older methods
# with a dangling one. So the sessions are known here, lose their methods before the pool is replaced, and load again
# when they are next used.
_sessions: weakref.WeakSet[ExecutorchSession] = weakref.WeakSet()


class ExecutorchSession:
    """A loaded `.pte` of one method, batch 1. `run` may be called from one thread at a time."""

    evidence = Evidence.MEASURED

    def __init__(self, path: Path, threads: int) -> None:
        if threads < 1:
            raise UsageError(f"threads={threads}; executorch runs on one thread or more")
        self.path = path
        self.threads = threads
        self._program: Any = None
        self._method: Any = None
        _sessions.add(self)
        meta = self._load().method_meta()
        if meta.num_inputs() != 1 or meta.num_outputs() < 1:
            raise TargetError(
                f"executorch: {path.name!r} takes {meta.num_inputs()} inputs and gives {meta.num_outputs()} outputs; "
                "an artifact of cspedge takes one image and gives at least one tensor"
            )
        self.input_shape = tuple(int(v) for v in meta.input_tensor_meta(0).sizes())

    def run(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """images: float32 [n, 3, H, W], RGB in [0, 1]; returns each output, float32 [n, ...].

        Raises TargetError where the size is not the artifact's or the runtime reports an error.
        """
        import numpy as np
        import torch

        if images.ndim != 4 or tuple(images.shape[1:]) != self.input_shape[1:]:
            raise TargetError(
                f"executorch: images of shape {tuple(images.shape)} do not fit {self.path.name!r}, "
                f"which takes [n, {', '.join(str(v) for v in self.input_shape[1:])}]"
            )
        method = self._ready()
        tensors = torch.from_numpy(np.ascontiguousarray(images, np.float32))
        rows = []
        for i in range(len(tensors)):
            try:
                # the next run writes into the same memory
                rows.append([t.numpy().astype(np.float32) for t in method([tensors[i : i + 1]])])
            except RuntimeError as error:
                raise TargetError(f"executorch: {self.path.name!r} fails to run: {_first_line(error)}") from error
        if not rows:
            meta = method.method_meta()
            sizes = [meta.output_tensor_meta(i).sizes() for i in range(meta.num_outputs())]
            return tuple(np.zeros((0, *(int(v) for v in size[1:])), np.float32) for size in sizes)
        return tuple(np.concatenate(column) for column in zip(*rows, strict=True))

    def _ready(self) -> Any:
        """The loaded method, loaded again where another session has replaced the thread pool."""
        if self._method is None or runtime()._threadpool_get_thread_count() != self.threads:
            return self._load()
        return self._method

    def _load(self) -> Any:
        library = runtime()
        problem = whole_problem(self.path)
        if problem:
            raise TargetError(f"executorch: {self.path.name!r} does not load: {problem}; make the artifact again")
        with _stderr_captured() as said:
            try:
                if library._threadpool_get_thread_count() != self.threads:
                    for session in _sessions:
                        session._method = session._program = None
                    library._unsafe_reset_threadpool(self.threads)
                # the strictest check there is; it does not notice a changed weight (digests do)
                strict = library.Verification.InternalConsistency
                self._program = library._load_program(str(self.path), program_verification=strict)
                self._method = self._program.load_method("forward")
            except RuntimeError as error:
                reason = _reason(said()) or _first_line(error)
                raise TargetError(f"executorch: {self.path.name!r} does not load: {reason}") from error
        return self._method


def runtime() -> Any:
    """The runtime's extension module, with kernels for q/dq outside a delegate linked in.

    `executorch.runtime` wraps the same module but imports `executorch.exir` with it: 5 s of CPU against 6 ms.
    """
    import torch  # noqa: F401  the extension links against libtorch, which this loads

    try:
        from executorch.extension.pybindings import _C
    except ImportError as error:
        raise RuntimeMissingError(f"the executorch runtime cannot be imported: {error}") from error
    return _C


@contextmanager
def _stderr_captured() -> Iterator[Any]:
    """Redirects file descriptor 2: the C++ side writes its reason for a failure (and chatter about the CPU) there."""
    with tempfile.TemporaryFile() as file:

        def said() -> str:
            file.seek(0)
            return file.read().decode(errors="replace")

        try:
            saved = os.dup(2)
        except OSError:  # no standard error to keep
            yield said
            return
        try:
            os.dup2(file.fileno(), 2)
            yield said
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def _reason(log: str) -> str:
    """The first message of the log that is neither about the CPU nor the pool: `[XNNCompiler.cpp:12] ...`."""
    for line in log.splitlines():
        found = re.search(r"\[?(\w+)\.(?:cpp|c|h):\d+\]?\s*(.*)", line)
        if found and found[1] not in {"cpuinfo_utils", "threadpool"} and found[2]:
            return str(found[2]).strip().rstrip(".")
    return ""


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
