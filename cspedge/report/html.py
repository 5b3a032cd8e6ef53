"""report.html: one self-contained page from a report of schema 1; no script, no fetch, the same bytes every time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cspedge.report import words
from cspedge.report.schema import REFERENCE, artifact_label, validate
from cspedge.report.verdict import DEFAULT_BUDGET, recommend
from cspedge.types import Precision, Status

if TYPE_CHECKING:
    from jinja2 import Environment

# Nothing may be fetched or executed, whatever a name in the report contains.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
)
_MOST_ISLANDS = 200  # listed per artifact; report.json has them all
_OPEN_ISLANDS = 8  # a list this short is shown without asking
_HEAT_STEPS = 8
_VERSIONS_FIRST = ("cspedge", "python", "torch")
_HOST_KEYS = ("cpu", "os", "isa", "threads")


def render(report: Mapping[str, Any]) -> str:
    """The page as one HTML document, complete without JavaScript.

    report: as `schema.validate` takes it (UsageError otherwise); strings in it are escaped, control and
    bidi characters dropped. The output depends on the report alone.
    """
    validate(report)
    from cspedge.report import plots

    artifacts = list(report["artifacts"])
    drawings = {
        "drop": plots.drop_plot(artifacts),
        "latency": plots.latency_plot(artifacts),
        "size": plots.size_plot(artifacts),
    }
    environment = _environment()
    from markupsafe import Markup

    return environment.get_template("report.html.j2").render(
        report=report,
        model=report["model"],
        csp=CONTENT_SECURITY_POLICY,
        pick=_pick(report),
        # The one markup that is not escaped again: serialised by `svg.inline`, which escapes all text.
        plots={name: Markup(svg) for name, svg in drawings.items()},
        agreement=_agreement_matrix(report),
        logit_diff=_logit_matrix(report),
        islands=_islands(artifacts),
        steps=_preprocess_steps(report["model"]["preprocess"]),
        versions=_versions(report["environment"]),
        host=[(key, report["environment"][key]) for key in _HOST_KEYS if key in report["environment"]],
        slowest=max((stage["seconds"] for stage in report["stages"]), default=0.0),
        budget=DEFAULT_BUDGET,
    )


def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("cspedge.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=words.percent,
        points=words.points,
        size=words.megabytes,
        ms=words.milliseconds,
        duration=words.seconds,
        times=words.times,
        label=artifact_label,
        value=_value_text,
        more=_more,
    )
    environment.globals.update(verdict_words=words.VERDICT_WORDS, evidence_words=words.EVIDENCE_WORDS)
    return environment


def _finalize(value: Any) -> Any:
    """Every string on its way into the page: no hidden characters, no line break before a unit."""
    if type(value) is not str:  # Markup passes: it is our own
        return value
    text = words.plain(value)
    for unit in (" %", " ms", " MB", " kB", " dB"):
        text = text.replace(unit, f"\u00a0{unit[1:]}")
    return text


def _value_text(value: Any) -> str:
    """Any JSON value in a word or a short list, for tables of facts whose keys the report does not know."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, list):
        return ", ".join(_value_text(item) for item in value) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_value_text(item)}" for key, item in sorted(value.items())) or "none"
    return str(value)


