"""The options that commands share, and how they become `RunOptions`: typed ones win over `cspedge.toml`."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cspedge.errors import UsageError

if TYPE_CHECKING:
    from cspedge.pipeline import RunOptions

Model = Annotated[
    str | None,
    typer.Argument(
        help="timm name, local-dir:PATH, mmpretrain:NAME, or nothing: the built-in digits model.", metavar="MODEL"
    ),
]
Weights = Annotated[str | None, typer.Option(help="Weights that replace the model's own (.safetensors or .pth).")]
Labels = Annotated[
    str | None, typer.Option(help="Class names, one a line, in the order of the model's outputs.", metavar="FILE")
]
Head = Annotated[str | None, typer.Option(help="logits, features (every level) or embedding. [default: logits]")]
ImgSize = Annotated[
    int | None, typer.Option(help="Pixels on a side, as timm overrides it. [default: the model's own]", min=1)
]
Calib = Annotated[str | None, typer.Option(help="Folder or archive of images to calibrate on.", metavar="DIR")]
Val = Annotated[
    str | None, typer.Option(help="Folder or archive to validate on: one subfolder per class.", metavar="DIR")
]
Workspace = Annotated[str | None, typer.Option(help="The store of finished stages. [default: .cspedge]", metavar="DIR")]
Out = Annotated[str | None, typer.Option(help="Where results go. [default: cspedge-out]", metavar="DIR")]
Config = Annotated[str | None, typer.Option(help="Defaults for these options, as TOML.", metavar="FILE")]
Targets = Annotated[list[str] | None, typer.Option("--target", help="Target name; repeatable. [default: all]")]
Precisions = Annotated[
    list[str] | None, typer.Option("--precision", help="fp32, fp16 or int8; repeatable. [default: each target's own]")
]
Recipe = Annotated[str | None, typer.Option(help="Calibration recipe: a name or a .toml file. [default: default]")]
Placement = Annotated[str | None, typer.Option(help="best, or common: one placement for all targets. [default: best]")]
CalibImages = Annotated[int | None, typer.Option(help="How many calibration images. [default: the recipe's]", min=1)]
AllowOverlap = Annotated[
    bool, typer.Option("--allow-overlap", help="Let calibration and validation share images; it is recorded.")
]
MaxUnreadable = Annotated[
    float | None, typer.Option(help="Share of unreadable images to put up with. [default: 0.01]", min=0.0, max=1.0)
]
Threads = Annotated[int | None, typer.Option(help="Threads of torch and of each runtime. [default: 1]", min=1)]
Sweep = Annotated[
    str | None,
    typer.Option("--sweep", help="Other numbers of threads to time as well: 1,2,4 (bench, --device).", metavar="N,N"),
]
Seed = Annotated[int | None, typer.Option(help="Seed of the image sample and the bench order. [default: 0]")]
NoThumbnails = Annotated[
    bool, typer.Option("--no-thumbnails", help="The report names the images that flip and shows none of them.")
]
Robustness = Annotated[
    int | None,
    typer.Option(
        help="Also compare int8 with fp32 on N images under mild blur, JPEG, other light. [default: none]",
        metavar="N",
        min=1,
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        help="Where to run: local-process://, ssh://user@host[:port], adb://[SERIAL], qemu-aarch64://CPU, mac://, "
        "ios://UDID. "
        "[default: in this process]",
        metavar="URI",
    ),
]
Emit = Annotated[
    str | None,
    typer.Option(help="With mac:// or ios://UDID: write a folder to run there by hand, and stop.", metavar="DIR"),
]
EmitImages = Annotated[
    int | None,
    typer.Option(help="How many validation images --emit writes, evenly drawn. [default: all]", min=1),
]
Add = Annotated[
    list[str] | None,
    typer.Option("--add", help="Take in the results.json of a folder from --emit; repeatable.", metavar="FILE"),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, and nothing else there.")]

DEFAULT_WORKSPACE = ".cspedge"
LAST = "last.json"
CONTINUED = (
    "model",
    "weights",
    "labels",
    "head",
    "img_size",
    "calib",
    "val",
    "recipe",
    "placement",
    "calib_images",
    "allow_overlap",
    "seed",
    "protocol",
)


def build(given: dict[str, Any], *, config: str | None, continues: bool) -> tuple[RunOptions, str | None]:
    """RunOptions from typed options, then `cspedge.toml`, then what the last command in the workspace used.

    continues: whether a command without MODEL takes up the last one's model and images. Returns the options and a
    sentence where it did. An option that stands nowhere keeps its default.
    """
    from cspedge.config import RunConfig, load_config
    from cspedge.pipeline import RunOptions
    from cspedge.types import Precision

    file = Path(config) if config else Path("cspedge.toml")
    settings = load_config(file) if config or file.is_file() else RunConfig()
    merged: dict[str, Any] = {}
    for name in RunConfig.__dataclass_fields__:
        typed = given.get(name)
        value = typed if typed not in (None, [], False) else getattr(settings, name)
        if value not in (None, (), []):
            merged[name] = value
    workspace = Path(merged.pop("workspace", DEFAULT_WORKSPACE))
    message = None
    last = _last(workspace) if continues and "model" not in merged else {}
    if last.get("model"):
        merged = last | merged
        message = f"continuing with {last['model']} as in {workspace / LAST}; give MODEL to choose another"
    targets = tuple(merged.pop("target", ()))
    precisions = tuple(_precision(p) for p in merged.pop("precision", ()))
    if "head" in merged:
        merged["head"] = _head(merged["head"])
    if "placement" in merged:
        merged["placement"] = _placement(merged["placement"])
    if "sweep" in merged:
        merged["sweep"] = _sweep(merged["sweep"])
    protocol = given.get("protocol") or last.get("protocol")  # also of the built-in model, which has no name
    if protocol is not None:
        merged["protocol"] = _protocol(protocol)
    out = Path(merged.pop("out", "cspedge-out"))
    merged["explain"] = bool(given.get("explain"))
    if given.get("emit"):
        merged["emit"] = Path(given["emit"])
    merged |= {"emit_images": given.get("emit_images"), "add": tuple(given.get("add") or ())}
    options = RunOptions(workspace=workspace, out=out, targets=targets, precisions=precisions, **merged)
    assert all(isinstance(p, Precision) for p in options.precisions)
    return options, message


def remember(options: RunOptions) -> None:
    """Writes which model and images the workspace is about, for a later command without MODEL."""
    from cspedge import atomic

    values = {k: getattr(options, k) for k in CONTINUED}
    for key in ("calib", "val", "weights", "labels"):
        if values[key] is not None:
            values[key] = str(Path(values[key]).expanduser().absolute())
    model = values["model"]
    if model is not None and model.startswith("local-dir:"):
        values["model"] = f"local-dir:{Path(model.removeprefix('local-dir:')).expanduser().absolute()}"
    before = _last(options.workspace)
    if before.get("model") == values["model"]:  # `export` knows no --val, and must not forget it
        values = before | {k: v for k, v in values.items() if v is not None}
    atomic.write_json(options.workspace / LAST, values)


def _last(workspace: Path) -> dict[str, Any]:
    file = workspace / LAST
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return {k: v for k, v in found.items() if k in CONTINUED and v is not None}
    except (ValueError, AttributeError) as error:
        raise UsageError(f"{str(file)!r} is damaged ({error}); delete it and give MODEL") from error


def _precision(text: str) -> Any:
    from cspedge.types import Precision

    return _member(Precision, "precision", text)


def _placement(text: str) -> Any:
    from cspedge.options import PlacementChoice

    return _member(PlacementChoice, "placement", text)


def _head(text: str) -> Any:
    from cspedge.types import Head

    return _member(Head, "head", text)


def _protocol(text: str) -> Any:
    from cspedge.evaluate.timing import BenchProtocol

    return _member(BenchProtocol, "protocol", text)


def _sweep(given: str | tuple[int, ...]) -> tuple[int, ...]:
    """Numbers of threads as typed ("1,2,4") or as `cspedge.toml` lists them."""
    parts = given.split(",") if isinstance(given, str) else [str(count) for count in given]
    for part in parts:
        if not part.strip().isdecimal() or not 1 <= int(part) <= 1024:
            raise UsageError(f"--sweep is {given!r}; allowed are numbers of threads from 1 to 1024, such as 1,2,4")
    return tuple(sorted({int(part) for part in parts}))


def _member(words: type[StrEnum], what: str, text: str) -> Any:
    from cspedge.errors import unknown

    if text not in {w.value for w in words}:
        raise unknown(what, text, [w.value for w in words])
    return words(text)
