"""A report as Markdown for a pull request: GitHub's dialect, one table, names that can do nothing but stand there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cspedge.report import tables, words
from cspedge.report.schema import artifact_label, validate
from cspedge.report.verdict import recommend
from cspedge.types import Head, Status

MARKS = {"ship": "\u2705", "caution": "\u26a0\ufe0f", "do-not-ship": "\u274c"}
MOST_ROWS = 200  # GitHub takes 65,536 characters in a comment
_MOST_NOTES = 30
_LONGEST = 80  # characters of a name
_SPECIAL = re.compile(r"[\\`*_\[\]<>#|~&$@]|^[-+=](?=\s)|(?<=:)//")
_NUMBERED = re.compile(r"^(\d+)([.)])(?=\s)")  # the start of a list


def render(report: Mapping[str, Any]) -> str:
    """The report in Markdown: the verdict, a table of artifacts, budgets that are missed, notes folded away.

    report: as `schema.validate` takes it (UsageError otherwise).
    """
    validate(report)
    rows = [_row(artifact, report["model"]) for artifact in report["artifacts"]]
    headings = [" ".join(filter(None, heading)) for heading, _ in tables.COLUMNS[Head(report["model"]["head"])]]
    return document(
        f"### cspedge: {code(report['model']['name'])}",
        _verdict(report),
        _about(report),
        table(["Artifact", "Verdict", *headings, "Size", "p50"], rows, right=2),
        bullets("**Over the budget**", [n for n in report["notes"] if words.OVER_BUDGET in n]),
        bullets("**Why not ship**", _held_against(report["artifacts"])),
        folded("Notes", [n for n in report["notes"] if words.OVER_BUDGET not in n]),
    )


def _verdict(report: Mapping[str, Any]) -> str:
    choice = recommend(report)
    if choice["artifact"] is None:
        return f"{MARKS['do-not-ship']} **Nothing here should ship.** {text(' '.join(choice['why']))}"
    word = "Ship" if choice["verdict"] == "ship" else "Closest to shipping:"
    return f"{MARKS[choice['verdict']]} **{word}** {code(choice['artifact'])}. {text(' '.join(choice['why'][:2]))}"


def _about(report: Mapping[str, Any]) -> str:
    reference, calibration = report["reference"], report["calibration"]
    said = [f"{reference['n']:,} validation images"]
    if reference["top1"] is not None:
        said.insert(0, f"fp32 top-1 {words.percent(reference['top1'])}")
    if calibration is not None:
        said.append(f"recipe {code(calibration['recipe'])}, {calibration['n']:,} calibration images")
    return "; ".join([*said, f"timed on {code(report['environment']['cpu'])}"]) + "."


def _row(artifact: Mapping[str, Any], model: Mapping[str, Any]) -> list[str]:
    width = len(tables.COLUMNS[Head(model["head"])])
    name = code(artifact_label(artifact), in_table=True)
    if artifact["status"] != Status.OK:
        return [name, f"{MARKS['do-not-ship']} {artifact['status']}", *["\u2013"] * (width + 2)]
    cells = [c["text"] + (f" ({c['small']})" if c["small"] else "") for c in tables.closeness(artifact, model)]
    latency = artifact["latency"]
    took = f"{words.milliseconds(latency['p50_ms'])} ms" if latency else "not run"
    cells = [text(cell) for cell in cells] or ["not run", *["\u2013"] * (width - 1)]
    return [name, verdict(artifact["verdict"]), *cells, words.megabytes(artifact["bytes"]), took]


def _held_against(artifacts: Iterable[Mapping[str, Any]]) -> list[str]:
    return [f"{artifact_label(a)}: {a['reasons'][0]}" for a in artifacts if a["verdict"] != "ship" and a["reasons"]]


def verdict(word: str) -> str:
    return f"{MARKS[word]} {words.VERDICT_WORDS[word]}"


def document(*parts: str) -> str:
    """Blocks with an empty line between them; an empty block is left out."""
    return "\n\n".join(part for part in parts if part) + "\n"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, right: int) -> str:
    """A table of cells that are Markdown already; the columns from `right` on are set to the right."""
    rule = ["---" if index < right else "---:" for index in range(len(headings))]
    lines = [headings, rule, *rows[:MOST_ROWS]]
    more = f"\n\n{len(rows) - MOST_ROWS} more in report.json." if len(rows) > MOST_ROWS else ""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + more


def bullets(heading: str, sentences: Sequence[str]) -> str:
    """Sentences (plain text) as a list under a heading; nothing where there are none."""
    if not sentences:
        return ""
    rest = len(sentences) - _MOST_NOTES
    more = [f"- {rest} more in the report"] if rest > 0 else []
    return "\n".join([heading, "", *(f"- {text(sentence)}" for sentence in sentences[:_MOST_NOTES]), *more])


def folded(summary: str, sentences: Sequence[str]) -> str:
    """Sentences (plain text) as a list that opens on a click."""
    if not sentences:
        return ""
    return f"<details><summary>{summary} ({len(sentences)})</summary>\n\n{bullets('', sentences).strip()}\n\n</details>"


def code(name: str, *, in_table: bool = False) -> str:
    """A name as a code span: GitHub makes no link, mention, issue number or markup of what stands in one."""
    name = words.shorten(name, _LONGEST).strip() or "?"
    fence = "`" * (1 + max(map(len, re.findall("`+", name)), default=0))
    pad = " " if name.startswith("`") or name.endswith("`") else ""
    return f"{fence}{pad}{name.replace('|', chr(92) + '|') if in_table else name}{pad}{fence}"


def text(sentence: str) -> str:
    """A sentence in which nothing is markup, a link or a mention.

    An empty comment behind `@` and `#`: GitHub looks for people and issues in the text that is left when markup is
    done, so a backslash does not stop it.
    """
    escaped = _SPECIAL.sub(lambda found: "".join(f"\\{c}" for c in found[0]), words.plain(sentence).strip())
    escaped = _NUMBERED.sub(r"\1\\\2", escaped)
    escaped = re.sub(r"(?i)\b(www)\.", r"\1\\.", escaped)
    return escaped.replace("\\@", "\\@<!-- -->").replace("\\#", "\\#<!-- -->")
