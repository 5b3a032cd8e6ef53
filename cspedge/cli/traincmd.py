"""`cspedge train`: the fp32 reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cspedge.cli.console import ConsoleUi, print_json, quiet_stdout
from cspedge.cli.options import Json, Seed

if TYPE_CHECKING:
    from cspedge.train import Progress, Recipe, TrainOptions


def register(app: typer.Typer) -> None:
    app.command("train")(train)


def train(
    model: Annotated[str, typer.Argument(help="timm architecture, e.g. lcnet_050.", metavar="MODEL")],
    data: Annotated[
        str, typer.Option(help="Folder or archive of images (train/ and val/, or one to split), or `digits`.")
    ],
    out: Annotated[str, typer.Option(help="Folder for the checkpoint, in timm's hub layout.", metavar="DIR")],
    weights: Annotated[
        str | None, typer.Option(help="Start from a file, local-dir:PATH, a timm name with its tag, or `pretrained`.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="default, finetune, rmsproptf, digits or a .toml file. [default: finetune with --weights, "
            "digits for digits, else default]"
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs. [default: the recipe's]", min=1)] = None,
    img_size: Annotated[int | None, typer.Option(help="Pixels on a side. [default: the recipe's]", min=8)] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step. [default: the recipe's]", min=2)] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate. [default: the recipe's]")] = None,
    eval_every: Annotated[
        int, typer.Option(help="Epochs between looks at top-1 on up to 512 held-out images; 0 for none.", min=0)
    ] = 0,
    workers: Annotated[
        int | None, typer.Option(help="Loader processes. [default: none on a CPU, up to 4 for CUDA]", min=0)
    ] = None,
    threads: Annotated[int | None, typer.Option(help="torch's threads. [default: torch's own]", min=1)] = None,
    device: Annotated[str | None, typer.Option(help="torch device. [default: cuda where there is one]")] = None,
    augment: Annotated[
        str | None, typer.Option(help="Where images are augmented: cpu or device. [default: device for CUDA]")
    ] = None,
    cache: Annotated[str, typer.Option(help="Decoded images are kept in: ram, disk, none or auto.")] = "auto",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing folder, and another training's rest.")
    ] = False,
    seed: Seed = None,
    json: Json = False,
) -> None:
    """Train a classifier, or fine-tune one, and save it in timm's hub layout with its provenance.

    The same command again continues after an interruption.
    """
    from cspedge.train import train as run
    from cspedge.train import train_data
    from cspedge.train.work import check_out

    changes = {"epochs": epochs, "img_size": img_size, "batch_size": batch_size, "lr": lr, "seed": seed}
    chosen = _recipe(recipe or ("finetune" if weights else "digits" if data == "digits" else "default"), changes)
    options = _options(workers, threads, device, augment, cache, eval_every)
    check_out(Path(out), overwrite=overwrite)  # listing a large folder takes minutes
    ui = ConsoleUi()
    with quiet_stdout(), _bar(ui, f"train {model}") as progress:
        result = run(
            model,
            train_data(data),
            recipe=chosen,
            out=Path(out),
            weights=weights,
            overwrite=overwrite,
            options=options,
            progress=progress,
            note=ui.note,
        )
    if json:
        from dataclasses import asdict

        print_json(asdict(result) | {"path": str(result.path)})
    else:
        low, high = result.top1_ci95
        print(
            f"{result.path}: top-1 {result.top1:.2%} ({low:.2%} to {high:.2%}), macro {result.macro_top1:.2%} on "
            f"{result.n_val} held-out images; {result.images_per_s:.0f} images/s on {result.device}"
        )


def _recipe(name: str, changes: dict[str, Any]) -> Recipe:
    from dataclasses import replace

    from cspedge.train import recipe as named

    return replace(named(name), **{key: value for key, value in changes.items() if value is not None})


def _options(
    workers: int | None, threads: int | None, device: str | None, augment: str | None, cache: str, eval_every: int
) -> TrainOptions:
    from cspedge.errors import unknown
    from cspedge.train import Augment, Cache, TrainOptions

    for kind, value, known in (("cache", cache, Cache), ("place to augment", augment or "cpu", Augment)):
        if value not in {item.value for item in known}:
            raise unknown(kind, value, [item.value for item in known])
    return TrainOptions(
        workers=workers,
        threads=threads,
        device=device,
        augment=Augment(augment) if augment else None,
        cache=Cache(cache),
        eval_every=eval_every,
    )


@contextmanager
def _bar(ui: ConsoleUi, task: str) -> Iterator[Callable[[Progress], None]]:
    """A bar with what remains on stderr, and a line for every epoch, which a log keeps."""
    from rich.markup import escape
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[words]}"))
    with Bars(*columns, console=ui.console, transient=True) as bars:
        bar = bars.add_task(escape(task), total=None, words="reading images")

        def show(at: Progress) -> None:
            words = (
                f"epoch {at.epoch}/{at.epochs}  loss {at.loss:.3f}  lr {at.lr:.2e}  {at.images_per_s:.0f} images/s  "
                f"ETA {timedelta(seconds=round(at.eta_s))}"
            )
            done = (at.epoch - 1) * at.steps + at.step
            bars.update(bar, completed=done, total=at.epochs * at.steps, words=words)
            if at.step == at.steps:
                top1 = "" if at.top1 is None else f"  top-1 {at.top1:.2%}"
                ui.console.print(f"{words}{top1}", soft_wrap=True)

        yield show
