"""`cspedge train`: the fp32 reference."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cspedge.cli.console import ConsoleUi, print_json, quiet_stdout
from cspedge.cli.options import Json, Seed


def register(app: typer.Typer) -> None:
    app.command("train")(train)


def train(
    model: Annotated[str, typer.Argument(help="timm architecture, e.g. lcnet_050.", metavar="MODEL")],
    data: Annotated[str, typer.Option(help="Folder of images (train/ and val/, or one to split), or `digits`.")],
    out: Annotated[str, typer.Option(help="Folder for the checkpoint, in timm's hub layout.", metavar="DIR")],
    recipe: Annotated[
        str | None, typer.Option(help="Training recipe: default or digits. [default: digits for digits, else default]")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs. [default: the recipe's]", min=1)] = None,
    img_size: Annotated[int | None, typer.Option(help="Pixels on a side. [default: the recipe's]", min=8)] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step. [default: the recipe's]", min=2)] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate. [default: the recipe's]")] = None,
    workers: Annotated[int, typer.Option(help="Loader processes.", min=0)] = 0,
    threads: Annotated[int | None, typer.Option(help="torch's threads. [default: torch's own]", min=1)] = None,
    device: Annotated[str | None, typer.Option(help="torch device. [default: cuda where there is one]")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing folder.")] = False,
    seed: Seed = None,
    json: Json = False,
) -> None:
    """Train a classifier from scratch and save it in timm's hub layout with its provenance."""
    from dataclasses import asdict, replace

    from cspedge.train.loop import train as run
    from cspedge.train.recipe import recipe as named
    from cspedge.train.recipe import train_data

    changes: dict[str, Any] = {"epochs": epochs, "img_size": img_size, "batch_size": batch_size, "lr": lr, "seed": seed}
    chosen = replace(
        named(recipe or ("digits" if data == "digits" else "default")),
        **{k: v for k, v in changes.items() if v is not None},
    )
    ui = ConsoleUi()
    with quiet_stdout(), ui:
        images = train_data(data)
        bar = ui.progress(f"train {model}")
        bar(0, chosen.epochs)
        result = run(
            model,
            images,
            recipe=chosen,
            out=Path(out),
            overwrite=overwrite,
            workers=workers,
            threads=threads,
            device=device,
            progress=lambda epoch, total, loss: bar(epoch, total),
        )
    if json:
        print_json(asdict(result) | {"path": str(result.path)})
    else:
        print(
            f"{result.path}: top-1 {result.top1:.2%}, macro {result.macro_top1:.2%} on {result.n_val} held-out images"
        )
