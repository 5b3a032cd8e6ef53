"""Making a bundle: the pipeline's results, golden answers, terms, bill of materials, manifest, signature."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cspedge import api, atomic, pipeline
from cspedge.bundle import bom, content, golden, licenses, names, signature
from cspedge.bundle.apps import App, Project, get_app
from cspedge.bundle.manifest import NAME, SIGNATURE, validate
from cspedge.bundle.refusal import Refusal
from cspedge.bundle.sizes import Part, parts
from cspedge.config import load_target
from cspedge.digest import pretty_json, sha256_file
from cspedge.errors import InputError, TargetError, UsageError
from cspedge.options import RunOptions, Ui, Upto
from cspedge.resources import target_names
from cspedge.types import ArtifactResult, Head, Precision, Status

if TYPE_CHECKING:
    from cspedge.bundle.golden import GoldenImage
    from cspedge.models.reference import ReferenceInfo


@dataclass(frozen=True, kw_only=True)
class BundleOptions:
    """What is asked of a bundle besides the run.

    key: a private PEM file; delivery: how the app gets its models, None for inside it; latency: take it up, and measure
    it where the run did not.
    """

    app: str = "plain"
    delivery: str | None = None
    version: str = "1.0.0"
    minimum_version: str = "0.0.0"
    key: Path | None = None
    license: str | None = None
    attribution: str | None = None
    latency: bool = True
    zip: bool = False


@dataclass(frozen=True, kw_only=True)
class Bundled:
    """A bundle that was written. files: bytes by path, with manifest and signature; sizes: the same by purpose."""

    path: Path
    manifest: Mapping[str, Any]
    files: Mapping[str, int]
    sizes: tuple[Part, ...]
    signed: bool
    exit_code: int
    zip: Path | None = None
    project: Path | None = None


def bundle(run: RunOptions, options: BundleOptions, ui: Ui) -> Bundled:
    """Writes `out/<name>-<version>/`, running what is missing first.

    Without precisions in `run`, int8 artifacts go into it, float ones only where a target has no int8.
    Raises UsageError (an option, a version that exists with other content), InputError, TargetError where no artifact
    is left.
    """
    app = get_app(options.app)
    _check_app(app, options)
    if names.parse_version(options.version) < names.parse_version(options.minimum_version, "minimum version"):
        raise UsageError(
            f"the minimum version {options.minimum_version} is above the version {options.version}; lower it"
        )
    if options.license is not None:
        licenses.spdx(options.license)
    bom.require_cyclonedx()
    key = None if options.key is None else signature.read_private(options.key)
    run = replace(run, targets=_targets(run.targets, options.app))
    outcome = pipeline.execute(run, Upto.BENCH if options.latency else Upto.EVALUATE, ui)
    assert outcome.report is not None
    chosen = _chosen(outcome.results, run.precisions)
    stem = f"{names.safe_name(outcome.info.file_stem)}-{options.version}"
    with atomic.staging(run.out) as staging:
        draft = staging / stem
        draft.mkdir()
        manifest = _fill(draft, run, options, outcome, chosen, ui)
        for path, data in app.files(manifest).items():
            (draft / path).parent.mkdir(parents=True, exist_ok=True)
            (draft / path).write_bytes(data)
        manifest = _finish(draft, manifest, outcome)
        if key is not None:
            digests = {name: sha256_file(draft / name) for name in atomic.plain_files(draft)}
            (draft / SIGNATURE).write_bytes(signature.sign(stem, digests, key))
        sizes = {name: status.st_size for name, status in atomic.plain_files(draft).items()}
        final = run.out / stem
        _publish(draft, final)
    packed = None
    if options.zip:
        packed = run.out / f"{stem}.zip"
        write_zip(final, packed)
    return Bundled(
        path=final,
        manifest=manifest,
        files=sizes,
        sizes=parts(manifest, sizes, outcome.report["artifacts"]),
        signed=key is not None,
        exit_code=outcome.exit_code,
        zip=packed,
        project=app.project(
            Project(
                bundle=final,
                out=run.out,
                public_key=None if key is None else signature.public_pem(key.public_key()),
                delivery=options.delivery,
            )
        ),
    )


def _check_app(app: App, options: BundleOptions) -> None:
    """UsageError for what the app cannot do, before anything is run."""
    if app.SIGNED and options.key is None:
        raise UsageError(
            f"--app {options.app} takes signed bundles alone, so that the app knows whose they are; give --sign "
            "private.pem (`cspedge keygen` makes one)"
        )
    if options.delivery is not None and options.delivery not in app.DELIVERIES:
        known = ", ".join(app.DELIVERIES) or "inside it, so leave --delivery away"
        raise UsageError(f"unknown delivery {options.delivery!r} for --app {options.app}; known: {known}")


def _targets(asked: Sequence[str], app: str) -> tuple[str, ...]:
    """The targets that are asked for, or all that the app can load; UsageError for one that it cannot."""
    backends = get_app(app).BACKENDS
    fits = [name for name in target_names() if backends is None or load_target(name).backend in backends]
    for name in asked:
        load_target(name)
        if name not in fits:
            raise UsageError(f"--app {app} cannot load target {name!r}; it loads {', '.join(fits)}")
    return tuple(asked) or tuple(fits)


def _chosen(results: Sequence[ArtifactResult], asked: Sequence[Precision]) -> list[ArtifactResult]:
    made = [r for r in results if r.status is Status.OK and r.artifact is not None]
    if not asked:
        int8 = {r.target for r in made if r.precision is Precision.INT8}
        made = [r for r in made if r.precision is Precision.INT8 or r.target not in int8]
    if not made:
        reasons = "; ".join(f"{r.label}: {r.reason}" for r in results)
        raise TargetError(f"no artifact could be made, so there is nothing to bundle ({reasons})")
    return sorted(made, key=lambda r: (r.target, r.precision))


def _fill(
    draft: Path,
    run: RunOptions,
    options: BundleOptions,
    outcome: pipeline.Outcome,
    chosen: Sequence[ArtifactResult],
    ui: Ui,
) -> dict[str, Any]:
    """Writes all files but the manifest, the bill of materials, the app's and the signature; the manifest so far."""
    info, report = outcome.info, outcome.report
    assert report is not None
    if content.has_labels(info):
        (draft / "labels.txt").write_text(_label_lines(info), encoding="utf-8", newline="\n")
    weights = licenses.weights_terms(run.model, run.weights, options.license, options.attribution)
    images_terms = licenses.images_terms(run.val)
    ui.progress("golden images")(0, 0)
    images = _images(run, info)
    if weights.license == licenses.UNKNOWN:
        ui.note("the weights' license is unknown, and the bundle says so; give --license SPDX-ID and --attribution")
    if images_terms.license == licenses.UNKNOWN:
        ui.note(f"golden/ holds {len(images)} of your images; make sure that they may be passed on")
    int8 = any(r.precision is Precision.INT8 for r in chosen)
    encodings = outcome.quantized["encodings_sha256"] if int8 and outcome.quantized else None
    entries = golden.write_images(images, draft)
    outputs = [output.name for output in info.outputs]
    expected = _reference(run, images, outputs)
    reference = golden.write_answers(expected, "reference", draft)
    rows = {(row["target"], row["precision"]): row for row in report["artifacts"]}
    artifacts = []
    for result in chosen:
        entry = _artifact(draft, result, rows[result.target, str(result.precision)], info)
        artifacts.append(entry | {"golden": _golden(draft, result, images, outputs, expected)})
    return {
        **content.head_entries(info, report, encodings),
        "name": names.safe_name(info.file_stem),
        "version": options.version,
        "minimum_version": options.minimum_version,
        "app": options.app,
        "artifacts": artifacts,
        "golden": {"source": report["validation"]["source"], "images": entries, "reference": reference},
        "licenses": {
            "weights": weights.entry(),
            "golden": images_terms.entry(),
            "files": licenses.write(draft, weights, images_terms),
        },
    }


