"""report.json, schema 1: exact keys, types, ranges and the rules between fields, checked in code.

Every object is closed (an unknown key is an error) except three that carry other parts' words
(`model.preprocess`, `reference.trained_on`, `environment`): below those any finite JSON is taken.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cspedge.errors import UsageError
from cspedge.report import checks, evidence_checks, single_images
from cspedge.report.layers import LAYERS
from cspedge.report.schema_latency import LATENCY
from cspedge.types import Evidence, Head, Precision, Status, Verdict

SCHEMA = 1
REFERENCE = "reference/fp32"  # the name of the fp32 reference in `agreement`


def artifact_label(artifact: Mapping[str, Any]) -> str:
    """`target/precision`, the name of an artifact throughout the report."""
    return f"{artifact['target']}/{artifact['precision']}"


def load(path: Path) -> dict[str, Any]:
    """Reads and validates a report.json. Raises UsageError for another schema or anything malformed."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError as error:
        raise UsageError(f"no report at {str(path)!r}: write one with `cspedge run` or `cspedge report`") from error
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise UsageError(f"{str(path)!r} cannot be read as a report.json ({error}): write it anew") from error
    try:
        validate(report)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    assert isinstance(report, dict)
    return report


def validate(report: Any) -> None:
    """Checks a whole report against schema 1.

    Raises UsageError with the JSON path of the first thing that is wrong (`artifacts[2].latency.p50_ms`).
    """
    if isinstance(report, dict) and report.get("schema") != SCHEMA:
        raise UsageError(
            f"report has schema {report.get('schema')!r} and this cspedge reads schema {SCHEMA}: "
            "write it anew with `cspedge report`, or read it with the cspedge that wrote it"
        )
    _REPORT(report, "")
    labels = [artifact_label(a) for a in report["artifacts"]]
    for index, artifact in enumerate(report["artifacts"]):
        where = f"artifacts[{index}]"
        if labels.index(labels[index]) != index:
            raise checks.wrong(where, f"repeats {labels[index]!r}", "one artifact per target and precision")
        _artifact_rules(artifact, where)
    evidence_checks.rules(report)
    single_images.check_counts(report)
    names = [output["name"] for output in report["model"]["outputs"]]
    for index, artifact in enumerate(report["artifacts"]):
        found = [row["name"] for row in artifact["outputs"]]
        if found and found != names:
            raise checks.wrong(f"artifacts[{index}].outputs", f"names {found}", f"the model's outputs {names}")
    for index, pair in enumerate(report["agreement"]):
        for side in ("a", "b"):
            if pair[side] not in labels and pair[side] != REFERENCE:
                raise checks.wrong(f"agreement[{index}].{side}", f"is {pair[side]!r}", f"one of {[*labels, REFERENCE]}")


def _artifact_rules(artifact: dict[str, Any], where: str) -> None:
    """What one field of an artifact demands of another."""
    ok, not_run = artifact["status"] == Status.OK, artifact["evidence"] == Evidence.NOT_RUN
    if not ok:
        for key in ("accuracy", "paired", "outputs", "latency", "instructions", "audit"):
            if artifact.get(key):
                raise checks.wrong(f"{where}.{key}", f"is given though status is {artifact['status']!r}", "nothing")
        if not artifact["reason"]:
            raise checks.wrong(f"{where}.reason", "is empty", f"a sentence, since status is {artifact['status']!r}")
        if not not_run:
            raise checks.wrong(
                f"{where}.evidence", f"is {artifact['evidence']!r}", "'not-run' where status is not 'ok'"
            )
        if artifact["verdict"] != Verdict.DO_NOT_SHIP:
            raise checks.wrong(
                f"{where}.verdict", f"is {artifact['verdict']!r}", "'do-not-ship' where status is not 'ok'"
            )
        return
    for key in ("path", "bytes", "sha256"):
        if artifact[key] is None:
            raise checks.wrong(f"{where}.{key}", "is null", "a value, since status is 'ok'")
    if (not artifact["outputs"]) != not_run:
        raise checks.wrong(
            f"{where}.outputs", f"does not fit evidence {artifact['evidence']!r}", "empty exactly for 'not-run'"
        )
    latency = artifact["latency"]
    if artifact.get("instructions") is not None and (latency is not None or artifact["evidence"] != Evidence.EMULATED):
        raise checks.wrong(f"{where}.instructions", "is given beside a time, or off an emulation", "null there")
    if latency is not None and not latency["p50_ms"] <= latency["p90_ms"] <= latency["p99_ms"]:
        raise checks.wrong(f"{where}.latency", "has percentiles out of order", "p50_ms <= p90_ms <= p99_ms")


