"""`cspedge run` and its parts: the stages in order, each taken from the store where its key is there."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from cspedge import api, atomic, stages
from cspedge.config import Budget, Recipe, Target, load_recipe, load_target
from cspedge.digest import sha256_json
from cspedge.errors import RuntimeMissingError, TargetError, UsageError
from cspedge.models import source as sources
from cspedge.resources import target_names
from cspedge.stages import CODE, StageRow
from cspedge.store import StageResult, Store
from cspedge.types import Artifact, ArtifactResult, Evaluation, Evidence, ImageSet, Latency, Precision, Status

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import fx

    from cspedge.data.images import ImageList
    from cspedge.models.reference import Reference, ReferenceInfo
    from cspedge.quantize.placement import QuantizedModel
    from cspedge.store import StoredObject


class Upto(IntEnum):
    """How far to go; each includes the ones before."""

    QUANTIZE = 1
    LOWER = 2
    EVALUATE = 3
    BENCH = 4


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What the user asked for. `precisions` empty: each target's own default; `targets` empty: all."""

    model: str | None = None
    weights: str | None = None
    calib: str | None = None
    val: str | None = None
    workspace: Path = Path(".cspedge")
    out: Path = Path("cspedge-out")
    targets: tuple[str, ...] = ()
    precisions: tuple[Precision, ...] = ()
    recipe: str = "default"
    calib_images: int | None = None
    allow_overlap: bool = False
    max_unreadable: float = 0.01
    threads: int = 1
    seed: int = 0
    rounds: int = 10
    per_round: int = 10
    budget: Budget | None = None


class Ui(Protocol):
    """Where progress goes; the command line prints it to stderr, the default is silent."""

    def progress(self, task: str) -> Callable[[int, int], None]: ...

    def finished(self, task: str, seconds: float, cached: bool, detail: str = "") -> None: ...

    def note(self, text: str) -> None: ...


class Silent:
    """A Ui that says nothing."""

    def progress(self, task: str) -> Callable[[int, int], None]:
        del task
        return lambda done, total: None

    def finished(self, task: str, seconds: float, cached: bool, detail: str = "") -> None:
        del task, seconds, cached, detail

    def note(self, text: str) -> None:
        del text


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run gave. `report` is None before the validation stage."""

    info: ReferenceInfo
    quantized: dict[str, Any] | None
    results: tuple[ArtifactResult, ...]
    stages: tuple[StageRow, ...]
    report: dict[str, Any] | None = None
    exit_code: int = 0
    files: tuple[str, ...] = ()


@dataclass
class _Ledger:
    """Which stages ran and which keys they used, in order."""

    store: Store
    ui: Ui
    name: str
    rows: list[StageRow] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    def stage(
        self, task: str, name: str, inputs: Mapping[str, object], build: Callable[[Path], Mapping[str, object]]
    ) -> StoredObject:
        key = self.store.key(name, CODE[name], inputs)
        if key not in self.keys:
            self.keys.append(key)

        def named_build(folder: Path) -> Mapping[str, object]:
            self.store.ref(self.name, self.keys)  # before it is built, so that a gc at the same moment spares it
            return build(folder)

        result: StageResult = self.store.stage(name, CODE[name], inputs, named_build)
        self.rows.append(StageRow(name=task, seconds=round(result.seconds, 3), cached=result.cached))
        self.ui.finished(task, result.seconds, result.cached)
        return result.object


@dataclass(frozen=True, kw_only=True)
class _Loaded:
    """The reference's stored description, and ways to get what is heavy only when a stage must really run."""

    stored: StoredObject
    info: ReferenceInfo
    reference: Callable[[], Reference]
    graph: Callable[[], fx.GraphModule]


