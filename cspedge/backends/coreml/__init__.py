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


COMPUTE = "int8_compute"


class CoreMLBackend:
    """The Core ML backend. Scales in its int8 artifacts are float16 values (see `lower`).

    Option `int8_compute` ("fp16", the default, or "fp32"): what int8 artifacts compute in between their int8 tensors.
    The Neural Engine has no fp32, such a program runs on CPU and GPU; but fp16 has 11 bits, so of the codes up to 255
    some three in a hundred are rounded to a neighbour (measured on lcnet_050: agreement with the other runtimes 96 %).
    """

    name = "coreml"
    suffix = ".mlpackage"
    code_version = 3

    def availability(self) -> Availability:
        """Whether coremltools is installed; it is enough off macOS too, where the reference executor runs the file."""
        from cspedge.backends.sdk import installed

        return installed("coreml", "coremltools")

    def lower(self, model: PlacedModel, precision: Precision, path: Path, options: Mapping[str, object]) -> None:
        """Writes an `.mlpackage` for iOS 17 / macOS 14; see `cspedge.backends.coreml.lower`."""
        from cspedge.backends.coreml.lower import lower

        lower(model, precision, path, int8_compute=_compute(options))

    def load(self, path: Path, *, threads: int, options: Mapping[str, object]) -> Session:
        """Core ML itself on macOS (evidence: measured), the reference executor elsewhere."""
        from cspedge.backends.coreml.session import load

        _compute(options)
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


def _compute(options: Mapping[str, object]) -> Precision:
    """The option's value; UsageError naming an unknown option or value."""
    from cspedge.errors import UsageError

    for key in sorted(set(options) - {COMPUTE}):
        raise UsageError(f"backend 'coreml' knows no option {key!r}; valid options: {COMPUTE}")
    value = options.get(COMPUTE, "fp16")
    if value not in {"fp16", "fp32"}:
        raise UsageError(f"coreml's option {COMPUTE} is {value!r}; allowed: 'fp16', 'fp32'")
    return Precision(str(value))


BACKEND = CoreMLBackend()