def _label_lines(info: ReferenceInfo) -> str:
    for label in info.labels:
        if not label or any(ord(c) < 32 or c in "\x7f\x85\u2028\u2029" for c in label):
            raise InputError(f"the label {label!r} is empty or spans lines; labels.txt has one a line, rename it")
    return "".join(f"{label}\n" for label in info.labels)


def _images(run: RunOptions, info: ReferenceInfo) -> list[GoldenImage]:
    from cspedge.data.images import labels_for

    listed = api.list_images(run.val, "val")
    labels = None
    if info.head == Head.LOGITS:
        labels = [int(v) for v in labels_for(listed, info.labels, num_classes=info.num_classes)]
    return golden.choose(listed, labels, info.preprocess)


def _reference(run: RunOptions, images: Sequence[GoldenImage], outputs: Sequence[str]) -> golden.Answers:
    from cspedge.evaluate.answers import reference_answers

    reference = api.load_reference(
        run.model, weights=run.weights, labels=run.labels, head=run.head, img_size=run.img_size
    )
    with reference_answers(reference, run.threads) as answer:
        return golden.answers(answer, images, outputs)


def _artifact(draft: Path, result: ArtifactResult, row: Mapping[str, Any], info: ReferenceInfo) -> dict[str, Any]:
    """Copies one artifact into the bundle; its entry without the golden answers."""
    from cspedge.lowering import require

    artifact, target = result.artifact, load_target(result.target)
    assert artifact is not None
    own = artifact.path.name.removeprefix(info.file_stem)  # .int8.onnx
    path = f"artifacts/{names.safe_name(result.target)}/{names.safe_name(info.file_stem)}{own}"
    destination = draft / path
    destination.parent.mkdir(parents=True, exist_ok=True)
    if artifact.path.is_dir():
        shutil.copytree(artifact.path, destination)
        files = [f"{path}/{name}" for name in atomic.plain_files(destination)]
    else:
        shutil.copyfile(artifact.path, destination)
        files = [path]
    versions = require(target).availability().versions
    return content.artifact_entry(row, target, artifact.float_tensors, versions, path, files)


