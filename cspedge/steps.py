"""What is done to one artifact, a stored step each: lowered, evaluated, timed. A failure is its row's status."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cspedge import api, atomic, objects, stages
from cspedge.config import Target, load_target
from cspedge.errors import RuntimeMissingError, TargetError
from cspedge.inputs import Calibration, Ledger, Loaded, Quantized, Validation, device_kind
from cspedge.measured import Latency, RanOn
from cspedge.options import RunOptions
from cspedge.types import Artifact, ArtifactResult, Evaluation, Evidence, Head, Kept, Precision, Status

if TYPE_CHECKING:
    from cspedge.backends.base import Session
    from cspedge.devices.lab import Lab
    from cspedge.quantize.placement import QuantizedModel


# what was found before a later step failed says nothing about what ships: an artifact that failed has no figures
NO_FIGURES: Mapping[str, Any] = {"evaluation": None, "latency": None, "robustness": (), "trace": None}


def float_model(loaded: Loaded) -> QuantizedModel:
    from cspedge.quantize.encodings import Encodings
    from cspedge.quantize.placement import QuantizedModel

    return QuantizedModel(
        graph=loaded.graph(),
        input_shape=loaded.info.preprocess.input_size,
        encodings=Encodings(activations={}, weights={}),
        integer_weights={},
    )


def lower(
    target: Target,
    precision: Precision,
    loaded: Loaded,
    quantized: Quantized | None,
    calibration: Calibration | None,
    options: RunOptions,
    ledger: Ledger,
    kept: Kept | None = None,
) -> ArtifactResult:
    """kept: what an int8 artifact keeps in float."""
    from cspedge import lowering

    task = f"lower {target.name}/{precision}"
    row = ArtifactResult(target=target.name, backend=target.backend, precision=precision, status=Status.OK)
    int8 = precision is Precision.INT8
    images = calibration if int8 else None
    kept = kept if int8 else None
    keep = () if kept is None else kept.tensors

    def build(folder: Path) -> Mapping[str, object]:
        model = quantized.model() if int8 and quantized else float_model(loaded)
        artifact = lowering.lower(
            model,
            target,
            precision,
            folder,
            name=loaded.info.file_stem,
            check_images=None if images is None else images.images.images[: lowering.CHECK_IMAGES],
            keep=keep,
        )
        return objects.write_artifact(artifact, folder)

    def make() -> Artifact:
        backend = lowering.require(target)
        inputs = stages.lower_inputs(
            loaded.stored.digest,
            quantized.stored.digest if int8 and quantized else None,
            images.stored.digest if images else None,
            target,
            precision,
            backend.code_version,
            backend.availability().versions,
            loaded.info.file_stem,
            keep,
        )
        return objects.read_artifact(ledger.stage(task, "lower", inputs, build))

    return guarded(replace(row, kept=kept), lambda r: replace(r, artifact=make()), options, ledger)


def guarded(
    row: ArtifactResult, step: Callable[[ArtifactResult], ArtifactResult], options: RunOptions, ledger: Ledger
) -> ArtifactResult:
    """Runs one step of one artifact: a missing runtime or a failure becomes the row's status, the others go on."""
    if row.status is not Status.OK:
        return row
    try:
        return step(row)
    except RuntimeMissingError as error:
        ledger.ui.note(str(error))
        return replace(row, status=Status.UNAVAILABLE, reason=str(error), **NO_FIGURES)
    except TargetError as error:
        if error.__cause__ is not None:
            log = options.workspace / "logs" / f"{row.target}-{row.precision}.txt"
            atomic.make_folder(log.parent)
            atomic.write_text(log, "".join(traceback.format_exception(error)))
        ledger.ui.note(str(error))
        return replace(row, status=Status.FAILED, reason=str(error), **NO_FIGURES)


def evaluate(
    row: ArtifactResult,
    validation: Validation,
    loaded: Loaded,
    options: RunOptions,
    ledger: Ledger,
    lab: Lab | None = None,
) -> ArtifactResult:
    """lab: the device that answers, None for this process."""
    from cspedge.evaluate.answers import judged, reference_answers, session_answers, streamed, vectors

    pixels = validation.images.images

    def step(row: ArtifactResult) -> ArtifactResult:
        artifact = row.artifact
        assert artifact is not None
        label = artifact.label
        task = f"validate {label}"

        def build(folder: Path) -> Mapping[str, object]:
            session, ran_on, batch = opened(artifact, loaded, options, ledger, lab)
            answer, whose, bar = session_answers(session, artifact), f"the artifact {label}", ledger.ui.progress(task)
            outputs = loaded.info.outputs
            if validation.vectors is None:
                with reference_answers(loaded.reference(), options.threads) as expected:
                    rows = streamed(expected, answer, outputs, pixels, whose=whose, progress=bar)
                return objects.write_closeness(rows, session.evidence, folder, ran_on())
            found = vectors(answer, outputs[0], pixels, whose=whose, error=TargetError, batch=batch, progress=bar)
            return objects.write_evaluation(found, session.evidence, folder, ran_on())

        beside = f"{loaded.stored.digest} on {device_kind()}" if validation.vectors is None else None
        inputs = evaluate_inputs(artifact, validation.stored.digest, options, ledger, lab, beside)
        stored = ledger.stage(task, "evaluate", inputs, build)
        evidence, where = objects.read_evidence(stored)
        if validation.vectors is None:
            closeness = objects.read_closeness(stored)
            return replace(
                row,
                evaluation=Evaluation(vectors=None, accuracy=None, outputs=closeness, evidence=evidence, ran_on=where),
            )
        found = objects.read_array("vectors", stored)
        output, head = loaded.info.outputs[0], Head(loaded.info.head)
        evaluation = judged(output, head, validation.vectors, found, validation.images.labels, evidence)
        return replace(row, evaluation=replace(evaluation, ran_on=where))

    return guarded(row, step, options, ledger)


