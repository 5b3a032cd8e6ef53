"""`cspedge run` and its parts: the stages in order, each taken from the store where its key is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cspedge import api, further, inputs, layers, mixing, publish, robustness, steps
from cspedge.config import Budget, Recipe, Target, common_placement, load_recipe, load_target, with_placement
from cspedge.devices import apple, taken
from cspedge.devices.lab import Lab, opened
from cspedge.devices.results import read_all
from cspedge.digest import sha256_json
from cspedge.errors import UsageError
from cspedge.models import source as sources
from cspedge.options import PlacementChoice, RunOptions, Silent, Ui, Upto
from cspedge.resources import target_names
from cspedge.stages import StageRow
from cspedge.store import Store
from cspedge.types import ArtifactResult, Head, Precision, Status

if TYPE_CHECKING:
    from cspedge.devices.uri import DeviceUri
    from cspedge.inputs import Loaded, Validation
    from cspedge.models.reference import ReferenceInfo
    from cspedge.quantize.explain import Explanation

__all__ = ["Outcome", "RunOptions", "Ui", "Upto", "execute", "exit_code"]


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
    explanations: Mapping[str, Explanation] = field(default_factory=dict)
    emitted: Path | None = None  # the folder of --emit; the run ended there


def execute(options: RunOptions, upto: Upto = Upto.BENCH, ui: Ui | None = None) -> Outcome:
    """Runs the stages that `upto` needs and publishes what the user keeps into `options.out`.

    Raises UsageError, InputError, WorkspaceError, DeviceError where `options.device` cannot be opened; what befalls one
    target is a row in the results instead.
    """
    chosen = _targets(options)
    away = apple.asked(options, upto, [target for target, _ in chosen])
    device = options.device if upto >= Upto.EVALUATE and away is None else None
    if options.sweep and upto >= Upto.BENCH and device is None and options.protocol != "fresh-process":
        raise UsageError("--sweep needs a process for each number of threads; use `cspedge bench`, or --device")
    with opened(device, options.workspace) as lab:
        if options.sweep and upto >= Upto.BENCH and lab is not None and not lab.device.timed:
            raise UsageError(f"--sweep takes times, and device {device!r} is emulated: it counts instructions alone")
        return _execute(options, upto, ui or Silent(), chosen, lab, away)


def _execute(
    options: RunOptions,
    upto: Upto,
    ui: Ui,
    chosen: list[tuple[Target, tuple[Precision, ...]]],
    lab: Lab | None,
    away: DeviceUri | None,
) -> Outcome:
    added = read_all(options.add)
    recipe = load_recipe(options.recipe)
    if options.model is None and options.weights is not None:
        raise UsageError("--weights needs MODEL, the name of the architecture the weights belong to")
    robustness.check(options)
    layers.check(options, [target for target, _ in chosen])
    sources.check_name(options.model)
    _check_data(options, upto, chosen)  # before weights are fetched
    source = sources.resolve(options.model, options.weights, options.labels)
    ledger = inputs.Ledger(store=Store(options.workspace), ui=ui, name=f"run-{_run_name(source.name)}")
    loaded = inputs.load_model(source, options, ledger)
    listed = api.list_images(options.val, "val") if upto >= Upto.EVALUATE else None
    labels = None
    if listed is not None and options.head is Head.LOGITS:  # before any work is done
        labels = inputs.find_labels(listed, loaded.info)
    calibration: inputs.Calibration | None = None
    more: inputs.Calibration | None = None  # images to learn from besides
    quantized: inputs.Quantized | None = None
    tuning: mixing.Tuning | None = None
    files: list[str] = []
    if upto is Upto.QUANTIZE or _wants_int8(chosen):
        calibration = inputs.calibration_images(options, recipe, loaded, listed, ledger)
        learns_others = bool(recipe.learn.epochs and recipe.learn.images)
        # before the training images, of which recipes want so many that what they leave is one-sided
        if recipe.mixed is not None and (learns_others or upto >= Upto.LOWER):
            drawn = mixing.tuning_images(options, recipe, loaded, calibration, listed, ledger)
            if isinstance(drawn, str):
                calibration = replace(calibration, notes=(*calibration.notes, drawn))
            else:
                tuning = drawn
        if learns_others:
            more = inputs.calibration_images(
                options,
                recipe,
                loaded,
                listed,
                ledger,
                count=recipe.learn.images,
                task="training images",
                without=() if tuning is None else tuning.images.digests,
            )
        quantized = inputs.quantize(calibration, more, recipe, loaded, options.threads, ledger)
        files += publish.encodings(quantized, options.out)
    explanations = {}
    if options.explain and quantized is not None and calibration is not None:
        for target, _ in chosen:
            explanations[target.name] = mixing.explain(target, quantized, calibration.images, options, ui)
            files += publish.explanation(target.name, explanations[target.name], options.out)
    results: list[ArtifactResult] = []
    if upto >= Upto.LOWER:
        for target, precisions in chosen:
            kept = None
            if quantized is not None and tuning is not None and Precision.INT8 in precisions:
                kept = mixing.keep(target, recipe, quantized, tuning, loaded, options, ledger)
            results += [
                steps.lower(target, p, loaded, quantized, calibration, options, ledger, kept) for p in precisions
            ]
        results = [publish.artifact(r, loaded.info, quantized, calibration, options.out, files) for r in results]
    report = None
    if listed is not None:
        validation = inputs.validation_images(options, listed, labels, loaded, ledger)
        if away is not None and options.emit is not None:
            apple.write(away, options.emit, results, validation, loaded.info, options, upto)
        else:
            if away is not None:
                added.append(apple.run(away, results, validation, loaded.info, options, upto))
            conditions: tuple[robustness.Condition, ...] = ()
            if options.robustness and labels is not None:
                conditions = robustness.conditions(options, listed, labels, loaded, ledger)
            results = _answers(results, validation, conditions, loaded, options, upto, ledger, lab, away)
            if options.trace:
                targets = {target.name: target for target, _ in chosen}
                results = [
                    further.trace(r, targets[r.target], loaded, quantized, validation, options, ledger) for r in results
                ]
            said: list[str] = []
            for one in added:
                results, notes = taken.take_in(one, results, validation, loaded.info, options.seed)
                said += notes
            outlying: tuple[str, ...] = ()
            if quantized is not None and calibration is not None:
                outlying = publish.outlier_notes(publish.outliers(quantized, calibration))
            report = _report(
                options,
                recipe,
                loaded.info,
                results,
                calibration,
                more,
                outlying,
                tuning,
                validation,
                conditions,
                ledger,
                explanations,
            )
            over = budget_notes(report, options.budget)
            for sentence in over:
                ui.note(sentence)
            report["notes"] += [*over, *said]
            files += publish.report(report, options.out)
    if any(not row.cached for row in ledger.rows):
        ledger.store.ref(ledger.name, ledger.keys)
    return Outcome(
        info=loaded.info,
        quantized=None if quantized is None else publish.quantized_summary(quantized, calibration),
        results=tuple(results),
        stages=tuple(ledger.rows),
        report=report,
        exit_code=exit_code(results, report, options.budget),
        files=tuple(files),
        explanations=explanations,
        emitted=None if away is None else options.emit,
    )


def _answers(
    results: list[ArtifactResult],
    validation: Validation,
    conditions: tuple[robustness.Condition, ...],
    loaded: Loaded,
    options: RunOptions,
    upto: Upto,
    ledger: inputs.Ledger,
    lab: Lab | None,
    away: DeviceUri | None,
) -> list[ArtifactResult]:
    """What each artifact answers, on corrupted images too, and how long it takes, or how many instructions."""
    results = [steps.evaluate(r, validation, loaded, options, ledger, lab) for r in results]
    if conditions:
        results = [further.robustness(r, conditions, loaded, options, ledger, lab) for r in results]
    if upto < Upto.BENCH or away is not None:
        return results
    if lab is not None and not lab.device.timed:
        return steps.count(results, validation, loaded, options, ledger, lab)
    return steps.bench(results, validation, loaded, options, ledger, lab)


def _wants_int8(chosen: Sequence[tuple[Target, tuple[Precision, ...]]]) -> bool:
    return any(p is Precision.INT8 for _, precisions in chosen for p in precisions)


def exit_code(results: list[ArtifactResult], report: dict[str, Any] | None, budget: Budget | None) -> int:
    """0 done; 1 a target failed or a given budget is not met; 4 a needed runtime is missing."""
    if any(r.status is Status.FAILED for r in results):
        return 1
    if budget is not None and report is not None:
        for row in report["artifacts"]:
            if row["status"] == Status.OK and budget.misses(row):
                return 1
    return 4 if any(r.status is Status.UNAVAILABLE for r in results) else 0


def budget_notes(report: Mapping[str, Any], budget: Budget | None) -> list[str]:
    """One sentence per artifact outside a given budget."""
    from cspedge.report.words import OVER_BUDGET

    if budget is None:
        return []
    missed = [(row, budget.misses(row)) for row in report["artifacts"] if row["status"] == Status.OK]
    return [f"{row['target']}/{row['precision']} {OVER_BUDGET}: {'; '.join(m)}." for row, m in missed if m]


def _run_name(name: str) -> str:
    safe = "".join(c if c.isalnum() and c.isascii() else "-" for c in name)[:60]
    return f"{safe}-{sha256_json(name)[:12]}"


def _targets(options: RunOptions) -> list[tuple[Target, tuple[Precision, ...]]]:
    """The targets and precisions to make; an unknown name or a precision nobody offers is an error up front."""
    from cspedge.lowering import check_precision

    common = common_placement() if options.placement is PlacementChoice.COMMON else None
    chosen = []
    for name in dict.fromkeys(options.targets or target_names()):
        target = load_target(name)
        if common is not None:
            target = with_placement(target, common)
        precisions = tuple(dict.fromkeys(options.precisions)) or target.precision.default
        for precision in precisions:
            check_precision(target, precision)
        chosen.append((target, precisions))
    return chosen


def _check_data(options: RunOptions, upto: Upto, chosen: list[tuple[Target, tuple[Precision, ...]]]) -> None:
    """A model of the user's needs images of the user's: the built-in digits belong to the built-in model alone."""
    if options.model is None:
        return
    if (upto is Upto.QUANTIZE or _wants_int8(chosen)) and options.calib is None:
        raise UsageError(
            f"int8 of {options.model!r} needs calibration images: give --calib DIR, a folder of real ones "
            "(or --precision fp32 for float artifacts only)"
        )
    if upto >= Upto.EVALUATE and options.val is None:
        kind = "labelled images: give --val DIR, one subfolder per class"
        if options.head is not Head.LOGITS:
            kind = "images: give --val DIR, a folder of them"
        raise UsageError(f"validating {options.model!r} needs {kind}")


def _report(
    options: RunOptions,
    recipe: Recipe,
    info: ReferenceInfo,
    results: list[ArtifactResult],
    calibration: inputs.Calibration | None,
    more: inputs.Calibration | None,
    outlying: tuple[str, ...],
    tuning: mixing.Tuning | None,
    validation: inputs.Validation,
    conditions: Sequence[robustness.Condition],
    ledger: inputs.Ledger,
    explanations: Mapping[str, Explanation],
) -> dict[str, Any]:
    from cspedge.report import build

    entry, notes = None, list(validation.notes)
    if calibration is not None:
        entry = build.calibration_entry(
            calibration.images,
            recipe=recipe,
            overlap=calibration.overlap,
            sampling=recipe.images.sampling,
            seed=options.seed,
            training=None if more is None else more.images,
        )
        notes = [*calibration.notes, *outlying, *(() if tuning is None else tuning.notes), *notes]
    return build.build_report(
        info,
        vectors=validation.vectors,
        labels=validation.images.labels,
        validation=build.images_entry(validation.images),
        calibration=entry,
        tuning=None if tuning is None else build.images_entry(tuning.images),
        results=results,
        reference_device=validation.device,
        budgets={r.target: (options.budget or load_target(r.target).budget).limits() for r in results},
        stages=[asdict(row) for row in ledger.rows],
        notes=notes,
        images=validation.images,
        thumbnails=not options.no_thumbnails,
        explanations=explanations,
        robustness=robustness.entry(conditions, validation),
    )
