"""The stages as typed functions over frozen values: the product. The command line calls the same ones."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cspedge.errors import InputError, TargetError, UsageError
from cspedge.measured import Latency
from cspedge.models.reference import Reference
from cspedge.models.reference import load_reference as load_reference  # one of the stages
from cspedge.types import Artifact, ArtifactResult, Audit, Evaluation, Head, ImageSet, Precision, Status

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cspedge.backends.base import Session
    from cspedge.config import Recipe
    from cspedge.data.images import ImageList
    from cspedge.quantize.placement import QuantizedModel

Progress = Callable[[int, int], None]


def list_images(source: str | Path | None, split: str) -> ImageList:
    """Lists a folder of images, or the built-in digits' `train` or `val` split for None. Raises InputError."""
    from cspedge.data.digits import digits
    from cspedge.data.images import scan

    return digits(split) if source is None else scan(Path(source))


def collect_calibration(
    reference: Reference,
    source: str | Path | None = None,
    *,
    count: int = 512,
    seed: int = 0,
    stratified: bool = True,
    max_unreadable: float = 0.01,
    progress: Progress | None = None,
) -> ImageSet:
    """Draws `count` different images (evenly over the class folders where `stratified`) and preprocesses them.

    source: a folder, or None for the built-in digits' train split. Returns uint8 [n, 3, H, W]; the same seed draws the
    same images on every machine. Raises InputError for a bad folder, fewer images than `count`, or more than
    `max_unreadable` (a share) unreadable ones.
    """
    from cspedge.data.images import load
    from cspedge.data.sampling import sample

    images = list_images(source, "train")
    chosen = sample(images, count, seed=seed, stratified=stratified)
    return load(images, chosen, reference.info.preprocess, max_unreadable=max_unreadable, progress=progress)


def collect_validation(
    reference: Reference,
    source: str | Path | None = None,
    *,
    max_unreadable: float = 0.01,
    progress: Progress | None = None,
) -> ImageSet:
    """Preprocesses a labelled folder (one subfolder per class), or the built-in digits' held-out split for None.

    Returns uint8 [n, 3, H, W] with int64 labels, which only logits need: for other heads any folder of images will do.
    Raises InputError for a bad folder or labels the model does not have.
    """
    from cspedge.data.images import labels_for, load

    images = list_images(source, "val")
    labels = None
    if reference.info.head == Head.LOGITS:
        labels = labels_for(images, reference.info.labels, num_classes=reference.info.num_classes)
    return load(
        images, None, reference.info.preprocess, labels=labels, max_unreadable=max_unreadable, progress=progress
    )


def reference_device_kind() -> str:
    """`cuda` or `cpu`: where the reference runs here."""
    from cspedge.evaluate.answers import reference_device_kind as kind

    return kind()


