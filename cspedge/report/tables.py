"""The page's tables: what each head is judged by, level by level and pair by pair, and what stays in float."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from cspedge.report import words
from cspedge.report.schema import REFERENCE, artifact_label
from cspedge.types import Head, Precision

_MOST_ISLANDS = 200  # listed per artifact; report.json has them all
_OPEN_ISLANDS = 8  # a list this short is shown without asking
_HEAT_STEPS = 8

# The columns that say how close an artifact is to fp32: (heading in two lines, label on a phone).
COLUMNS: Mapping[Head, tuple[tuple[tuple[str, str], str], ...]] = {
    Head.LOGITS: (
        (("Top-1", ""), "Top-1"),
        (("Points lost", "(95 %)"), "Points lost"),
        (("Agrees", "with fp32"), "Agreement"),
        (("SQNR", "dB"), "SQNR, dB"),
    ),
    Head.FEATURES: (
        (("SQNR, dB,", "least level"), "Least SQNR, dB"),
        (("Cosine to fp32,", "least level"), "Least cosine"),
        (("Least", "of any image"), "Least image"),
    ),
    Head.EMBEDDING: (
        (("Cosine", "to fp32"), "Cosine to fp32"),
        (("Least", "of any image"), "Least image"),
        (("Keeps nearest", "neighbour"), "Same neighbour"),
        (("SQNR", "dB"), "SQNR, dB"),
    ),
}
Cell = dict[str, str]


def level_name(output: Mapping[str, Any], outputs: list[Mapping[str, Any]]) -> str:
    """`stride 8`, or the output's own name where the stride does not tell it apart."""
    same = [other for other in outputs if other["stride"] == output["stride"]]
    return output["name"] if output["stride"] is None or len(same) > 1 else f"stride {output['stride']}"


def level_of(row: Mapping[str, Any], outputs: list[Mapping[str, Any]]) -> str:
    """The level's name of a row of an artifact's outputs."""
    return next(level_name(output, outputs) for output in outputs if output["name"] == row["name"])


