"""What the user keeps: artifacts with their manifests, encodings.json and the report, each whole or not there."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cspedge import atomic
from cspedge.config import load_target
from cspedge.digest import sha256_path
from cspedge.types import ArtifactResult, PlacementMode, Status

if TYPE_CHECKING:
    from cspedge.inputs import Calibration, Quantized
    from cspedge.models.reference import ReferenceInfo


def encodings(quantized: Quantized, out: Path) -> list[str]:
    """Writes encodings.json; returns the names of what was written, relative to `out`."""
    _folder(out)
    atomic.write_bytes(out / "encodings.json", quantized.stored.file("encodings.json").read_bytes())
    return ["encodings.json"]


def quantized_summary(quantized: Quantized, calibration: Calibration | None) -> dict[str, Any]:
    """What manifests and `cspedge quantize --json` say about the encodings."""
    found = {
        "activations": quantized.stored.meta["activations"],
        "weights": quantized.stored.meta["weights"],
        "encodings_sha256": quantized.stored.files["encodings.json"],
    }
    if calibration is None:
        return found
    images = calibration.images
    return found | {"calibration": {"n": len(images), "sha256": images.sha256, "source": images.source}}


def artifact(
    row: ArtifactResult,
    info: ReferenceInfo,
    quantized: Quantized | None,
    calibration: Calibration | None,
    out: Path,
    files: list[str],
    placement: PlacementMode,
) -> ArtifactResult:
    """Copies a finished artifact and its manifest to `out/<target>/`; a copy with the right digest stays as it is."""
    from cspedge.lowering import manifest, require

    if row.status is not Status.OK or row.artifact is None:
        return row
    found = row.artifact
    target = load_target(row.target, placement)
    folder = out / row.target
    _folder(folder)
    destination = folder / found.path.name
    if not destination.exists() or sha256_path(destination) != found.sha256:
        with atomic.staging(folder) as draft, atomic.translate_errors(destination):
            copy = draft / found.path.name
            shutil.copytree(found.path, copy) if found.path.is_dir() else shutil.copyfile(found.path, copy)
            atomic.publish(copy, destination)
    summary = quantized_summary(quantized, calibration) if quantized else {}
    name = f"{info.file_stem}.{row.precision}.manifest.json"
    text = manifest(
        found,
        info,
        target,
        encodings_sha256=summary.get("encodings_sha256"),
        calibration=summary.get("calibration"),
        versions=dict(require(target).availability().versions),
    )
    atomic.write_json(folder / name, text)
    files += [f"{row.target}/{found.path.name}", f"{row.target}/{name}"]
    return replace(row, manifest=f"{row.target}/{name}")


def report(value: dict[str, Any], out: Path) -> list[str]:
    """Writes report.json and report.html."""
    from cspedge.report import render

    _folder(out)
    atomic.write_json(out / "report.json", value)
    atomic.write_text(out / "report.html", render(value))
    return ["report.json", "report.html"]


def _folder(folder: Path) -> None:
    """Makes the folder, and clears what a killed run left in it."""
    atomic.make_folder(folder)
    atomic.remove_stale(folder)