def _golden(
    draft: Path,
    result: ArtifactResult,
    images: Sequence[GoldenImage],
    outputs: Sequence[str],
    expected: golden.Answers,
) -> list[dict[str, Any]]:
    from cspedge.evaluate.answers import session_answers

    artifact = result.artifact
    assert artifact is not None
    found = golden.answers(session_answers(api.open_session(artifact), artifact), images, outputs)
    stem = f"{names.safe_name(result.target)}.{result.precision}"
    entries = golden.write_answers(found, stem, draft)
    return [
        {**e, "max_abs": golden.tolerance(result.precision, expected[e["output"]], found[e["output"]])} for e in entries
    ]


def _finish(draft: Path, manifest: dict[str, Any], outcome: pipeline.Outcome) -> dict[str, Any]:
    """Writes the bill of materials and the manifest, which must pass what every reader checks."""
    text = bom.bill_of_materials(manifest, outcome.info.trained_on)
    (draft / bom.NAME).write_text(text, encoding="utf-8", newline="\n")
    found = atomic.plain_files(draft)
    manifest = {
        **manifest,
        "files": [
            {"path": name, "bytes": status.st_size, "sha256": sha256_file(draft / name)}
            for name, status in found.items()
        ],
    }
    try:
        names.check_paths(found)
        validate(manifest)
    except Refusal as error:
        raise UsageError(f"this model cannot be bundled: {error}") from error
    (draft / NAME).write_text(pretty_json(manifest), encoding="utf-8", newline="\n")
    return manifest


def _publish(draft: Path, final: Path) -> None:
    """A version, once made, stays what it is: the same files are left alone, others are refused."""
    if final.is_dir():
        if {n: sha256_file(final / n) for n in atomic.plain_files(final)} == {
            n: sha256_file(draft / n) for n in atomic.plain_files(draft)
        }:
            return
        raise UsageError(
            f"{str(final)!r} exists with other content; give a higher --bundle-version, or remove it if nobody has it"
        )
    atomic.publish(draft, final)


def write_zip(folder: Path, path: Path) -> None:
    """The bundle as a zip: sorted, 1980-01-01, 0644, stored; the same folder gives the same bytes."""
    with atomic.staging(path.parent) as staging:
        draft = staging / path.name
        with zipfile.ZipFile(draft, "w", zipfile.ZIP_STORED) as archive:
            for name in atomic.plain_files(folder):
                info = zipfile.ZipInfo(f"{folder.name}/{name}", (1980, 1, 1, 0, 0, 0))
                info.create_system, info.external_attr = 3, 0o100644 << 16
                with (folder / name).open("rb") as source, archive.open(info, "w") as target:
                    shutil.copyfileobj(source, target)
        atomic.publish(draft, path)
