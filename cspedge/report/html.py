"""report.html: one self-contained page from a report of schema 1; no script, no fetch, the same bytes every time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cspedge.report import facts, tables, words
from cspedge.report.schema import artifact_label, validate
from cspedge.report.verdict import DEFAULT_BUDGET, recommend
from cspedge.types import Head, Precision, Status

if TYPE_CHECKING:
    from jinja2 import Environment

# Nothing may be fetched or executed, whatever a name in the report contains.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
)
_VERSIONS_FIRST = ("cspedge", "python", "torch")
_HOST_KEYS = ("cpu", "os", "isa", "threads")


def render(report: Mapping[str, Any]) -> str:
    """The page as one HTML document, complete without JavaScript.

    report: as `schema.validate` takes it (UsageError otherwise); strings in it are escaped, control and
    bidi characters dropped. The output depends on the report alone.
    """
    validate(report)
    from cspedge.report import changes, contact, contract, layers, provenance, robustness

    artifacts = list(report["artifacts"])
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            model=report["model"],
            head=str(report["model"]["head"]),
            csp=CONTENT_SECURITY_POLICY,
            pick=_pick(report),
            plots=_plots(report),
            layers=layers.drawings(report),
            columns=tables.COLUMNS[Head(report["model"]["head"])],
            levels=tables.levels(report),
            changes=changes.changes(report),
            contact=contact.sheet(report),
            robust=robustness.table(report),
            agreement=tables.agreement(report),
            differences=tables.differences(report),
            islands=tables.islands(artifacts),
            reference=provenance.reference_facts(report),
            trained=provenance.provenance(report["reference"]),
            steps=contract.steps(report["model"]["preprocess"]),
            versions=_versions(report["environment"]),
            host=[(key, report["environment"][key]) for key in _HOST_KEYS if key in report["environment"]],
            slowest=max((stage["seconds"] for stage in report["stages"]), default=0.0),
            budget=DEFAULT_BUDGET,
        )
    )


def _plots(report: Mapping[str, Any]) -> dict[str, Any]:
    """The head's own plot under "close", latency and size; "samples" and "pareto" where something was timed."""
    from markupsafe import Markup

    from cspedge.report import levels, pareto, plots, strip

    artifacts, head = list(report["artifacts"]), report["model"]["head"]
    if head == Head.FEATURES:
        close = levels.levels_plot(artifacts, report["model"]["outputs"])
    else:
        close = plots.drop_plot(artifacts) if head == Head.LOGITS else plots.cosine_plot(artifacts)
    drawings = {"close": close, "latency": plots.latency_plot(artifacts), "size": plots.size_plot(artifacts)}
    if any(artifact["latency"] is not None for artifact in artifacts):
        drawings["samples"] = strip.samples_plot(artifacts)
    if pareto.measured(artifacts):
        drawings["pareto"] = pareto.pareto_plot(artifacts, report["reference"]["top1"])
    # The one markup that is not escaped again: serialised by `svg.inline`, which escapes all text.
    return {name: Markup(drawing) for name, drawing in drawings.items()}


def environment() -> Environment:
    """Jinja's, with the report's words; every string is escaped, and nothing undefined is passed over."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("cspedge.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        percent=words.percent,
        points=words.points,
        size=words.megabytes,
        ms=words.milliseconds,
        instructions=words.instructions,
        duration=words.seconds,
        times=words.times,
        label=artifact_label,
        cosine=words.cosine,
        decibels=words.decibels,
        value=facts.value_text,
        more=facts.more,
        brief=lambda name: words.shorten(name, 24),
        short=facts.short_digest,
        closeness=tables.closeness,
        worst=tables.worst,
        level_of=tables.level_of,
    )
    made.tests["digest"] = facts.is_digest
    made.globals.update(verdict_words=words.VERDICT_WORDS, evidence_words=words.EVIDENCE_WORDS)
    return made


def _finalize(value: Any) -> Any:
    """Every string on its way into the page: no hidden characters, no line break before a unit."""
    if type(value) is not str:  # Markup passes: it is our own
        return value
    text = words.plain(value)
    for unit in (" %", " ms", " MB", " kB", " dB"):
        text = text.replace(unit, f"\u00a0{unit[1:]}")
    return text


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


def _versions(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    rest = sorted(key for key in environment if key not in {*_VERSIONS_FIRST, *_HOST_KEYS})
    return [(key, facts.value_text(environment[key])) for key in (*_VERSIONS_FIRST, *rest)]
