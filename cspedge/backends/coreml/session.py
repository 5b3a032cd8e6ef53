"""Loading a package: Core ML's own `predict` on macOS, the reference executor elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cspedge.backends.coreml.package import read_program
from cspedge.backends.coreml.quiet import import_coremltools, quiet
from cspedge.backends.coreml.reference import ReferenceSession
from cspedge.errors import TargetError
from cspedge.types import Evidence

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cspedge.backends.base import Session


def load(path: Path, *, threads: int) -> Session:
    """The session this machine can give. Raises TargetError where the package is damaged or cannot be run."""
    if sys.platform == "darwin":
        return CoreMLSession(path)
    return ReferenceSession(path, threads=threads)


class CoreMLSession:
    """Core ML itself, on macOS 14 or later, one image at a time.

    Compute units are left to Core ML, as in an app; it has no thread setting, so none is taken. Written against
    coremltools' documented API and never run by its authors' tests, which have no Mac.
    """

    evidence = Evidence.MEASURED

    def __init__(self, path: Path) -> None:
        program = read_program(path)  # contains every path before Core ML follows them
        ct = import_coremltools()
        self._input, self._outputs = program.input.name, program.outputs
        try:
            with quiet():
                self._model: Any = ct.models.MLModel(str(path))
        except Exception as error:  # the bridge raises RuntimeError, NSError texts and more
            raise TargetError(f"Core ML cannot load {path.name!r}: {str(error).strip().splitlines()[0]}") from error

    def run(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """images: float32 [n, 3, H, W], RGB in [0, 1]; returns each output, float32 [n, ...]."""
        import numpy as np

        rows = []
        for image in np.ascontiguousarray(images, dtype=np.float32):
            try:
                found = self._model.predict({self._input: image[None]})
            except Exception as error:  # as above
                raise TargetError(f"Core ML's predict failed: {str(error).strip().splitlines()[0]}") from error
            rows.append([np.asarray(found[name], dtype=np.float32) for name in self._outputs])
        return tuple(np.concatenate(column) for column in zip(*rows, strict=True))
