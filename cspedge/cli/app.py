"""`cspedge`: the commands of the design, thin."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cspedge.cli import options as opt
from cspedge.cli.console import (
    ConsoleUi,
    explain_table,
    print_json,
    quiet_stdout,
    report_table,
    robustness_table,
    stdout_console,
    sweep_table,
)
from cspedge.errors import CspedgeError
from cspedge.options import Upto

if TYPE_CHECKING:
    from pathlib import Path

    from cspedge.pipeline import Outcome

app = typer.Typer(
    help="One calibrated int8 image classifier, lowered to every edge runtime, with proof.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Entry point: errors of cspedge become one sentence on stderr and their exit code."""
    sys.exit(call(app))


def call(command: Callable[..., Any], args: list[str] | None = None) -> int:
    """Runs the app and returns the exit code; the one place where errors turn into output."""
    try:
        result = command(args=args, standalone_mode=False)
    except CspedgeError as error:
        print(f"cspedge: {error}", file=sys.stderr)
        return error.exit_code
    except typer.Exit as error:
        return int(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        print("cspedge: interrupted; the same command continues where it stopped", file=sys.stderr)
        return 130
    except Exception as error:
        # Typer carries its own Click (since 0.26), whose usage errors know how to show themselves
        if hasattr(error, "show") and hasattr(error, "exit_code"):
            error.show()
            return int(error.exit_code)
        raise
    return result if isinstance(result, int) else 0


def execute(
    given: dict[str, Any], upto: Upto, *, config: str | None, continues: bool, as_json: bool, quiet: bool = False
) -> Outcome:
    """Runs the stages up to `upto` and prints what came of it; quiet: something else goes to stdout."""
    from cspedge.pipeline import execute as run_stages

    options, message = opt.build(given, config=config, continues=continues)
    ui = ConsoleUi()
    if message:
        ui.note(message)
    with quiet_stdout(), ui:
        outcome = run_stages(options, upto, ui)
    opt.remember(options)
    if outcome.emitted is not None:
        _print_emitted(outcome.emitted, as_json)
    if as_json and outcome.report is not None:
        print_json(outcome.report)
    elif outcome.report is not None and not quiet:
        console = stdout_console()
        console.print(report_table(outcome.report))
        for table in (sweep_table(outcome.report), robustness_table(outcome.report)):
            if table is not None:
                console.print(table)
        _print_verdict(outcome.report, console)
        console.print(f"written to {options.out}: {', '.join(outcome.files)}", soft_wrap=True)
    return outcome


def _print_emitted(folder: Path, as_json: bool) -> None:
    if as_json:
        print_json({"emitted": str(folder)})
    else:
        print(f"written to {folder}: its README.md says how to run it; then: cspedge report --add results/results.json")


def _print_verdict(report: dict[str, Any], console: Any) -> None:
    from rich.markup import escape

    from cspedge.report import recommend

    advice = recommend(report)
    if advice["artifact"] is None:
        console.print("ship: nothing; see the reasons in report.html")
        return
    word = "ship" if advice["verdict"] == "ship" else "closest to shipping"
    console.print(f"{word}: {escape(advice['artifact'])}", style="bold")
    for sentence in advice["why"]:
        console.print(f"  {escape(sentence)}", soft_wrap=True)


def _register_whole(name: str, upto: Upto, summary: str, *, continues: bool, protocol: str | None = None) -> None:
    """A command that ends in the report: `run`, `validate` and `bench` take the same options.

    protocol: how it takes times; None: as the last command in the workspace did.
    """

    def command(
        model: opt.Model = None,
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
        given = _given(locals()) | {"protocol": protocol}
        outcome = execute(given, upto, config=config, continues=continues, as_json=json)
        return outcome.exit_code

    app.command(name, help=summary)(command)


_register_whole(
    "run",
    Upto.BENCH,
    "The whole way: calibrate, quantize, lower to every target, validate, bench, report.",
    continues=False,
    protocol="in-process",
)


@app.command()
def quantize(
    model: opt.Model = None,
    int8: Annotated[bool, typer.Option("--int8", help="int8 weights and activations (what there is).")] = True,
    weights: opt.Weights = None,
    labels: opt.Labels = None,
    head: opt.Head = None,
    img_size: opt.ImgSize = None,
    calib: opt.Calib = None,
    workspace: opt.Workspace = None,
    out: opt.Out = None,
    config: opt.Config = None,
    target: opt.Targets = None,
    recipe: opt.Recipe = None,
    calib_images: opt.CalibImages = None,
    max_unreadable: opt.MaxUnreadable = None,
    seed: opt.Seed = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Per tensor: what was chosen, what it costs, what float would cost.")
    ] = False,
    json: opt.Json = False,
) -> int:
    """Calibrate once and write encodings.json; with --explain, say what each tensor does to each target's answers."""
    outcome = execute(_given(locals()), Upto.QUANTIZE, config=config, continues=False, as_json=json)
    from cspedge.publish import outlier_notes

    assert outcome.quantized is not None
    if json:
        explained = {name: value.to_dict() for name, value in outcome.explanations.items()}
        document = {"model": outcome.info.name, "files": list(outcome.files), **outcome.quantized}
        print_json(document | ({"explain": explained} if explained else {}))
    else:
        for name, value in outcome.explanations.items():
            stdout_console().print(explain_table(name, value))
        for line in outlier_notes(outcome.quantized["outliers"]):
            print(line)
        found = outcome.quantized
        print(
            f"{outcome.info.name}: {found['activations']} activation and {found['weights']} weight encodings "
            f"from {found['calibration']['n']} images; written {', '.join(outcome.files)}"
        )
    return outcome.exit_code


@app.command()
def export(
    model: opt.Model = None,
    target: opt.Targets = None,
    precision: opt.Precisions = None,
    weights: opt.Weights = None,
    labels: opt.Labels = None,
    head: opt.Head = None,
    img_size: opt.ImgSize = None,
    calib: opt.Calib = None,
    workspace: opt.Workspace = None,
    out: opt.Out = None,
    config: opt.Config = None,
    recipe: opt.Recipe = None,
    placement: opt.Placement = None,
    calib_images: opt.CalibImages = None,
    max_unreadable: opt.MaxUnreadable = None,
    seed: opt.Seed = None,
    json: opt.Json = False,
) -> int:
    """Lower to one or more targets; each artifact is loaded from its file, run and compared."""
    outcome = execute(_given(locals()), Upto.LOWER, config=config, continues=True, as_json=json)
    rows = [
        {
            "target": r.target,
            "precision": str(r.precision),
            "status": str(r.status),
            "reason": r.reason,
            "path": f"{r.target}/{r.artifact.path.name}" if r.artifact else None,
            "sha256": r.artifact.sha256 if r.artifact else None,
            "encodings_match": r.artifact.audit.encodings_match if r.artifact and r.artifact.audit else None,
        }
        for r in outcome.results
    ]
    if json:
        print_json({"model": outcome.info.name, "artifacts": rows, "files": list(outcome.files)})
    else:
        for row in rows:
            print(f"{row['target']}/{row['precision']}: {row['status']} {row['path'] or row['reason']}")
    return outcome.exit_code


_register_whole(
    "validate",
    Upto.EVALUATE,
    "Compare every artifact with the fp32 reference on labelled images.",
    continues=True,
)
_register_whole(
    "bench",
    Upto.BENCH,
    "Measure the latency of every artifact, interleaved, in fresh processes here or on --device.",
    continues=True,
    protocol="fresh-process",
)


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in values.items() if k not in {"config", "json", "int8"}}


def _register() -> None:
    """The commands that tell rather than make, in modules of their own."""
    from cspedge.cli import bundlecmd, inform, reportcmd, storecmd, traincmd

    reportcmd.register(app)
    inform.register(app)
    traincmd.register(app)
    bundlecmd.register(app)
    app.add_typer(storecmd.app, name="store")


_register()
