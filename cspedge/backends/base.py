"""The Protocol every runtime satisfies: lower, load, run, audit, read back, availability."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cspedge.quantize.placement import PlacedModel
    from cspedge.types import Audit, Evidence, Precision


@dataclass(frozen=True, kw_only=True)
class Availability:
    """Whether a runtime can be used here; `reason` names what is missing and the extra to install."""

    ok: bool
    reason: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ReadbackActivation:
    """One activation quantizer found in a saved artifact, in int8 terms (zero point in [-128, 127])."""

    where: str  # the artifact's own name for the place
    scale: float
    zero_point: int


@dataclass(frozen=True, kw_only=True)
class ReadbackWeight:
    """One quantized weight found in a saved artifact.

    values: int8, the output channel first and otherwise flattened in the order of torch's OIHW layout
    ([O, I/groups, kH, kW] for a convolution, [O, I] for a linear); scales: float32 [O].
    """

    where: str
    values: NDArray[np.int8]
    scales: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Readback:
    """Every quantizer a saved artifact carries, read from its file alone."""

    activations: tuple[ReadbackActivation, ...]
    weights: tuple[ReadbackWeight, ...]
    half_scales: bool = False  # the format stores scales in fp16


class Session(Protocol):
    """A loaded artifact; the manifest names its outputs. A runtime of batch 1 loops over the images inside."""

    evidence: Evidence

    def run(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """images: float32 [n, 3, H, W], RGB in [0, 1]; returns each output, float32 [n, ...], in the model's order."""
        ...


class Backend(Protocol):
    """One runtime. Implementations are stateless; their SDKs are imported inside the methods."""

    name: str
    suffix: str  # of the artifact: ".pte", ".onnx", ".xml", ".mlpackage"
    code_version: int  # raised by hand when lowering changes, so that stored results are made anew

    def availability(self) -> Availability:
        """Whether the SDK is here; never raises."""
        ...

    def lower(self, model: PlacedModel, precision: Precision, path: Path, options: Mapping[str, object]) -> None:
        """Writes the artifact to `path` (a new name in an existing folder), the same bytes every time.

        Raises TargetError naming op and module path where the runtime cannot take the graph.
        """
        ...

    def load(self, path: Path, *, threads: int, options: Mapping[str, object]) -> Session:
        """Loads the artifact from its file. Raises TargetError where the runtime refuses it."""
        ...

    def readback(self, path: Path) -> Readback:
        """Scales, zero points and integer weights found in the saved file, nothing from memory."""
        ...

    def audit(self, path: Path, model: PlacedModel) -> Audit:
        """Shares of ops and multiply-accumulates that run in int8, and the float islands.

        `encodings_match` is left None; the structural check (`cspedge.quantize.parity`) fills it.
        """
        ...