def execute(options: RunOptions, upto: Upto = Upto.BENCH, ui: Ui | None = None) -> Outcome:
    """Runs the stages that `upto` needs and publishes what the user keeps into `options.out`.

    Raises UsageError, InputError, WorkspaceError; what befalls one target is a row in the results instead.
    """
    ui = ui or Silent()
    chosen = _targets(options)
    recipe = load_recipe(options.recipe)
    if options.model is None and options.weights is not None:
        raise UsageError("--weights needs MODEL, the timm name of the architecture the weights belong to")
    source = sources.resolve(options.model, options.weights)
    _check_data(options, upto, chosen)
    ledger = _Ledger(store=Store(options.workspace), ui=ui, name=f"run-{_run_name(source.name)}")
    loaded = _load(source, ledger)
    needs_int8 = upto is Upto.QUANTIZE or any(p is Precision.INT8 for _, ps in chosen for p in ps)
    validation_list = api.list_images(options.val, "val") if upto >= Upto.EVALUATE else None
    labels = None if validation_list is None else _labels(validation_list, loaded.info)  # before any work is done
    calibration: _Images | None = None
    overlap, notes = 0, list[str]()
    if needs_int8:
        calibration, overlap, notes = _calibration(options, recipe, loaded, validation_list, ledger)
    quantized = _quantize(calibration, recipe, loaded, ledger) if calibration else None
    outcome = Outcome(info=loaded.info, quantized=None, results=(), stages=())
    files: list[str] = []
    if quantized is not None:
        files += _publish_encodings(quantized[0], options.out)
        outcome = replace(outcome, quantized=_quantized_summary(quantized[0], calibration))
    results: list[ArtifactResult] = []
    if upto >= Upto.LOWER:
        for target, precisions in chosen:
            results += [_lower(target, p, loaded, quantized, calibration, options, ledger) for p in precisions]
        results = [_publish_artifact(r, loaded.info, quantized, calibration, options, files) for r in results]
    report = None
    if validation_list is not None:
        everything = tuple(range(len(validation_list)))
        validation, _ = _images("validation images", validation_list, everything, labels, options, loaded, ledger)
        logits, device = _reference_logits(loaded, validation, ledger)
        results = [_evaluate(r, validation, logits, options, ledger) for r in results]
        if upto >= Upto.BENCH:
            results = _bench(results, validation, options, ledger)
        report = _report(
            options, recipe, loaded, results, calibration, overlap, validation, logits, device, ledger, notes
        )
        files += _publish_report(report, options.out)
    if any(not row.cached for row in ledger.rows):
        ledger.store.ref(ledger.name, ledger.keys)
    return replace(
        outcome,
        results=tuple(results),
        stages=tuple(ledger.rows),
        report=report,
        exit_code=exit_code(results, report, options.budget),
        files=tuple(files),
    )


def exit_code(results: list[ArtifactResult], report: dict[str, Any] | None, budget: Budget | None) -> int:
    """0 done; 1 a target failed or a given budget is not met; 4 a needed runtime is missing."""
    if any(r.status is Status.FAILED for r in results):
        return 1
    if budget is not None and report is not None:
        for row in report["artifacts"]:
            accuracy = row["accuracy"]
            if accuracy and (
                accuracy["drop_top1"] > budget.max_drop
                or accuracy["agreement"] < budget.min_agreement
                or (budget.max_mb is not None and row["bytes"] > budget.max_mb * 1e6)
            ):
                return 1
    return 4 if any(r.status is Status.UNAVAILABLE for r in results) else 0


def _run_name(name: str) -> str:
    safe = "".join(c if c.isalnum() and c.isascii() else "-" for c in name)[:60]
    return f"{safe}-{sha256_json(name)[:12]}"


def _targets(options: RunOptions) -> list[tuple[Target, tuple[Precision, ...]]]:
    """The targets and precisions to make; an unknown name or a precision nobody offers is an error up front."""
    from cspedge.lowering import check_precision

    chosen = []
    for name in dict.fromkeys(options.targets or target_names()):
        target = load_target(name)
        precisions = tuple(dict.fromkeys(options.precisions)) or target.precision.default
        for precision in precisions:
            check_precision(target, precision)
        chosen.append((target, precisions))
    return chosen


def _check_data(options: RunOptions, upto: Upto, chosen: list[tuple[Target, tuple[Precision, ...]]]) -> None:
    """A model of the user's needs images of the user's: the built-in digits belong to the built-in model alone."""
    if options.model is None:
        return
    int8 = upto is Upto.QUANTIZE or any(p is Precision.INT8 for _, ps in chosen for p in ps)
    if int8 and options.calib is None:
        raise UsageError(
            f"int8 of {options.model!r} needs calibration images: give --calib DIR, a folder of real ones "
            "(or --precision fp32 for float artifacts only)"
        )
    if upto >= Upto.EVALUATE and options.val is None:
        raise UsageError(f"validating {options.model!r} needs labelled images: give --val DIR, one subfolder per class")


def _load(source: sources.ModelSource, ledger: _Ledger) -> _Loaded:
    from cspedge.models.reference import load

    @cache
    def reference() -> Reference:
        return load(source)

    @cache
    def graph() -> fx.GraphModule:
        from cspedge.quantize.graph import prepare

        return prepare(reference().module, reference().info.preprocess.input_size)

    stored = ledger.stage(
        "reference",
        "reference",
        stages.reference_inputs(source),
        lambda folder: stages.write_reference(reference().info, folder),
    )
    return _Loaded(stored=stored, info=stages.read_reference(stored), reference=reference, graph=graph)


