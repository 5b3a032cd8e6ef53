"""Puts report.json (schema 1) together from the stages' values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from cspedge.types import ArtifactResult, Evidence, Head, ImageSet, Precision, Status

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cspedge.config import Recipe
    from cspedge.models.reference import ReferenceInfo
    from cspedge.quantize.explain import Explanation

EMULATED = (
    "evaluated by cspedge's MIL reference executor from the saved package; no Apple device took part, so the numbers "
    "hold for the program's arithmetic, not for a particular compute unit"
)


def build_report(
    info: ReferenceInfo,
    *,
    vectors: NDArray[np.float32] | None,
    labels: NDArray[np.int64] | None,
    validation: dict[str, Any] | None,
    calibration: dict[str, Any] | None,
    results: Sequence[ArtifactResult],
    tuning: dict[str, Any] | None = None,
    reference_device: str | None = None,
    budgets: Mapping[str, Mapping[str, float | None]] | None = None,
    stages: Sequence[Mapping[str, Any]] = (),
    notes: Sequence[str] = (),
    images: ImageSet | None = None,
    thumbnails: bool = True,
    explanations: Mapping[str, Explanation] | None = None,
    robustness: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The report as plain JSON values, checked against the schema.

    vectors: the reference's logits or embeddings, float32 [n, d], None for feature maps; labels: int64 [n]; tuning: the
    images of the accuracy loop, None without one; budgets: by target, in the verdict's words; images: those of the
    validation, of which the ones that flip are listed; thumbnails: whether the report may show small ones of them;
    explanations: by target, of every quantized tensor; robustness: of `cspedge.robustness.entry`.
    """
    from cspedge.devices.host import environment
    from cspedge.models.preprocess import manifest
    from cspedge.report.layers import layers_entry
    from cspedge.report.pairs import pair_notes
    from cspedge.report.schema import validate

    env = environment()
    pairs = _agreement(info, vectors, results)
    report = {
        "schema": 1,
        "model": {
            "name": info.name,
            "architecture": info.architecture,
            "head": info.head,
            "weights_sha256": info.weights_sha256,
            "params": info.params,
            "num_classes": info.num_classes,
            "labels": list(info.labels) or None,
            "outputs": [{"name": o.name, "shape": list(o.shape), "stride": o.stride} for o in info.outputs],
            "preprocess": manifest(info.preprocess),
        },
        "reference": _reference(info, vectors, labels, validation, reference_device or env["cpu"]),
        "calibration": calibration,
        "tuning": tuning,
        "validation": validation,
        "artifacts": [
            artifact_entry(r, (budgets or {}).get(r.target, {})) | {"images": _images(r, vectors, labels)}
            for r in results
        ],
        "agreement": pairs,
        "flips": _flips(info, vectors, images, results, thumbnails),
        "robustness": None if robustness is None else dict(robustness),
        "environment": env,
        "stages": [dict(s) for s in stages],
        "notes": [
            *notes,
            *_kept_notes(results),
            *_noise_notes(results),
            *_saturation_note(results, env),
            *pair_notes(results, pairs, env["isa"]),
        ],
    }
    if explanations:
        report["layers"] = layers_entry(explanations)
    validate(report)
    return report


def _reference(
    info: ReferenceInfo,
    vectors: NDArray[np.float32] | None,
    labels: NDArray[np.int64] | None,
    validation: Mapping[str, Any] | None,
    device: str,
) -> dict[str, Any]:
    """The reference's own figures; accuracy is of logits alone."""
    from cspedge.errors import InputError
    from cspedge.evaluate.metrics import accuracy
    from cspedge.report import single_images

    entry: dict[str, Any] = {"precision": "fp32", "device": device, "trained_on": info.trained_on}
    if info.head != Head.LOGITS:
        n = validation["n"] if validation is not None else 0
        return entry | {"top1": None, "top5": None, "macro_top1": None, "n": n}
    if labels is None or vectors is None:
        raise InputError("a report needs labelled validation images; give a folder with one subfolder per class")
    found = accuracy(vectors, vectors, labels)
    right = single_images.of_artifact(vectors, vectors, labels)["right"]
    return entry | {
        "top1": found.top1,
        "top5": found.top5,
        "macro_top1": found.macro_top1,
        "n": found.n,
        "right": right,
    }


def _images(
    result: ArtifactResult, reference: NDArray[np.float32] | None, labels: NDArray[np.int64] | None
) -> dict[str, str] | None:
    """Which images an artifact gets right, for comparisons with other runs; None where there are no logits."""
    from cspedge.report.single_images import of_artifact

    found = result.evaluation
    if found is None or found.accuracy is None or found.vectors is None or reference is None or labels is None:
        return None
    return of_artifact(found.vectors, reference, labels)


def _agreement(
    info: ReferenceInfo, vectors: NDArray[np.float32] | None, results: Sequence[ArtifactResult]
) -> list[dict[str, Any]]:
    """Every pair of artifacts, the reference among them; nothing for feature maps, which are not kept."""
    from cspedge.evaluate.metrics import agreement_matrix
    from cspedge.evaluate.outputs import neighbour_matrix
    from cspedge.report.schema import REFERENCE

    found = {r.label: r.evaluation.vectors for r in results if r.evaluation is not None}
    evaluated = {label: v for label, v in {REFERENCE: vectors, **found}.items() if v is not None}
    if len(evaluated) < 2:
        return []
    return agreement_matrix(evaluated) if info.head == Head.LOGITS else neighbour_matrix(evaluated)


