"""`cspedge store ls|gc|verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cspedge.cli.console import print_json, stdout_console
from cspedge.cli.options import DEFAULT_WORKSPACE, Json, Workspace

app = typer.Typer(help="Look after the store of finished stages.", no_args_is_help=True, rich_markup_mode=None)


def _root(workspace: str | None) -> Path:
    return Path(workspace or DEFAULT_WORKSPACE)


@app.command("ls")
def ls(workspace: Workspace = None, json: Json = False) -> None:
    """List the stored results."""
    from rich.table import Table

    from cspedge.store import Store

    entries = Store(_root(workspace)).ls()
    if json:
        print_json(
            [
                {"key": e.key, "stage": e.stage, "bytes": e.bytes, "files": e.files, "state": str(e.state)}
                for e in entries
            ]
        )
        return
    table = Table("key", "stage", "bytes", "files", "state", box=None)
    for entry in entries:
        table.add_row(entry.key[:16], entry.stage or "?", f"{entry.bytes:,}", str(entry.files), str(entry.state))
    stdout_console().print(table)


@app.command("gc")
def gc(
    workspace: Workspace = None,
    older_than_days: Annotated[float | None, typer.Option(help="Spare what is younger.", min=0.0)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, remove nothing.")] = False,
    json: Json = False,
) -> None:
    """Remove what no run refers to, leftovers of killed processes, and quarantine."""
    from cspedge.store import Store

    removed = Store(_root(workspace)).gc(older_than_days=older_than_days, dry_run=dry_run)
    if json:
        print_json([{"path": r.path, "bytes": r.bytes, "reason": r.reason} for r in removed])
        return
    for entry in removed:
        print(f"{entry.path}: {entry.reason}")
    total = sum(r.bytes for r in removed)
    print(f"{'would remove' if dry_run else 'removed'} {len(removed)} entries, {total:,} bytes")


@app.command("verify")
def verify(workspace: Workspace = None, json: Json = False) -> int:
    """Read every stored byte; damaged results go to quarantine. Exit code 1 where there were any."""
    from cspedge.store import Store

    found = Store(_root(workspace)).verify()
    bad = [(key, problem) for key, problem in found if problem is not None]
    if json:
        print_json([{"key": key, "problem": problem} for key, problem in found])
    else:
        for key, problem in bad:
            print(f"{key[:16]}: {problem}; moved to quarantine, the next run rebuilds it")
        print(f"{len(found) - len(bad)} sound, {len(bad)} damaged")
    return 1 if bad else 0