@dataclass(frozen=True, kw_only=True)
class _Images:
    stored: StoredObject
    images: ImageSet


def _images(
    task: str,
    images: ImageList,
    indices: tuple[int, ...],
    labels: NDArray[np.int64] | None,
    options: RunOptions,
    loaded: _Loaded,
    ledger: _Ledger,
) -> tuple[_Images, list[str]]:
    def build(folder: Path) -> Mapping[str, object]:
        from cspedge.data.images import load

        remarks: list[tuple[str, str]] = []
        found = load(
            images,
            indices,
            loaded.info.preprocess,
            labels=labels,
            max_unreadable=options.max_unreadable,
            progress=ledger.ui.progress(task),
            on_note=lambda name, note: remarks.append((name, note)),
        )
        return stages.write_images(found, remarks, folder)

    chosen_labels = None if labels is None else [int(labels[i]) for i in indices]
    stored = ledger.stage(
        task,
        "images",
        stages.images_inputs(images, indices, loaded.info.preprocess, options.max_unreadable, chosen_labels),
        build,
    )
    found, remarks = stages.read_images(stored)
    notes = []
    if found.skipped:
        first = ", ".join(f"{s.name} ({s.reason})" for s in found.skipped[:5])
        notes.append(
            f"{task}: {len(found.skipped)} of {len(indices)} images could not be read and were left out: {first}"
        )
    if remarks:
        first = ", ".join(f"{name} ({note})" for name, note in remarks[:5])
        notes.append(f"{task}: {len(remarks)} images lose depth as in timm's own pipeline: {first}")
    for note in notes:
        ledger.ui.note(note)
    return _Images(stored=stored, images=found), notes


def _calibration(
    options: RunOptions, recipe: Recipe, loaded: _Loaded, validation: ImageList | None, ledger: _Ledger
) -> tuple[_Images, int, list[str]]:
    from cspedge.data.images import check_disjoint
    from cspedge.data.sampling import sample

    listed = api.list_images(options.calib, "train")
    count = options.calib_images or recipe.images.count
    indices = sample(listed, count, seed=options.seed, stratified=recipe.images.sampling == "stratified")
    overlap = 0
    if validation is not None:
        overlap = check_disjoint(listed.subset(indices), validation, allow=options.allow_overlap)
    found, notes = _images("calibration images", listed, indices, None, options, loaded, ledger)
    if overlap:
        notes.append(f"calibration and validation share {overlap} images (allowed by --allow-overlap)")
    return found, overlap, notes


def _labels(listed: ImageList, info: ReferenceInfo) -> NDArray[np.int64]:
    from cspedge.data.images import labels_for

    return labels_for(listed, info.labels, num_classes=info.num_classes)


_Quantized = tuple["StoredObject", Callable[[], "QuantizedModel"]]


def _quantize(calibration: _Images, recipe: Recipe, loaded: _Loaded, ledger: _Ledger) -> _Quantized:
    def build(folder: Path) -> Mapping[str, object]:
        from cspedge.quantize.calibrate import calibrate

        model = calibrate(
            loaded.graph(),
            loaded.info.preprocess.input_size,
            calibration.images.images,
            recipe.quantize,
            ledger.ui.progress("quantize"),
        )
        return stages.write_quantized(model, folder)

    inputs = stages.quantize_inputs(loaded.stored.digest, calibration.stored.digest, recipe)
    stored = ledger.stage("quantize", "quantize", inputs, build)

    @cache
    def model() -> QuantizedModel:
        return stages.read_quantized(stored, loaded.graph(), loaded.info.preprocess.input_size)

    return stored, model


def _float_model(loaded: _Loaded) -> QuantizedModel:
    from cspedge.quantize.encodings import Encodings
    from cspedge.quantize.placement import QuantizedModel

    return QuantizedModel(
        graph=loaded.graph(),
        input_shape=loaded.info.preprocess.input_size,
        encodings=Encodings(activations={}, weights={}),
        integer_weights={},
    )