def _flips(
    info: ReferenceInfo,
    vectors: NDArray[np.float32] | None,
    images: ImageSet | None,
    results: Sequence[ArtifactResult],
    thumbnails: bool,
) -> dict[str, Any] | None:
    from cspedge.report.contact import flips_entry

    if info.head != Head.LOGITS or vectors is None or images is None or images.labels is None:
        return None
    found = {r.label: r.evaluation.vectors for r in results if r.evaluation is not None}
    answers = {label: logits for label, logits in found.items() if logits is not None}
    return flips_entry(vectors, answers, images, thumbnails=thumbnails)


def images_entry(images: ImageSet) -> dict[str, Any]:
    """How a set of images stands in the report."""
    return {
        "n": len(images),
        "sha256": images.sha256,
        "source": images.source,
        "skipped": [{"name": s.name, "reason": s.reason} for s in images.skipped],
    }


def calibration_entry(
    images: ImageSet,
    *,
    recipe: Recipe,
    overlap: int,
    sampling: str | None = None,
    seed: int | None = None,
    training: ImageSet | None = None,
) -> dict[str, Any]:
    """The report's "calibration": which images, how they were drawn, and what the recipe did with them.

    overlap: images (by content) that validation holds too; sampling, seed: None where the caller drew the images;
    training: those that a recipe learns from besides.
    """
    from cspedge.digest import sha256_json

    return images_entry(images) | {
        "recipe": recipe.name,
        "recipe_summary": recipe.summary,
        "recipe_sha256": sha256_json({k: v for k, v in asdict(recipe).items() if k not in {"name", "summary"}}),
        "overlap_with_validation": overlap,
        "sampling": sampling,
        "seed": seed,
        "per_class": _per_class(images),
        "training": None if training is None else images_entry(training),
    }


def _per_class(images: ImageSet) -> dict[str, int] | None:
    """How many images the folders gave, None where they lie in no folders."""
    folders = Counter(name.rpartition("/")[0] for name in images.names)
    if len(folders) < 2:
        return None
    return {"classes": len(folders), "min": min(folders.values()), "max": max(folders.values())}


def artifact_entry(result: ArtifactResult, budget: Mapping[str, float | None]) -> dict[str, Any]:
    """One row of the report's "artifacts", with its verdict."""
    from cspedge.report.verdict import judge

    artifact, evaluation = result.artifact, result.evaluation
    evidence = evaluation.evidence if evaluation is not None else Evidence.NOT_RUN
    entry: dict[str, Any] = {
        "target": result.target,
        "backend": result.backend,
        "precision": str(result.precision),
        "status": str(result.status),
        "reason": result.reason,
        "path": f"{result.target}/{artifact.path.name}" if artifact else None,
        "bytes": artifact.bytes if artifact else None,
        "sha256": artifact.sha256 if artifact else None,
        "placement": artifact.placement if artifact else None,
        "evidence": str(evidence),
        "evidence_detail": EMULATED if evidence is Evidence.REFERENCE_EXECUTOR else None,
        "ran_on": None if evaluation is None or evaluation.ran_on is None else _plain(asdict(evaluation.ran_on)),
        "accuracy": None if evaluation is None or evaluation.accuracy is None else _plain(asdict(evaluation.accuracy)),
        "paired": None if evaluation is None or evaluation.paired is None else _plain(asdict(evaluation.paired)),
        "robustness": [_plain(asdict(row)) for row in result.robustness],
        "trace": None if result.trace is None else _plain(asdict(result.trace)),
        "outputs": [] if evaluation is None else [asdict(row) for row in evaluation.outputs],
        "pt2e": {"sqnr_db": artifact.check_sqnr_db, "max_abs_diff": artifact.check_max_abs} if artifact else None,
        "latency": _plain(asdict(result.latency)) if result.latency else None,
        "instructions": _plain(asdict(result.instructions)) if result.instructions else None,
        "audit": _audit(result),
        "lower_s": artifact.lower_s if artifact else None,
        "kept": _plain(asdict(result.kept)) if result.kept else None,
        "manifest": result.manifest,
    }
    verdict, reasons = judge(entry, budget)
    return entry | {"verdict": str(verdict), "reasons": reasons}


def _audit(result: ArtifactResult) -> dict[str, Any] | None:
    if result.artifact is None or result.artifact.audit is None or result.status is not Status.OK:
        return None
    found: dict[str, Any] = _plain(asdict(result.artifact.audit))
    return found


def _plain(value: Any) -> Any:
    """Tuples as JSON's lists, at any depth."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _kept_notes(results: Sequence[ArtifactResult]) -> list[str]:
    """How the accuracy loop ended for each int8 artifact, in its own words."""
    return [f"{r.label}, accuracy loop: {r.kept.reason}" for r in results if r.kept is not None]


def _noise_notes(results: Sequence[ArtifactResult]) -> list[str]:
    """Why the speeds of this bench may not be compared, once for all that it timed together."""
    checked = [r.latency.noise for r in results if r.latency is not None and r.latency.noise is not None]
    return list(dict.fromkeys(noise.sentence for noise in checked if noise.sentence is not None))


def _saturation_note(results: Sequence[ArtifactResult], env: Mapping[str, Any]) -> list[str]:
    """On x86 without VNNI, u8 x s8 products may saturate; the figures of that machine must say so (FACTS)."""
    from cspedge.config import load_target
    from cspedge.devices.host import saturates_u8s8

    affected = []
    for r in results:
        ran_on = None if r.evaluation is None else r.evaluation.ran_on
        isa = tuple(env["isa"]) if ran_on is None else ran_on.isa
        if r.precision is Precision.INT8 and load_target(r.target).saturated_check and saturates_u8s8(isa):
            affected.append(r.label)
    if not affected:
        return []
    return [
        f"This CPU has AVX2 without VNNI: 8-bit products may saturate in {', '.join(sorted(affected))}, "
        "so its answers here are not those on CPUs with VNNI or on Arm; validate it there before it ships."
    ]
