"""What the manifest says: entries from a finished run, each with the same words as report.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cspedge.bundle.manifest import SCHEMA, preprocess_entry
from cspedge.types import Head, Output

if TYPE_CHECKING:
    from cspedge.config import Target
    from cspedge.models.reference import ReferenceInfo

_LATENCY = (
    "device",
    "isa",
    "threads",
    "p50_ms",
    "p90_ms",
    "p99_ms",
    "mean_ms",
    "load_ms",
    "peak_rss_mb",
    "speedup_vs_fp32",
    "speedup_ci95",
)


MODEL = ("name", "architecture", "head", "weights_sha256", "params", "num_classes")  # of report.json's `model`


def head_entries(info: ReferenceInfo, report: Mapping[str, Any], encodings_sha256: str | None) -> dict[str, Any]:
    """The part of the manifest that is the same for every artifact."""
    from cspedge import __version__

    preprocess, reference = info.preprocess, report["reference"]
    int8 = encodings_sha256 is not None
    return {
        "schema": SCHEMA,
        "generator": {"name": "cspedge", "version": __version__},
        "model": {
            **{key: report["model"][key] for key in MODEL},
            "labels": "labels.txt" if has_labels(info) else None,
        },
        "input": {
            "name": "image",
            "shape": [1, *preprocess.input_size],
            "dtype": "float32",
            "layout": "NCHW",
            "color": "RGB",
            "range": [0, 1],
            "normalization": {
                "where": "in the graph",
                "mean": list(preprocess.mean),
                "std": list(preprocess.std),
            },
        },
        "preprocess": preprocess_entry(preprocess),
        "outputs": [_output(output, info.head) for output in info.outputs],
        "encodings_sha256": encodings_sha256,
        "calibration": _images(report["calibration"]) if int8 else None,
        "validation": _images(report["validation"]),
        "reference": {key: reference[key] for key in ("precision", "device", "n", "top1", "top5", "macro_top1")},
    }


def has_labels(info: ReferenceInfo) -> bool:
    return bool(info.labels) and info.head == Head.LOGITS


def _output(output: Output, head: str) -> dict[str, Any]:
    return {
        "name": output.name,
        "shape": [1, *output.shape],
        "dtype": "float32",
        "layout": "NCHW" if len(output.shape) == 3 else "NC",
        "stride": output.stride,
        "values": head,
    }


def _images(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: entry[key] for key in ("n", "sha256", "source")}


def artifact_entry(
    row: Mapping[str, Any],
    target: Target,
    float_tensors: Sequence[str],
    versions: Mapping[str, str],
    path: str,
    files: Sequence[str],
) -> dict[str, Any]:
    """row: the artifact's in report.json; versions: of its SDK, the runtime first; path, files: in the bundle."""
    name, version = next(iter(versions.items()))
    return {
        "target": row["target"],
        "backend": row["backend"],
        "precision": row["precision"],
        "path": path,
        "files": sorted(files),
        "bytes": row["bytes"],
        "sha256": row["sha256"],
        "placement": row["placement"],
        "float_tensors": list(float_tensors),
        "runtime": {"name": name, "version": version, "options": dict(target.options)},
        "minimum_os": list(target.floor.os),
        "minimum_isa": list(target.floor.isa),
        "evidence": _evidence(row),
    }


def _evidence(row: Mapping[str, Any]) -> dict[str, Any]:
    latency, audit = row["latency"], row["audit"]
    if latency is not None:
        noise, timed = latency.get("noise"), {key: latency[key] for key in _LATENCY}
        if noise is not None and not noise["conclusive"]:  # too noisy to say how fast it is beside fp32
            timed |= {"speedup_vs_fp32": None, "speedup_ci95": None}
        latency = timed | {"n": len(latency["samples_ms"])}
    if audit is not None:
        shares = {key: audit[key] for key in ("int8_op_share", "int8_mac_share", "encodings_match")}
        audit = shares | {"fp32_islands": len(audit["fp32_islands"])}
    return {
        "kind": row["evidence"],
        "accuracy": row["accuracy"],
        "outputs": row["outputs"],
        "latency": latency,
        "audit": audit,
        "verdict": row["verdict"],
        "reasons": row["reasons"],
    }