def _lower(
    target: Target,
    precision: Precision,
    loaded: _Loaded,
    quantized: _Quantized | None,
    calibration: _Images | None,
    options: RunOptions,
    ledger: _Ledger,
) -> ArtifactResult:
    from cspedge import lowering

    task = f"lower {target.name}/{precision}"
    row = ArtifactResult(target=target.name, backend=target.backend, precision=precision, status=Status.OK)
    int8 = precision is Precision.INT8
    images = calibration if int8 else None

    def build(folder: Path) -> Mapping[str, object]:
        model = quantized[1]() if int8 and quantized else _float_model(loaded)
        ledger.ui.progress(task)(0, 0)
        artifact = lowering.lower(
            model,
            target,
            precision,
            folder,
            name=loaded.info.name,
            check_images=None if images is None else images.images.images[: lowering.CHECK_IMAGES],
        )
        return stages.write_artifact(artifact, folder)

    def make() -> Artifact:
        backend = lowering.require(target)
        inputs = stages.lower_inputs(
            loaded.stored.digest,
            quantized[0].digest if int8 and quantized else None,
            images.stored.digest if images else None,
            target,
            precision,
            backend.code_version,
            backend.availability().versions,
            loaded.info.name,
        )
        return stages.read_artifact(ledger.stage(task, "lower", inputs, build))

    return _guarded(row, lambda r: replace(r, artifact=make()), options, ledger)


def _guarded(
    row: ArtifactResult, step: Callable[[ArtifactResult], ArtifactResult], options: RunOptions, ledger: _Ledger
) -> ArtifactResult:
    """Runs one step of one artifact: a missing runtime or a failure becomes the row's status, the others go on."""
    if row.status is not Status.OK:
        return row
    try:
        return step(row)
    except RuntimeMissingError as error:
        ledger.ui.note(str(error))
        return replace(row, status=Status.UNAVAILABLE, reason=str(error))
    except TargetError as error:
        if error.__cause__ is not None:
            log = options.workspace / "logs" / f"{row.target}-{row.precision}.txt"
            atomic.make_folder(log.parent)
            atomic.write_text(log, "".join(traceback.format_exception(error)))
        ledger.ui.note(str(error))
        return replace(row, status=Status.FAILED, reason=str(error))


def _evaluate(
    row: ArtifactResult, validation: _Images, logits: NDArray[np.float32], options: RunOptions, ledger: _Ledger
) -> ArtifactResult:
    from cspedge.devices.host import describe
    from cspedge.evaluate.metrics import accuracy
    from cspedge.lowering import require

    def step(row: ArtifactResult) -> ArtifactResult:
        artifact = row.artifact
        assert artifact is not None
        target = load_target(artifact.target)
        task = f"validate {artifact.label}"

        def build(folder: Path) -> Mapping[str, object]:
            session = api.open_session(artifact, threads=options.threads)
            found = api.run_session(session, validation.images.images, artifact, ledger.ui.progress(task))
            return stages.write_evaluation(found, session.evidence, folder)

        versions = require(target).availability().versions
        inputs = stages.evaluate_inputs(
            artifact.sha256, validation.stored.digest, options.threads, versions, target.options, describe().isa
        )
        stored = ledger.stage(task, "evaluate", inputs, build)
        found = stages.read_array("logits", stored)
        assert validation.images.labels is not None
        evaluation = Evaluation(
            logits=found,
            accuracy=accuracy(found, logits, validation.images.labels),
            evidence=Evidence(stored.meta["evidence"]),
        )
        return replace(row, evaluation=evaluation)

    return _guarded(row, step, options, ledger)


def _reference_logits(loaded: _Loaded, validation: _Images, ledger: _Ledger) -> tuple[NDArray[np.float32], str]:
    from cspedge.devices.host import describe

    kind = "cuda" if Path("/dev/nvidia0").exists() else "cpu"

    def build(folder: Path) -> Mapping[str, object]:
        found = api.reference_logits(loaded.reference(), validation.images, progress=ledger.ui.progress("reference"))
        stages.write_array("logits", found, folder)
        return {"device": _device_name()}

    del describe
    inputs = stages.logits_inputs(loaded.stored.digest, validation.stored.digest, kind)
    stored = ledger.stage("reference logits", "logits", inputs, build)
    return stages.read_array("logits", stored), str(stored.meta["device"])


def _device_name() -> str:
    import torch

    from cspedge.devices.host import describe

    return torch.cuda.get_device_name() if torch.cuda.is_available() else describe().cpu