def _refuse_constant(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")


_FRACTION, _POSITIVE, _SIGNED = checks.number(0, 1), checks.number(0), checks.number(-1, 1)
_SKIPPED = checks.list_of(checks.closed({"name": checks.text, "reason": checks.text}))  # images that could not be read
_IMAGES: dict[str, checks.Check] = {
    "n": checks.count,
    "sha256": checks.sha256,
    "source": checks.text,
    "skipped": _SKIPPED,
}

_ACCURACY = checks.closed(
    {
        "n": checks.count,
        "top1": _FRACTION,
        "top5": _FRACTION,
        "macro_top1": _FRACTION,
        "drop_top1": _SIGNED,
        "drop_ci95": checks.interval(-1, 1),
        "agreement": _FRACTION,
        "sqnr_db": checks.or_null(checks.number()),  # null: equal to the reference bit for bit
    }
)
# Paired tests; q: p corrected for all classes; a bootstrap is null where no answer changed.
_PAIRED = checks.closed(
    {
        "only_reference": checks.count,
        "only_artifact": checks.count,
        "mcnemar_p": _FRACTION,
        "drop_bootstrap95": checks.or_null(checks.interval(-1, 1)),
        "top5_drop": _SIGNED,
        "top5_ci95": checks.interval(-1, 1),
        "top5_mcnemar_p": _FRACTION,
        "macro_drop": _SIGNED,
        "macro_bootstrap95": checks.or_null(checks.interval(-1, 1)),
        "ece_reference": _FRACTION,
        "ece_reference_bins": checks.count,
        "ece": _FRACTION,
        "ece_bins": checks.count,
        "classes": checks.count,
        "changed": checks.list_of(
            checks.closed(
                {
                    "label": checks.count,
                    "n": checks.count,
                    "only_reference": checks.count,
                    "only_artifact": checks.count,
                    "p": _FRACTION,
                    "q": _FRACTION,
                }
            )
        ),
    }
)
# One output of an artifact beside the reference's; sqnr_db null: equal bit for bit; neighbours are for embeddings.
_CLOSENESS = checks.closed(
    {
        "name": checks.name,
        "n": checks.count,
        "sqnr_db": checks.or_null(checks.number()),
        "cosine_mean": _SIGNED,
        "cosine_min": _SIGNED,
        "neighbour_agreement": checks.or_null(_FRACTION),
    }
)
_AUDIT = checks.closed(
    {
        "int8_op_share": _FRACTION,
        "int8_mac_share": _FRACTION,
        "fp32_islands": checks.list_of(checks.text),
        "encodings_match": checks.or_null(checks.flag),  # null: a float artifact has none
    },
    {"notes": checks.list_of(checks.text)},
)
# What the accuracy loop keeps in float, and how it ended.
_KEPT = checks.closed(
    {
        "tensors": checks.list_of(checks.name),
        "layers": checks.list_of(checks.name),
        "mac_share": _FRACTION,
        "met": checks.flag,
        "reason": checks.text,
    }
)
_ARTIFACT = checks.closed(
    {
        "target": checks.name,
        "backend": checks.name,
        "precision": checks.one_of(Precision),
        "status": checks.one_of(Status),
        "reason": checks.or_null(checks.text),
        "path": checks.or_null(checks.text),
        "bytes": checks.or_null(checks.count),
        "sha256": checks.or_null(checks.sha256),
        "placement": checks.or_null(checks.text),
        "evidence": checks.one_of(Evidence),
        "accuracy": checks.or_null(_ACCURACY),  # null: not run, or the head gives no logits
        "outputs": checks.list_of(_CLOSENESS),
        "pt2e": checks.or_null(  # the check at lowering, against the same placed graph in torch
            checks.closed({"sqnr_db": checks.or_null(checks.number()), "max_abs_diff": _POSITIVE})
        ),
        "latency": checks.or_null(LATENCY),
        "audit": checks.or_null(_AUDIT),
        "lower_s": checks.or_null(_POSITIVE),
        "kept": checks.or_null(_KEPT),  # null: no accuracy loop was asked for
        "verdict": checks.one_of(Verdict),
        "reasons": checks.list_of(checks.text),
    },
    {
        "evidence_detail": checks.or_null(checks.text),
        "manifest": checks.or_null(checks.text),
        "paired": checks.or_null(_PAIRED),  # absent: written before there were any; null as accuracy
        "ran_on": checks.or_null(evidence_checks.RAN_ON),
        "trace": checks.or_null(evidence_checks.TRACE),  # null: not asked for (--trace), or no Core ML package
        "robustness": evidence_checks.CORRUPTED,  # empty: not asked for, or a float artifact
        "instructions": checks.or_null(evidence_checks.INSTRUCTIONS),  # null: not emulated, or not counted
        "images": checks.or_null(single_images.IMAGES),  # absent or null as paired
    },
)
_PAIR: dict[str, checks.Check] = {"a": checks.text, "b": checks.text}
_REPORT = checks.closed(
    {
        "schema": checks.constant(SCHEMA),
        "model": checks.closed(
            {
                "name": checks.name,
                "architecture": checks.text,
                "head": checks.one_of(Head),
                "weights_sha256": checks.sha256,
                "params": checks.count,
                "num_classes": checks.count,
                "preprocess": checks.opened({}),
                "outputs": checks.list_of(
                    checks.closed(
                        {
                            "name": checks.name,
                            "shape": checks.list_of(checks.count, at_least=1),
                            "stride": checks.or_null(checks.count),
                        }
                    ),
                    at_least=1,
                ),
            },
            {"labels": checks.or_null(checks.list_of(checks.text))},
        ),
        "reference": checks.closed(
            {
                "precision": checks.constant("fp32"),
                "device": checks.text,
                "top1": checks.or_null(_FRACTION),  # null: the head gives no logits
                "top5": checks.or_null(_FRACTION),
                "macro_top1": checks.or_null(_FRACTION),
                "n": checks.count,
                "trained_on": checks.or_null(checks.opened({})),
            },
            {"right": checks.or_null(single_images.bits)},  # absent or null as the artifacts' images
        ),
        # null: nothing was calibrated (float artifacts only), nothing was validated
        "calibration": checks.or_null(
            checks.closed(
                {
                    **_IMAGES,
                    "recipe": checks.text,
                    "recipe_summary": checks.text,
                    "recipe_sha256": checks.text,
                    "overlap_with_validation": checks.count,
                    "sampling": checks.or_null(checks.text),  # null: the caller drew the images
                    "seed": checks.or_null(checks.count),
                    "per_class": checks.or_null(
                        checks.closed({"classes": checks.count, "min": checks.count, "max": checks.count})
                    ),
                    "training": checks.or_null(checks.closed(_IMAGES)),  # images that a recipe learns from besides
                }
            )
        ),
        "validation": checks.or_null(checks.closed(_IMAGES)),
        "tuning": checks.or_null(checks.closed(_IMAGES)),  # images of the accuracy loop; null: there was none
        "artifacts": checks.list_of(_ARTIFACT),
        "agreement": checks.list_of(
            checks.either(
                checks.closed({**_PAIR, "top1_agreement": _FRACTION, "max_abs_logit_diff": _POSITIVE}),
                checks.closed({**_PAIR, "neighbour_agreement": _FRACTION, "max_abs_diff": _POSITIVE}),
                by="top1_agreement",
            )
        ),
        "environment": checks.opened(
            {
                "cspedge": checks.text,
                "python": checks.text,
                "torch": checks.text,
                "cpu": checks.text,
                "isa": checks.list_of(checks.text),
                "os": checks.text,
            }
        ),
        "stages": checks.list_of(checks.closed({"name": checks.name, "seconds": _POSITIVE, "cached": checks.flag})),
        "notes": checks.list_of(checks.text),
    },
    {
        "flips": checks.or_null(single_images.FLIPS),  # null: the head gives no logits
        "layers": LAYERS,  # absent: not asked for (--explain)
        "robustness": checks.or_null(evidence_checks.CORRUPTIONS),  # null: not asked for (--robustness)
    },
)
