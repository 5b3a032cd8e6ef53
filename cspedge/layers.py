"""`--trace`: each Core ML package beside PT2E, layer by layer, as a stage of the store."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cspedge import stages
from cspedge.digest import pretty_json
from cspedge.errors import UsageError
from cspedge.options import RunOptions
from cspedge.types import Artifact

if TYPE_CHECKING:
    from cspedge.backends.coreml.tracing import Layer
    from cspedge.config import Target
    from cspedge.inputs import Ledger, Validation
    from cspedge.quantize.placement import PlacedModel
    from cspedge.store import StoredObject
    from cspedge.types import ImageSet

BACKEND = "coreml"  # the one whose saved program can be run value by value
IMAGES = 4  # every value of a network is kept for each of them


@dataclass(frozen=True, kw_only=True)
class TracedLayer:
    """One value of a Core ML package beside the same value of the placed graph in torch (PT2E).

    name: as in the package; module: path in the model; kind: MIL op. sqnr_db: None where both are equal (max_abs_diff
    is 0), where PT2E's value is all zero, and where values are not finite; max_abs_diff: None where those are not.
    Both are of what this layer does with PT2E's values before it; carried_db is where the package reads its own, None
    as sqnr_db.
    """

    name: str
    module: str
    kind: str
    sqnr_db: float | None
    max_abs_diff: float | None
    carried_db: float | None


@dataclass(frozen=True, kw_only=True)
class Trace:
    """A package layer by layer on n images; below limit_db a layer counts as different."""

    n: int
    limit_db: float
    layers: tuple[TracedLayer, ...]


def check(options: RunOptions, targets: Sequence[Target]) -> None:
    """UsageError where a trace is asked for and no target has a Core ML package, or no report is made."""
    if not options.trace:
        return
    if options.emit is not None:
        raise UsageError("--trace compares here, and --emit writes what runs elsewhere and no report; give one of them")
    if all(target.backend != BACKEND for target in targets):
        names = ", ".join(repr(target.name) for target in targets)
        raise UsageError(
            f"--trace compares Core ML packages layer by layer, and the targets asked for ({names}) make none; "
            "add --target coreml, or leave --trace out"
        )


def traced(
    artifact: Artifact, target: Target, model: Any, basis: Sequence[str], validation: Validation, ledger: Ledger
) -> Trace:
    """The stored trace of one Core ML artifact, made where it is not there yet.

    model: a function that gives the placed graph the artifact was lowered from; basis: digests of what that graph is
    made of. Raises TargetError where the package cannot be run.
    """
    images = _spread(validation.images)
    precision = artifact.precision
    limit = target.tolerance.float_sqnr_db if precision.is_float else target.tolerance.int8_sqnr_db

    def build(folder: Path) -> Mapping[str, object]:
        import numpy as np

        from cspedge.backends.coreml.tracing import compare
        from cspedge.threads import torch_threads

        placed: PlacedModel = model()
        pixels = validation.images.images[images].astype(np.float32) / np.float32(255)
        with torch_threads(1):
            rows = compare(artifact.path, placed, pixels)
        (folder / "layers.json").write_text(pretty_json([asdict(_plain(row)) for row in rows]), encoding="utf-8")
        return {"layers": len(rows)}

    from cspedge.lowering import require, target_inputs

    backend = require(target)
    inputs = {
        "artifact": artifact.sha256,
        "basis": list(basis),
        "images": [validation.stored.digest, images],
        "target": target_inputs(target)["placement"],
        "float_tensors": list(artifact.float_tensors),
        "backend_code": backend.code_version,
        "tools": stages.tool_versions(*stages.TORCH, "torchao") | dict(backend.availability().versions),
    }
    stored = ledger.stage(f"trace {artifact.label}", "trace", inputs, build)
    return Trace(n=len(images), limit_db=limit, layers=_read(stored))


def _spread(images: ImageSet) -> list[int]:
    """Indices of a few images, evenly over the set, whose order is by class."""
    count = min(IMAGES, len(images))
    return [index * len(images) // count for index in range(count)]


def _plain(layer: Layer) -> TracedLayer:
    """What JSON can hold: neither infinities nor NaN."""
    return TracedLayer(
        name=layer.name,
        module=layer.module,
        kind=layer.kind,
        sqnr_db=layer.sqnr_db if math.isfinite(layer.sqnr_db) else None,
        max_abs_diff=layer.max_abs if math.isfinite(layer.max_abs) else None,
        carried_db=layer.carried_db if math.isfinite(layer.carried_db) else None,
    )


def _read(stored: StoredObject) -> tuple[TracedLayer, ...]:
    rows = json.loads(stored.file("layers.json").read_text(encoding="utf-8"))
    return tuple(TracedLayer(**row) for row in rows)