def worst(artifact: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The output that is furthest from fp32 by `key`; null (equal bit for bit) is the best there is."""
    found: Mapping[str, Any] = min(artifact["outputs"], key=lambda row: math.inf if row[key] is None else row[key])
    return found


def closeness(artifact: Mapping[str, Any], model: Mapping[str, Any]) -> list[Cell]:
    """One cell {text, small, label} per column of COLUMNS; none where nothing was measured."""
    head = Head(model["head"])
    labels = [label for _, label in COLUMNS[head]]
    if head is Head.LOGITS:
        found = _logits(artifact["accuracy"]) if artifact["accuracy"] is not None else []
    elif not artifact["outputs"]:
        found = []
    else:
        found = _features(artifact, model["outputs"]) if head is Head.FEATURES else _embedding(artifact["outputs"][0])
    return [{"text": text, "small": small, "label": label} for (text, small), label in zip(found, labels, strict=False)]


def _logits(accuracy: Mapping[str, Any]) -> list[tuple[str, str]]:
    low, high = (words.points(bound) for bound in accuracy["drop_ci95"])
    return [
        (words.percent(accuracy["top1"]), ""),
        (words.points(accuracy["drop_top1"]), f"{low} to {high}"),
        (words.percent(accuracy["agreement"]), ""),
        (words.decibels(accuracy["sqnr_db"]), ""),
    ]


def _features(artifact: Mapping[str, Any], outputs: list[Mapping[str, Any]]) -> list[tuple[str, str]]:
    noisy, far, least = (worst(artifact, key) for key in ("sqnr_db", "cosine_mean", "cosine_min"))
    return [
        (words.decibels(noisy["sqnr_db"]), level_of(noisy, outputs)),
        (words.cosine(far["cosine_mean"]), level_of(far, outputs)),
        (words.cosine(least["cosine_min"]), level_of(least, outputs)),
    ]


def _embedding(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    same = row["neighbour_agreement"]
    return [
        (words.cosine(row["cosine_mean"]), ""),
        (words.cosine(row["cosine_min"]), ""),
        ("\u2013" if same is None else words.percent(same), ""),
        (words.decibels(row["sqnr_db"]), ""),
    ]


def levels(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For feature maps: each level {title, name, shape, rows}, a row {artifact, sqnr, cosine, least} per artifact."""
    model = report["model"]
    if model["head"] != Head.FEATURES:
        return []
    found = []
    for index, output in enumerate(model["outputs"]):
        ran = [(artifact, artifact["outputs"][index]) for artifact in report["artifacts"] if artifact["outputs"]]
        rows = [
            {
                "artifact": artifact,
                "sqnr": words.decibels(row["sqnr_db"]),
                "cosine": words.cosine(row["cosine_mean"]),
                "least": words.cosine(row["cosine_min"]),
            }
            for artifact, row in ran
        ]
        title = level_name(output, model["outputs"])
        shape = " \u00d7 ".join(str(side) for side in output["shape"])
        found.append({"title": title[:1].upper() + title[1:], "name": output["name"], "shape": shape, "rows": rows})
    return found if any(level["rows"] for level in found) else []


def agreement(report: Mapping[str, Any]) -> dict[str, Any]:
    """Same answers (logits) or same nearest neighbours (embeddings) of every pair, the fp32 reference first.

    Cells are {text, heat} or None; "full": the disagreement that has the strongest colour.
    """
    logits = report["model"]["head"] == Head.LOGITS
    key, full = ("top1_agreement", 0.2) if logits else ("neighbour_agreement", 0.6)
    pairs = {(p["a"], p["b"]): p[key] for p in report["agreement"]}
    for artifact in report["artifacts"]:
        if artifact["accuracy"] is not None:
            pairs.setdefault((REFERENCE, artifact_label(artifact)), artifact["accuracy"]["agreement"])
    # Shade what differs: the square root spreads the small disagreements that matter.
    found = _matrix(
        report, pairs, lambda value: words.percent(value).removesuffix(" %"), lambda v: math.sqrt((1 - v) / full)
    )
    return {**found, "full": full}


def differences(report: Mapping[str, Any]) -> dict[str, Any]:
    """Largest absolute difference of any logit, or of any value of the embeddings, of every pair."""
    key = "max_abs_logit_diff" if report["model"]["head"] == Head.LOGITS else "max_abs_diff"
    pairs = {(p["a"], p["b"]): p[key] for p in report["agreement"]}
    most = max(pairs.values(), default=0.0) or 1.0
    return _matrix(report, pairs, words.brief, lambda value: value / most)


def _matrix(
    report: Mapping[str, Any],
    pairs: Mapping[tuple[str, str], float],
    show: Callable[[float], str],
    heat: Callable[[float], float],
) -> dict[str, Any]:
    present = {name for pair in pairs for name in pair}
    names = [name for name in (REFERENCE, *map(artifact_label, report["artifacts"])) if name in present]
    rows = []
    for row in names:
        cells: list[dict[str, Any] | None] = []
        for column in names:
            value = pairs.get((row, column), pairs.get((column, row)))
            if row == column or value is None:
                cells.append(None)
            else:
                cells.append({"text": show(value), "heat": min(_HEAT_STEPS, math.ceil(_HEAT_STEPS * heat(value)))})
        rows.append({"name": row.rsplit("/", 1), "cells": cells})
    return {"names": [name.rsplit("/", 1) for name in names], "rows": rows}


def islands(artifacts: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The int8 artifacts that were audited, with what stays in float."""
    audited = [a for a in artifacts if a["precision"] == Precision.INT8 and a["audit"] is not None]
    return [
        {
            "artifact": artifact,
            "audit": artifact["audit"],
            "shown": artifact["audit"]["fp32_islands"][:_MOST_ISLANDS],
            "count": len(artifact["audit"]["fp32_islands"]),
            "open": len(artifact["audit"]["fp32_islands"]) <= _OPEN_ISLANDS,
        }
        for artifact in audited
    ]
