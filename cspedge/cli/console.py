"""What people see: progress on stderr, results on stdout, and the one place where errors become output."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from cspedge.quantize.explain import Explanation


class ConsoleUi:
    """A `pipeline.Ui` on stderr: a bar for what takes long, a line for what is done, nothing on stdout."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self.console: Console = Console(stderr=True, highlight=False)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bars: Progress = Progress(*columns, console=self.console, transient=True)

    def __enter__(self) -> ConsoleUi:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def progress(self, task: str) -> Callable[[int, int], None]:
        """A bar that appears with the first call; a total of 0 makes it a pulse."""
        from rich.markup import escape

        known = {self._bars.tasks[i].description: t for i, t in enumerate(self._bars.task_ids)}
        bar = known.get(escape(task))
        if bar is None:
            bar = self._bars.add_task(escape(task), total=None)

        def advance(done: int, total: int) -> None:
            self._bars.update(bar, completed=done, total=total or None)

        return advance

    def finished(self, task: str, seconds: float, cached: bool, detail: str = "") -> None:
        from rich.markup import escape

        for known in self._bars.task_ids:
            self._bars.remove_task(known)
        state = "[dim]unchanged, taken from the store[/dim]" if cached else f"{seconds:.1f} s"
        self.console.print(f"{escape(task):<28} {state} {escape(detail)}".rstrip())

    def note(self, text: str) -> None:
        from rich.markup import escape

        self.console.print(f"[yellow]note:[/yellow] {escape(text)}", soft_wrap=True)