def reference_logits(
    reference: Reference,
    images: ImageSet,
    *,
    threads: int = 1,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """The fp32 reference's logits (or embeddings, by its head), float32 [n, d]: CUDA where there is one, else CPU.

    threads: of torch on the CPU; the last bit of a sum depends on it. Raises UsageError for feature maps, which are
    compared as they come (`evaluate`), InputError where the reference answers NaN.
    """
    from cspedge.evaluate.answers import reference_answers, vectors

    if reference.info.head == Head.FEATURES:
        raise UsageError("feature maps are not collected; give the reference itself to `evaluate`")
    output = reference.info.outputs[0]
    with reference_answers(reference, threads) as answer:
        return vectors(
            answer,
            output,
            images.images,
            whose="the fp32 reference",
            error=InputError,
            batch=batch_size,
            progress=progress,
        )


def quantize(
    reference: Reference,
    calibration: ImageSet | None,
    *,
    recipe: str | Recipe = "default",
    training: ImageSet | None = None,
    threads: int = 1,
    progress: Progress | None = None,
) -> QuantizedModel:
    """Calibrates once: one set of encodings and integer weights for every target.

    training: images to learn from, for recipes that want others than the calibration's (`qat`);
    threads: of torch; another number may move a scale by its last bit.
    calibration None: no encodings, for float artifacts only. Raises UsageError for an unknown recipe, InputError for
    activations that are not finite, TargetError where torch.export cannot trace the model.
    """
    from cspedge.config import known_placements, load_recipe
    from cspedge.quantize.encodings import Encodings
    from cspedge.quantize.graph import prepare
    from cspedge.quantize.placement import QuantizedModel
    from cspedge.quantize.quantizer import quantize as run
    from cspedge.threads import torch_threads

    shape = reference.info.preprocess.input_size
    with torch_threads(threads):
        graph = prepare(reference.module, shape, [o.name for o in reference.info.outputs])
    if calibration is None:
        return QuantizedModel(
            graph=graph, input_shape=shape, encodings=Encodings(activations={}, weights={}), integer_weights={}
        )
    chosen = load_recipe(recipe) if isinstance(recipe, str) else recipe
    with torch_threads(threads):
        return run(
            graph,
            shape,
            calibration.images,
            chosen.quantizer,
            known_placements(),
            more_images=None if training is None else training.images,
            progress=progress,
        )


def lower(
    model: QuantizedModel,
    target: str,
    precision: Precision | str = Precision.INT8,
    *,
    out: str | Path,
    name: str = "model",
    check_images: NDArray[np.uint8] | None = None,
    keep: Collection[str] = (),
) -> Artifact:
    """Lowers to one target; the artifact is loaded from its file, run, compared and read back before it is returned.

    Writes `out/<name>.<precision><suffix>`. check_images: uint8 [n, 3, H, W] real images for the comparison; keep:
    tensors that stay in float, by their names in encodings.json. Raises UsageError, RuntimeMissingError or TargetError.
    """
    from cspedge import atomic
    from cspedge.lowering import lower as lower_one

    if Precision(precision) is Precision.INT8 and not model.encodings.activations:
        raise UsageError("this model was not calibrated, so it has no int8; quantize it with calibration images first")
    folder = Path(out)
    atomic.make_folder(folder)
    with atomic.staging(folder) as draft:
        artifact = lower_one(model, target, precision, draft, name=name, check_images=check_images, keep=keep)
        final = folder / artifact.path.name
        atomic.publish(artifact.path, final)
    from dataclasses import replace

    return replace(artifact, path=final)


def open_session(artifact: Artifact, *, threads: int = 1) -> Session:
    """Loads an artifact from its file. Raises RuntimeMissingError or TargetError."""
    from cspedge.config import load_target
    from cspedge.lowering import require, sdk_errors

    target = load_target(artifact.target)
    backend = require(target)
    with sdk_errors(target, artifact.precision, "load"):
        return backend.load(artifact.path, threads=threads, options=target.options)


def evaluate(
    artifact: Artifact,
    images: ImageSet,
    reference: Reference,
    *,
    logits: NDArray[np.float32] | None = None,
    threads: int = 1,
    progress: Progress | None = None,
) -> Evaluation:
    """Runs the artifact on every image and compares its outputs with the reference's.

    logits: what `reference_logits` gave for the same images, so that the reference need not run again. Raises
    TargetError where the artifact fails to run or answers NaN, InputError where logits are asked for and images have no
    labels.
    """
    from cspedge.evaluate.answers import judged, reference_answers, session_answers, streamed, vectors

    session = open_session(artifact, threads=threads)
    answer, whose = session_answers(session, artifact), f"the artifact {artifact.label}"
    head, outputs = Head(reference.info.head), reference.info.outputs
    if head is Head.FEATURES:
        with reference_answers(reference, threads) as expected:
            rows = streamed(expected, answer, outputs, images.images, whose=whose, progress=progress)
        return Evaluation(vectors=None, accuracy=None, outputs=rows, evidence=session.evidence)
    wanted = reference_logits(reference, images, threads=threads) if logits is None else logits
    found = vectors(answer, outputs[0], images.images, whose=whose, error=TargetError, progress=progress)
    return judged(outputs[0], head, wanted, found, images.labels, session.evidence)


def bench(
    artifacts: Sequence[Artifact],
    images: ImageSet,
    *,
    threads: int = 1,
    rounds: int = 10,
    per_round: int = 10,
    seed: int = 0,
    progress: Progress | None = None,
) -> Mapping[str, Latency | str]:
    """Single-image latency in this process, all artifacts in every round; by label, a reason where one dropped out.

    At least 50 timed inferences each (UsageError below). Artifacts that do not run natively here (Core ML off a Mac)
    are left out: an emulation's time says nothing.
    """
    from cspedge.devices import here
    from cspedge.devices.rounds import Plan

    plan = Plan(threads=threads, rounds=rounds, per_round=per_round, seed=seed)
    return here.bench(artifacts, images.images[:1], plan, progress)


def audit(artifact: Artifact) -> Audit | None:
    """What runs in int8 and what does not, as found in the saved file when the artifact was lowered."""
    return artifact.audit


def write_report(
    reference: Reference,
    *,
    validation: ImageSet,
    logits: NDArray[np.float32] | None = None,
    artifacts: Sequence[Artifact],
    evaluations: Mapping[str, Evaluation],
    latencies: Mapping[str, Latency | str] | None = None,
    calibration: ImageSet | None = None,
    recipe: str | Recipe = "default",
    thumbnails: bool = True,
    out: str | Path,
) -> dict[str, Any]:
    """Writes `report.json` (schema 1) and `report.html` into `out` and returns the report.

    logits: the reference's logits or embeddings, None for feature maps; evaluations and latencies by artifact label
    (`openvino/int8`); thumbnails: whether small pictures of images whose answer flips go along. Raises UsageError where
    the report would break its schema, WorkspaceError where `out` cannot be written.
    """
    from cspedge import atomic
    from cspedge.config import load_recipe
    from cspedge.data.images import overlap
    from cspedge.report import build, render

    rows = []
    for artifact in artifacts:
        latency = (latencies or {}).get(artifact.label)
        rows.append(
            ArtifactResult(
                target=artifact.target,
                backend=artifact.backend,
                precision=artifact.precision,
                status=Status.OK,
                artifact=artifact,
                evaluation=evaluations.get(artifact.label),
                latency=latency if isinstance(latency, Latency) else None,
            )
        )
    report = build.build_report(
        reference.info,
        vectors=logits,
        validation=build.images_entry(validation),
        labels=validation.labels,
        calibration=None
        if calibration is None
        else build.calibration_entry(
            calibration,
            recipe=load_recipe(recipe) if isinstance(recipe, str) else recipe,
            overlap=len(overlap(calibration.digests, validation.digests)),
        ),
        results=rows,
        images=validation,
        thumbnails=thumbnails,
    )
    folder = Path(out)
    atomic.make_folder(folder)
    atomic.write_json(folder / "report.json", report)
    atomic.write_text(folder / "report.html", render(report))
    return report