def _bench(
    results: list[ArtifactResult], validation: _Images, options: RunOptions, ledger: _Ledger
) -> list[ArtifactResult]:
    from dataclasses import asdict

    from cspedge.devices.host import describe
    from cspedge.lowering import require

    runnable = [
        r.artifact
        for r in results
        if r.status is Status.OK and r.artifact and r.evaluation and r.evaluation.evidence is Evidence.MEASURED
    ]
    if not runnable:
        return results

    def build(folder: Path) -> Mapping[str, object]:
        found = api.bench(
            runnable,
            validation.images,
            threads=options.threads,
            rounds=options.rounds,
            per_round=options.per_round,
            seed=options.seed,
            progress=ledger.ui.progress("bench"),
        )
        return stages.write_latencies(found, folder)

    versions: dict[str, str] = {}
    for name in sorted({a.target for a in runnable}):
        versions |= require(load_target(name)).availability().versions
    inputs = stages.bench_inputs(
        {a.label: a.sha256 for a in runnable},
        validation.images.digests[0],
        options.threads,
        options.rounds,
        options.per_round,
        options.seed,
        {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(describe()).items()},
        versions,
    )
    found = stages.read_latencies(ledger.stage("bench", "bench", inputs, build))
    rows = []
    for row in results:
        latency = found.get(row.label)
        if isinstance(latency, Latency):
            rows.append(replace(row, latency=latency))
        elif latency is not None:
            rows.append(replace(row, status=Status.FAILED, reason=latency))
        else:
            rows.append(row)
    return rows


def _report(
    options: RunOptions,
    recipe: Recipe,
    loaded: _Loaded,
    results: list[ArtifactResult],
    calibration: _Images | None,
    overlap: int,
    validation: _Images,
    logits: NDArray[np.float32],
    device: str,
    ledger: _Ledger,
    notes: list[str],
) -> dict[str, Any]:
    from dataclasses import asdict

    from cspedge.report import build

    entry = None
    if calibration is not None:
        entry = build.calibration_entry(calibration.images, recipe=recipe.name, overlap=overlap)
    budget = options.budget or (load_target(results[0].target).budget if results else Budget())
    return build.build_report(
        loaded.info,
        logits=logits,
        labels=validation.images.labels,
        validation=build.validation_entry(validation.images),
        calibration=entry,
        results=results,
        reference_device=device,
        budget=budget.limits(),
        stages=[asdict(row) for row in ledger.rows],
        notes=notes,
    )


def _publish_encodings(stored: StoredObject, out: Path) -> list[str]:
    atomic.make_folder(out)
    atomic.write_bytes(out / "encodings.json", stored.file("encodings.json").read_bytes())
    return ["encodings.json"]


def _quantized_summary(stored: StoredObject, calibration: _Images | None) -> dict[str, Any]:
    return {
        "activations": stored.meta["activations"],
        "weights": stored.meta["weights"],
        "encodings_sha256": stored.files["encodings.json"],
        "calibration": None
        if calibration is None
        else {"n": len(calibration.images), "sha256": calibration.images.sha256, "source": calibration.images.source},
    }


def _publish_artifact(
    row: ArtifactResult,
    info: ReferenceInfo,
    quantized: _Quantized | None,
    calibration: _Images | None,
    options: RunOptions,
    files: list[str],
) -> ArtifactResult:
    """Copies a finished artifact and its manifest to `out/<target>/`, each appearing whole or not at all."""
    import shutil

    from cspedge.lowering import manifest

    if row.status is not Status.OK or row.artifact is None:
        return row
    from cspedge.lowering import require

    artifact = row.artifact
    target = load_target(row.target)
    folder = options.out / row.target
    atomic.make_folder(folder)
    destination = folder / artifact.path.name
    with atomic.staging(folder) as draft, atomic.translate_errors(destination):
        copy = draft / artifact.path.name
        shutil.copytree(artifact.path, copy) if artifact.path.is_dir() else shutil.copyfile(artifact.path, copy)
        atomic.publish(copy, destination)
    summary = _quantized_summary(quantized[0], calibration) if quantized else {}
    text = manifest(
        artifact,
        info,
        target,
        encodings_sha256=summary.get("encodings_sha256"),
        calibration=summary.get("calibration"),
        versions=dict(require(target).availability().versions),
    )
    name = f"{info.name}.{row.precision}.manifest.json"
    atomic.write_json(folder / name, text)
    files += [f"{row.target}/{artifact.path.name}", f"{row.target}/{name}"]
    return replace(row, manifest=f"{row.target}/{name}")


def _publish_report(report: dict[str, Any], out: Path) -> list[str]:
    from cspedge.report import render

    atomic.make_folder(out)
    atomic.write_json(out / "report.json", report)
    atomic.write_text(out / "report.html", render(report))
    return ["report.json", "report.html"]
