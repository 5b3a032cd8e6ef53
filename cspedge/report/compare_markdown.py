"""A comparison of two reports as Markdown for a pull request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cspedge.report import compare_words as say
from cspedge.report import facts, words
from cspedge.report.markdown import MARKS, bullets, code, document, table, text, verdict
from cspedge.report.schema import artifact_label
from cspedge.types import Head, Status

_DASH = "\u2013"


def render(found: Mapping[str, Any]) -> str:
    """The Markdown of `compare.compare`'s values: what got worse first, one table, then what differs, folded away."""
    a, b = found["a"], found["b"]
    headings, cells = _columns(found)
    rows = [[code(artifact_label(row), in_table=True), _verdicts(row), *cells(row)] for row in found["artifacts"]]
    mark = MARKS["do-not-ship" if found["worse"] else "ship"]
    return document(
        f"### cspedge: {code(b['report'])} against {code(a['report'])}",
        f"{mark} **{text(say.headline(found))}.** {text(say.counts(found))}.",
        _about(found),
        table(["Artifact", "Verdict", *headings], rows, right=2) if rows else "",
        bullets("**Worse**", found["worse"]),
        _alone(found),
        " ".join(text(note) for note in (say.paired_note(found), say.drift_note(found)) if note),
        _differs(found),
    )


def _about(found: Mapping[str, Any]) -> str:
    a, b = found["a"], found["b"]
    models = [code(side["model"]) for side in (a, b)]
    said = [models[0] if models[0] == models[1] else f"{models[0]} \u2192 {models[1]}"]
    recipes = [code(side["recipe"]) if side["recipe"] else "none" for side in (a, b)]
    said.append("recipe " + (recipes[0] if recipes[0] == recipes[1] else f"{recipes[0]} \u2192 {recipes[1]}"))
    if found["reference"]["top1"] is not None:
        top1 = found["reference"]["top1"]
        said.append(f"fp32 top-1 {say.from_to(words.percent(top1['a']), words.percent(top1['b']))}")
    return "; ".join([*said, f"{found['validation']['n']:,} validation images"]) + "."


def _columns(found: Mapping[str, Any]) -> tuple[list[str], Any]:
    """Headings, and a function from a row to its cells."""
    logits = found["a"]["head"] == Head.LOGITS

    def cells(row: Mapping[str, Any]) -> list[str]:
        size, took = say.size_cell(row["bytes"]), say.latency_cell(row["latency"])
        if logits:
            top1, agrees = say.share_cell(row["top1"]), say.share_cell(row["agreement"])
            close = [_values(top1), _change(top1), _values(agrees)]
        else:
            close = [_values(say.cosine_cell(row["cosine"])), _values(say.decibel_cell(row["sqnr_db"]))]
        return [*close, _values(size), _values(took), _change(took)]

    shown = ["Top-1", "Points (95 %)", "Agrees with fp32"] if logits else ["Cosine to fp32", "SQNR, dB"]
    return [*shown, "Size", "p50, ms", "Time, B : A (95 %)"], cells


def _values(cell: say.Cell | None) -> str:
    return text(cell["values"]) if cell else _DASH


def _change(cell: say.Cell | None) -> str:
    if cell is None:
        return _DASH
    if not cell["change"]:
        return text(cell["small"]) or _DASH
    said = f"{text(cell['change'])} ({text(cell['small'])})"
    return f"**{said}**" if cell["answer"] != "open" else said


def _verdicts(row: Mapping[str, Any]) -> str:
    if row["same_file"] and row["verdict"]["a"] == row["verdict"]["b"]:
        return f"{verdict(row['verdict']['b'])}, same file"
    both = [
        verdict(row["verdict"][side])
        if row["status"][side] == Status.OK
        else f"{MARKS['do-not-ship']} {row['status'][side]}"
        for side in "ab"
    ]
    return say.from_to(both[0], both[1])


def _alone(found: Mapping[str, Any]) -> str:
    said = [
        f"Only in {side.upper()}: " + ", ".join(code(row["artifact"]) for row in found[f"only_{side}"]) + "."
        for side in "ab"
        if found[f"only_{side}"]
    ]
    return " ".join(said)


def _differs(found: Mapping[str, Any]) -> str:
    rows = [
        [code(row["what"], in_table=True), *(code(_value(row[side]), in_table=True) for side in "ab")]
        for row in found["differs"]
    ]
    if not rows:
        return "Settings and environment are the same in both."
    shown = table(["Setting", "A", "B"], rows, right=3)
    return f"<details><summary>What differs ({len(rows)})</summary>\n\n{shown}\n\n</details>"


def _value(value: Any) -> str:
    return facts.short_digest(value) if facts.is_digest(value) else facts.value_text(value)
