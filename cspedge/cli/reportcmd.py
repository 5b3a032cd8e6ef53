"""`cspedge report`: the last stage of a run, or reports that are there: one again, two compared, or an overview."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cspedge.cli import options as opt
from cspedge.cli.console import print_json, report_table, stdout_console
from cspedge.errors import UsageError

Subjects = Annotated[
    list[str] | None,
    typer.Argument(
        help="A model as for `run`; or reports (report.json, or the folder that --out named): one again, "
        "two compared, more in an overview.",
        metavar="[MODEL | REPORT...]",
    ),
]
Markdown = Annotated[
    str | None, typer.Option(help="Write it in Markdown too, for a pull request; - is stdout.", metavar="FILE")
]
Check = Annotated[
    bool, typer.Option("--check", help="Two reports: exit code 1 where the second is surely worse in anything.")
]
Explain = Annotated[
    bool, typer.Option("--explain", help="Measure every quantized tensor too: SQNR layer by layer in the report.")
]
# What stands beside given reports; every other option is about a run.
_OF_REPORTS = frozenset({"subjects", "out", "markdown", "check", "json"})


def register(app: typer.Typer) -> None:
    app.command("report")(report)


def report(
    subjects: Subjects = None,
    markdown: Markdown = None,
    check: Check = False,
    explain: Explain = False,
    weights: opt.Weights = None,
    labels: opt.Labels = None,
    head: opt.Head = None,
    img_size: opt.ImgSize = None,
    calib: opt.Calib = None,
    val: opt.Val = None,
    workspace: opt.Workspace = None,
    out: opt.Out = None,
    config: opt.Config = None,
    target: opt.Targets = None,
    precision: opt.Precisions = None,
    recipe: opt.Recipe = None,
    placement: opt.Placement = None,
    calib_images: opt.CalibImages = None,
    allow_overlap: opt.AllowOverlap = False,
    max_unreadable: opt.MaxUnreadable = None,
    threads: opt.Threads = None,
    sweep: opt.Sweep = None,
    seed: opt.Seed = None,
    no_thumbnails: opt.NoThumbnails = False,
    robustness: opt.Robustness = None,
    device: opt.Device = None,
    emit: opt.Emit = None,
    emit_images: opt.EmitImages = None,
    add: opt.Add = None,
    json: opt.Json = False,
) -> int:
    """Write report.json and report.html, running what is missing; or compare reports that are there."""
    given = dict(locals())
    from cspedge.report.given import is_report

    if json and markdown == "-":
        raise UsageError("--json and --markdown - both want stdout: write the Markdown to a file")
    named = list(subjects or [])
    if len(named) > 1 or (named and is_report(named[0])):
        return _given(named, {k: v for k, v in given.items() if k != "subjects"})
    if check:
        raise UsageError("--check compares two reports: `cspedge report A B --check`")
    return _run(named[0] if named else None, given, config=config, markdown=markdown, as_json=json)


def _run(model: str | None, given: dict[str, Any], *, config: str | None, markdown: str | None, as_json: bool) -> int:
    """The report of a run: its last stage, with what is missing before it."""
    from cspedge.cli.app import execute
    from cspedge.options import Upto
    from cspedge.report.markdown import render

    kept = {k: v for k, v in given.items() if k not in {"subjects", "markdown", "check", "config", "json"}}
    quiet = markdown == "-"
    outcome = execute(kept | {"model": model}, Upto.BENCH, config=config, continues=True, as_json=as_json, quiet=quiet)
    if markdown is not None and outcome.report is not None:
        _write_markdown(render(outcome.report), markdown)
    return outcome.exit_code


def _given(names: list[str], given: dict[str, Any]) -> int:
    """Reports that are there: nothing runs."""
    from cspedge.report.given import read

    foreign = sorted(k for k, v in given.items() if k not in _OF_REPORTS and v not in (None, False, []))
    if foreign:
        raise UsageError(
            f"--{foreign[0].replace('_', '-')} is about a run, and {names[0]!r} is a report: "
            "with reports go --out, --markdown, --check and --json"
        )
    if given["check"] and len(names) != 2:
        raise UsageError(f"--check compares two reports, and {len(names)} are given")
    reports = [read(name) for name in names]
    if len(reports) == 1:
        return _again(reports[0].report, given)
    if len(reports) > 2:
        return _overview(reports, given)
    return _compare(reports, given)


def _again(found: dict[str, Any], given: dict[str, Any]) -> int:
    """One report: its table on stdout, its page where --out says."""
    from cspedge import atomic
    from cspedge.report import render
    from cspedge.report.markdown import render as as_markdown

    if given["out"] is not None:
        atomic.make_folder(Path(given["out"]))
        atomic.write_text(Path(given["out"]) / "report.html", render(found))
    if given["markdown"] is not None:
        _write_markdown(as_markdown(found), given["markdown"])
    if given["json"]:
        print_json(found)
    elif given["markdown"] != "-":
        stdout_console().print(report_table(found))
    return 0


def _compare(reports: list[Any], given: dict[str, Any]) -> int:
    """Two reports: comparison.json and comparison.html in --out, what got worse on stdout."""
    from cspedge.report import compare_html, compare_markdown, compare_words
    from cspedge.report.compare import compare

    found = compare(*reports)
    pages = {"comparison.json": found, "comparison.html": compare_html.render(found)}
    out = _publish(pages, compare_markdown.render(found), given)
    if given["json"]:
        print_json(found)
    elif given["markdown"] != "-":
        console = stdout_console()
        console.print(compare_words.headline(found), style="bold", markup=False)
        for sentence in found["worse"]:
            console.print(f"  {sentence}", soft_wrap=True, markup=False)
        console.print(f"{compare_words.counts(found)}", soft_wrap=True, markup=False)
        console.print(f"written to {out}: {', '.join(pages)}", soft_wrap=True, markup=False)
    return 1 if given["check"] and found["worse"] else 0


def _overview(reports: list[Any], given: dict[str, Any]) -> int:
    """Three reports or more: overview.json and overview.html in --out."""
    from cspedge.report import overview, overview_markdown

    found = overview.overview(reports)
    pages = {"overview.json": found, "overview.html": overview.render(found)}
    out = _publish(pages, overview_markdown.render(found), given)
    if given["json"]:
        print_json(found)
    elif given["markdown"] != "-":
        console = stdout_console()
        counts = ", ".join(f"{count} {word}" for word, count in found["verdicts"].items())
        console.print(f"{len(reports)} runs: {counts}", style="bold", markup=False)
        console.print(f"written to {out}: {', '.join(pages)}", soft_wrap=True, markup=False)
    return 0


def _publish(pages: dict[str, Any], markdown: str, given: dict[str, Any]) -> Path:
    """Writes values as JSON and text as it is into --out, and the Markdown where it was asked for."""
    from cspedge import atomic

    out = Path(given["out"] or "cspedge-out")
    atomic.make_folder(out)
    for name, content in pages.items():
        (atomic.write_text if isinstance(content, str) else atomic.write_json)(out / name, content)
    if given["markdown"] is not None:
        _write_markdown(markdown, given["markdown"])
    return out


def _write_markdown(text: str, where: str) -> None:
    import sys

    from cspedge import atomic

    if where == "-":
        sys.stdout.write(text)
    else:
        atomic.write_text(Path(where), text)
