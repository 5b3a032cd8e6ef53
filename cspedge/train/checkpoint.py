"""A checkpoint folder in timm's hub layout, written whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cspedge.digest import pretty_json, sha256_file, sha256_json
from cspedge.errors import UsageError, WorkspaceError

if TYPE_CHECKING:
    from cspedge.data.images import ImageList
    from cspedge.train.recipe import Recipe, TrainData


@contextmanager
def new_folder(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """An empty folder beside `out` that becomes `out` when the block ends well, and vanishes when it does not.

    Raises UsageError where `out` exists and may not be replaced (only a checkpoint or an empty folder ever is), before
    any work is done; WorkspaceError where the place cannot be written.
    """
    if out.exists() and not overwrite:
        raise UsageError(f"{str(out)!r} exists already; choose another --out, or replace it with --overwrite")
    if out.exists() and not (out / "config.json").is_file() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{str(out)!r} is no checkpoint folder and is not replaced; choose another --out")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise WorkspaceError(f"cannot write beside {str(out)!r} ({error.strerror}); choose another --out") from error
    try:
        yield folder
        _publish(folder, out)
    except OSError as error:
        raise WorkspaceError(f"cannot write {str(out)!r} ({error.strerror or error}); choose another --out") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_model(net: Any, folder: Path, tag: str, label_names: Sequence[str], recipe: Recipe) -> str:
    """Writes `model.safetensors` (fp32) and `config.json` with timm's `save_for_hf`; returns the weights' SHA-256."""
    import torch
    from timm.models import save_for_hf

    cfg = net.pretrained_cfg
    net = net.cpu().float().eval().to(memory_format=torch.contiguous_format)
    save_for_hf(
        net,
        str(folder),
        model_config={"label_names": list(label_names), "pretrained_cfg": {"tag": tag}},
        safe_serialization=True,
        data_config={
            "input_size": (3, recipe.img_size, recipe.img_size),
            "interpolation": recipe.interpolation,
            "crop_pct": recipe.crop_pct,
            "crop_mode": "center",
            "mean": cfg["mean"],
            "std": cfg["std"],
        },
    )
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    for key in ("license", "origin_url", "paper_ids", "notes"):  # they speak of the published weights, not of these
        config["pretrained_cfg"].pop(key, None)
    path.write_text(pretty_json(config), encoding="utf-8")
    return sha256_file(folder / "model.safetensors")


def write_provenance(
    folder: Path,
    architecture: str,
    data: TrainData,
    recipe: Recipe,
    device: str,
    metrics: dict[str, Any],
    weights_sha256: str,
) -> None:
    """Writes `provenance.json`: what the weights were made of and what they reach; no times, no paths."""
    import timm
    import torch

    provenance = {
        "architecture": architecture,
        "data": f"{data.name}, {len(data.train.class_names)} classes, train split ({len(data.train):,} images)",
        "train": described(data.train),
        "val": described(data.val),
        "device": device,
        "fp32": {"val": metrics},
        "recipe": recipe.as_dict(),
        "seed": recipe.seed,
        "threads": torch.get_num_threads(),
        "versions": {"timm": timm.__version__, "torch": str(torch.__version__)},
        "weights_sha256": weights_sha256,
    }
    (folder / "provenance.json").write_text(pretty_json(provenance), encoding="utf-8")


def described(images: ImageList) -> dict[str, Any]:
    content = [[digest, name] for digest, name in zip(images.digests, images.class_of, strict=True)]
    return {"n": len(images), "sha256": sha256_json(content)}


def _publish(folder: Path, out: Path) -> None:
    for path in (*folder.iterdir(), folder):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fchmod(handle, 0o755 if path is folder else 0o644)  # mkdtemp and safetensors make theirs private
            os.fsync(handle)
        finally:
            os.close(handle)
    if out.exists():
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as old:
            out.rename(Path(old) / "replaced")
            folder.rename(out)
    else:
        folder.rename(out)
