"""What a finished training leaves: a checkpoint folder in timm's hub layout, its provenance and its learning curve."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cspedge.digest import pretty_json, sha256_file, sha256_json

if TYPE_CHECKING:
    import torch

    from cspedge.data.images import ImageList
    from cspedge.train.dataset import TrainData
    from cspedge.train.recipe import Recipe
    from cspedge.train.start import Start


@dataclass(frozen=True, kw_only=True)
class Run:
    """How a training went. images_per_s: of the training steps alone; wall_s: of everything, interruptions left out.

    precision: of the training steps (`fp32` or `bf16` by autocast); resumed: how often it was taken up again.
    """

    device: str
    device_name: str
    precision: str
    augment: str
    cache: str
    wall_s: float
    images_per_s: float
    resumed: int


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
    folder: Path, start: Start, data: TrainData, recipe: Recipe, run: Run, metrics: dict[str, Any], weights_sha256: str
) -> None:
    """Writes `provenance.json`: what the weights were made of and how, and what they reach; no dates, no paths."""
    import torch

    train, val = described(data.train), described(data.val)
    weights = {"name": start.name, "sha256": start.sha256, "fresh": list(start.fresh)}
    provenance = {
        "architecture": str(start.net.pretrained_cfg["architecture"]),
        "data": f"{data.name}, {len(data.train.class_names)} classes, train split ({len(data.train):,} images)",
        "data_sha256": sha256_json([train["sha256"], val["sha256"]]),
        "train": train,
        "val": val,
        "start": None if start.name is None else weights,
        "device": run.device,
        "device_name": run.device_name,
        "precision": run.precision,
        "augment": run.augment,
        "cache": run.cache,
        "wall_s": round(run.wall_s, 1),
        "images_per_s": round(run.images_per_s, 1),
        "resumed": run.resumed,
        "fp32": {"val": metrics},
        "recipe": recipe.as_dict(),
        "seed": recipe.seed,
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "weights_sha256": weights_sha256,
    }
    (folder / "provenance.json").write_text(pretty_json(provenance), encoding="utf-8")


def described(images: ImageList) -> dict[str, Any]:
    content = [[digest, name] for digest, name in zip(images.digests, images.class_of, strict=True)]
    return {"n": len(images), "sha256": sha256_json(content)}


def versions() -> dict[str, str]:
    """Of everything that decides the weights' bits."""
    from importlib.metadata import version

    return {name: version(name) for name in ("cspedge", "numpy", "pillow", "timm", "torch", "torchvision")}


def device_kind(place: torch.device) -> str:
    """`cpu` or `cuda (NVIDIA ...)`."""
    return f"cuda ({device_name(place)})" if place.type == "cuda" else place.type


def device_name(place: torch.device) -> str:
    """The name of the GPU, or of the processor."""
    import torch

    from cspedge.devices.host import describe

    return torch.cuda.get_device_name(place) if place.type == "cuda" else describe().cpu
