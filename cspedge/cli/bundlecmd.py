"""`cspedge bundle`, `keygen`, `verify`: from a result to what an app takes, and back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cspedge.cli import options as opt
from cspedge.cli.console import ConsoleUi, print_json, quiet_stdout, stdout_console

if TYPE_CHECKING:
    from cspedge.bundle.verify import Verified
    from cspedge.bundle.write import Bundled


def register(app: typer.Typer) -> None:
    app.command("bundle")(bundle)
    app.command("keygen")(keygen)
    app.command("verify")(verify)


def bundle(
    model: opt.Model = None,
    app: Annotated[str, typer.Option(help="What it is for: plain, python, cpp, ios or android.")] = "plain",
    delivery: Annotated[
        str | None,
        typer.Option(
            help="How the app gets its models, where not inside it: play-ai-pack (android) or background-assets (ios).",
        ),
    ] = None,
    bundle_version: Annotated[str, typer.Option(help="MAJOR.MINOR.PATCH.", metavar="X.Y.Z")] = "1.0.0",
    min_version: Annotated[
        str, typer.Option(help="Whoever has this bundle never takes an older one than this.", metavar="X.Y.Z")
    ] = "0.0.0",
    sign: Annotated[
        str | None, typer.Option(help="Private key to sign with, as `cspedge keygen` makes.", metavar="FILE")
    ] = None,
    license: Annotated[str | None, typer.Option(help="License of the weights, by SPDX.", metavar="SPDX-ID")] = None,
    attribution: Annotated[str | None, typer.Option(help="Whom to name for the weights.", metavar="TEXT")] = None,
    latency: Annotated[bool, typer.Option(help="Put measured latency into it; it differs each time.")] = True,
    zip: Annotated[bool, typer.Option("--zip", help="A zip of it besides.")] = False,
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
    seed: opt.Seed = None,
    json: opt.Json = False,
) -> int:
    """Pack artifacts, contract, golden answers, terms and evidence for an app, signed where a key is given."""
    given = dict(locals())
    from cspedge.bundle.write import BundleOptions
    from cspedge.bundle.write import bundle as make

    asked = BundleOptions(
        app=app,
        delivery=delivery,
        version=bundle_version,
        minimum_version=min_version,
        key=None if sign is None else Path(sign),
        license=license,
        attribution=attribution,
        latency=latency,
        zip=zip,
    )
    options, message = opt.build(given, config=config, continues=True)
    ui = ConsoleUi()
    if message:
        ui.note(message)
    with quiet_stdout(), ui:
        found = make(options, asked, ui)
    opt.remember(options)
    if json:
        print_json(_document(found))
    else:
        _print_sizes(found)
    return found.exit_code


def _document(found: Bundled) -> dict[str, Any]:
    return {
        "path": str(found.path),
        "zip": None if found.zip is None else str(found.zip),
        "project": None if found.project is None else str(found.project),
        "name": found.manifest["name"],
        "version": found.manifest["version"],
        "signed": found.signed,
        "bytes": sum(found.files.values()),
        "files": dict(found.files),
        "sizes": [{"name": part.name, "bytes": part.bytes, "buys": part.buys} for part in found.sizes],
        "artifacts": [f"{a['target']}/{a['precision']}" for a in found.manifest["artifacts"]],
    }


def _print_sizes(found: Bundled) -> None:
    """What each part takes, and what it gives for that."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column()
    for part in found.sizes:
        table.add_row(f"{part.bytes:,}", escape(part.name), escape(part.buys))
    total = sum(found.files.values())
    table.add_row(f"{total:,}", "in all", "signed" if found.signed else "not signed (--sign private.pem)")
    stdout_console().print(table)
    if len(found.manifest["artifacts"]) > 1:
        print("a device runs one of the artifacts; --target NAME leaves the others out")
    for path in filter(None, (found.path, found.zip, found.project)):
        print(f"written to {path}")


def keygen(
    out: Annotated[str, typer.Option(help="Folder for private.pem and public.pem.", metavar="DIR")] = "keys",
    json: opt.Json = False,
) -> None:
    """Make a key pair to sign bundles with (ECDSA P-256); keep private.pem to yourself, ship public.pem in the app."""
    from cspedge.bundle.signature import key_hint, make_keys, read_public

    private, public = make_keys(Path(out))
    hint = key_hint(read_public(public))
    if json:
        print_json({"private": str(private), "public": str(public), "hint": hint})
    else:
        print(f"{private}: keep it to yourself\n{public}: ship it in the app (hint {hint})")


def verify(
    path: Annotated[str, typer.Argument(help="Folder or zip of a bundle.", metavar="PATH")],
    key: Annotated[
        str | None, typer.Option(help="The publisher's public key; else nobody vouches for it.", metavar="FILE")
    ] = None,
    min_version: Annotated[str | None, typer.Option(help="Refuse an older version.", metavar="X.Y.Z")] = None,
    run: Annotated[bool, typer.Option(help="Run the artifacts on the golden images.")] = True,
    json: opt.Json = False,
) -> int:
    """Check a bundle: names, signature, digests, schema, version, golden answers. Exit code 3 where it is refused."""
    from cspedge.bundle.refusal import Refusal
    from cspedge.bundle.verify import verify as check

    try:
        with quiet_stdout():
            found = check(
                Path(path), key=None if key is None else Path(key), min_version=min_version, run_artifacts=run
            )
    except Refusal as refusal:
        if not json:
            raise
        print_json({"ok": False, "kind": str(refusal.kind), "message": refusal.sentence})
        return refusal.exit_code
    if json:
        print_json(_verdict(found))
    else:
        for replay in found.replays:
            says = (
                f"not run: {replay.reason}"
                if replay.worst is None
                else f"golden/ holds, {replay.worst:.1%} of what is allowed"
            )
            print(f"{replay.artifact}: {says}")
        said = {"verified": "signed with this key", "not-checked": "signed, by nobody knows whom: give --key"}
        print(f"{found.manifest['name']} {found.manifest['version']}: sound; {said.get(found.signed, 'not signed')}")
    return 4 if any(replay.worst is None for replay in found.replays) else 0


def _verdict(found: Verified) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "ok": True,
        "name": found.manifest["name"],
        "version": found.manifest["version"],
        "signature": str(found.signed),
        "artifacts": [asdict(replay) | {"status": str(replay.status)} for replay in found.replays],
    }
