"""What an evaluated artifact is compared on besides, a stored step each: corrupted images, and layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cspedge import objects
from cspedge.config import Target
from cspedge.errors import TargetError
from cspedge.inputs import Ledger, Loaded, Quantized, Validation
from cspedge.options import RunOptions
from cspedge.steps import evaluate_inputs, float_model, guarded, opened
from cspedge.types import ArtifactResult, Precision

if TYPE_CHECKING:
    from cspedge.devices.lab import Lab
    from cspedge.quantize.placement import PlacedModel
    from cspedge.robustness import Condition


def robustness(
    row: ArtifactResult,
    conditions: Sequence[Condition],
    loaded: Loaded,
    options: RunOptions,
    ledger: Ledger,
    lab: Lab | None = None,
) -> ArtifactResult:
    """An evaluated int8 artifact under each condition; float ones give fp32's answers wherever they do on clean images.

    lab: as in `evaluate`.
    """
    if row.precision.is_float or row.evaluation is None or not conditions:
        return row
    from cspedge.digest import sha256_json
    from cspedge.evaluate.answers import session_answers, vectors
    from cspedge.robustness import judged

    def step(row: ArtifactResult) -> ArtifactResult:
        artifact = row.artifact
        assert artifact is not None
        task = f"robustness {artifact.label}"

        def build(folder: Path) -> Mapping[str, object]:
            session, _, batch = opened(artifact, loaded, options, ledger, lab)
            answer, output, bar = session_answers(session, artifact), loaded.info.outputs[0], ledger.ui.progress(task)
            for condition in conditions:
                whose = f"the artifact {artifact.label} under {condition.corruption.name}"
                pixels = condition.images.images
                found = vectors(answer, output, pixels, whose=whose, error=TargetError, batch=batch, progress=bar)
                objects.write_array(condition.corruption.name, found, folder)
            return {}

        images = sha256_json([[condition.corruption.name, condition.digest] for condition in conditions])
        inputs = evaluate_inputs(artifact, images, options, ledger, lab)
        stored = ledger.stage(task, "robustness", inputs, build)
        found = [judged(c, objects.read_array(c.corruption.name, stored)) for c in conditions]
        return replace(row, robustness=tuple(found))

    return guarded(row, step, options, ledger)


def trace(
    row: ArtifactResult,
    target: Target,
    loaded: Loaded,
    quantized: Quantized | None,
    validation: Validation,
    options: RunOptions,
    ledger: Ledger,
) -> ArtifactResult:
    """A Core ML artifact beside PT2E layer by layer; others as they are. target: as it was lowered."""
    from cspedge import layers, lowering

    if target.backend != layers.BACKEND:
        return row

    def step(row: ArtifactResult) -> ArtifactResult:
        artifact = row.artifact
        assert artifact is not None
        int8 = artifact.precision is Precision.INT8 and quantized is not None

        def placed() -> PlacedModel:
            model = quantized.model() if int8 and quantized else float_model(loaded)
            return lowering.placed_for(model, target, artifact.precision, artifact.float_tensors)

        basis = [loaded.stored.digest, *([quantized.stored.digest] if int8 and quantized else [])]
        with lowering.sdk_errors(target, artifact.precision, "trace"):
            return replace(row, trace=layers.traced(artifact, target, placed, basis, validation, ledger))

    return guarded(row, step, options, ledger)