def _more(artifact: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """What the table has no column for, as (name, value)."""
    accuracy, latency, audit = artifact["accuracy"], artifact["latency"], artifact["audit"]
    facts: list[tuple[str, Any]] = [
        ("File", artifact["path"]),
        ("SHA-256", artifact["sha256"]),
        ("Placement", artifact["placement"]),
        ("Evidence", artifact.get("evidence_detail")),
        ("Manifest", artifact.get("manifest")),
    ]
    if accuracy is not None:
        facts += [("Top-5", words.percent(accuracy["top5"])), ("Macro top-1", words.percent(accuracy["macro_top1"]))]
    if latency is not None:
        facts += [
            ("Mean", f"{words.milliseconds(latency['mean_ms'])} ms over {len(latency['samples_ms'])} samples"),
            ("Load", f"{words.milliseconds(latency['load_ms'])} ms"),
            ("Peak memory", latency["peak_rss_mb"] and f"{latency['peak_rss_mb']:.0f} MB"),
            ("Device", f"{latency['device']}, {latency['threads']} thread{'s' * (latency['threads'] != 1)}"),
            ("Instruction sets", latency["isa"]),
        ]
    if audit is not None:
        facts += [("Operations in int8", words.percent(audit["int8_op_share"])), ("Notes", audit.get("notes"))]
    return [(name, value) for name, value in facts if value]


def _pick(report: Mapping[str, Any]) -> dict[str, Any]:
    """`recommend`'s answer with the chosen artifacts themselves and, for int8, the same target's float artifact."""
    choice = recommend(report)
    by_label = {artifact_label(a): a for a in report["artifacts"]}
    best = by_label.get(choice["artifact"])
    twin = None
    if best is not None and best["precision"] == Precision.INT8:
        floats = [a for a in report["artifacts"] if a["target"] == best["target"] and a["precision"] != Precision.INT8]
        twin = next((a for a in floats if a["status"] == Status.OK), None)
    platforms = [{**p, "name": (p["artifact"] or "").rsplit("/", 1)} for p in choice["platforms"]]
    return {**choice, "platforms": platforms, "best": best, "twin": twin}


def _agreement_matrix(report: Mapping[str, Any]) -> dict[str, Any]:
    """Top-1 agreement of every pair, the fp32 reference first; cells are {text, heat} or None."""
    pairs = {(p["a"], p["b"]): p["top1_agreement"] for p in report["agreement"]}
    for artifact in report["artifacts"]:
        if artifact["accuracy"] is not None:
            pairs.setdefault((REFERENCE, artifact_label(artifact)), artifact["accuracy"]["agreement"])
    # Shade what differs: the square root spreads the small disagreements that matter; a fifth is full.
    return _matrix(
        report, pairs, lambda value: words.percent(value).removesuffix(" %"), lambda v: math.sqrt((1 - v) / 0.2)
    )


def _logit_matrix(report: Mapping[str, Any]) -> dict[str, Any]:
    """Largest absolute difference of any logit of every pair."""
    pairs = {(p["a"], p["b"]): p["max_abs_logit_diff"] for p in report["agreement"]}
    most = max(pairs.values(), default=0.0) or 1.0
    return _matrix(report, pairs, _short_number, lambda value: value / most)


def _matrix(report: Mapping[str, Any], pairs: Mapping[tuple[str, str], float], show: Any, heat: Any) -> dict[str, Any]:
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


def _short_number(value: float) -> str:
    """Three characters or so: 1.2, 0.03, 3e-5."""
    if value == 0:
        return "0"
    if value < 0.01:
        mantissa, exponent = f"{value:.0e}".split("e")
        return f"{mantissa}e\u2212{abs(int(exponent))}"
    return f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _islands(artifacts: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
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


def _preprocess_steps(preprocess: Mapping[str, Any]) -> list[str]:
    """The preprocessing contract in sentences; facts the sentences do not cover are added as they are."""
    known = {"input_size", "crop_pct", "crop_mode", "interpolation", "mean", "std"}
    steps: list[str] = []
    if known <= preprocess.keys():
        size, pct, mode = preprocess["input_size"], preprocess["crop_pct"], preprocess["crop_mode"]
        how = f"Resize for a {size[1]} \u00d7 {size[2]} crop at {_value_text(pct)} of the image, crop mode {mode}"
        if mode == "center":
            # timm's rule: the scaled size is rounded down (timm.data.transforms_factory, crop_pct).
            how = (
                f"Resize the shorter side to {math.floor(size[1] / pct)} px, crop the centre {size[1]} \u00d7 {size[2]}"
            )
        steps.append(f"{how}; interpolation {preprocess['interpolation']}.")
        steps.append("Hand over RGB as float32 in [0, 1] (byte / 255), channels first: nothing else is up to the app.")
        mean, std = _value_text(preprocess["mean"]), _value_text(preprocess["std"])
        steps.append(f"Inside the graph: subtract the mean ({mean}), divide by the standard deviation ({std}).")
    else:
        known = set()
    steps.extend(f"{key}: {_value_text(value)}" for key, value in preprocess.items() if key not in known)
    return steps


def _versions(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    rest = sorted(key for key in environment if key not in {*_VERSIONS_FIRST, *_HOST_KEYS})
    return [(key, _value_text(environment[key])) for key in (*_VERSIONS_FIRST, *rest)]