def print_json(value: Any) -> None:
    """One JSON document on stdout and nothing else."""
    sys.stdout.write(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def stdout_console() -> Console:
    from rich.console import Console

    return Console(highlight=False)


@contextlib.contextmanager
def quiet_stdout() -> Iterator[None]:
    """Libraries print to stdout, also from C++: while stages run, file descriptor 1 is stderr's."""
    import os

    sys.stdout.flush()
    try:
        saved = os.dup(1)
    except OSError:  # closed stdout: nothing to protect
        yield
        return
    try:
        os.dup2(2, 1)
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        sys.stdout.flush()
        os.dup2(saved, 1)
        os.close(saved)


def report_table(report: dict[str, Any]) -> Any:
    """The artifacts of a report as a table that fits 80 columns; its columns depend on the head.

    Logits: drops and their interval in points. Feature maps: the least SQNR in dB and the least cosine similarity to
    fp32 of any level. Embeddings: cosine similarity and the share of images that keep their nearest neighbour.
    """
    from rich.markup import escape
    from rich.table import Table

    headings = _CLOSENESS[report["model"]["head"]]
    title = f"{escape(report['model']['name'])}: {_title(report)}"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    left = {"artifact", "verdict"}
    counted = any(row.get("instructions") for row in report["artifacts"])  # emulated: no times
    for heading in ("artifact", "MB", *headings, "M instr." if counted else "p50 ms", "verdict"):
        table.add_column(heading, justify="left" if heading in left else "right", no_wrap=True)
    for row in report["artifacts"]:
        name = f"{row['target']}/{row['precision']}"
        if row["status"] != "ok":  # the reason was noted, and is in the report
            table.add_row(escape(name), *[""] * (len(headings) + 2), row["status"])
            continue
        table.add_row(
            escape(name),
            f"{row['bytes'] / 1e6:.2f}",
            *(_closeness(row, report["model"]) or [""] * len(headings)),
            _cost(row),
            row["verdict"],
        )
    return table


def robustness_table(report: dict[str, Any]) -> Any:
    """What fp32 loses under each mild corruption, and what each int8 artifact loses more; None without any.

    Top-1 in points, with 95 % intervals.
    """
    from rich.markup import escape
    from rich.table import Table

    from cspedge.report.robustness import table as rows_of

    found = rows_of(report)
    if found is None:
        return None
    title = f"Under mild corruptions: fp32 against clean images, int8 against fp32 on the same {found['rows'][0]['n']}"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("artifact")
    for row in found["rows"]:
        table.add_column(escape(row["name"]), justify="right")
    table.add_row("fp32", *(f"{row['drop']}\n{row['interval']}" for row in found["rows"]))
    for place, name in enumerate(found["names"]):
        cells = [row["cells"][place] for row in found["rows"]]
        table.add_row(escape("/".join(name)), *(f"{cell['drop']}\n{cell['interval']}" for cell in cells))
    return table


def _cost(row: dict[str, Any]) -> str:
    """The median in milliseconds, or millions of instructions where a processor is emulated."""
    if row.get("instructions"):
        return f"{row['instructions']['instructions_per_inference'] / 1e6:.1f}"
    return "" if row["latency"] is None else f"{row['latency']['p50_ms']:.2f}"


def sweep_table(report: dict[str, Any]) -> Any | None:
    """Median milliseconds by number of threads; None where no sweep was asked for."""
    from rich.markup import escape
    from rich.table import Table

    timed = [(row, row["latency"]) for row in report["artifacts"] if row["latency"] and row["latency"].get("sweep")]
    if not timed:
        return None
    medians = [{p["threads"]: p["p50_ms"] for p in (latency, *latency["sweep"])} for _, latency in timed]
    counts = sorted({count for found in medians for count in found})
    table = Table(title="p50 ms by threads", title_justify="left", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("artifact", no_wrap=True)
    for count in counts:
        table.add_column(str(count), justify="right", no_wrap=True)
    for (row, _), found in zip(timed, medians, strict=True):
        cells = [f"{found[count]:.2f}" if count in found else "" for count in counts]
        table.add_row(escape(f"{row['target']}/{row['precision']}"), *cells)
    return table


_CLOSENESS = {
    "logits": ("top-1", "drop", "95 %", "agrees", "SQNR"),
    "features": ("SQNR", "cosine", "least", "worst level"),
    "embedding": ("SQNR", "cosine", "least", "neighbours"),
}


def _title(report: dict[str, Any]) -> str:
    reference, outputs = report["reference"], report["model"]["outputs"]
    if reference["top1"] is not None:
        return f"fp32 top-1 {reference['top1']:.2%} on {reference['n']} images"
    what = "embedding" if len(outputs) == 1 else f"{len(outputs)} feature maps"
    return f"{what} against fp32 on {reference['n']} images"


def _closeness(row: dict[str, Any], model: dict[str, Any]) -> list[str]:
    """The head's own columns; empty where nothing was measured."""
    from cspedge.report.tables import level_of, worst
    from cspedge.report.words import cosine, decibels

    accuracy = row["accuracy"]
    if accuracy is not None:
        low, high = accuracy["drop_ci95"]
        return [
            f"{accuracy['top1']:.2%}",
            f"{accuracy['drop_top1'] * 100:+.2f}",
            f"{low * 100:+.2f} {high * 100:+.2f}",
            f"{accuracy['agreement']:.1%}",
            decibels(accuracy["sqnr_db"]),
        ]
    if not row["outputs"]:
        return []
    far = worst(row, "cosine_mean")
    figures = [decibels(worst(row, "sqnr_db")["sqnr_db"]), cosine(far["cosine_mean"])]
    figures.append(cosine(worst(row, "cosine_min")["cosine_min"]))
    same = far["neighbour_agreement"]
    last = level_of(far, model["outputs"]) if model["head"] == "features" else "" if same is None else f"{same:.1%}"
    return [*figures, last]


def explain_table(target: str, found: Explanation) -> Any:
    """Per tensor of one target's placement, in the order of the graph: what was chosen and what it costs.

    alone, together: SQNR in dB of the tensor quantized alone, and with everything before it; saves: share of answers
    that keeping it in float is expected to save; MACs, time: what goes into float with it, and the time that adds.
    """
    from rich.markup import escape
    from rich.table import Table

    from cspedge.report.words import decibels

    ranking = found.sensitivity
    title = (
        f"{escape(target)}: {ranking.flips:.2%} of answers are expected to change with all in int8 (n = {ranking.n})"
    )
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("tensor", overflow="fold")
    for heading in ("observer", "scale", "zero", "alone", "together", "saves", "MACs", "time"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in found.rows:
        table.add_row(
            escape(row.tensor),
            row.observer,
            f"{row.scale:.4g}",
            str(row.zero_point),
            decibels(row.sqnr_db),
            decibels(row.cumulative_db),
            f"{row.saved:.2%}",
            f"{row.mac_share:.1%}",
            f"{row.price:+.1%}",
        )
    return table