def evaluate_inputs(
    artifact: Artifact, images: str, options: RunOptions, ledger: Ledger, lab: Lab | None, reference: str | None = None
) -> dict[str, Any]:
    """The key of an artifact's answers to the images of that digest; reference: as in `stages.evaluate_inputs`."""
    from cspedge.devices.host import describe
    from cspedge.lowering import require

    target = load_target(artifact.target)
    backend = require(target)
    return stages.evaluate_inputs(
        artifact.sha256,
        images,
        options.threads,
        backend.availability().versions,
        backend.code_version,
        target.options,
        describe().isa,
        reference,
        None if lab is None else lab.key(artifact, ledger),
    )


def opened(
    artifact: Artifact, loaded: Loaded, options: RunOptions, ledger: Ledger, lab: Lab | None
) -> tuple[Session, Callable[[], RanOn | None], int]:
    """The artifact loaded here or on a device; what to call afterwards to know where; images to give it at once."""
    if lab is None:
        return api.open_session(artifact, threads=options.threads), lambda: None, 32
    info = loaded.info
    session = lab.session(artifact, info.preprocess.input_size, info.outputs, options.threads, ledger)
    return session, lambda: None if session.last is None else lab.ran_on(session.last), session.batch


def bench(
    results: list[ArtifactResult],
    validation: Validation,
    loaded: Loaded,
    options: RunOptions,
    ledger: Ledger,
    lab: Lab | None = None,
) -> list[ArtifactResult]:
    """lab: the device where times are taken, None for this host."""
    from dataclasses import asdict

    from cspedge.devices import fresh, here
    from cspedge.devices.host import describe
    from cspedge.devices.rounds import Plan
    from cspedge.evaluate.timing import BenchProtocol
    from cspedge.lowering import require

    runnable = [
        r.artifact
        for r in results
        if r.status is Status.OK and r.artifact and r.evaluation and r.evaluation.evidence is Evidence.MEASURED
    ]
    if not runnable:
        return results

    protocol = BenchProtocol.FRESH_PROCESS if lab is not None else options.protocol or BenchProtocol.IN_PROCESS

    def build(folder: Path) -> Mapping[str, object]:
        image, bar = validation.images.images[:1], ledger.ui.progress("bench")
        if lab is not None:
            found = lab.bench(runnable, image, loaded.info.outputs, options, ledger)
        elif protocol is BenchProtocol.FRESH_PROCESS:
            found = fresh.bench(runnable, image, Plan.of(options), bar)
        else:
            found = here.bench(runnable, image, Plan.of(options), bar)
        return objects.write_latencies(found, folder)

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
        None if lab is None else {a.label: lab.key(a, ledger) for a in runnable},
        protocol=protocol,
        sweep=options.sweep,
    )
    found = objects.read_latencies(ledger.stage("bench", "bench", inputs, build))
    _say_noise(found, ledger)
    rows = []
    for row in results:
        latency = found.get(row.label)
        if isinstance(latency, Latency):
            rows.append(replace(row, latency=latency))
        elif latency is not None:
            rows.append(replace(row, status=Status.FAILED, reason=latency, **NO_FIGURES))
        else:
            rows.append(row)
    return rows


def _say_noise(found: Mapping[str, Latency | str], ledger: Ledger) -> None:
    """One note where the bench may not be concluded from."""
    for latency in found.values():
        if isinstance(latency, Latency) and latency.noise is not None and latency.noise.sentence is not None:
            ledger.ui.note(latency.noise.sentence)
            return


def count(
    results: list[ArtifactResult],
    validation: Validation,
    loaded: Loaded,
    options: RunOptions,
    ledger: Ledger,
    lab: Lab,
) -> list[ArtifactResult]:
    """Counts the instructions of an inference on an emulated processor, whose times would say nothing."""
    from cspedge.devices import instructions
    from cspedge.devices.qemu import QemuAarch64

    device, image = lab.device, validation.images.images[:1]
    assert isinstance(device, QemuAarch64)

    def step(row: ArtifactResult) -> ArtifactResult:
        artifact = row.artifact
        assert artifact is not None
        task = f"count {artifact.label}"

        def build(folder: Path) -> Mapping[str, object]:
            session = lab.session(artifact, image.shape[1:], loaded.info.outputs, options.threads, ledger)
            return objects.write_counts(instructions.sample(session, device, image, ledger.ui.progress(task)), folder)

        inputs = {
            "artifact": artifact.sha256,
            "image": validation.images.digests[0],
            "preprocessed": validation.stored.digest,
            "threads": options.threads,
            "plugin": instructions.plugin_sha256(),
            "repeats": instructions.REPEATS,
            "device": lab.key(artifact, ledger),
        }
        samples = objects.read_counts(ledger.stage(task, "instructions", inputs, build))
        where = f"{device.facts.cpu} ({device.uri})"
        return replace(row, instructions=instructions.summarise(samples, where, options.threads))

    return instructions.with_ratios(
        [guarded(r, step, options, ledger) if r.evaluation is not None else r for r in results]
    )
