"""Core ML: lowers to `.mlpackage`; runs it with Core ML on macOS and with the MIL reference executor elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cspedge.backends.base import Availability, Readback, Session
from cspedge.types import Precision

if TYPE_CHECKING:
    from cspedge.quantize.placement import PlacedModel
    from cspedge.types import Audit


class CoreMLBackend:
    """The Core ML backend. Scales in its int8 artifacts are float16 values (see `lower`)."""

    name = "coreml"
    suffix = ".mlpackage"
    code_version = 1

    def availability(self) -> Availability:
        """Whether coremltools is installed; it is enough off macOS too, where the reference executor runs the file."""
        from cspedge.backends.sdk import installed

        return installed("coreml", "coremltools")

    def lower(self, model: PlacedModel, precision: Precision, path: Path, options: Mapping[str, object]) -> None:
        """Writes an `.mlpackage` for iOS 17 / macOS 14; see `cspedge.backends.coreml.lower`."""
        from cspedge.backends.coreml.lower import lower

        no_options(options)
        lower(model, precision, path)

    def load(self, path: Path, *, threads: int, options: Mapping[str, object]) -> Session:
        """Core ML itself on macOS (evidence: measured), the reference executor elsewhere."""
        from cspedge.backends.coreml.session import load

        no_options(options)
        return load(path, threads=threads)

    def readback(self, path: Path) -> Readback:
        """Scales, zero points and integer weights of the saved program."""
        from cspedge.backends.coreml.package import read_program
        from cspedge.backends.coreml.readback import readback

        return readback(read_program(path))

    def audit(self, path: Path, model: PlacedModel) -> Audit:
        """What the saved program lets run in int8; Core ML does not tell what it chose on a device."""
        from cspedge.backends.coreml.audit import audit
        from cspedge.backends.coreml.package import read_program

        return audit(read_program(path), model)


def no_options(options: Mapping[str, object]) -> None:
    """Core ML takes no runtime options: UsageError naming the first one."""
    from cspedge.errors import UsageError

    for key in sorted(options):
        raise UsageError(f"backend 'coreml' knows no option {key!r}; it takes none")


BACKEND = CoreMLBackend()
