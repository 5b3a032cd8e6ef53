"""What the user keeps: artifacts with their manifests, encodings.json and the report, each whole or not there."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cspedge import atomic
from cspedge.config import load_target
from cspedge.digest import sha256_path
from cspedge.types import ArtifactResult, Status

if TYPE_CHECKING:
    from cspedge.inputs import Calibration, Quantized
    from cspedge.models.reference import ReferenceInfo
    from cspedge.quantize.explain import Explanation


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
    found["outliers"] = outliers(quantized, calibration)
    return found | {"calibration": {"n": len(images), "sha256": images.sha256, "source": images.source}}


def outliers(quantized: Quantized, calibration: Calibration) -> list[dict[str, Any]]:
    """Tensors that a few calibration images drive far out of their range, with the images' names, widest first."""
    rows = json.loads(quantized.stored.file("outliers.json").read_text(encoding="utf-8"))
    names = calibration.images.names
    return [{**row, "images": [names[i] for i in row["images"]]} for row in rows]


def outlier_notes(rows: list[dict[str, Any]]) -> tuple[str, ...]:
    """One sentence for all of them; nothing where there are none."""
    if not rows:
        return ()
    images = list(dict.fromkeys(name for row in rows for name in row["images"]))
    shown = ", ".join(images[:3]) + (f" and {len(images) - 3} more" if len(images) > 3 else "")
    worst = rows[0]
    return (
        f"calibration: {len(images)} images ({shown}) drive {len(rows)} tensors far out of the range of all others, "
        f"most of all {worst['tensor']}, {worst['lo']:.4g} to {worst['hi']:.4g} where its encoding holds "
        f"{worst['range_lo']:.4g} to {worst['range_hi']:.4g}; they are clipped, so int8 may lose such images",
    )


def artifact(
    row: ArtifactResult,
    info: ReferenceInfo,
    quantized: Quantized | None,
    calibration: Calibration | None,
    out: Path,
    files: list[str],
) -> ArtifactResult:
    """Copies a finished artifact and its manifest to `out/<target>/`; a copy with the right digest stays as it is."""
    from cspedge.lowering import manifest, require

    if row.status is not Status.OK or row.artifact is None:
        return row
    found = row.artifact
    target = load_target(row.target)
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


def explanation(target: str, found: Explanation, out: Path) -> list[str]:
    """Writes explain/TARGET.json and its plot."""
    from cspedge.report.sensitivity_plot import sensitivity_plot, standalone

    folder = out / "explain"
    _folder(folder)
    values = found.to_dict()
    atomic.write_json(folder / f"{target}.json", values)
    atomic.write_text(folder / f"{target}.svg", standalone(sensitivity_plot(values["rows"])))
    return [f"explain/{target}.json", f"explain/{target}.svg"]


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
