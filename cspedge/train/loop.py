"""`cspedge train`: an fp32 reference from images, on timm's own parts, on CUDA where there is one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cspedge.data.images import ImageList, labels_for, load
from cspedge.errors import CspedgeError, InputError, unknown
from cspedge.models.preprocess import resolve, to_float
from cspedge.threads import torch_threads
from cspedge.train.batches import batches, seeded
from cspedge.train.checkpoint import new_folder, write_model, write_provenance
from cspedge.train.recipe import Recipe, TrainData
from cspedge.types import ImageSet, Preprocess

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """A trained reference on disk and its accuracy on the held-out images, fractions of 1."""

    path: Path
    architecture: str
    device: str
    n_train: int
    n_val: int
    top1: float
    top5: float
    macro_top1: float
    weights_sha256: str


def train(
    model: str,
    data: TrainData,
    *,
    recipe: Recipe,
    out: Path,
    overwrite: bool = False,
    workers: int = 0,
    threads: int | None = None,
    device: str | None = None,
    progress: Callable[[int, int, float], None] | None = None,
) -> TrainResult:
    """Trains a timm architecture from scratch on `data.train` and writes a checkpoint folder in timm's hub layout.

    `out` gets `config.json`, `model.safetensors` (fp32) and `provenance.json`, all or nothing; `local-dir:{out}` loads
    it. The weights kept are the last ones (their average with `ema_decay`): `data.val` chooses nothing and is used
    once, on the saved file. On one machine the same recipe, images and thread count give the same bytes on a CPU.
    workers: loader processes, 0 for none (they do not change the result); threads: torch's, default as they are set (on
    a busy machine one is several times faster than two); device: torch's name, default CUDA where there is one (with
    bfloat16 autocast), else CPU; `progress(epoch, epochs, mean training loss)` is called after each epoch.
    Raises UsageError for an unknown architecture or an `out` that exists (unless `overwrite`), InputError for labels or
    images that do not fit, WorkspaceError where `out` cannot be written.
    """
    names = data.train.class_names
    labels = labels_for(data.train, names, num_classes=len(names))
    val_labels = labels_for(data.val, names, num_classes=len(names))
    if len(data.train) < 2 or not data.val:
        raise InputError(
            f"{data.name!r} has {len(data.train)} training and {len(data.val)} validation images; "
            "two and one at least are needed"
        )
    with new_folder(out, overwrite=overwrite) as folder, seeded(recipe.seed), torch_threads(threads):
        net = _create(model, len(names), recipe.img_size)
        place = _device(device)
        contract = _contract(net.pretrained_cfg, recipe)
        # Before training, so that an unreadable validation image does not cost hours.
        val = load(data.val, None, contract, labels=val_labels, workers=max(1, workers))
        trained = _fit(net.to(place), data.train, labels, recipe, place, workers, progress)
        weights = write_model(trained, folder, data.name, names, recipe)
        metrics = _evaluate(folder, val, contract, place)
        architecture = str(net.pretrained_cfg["architecture"])
        write_provenance(folder, architecture, data, recipe, _device_kind(place), metrics, weights)
    return TrainResult(
        path=out,
        architecture=architecture,
        device=_device_kind(place),
        n_train=len(data.train),
        n_val=metrics["n"],
        top1=metrics["top1"],
        top5=metrics["top5"],
        macro_top1=metrics["macro_top1"],
        weights_sha256=weights,
    )


def _create(model: str, num_classes: int, img_size: int) -> Any:
    import difflib

    import timm

    if not timm.is_model(model):
        close = difflib.get_close_matches(model.split(".")[0], timm.list_models(), n=5, cutoff=0.4)
        raise unknown("architecture", model, close or timm.list_models("lcnet*"))
    fixed = timm.get_pretrained_cfg(model)
    sized = {"img_size": img_size} if fixed is not None and fixed.fixed_input_size else {}
    return timm.create_model(model, pretrained=False, num_classes=num_classes, in_chans=3, **sized)


def _fit(
    net: Any,
    images: ImageList,
    labels: NDArray[np.int64],
    recipe: Recipe,
    place: torch.device,
    workers: int,
    progress: Callable[[int, int, float], None] | None,
) -> Any:
    """The trained module: the average of the weights, or the last ones where `ema_decay` is 0."""
    import torch
    from timm.optim import create_optimizer_v2
    from timm.scheduler import create_scheduler_v2
    from timm.utils import ModelEmaV3

    batch = min(recipe.batch_size, len(images)) // 2 * 2 or 2  # mixup pairs the images of a batch
    steps = len(images) // batch
    mix, loss_of = _loss(recipe, len(images.class_names))
    optimizer = create_optimizer_v2(net, opt=recipe.optimizer, lr=recipe.lr, weight_decay=recipe.weight_decay)
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched=recipe.schedule,
        num_epochs=recipe.epochs,
        warmup_epochs=min(recipe.warmup_epochs, recipe.epochs - 1),
        warmup_lr=recipe.lr / 100,
        step_on_epochs=False,
        updates_per_epoch=steps,
    )
    average = ModelEmaV3(net, decay=recipe.ema_decay, use_warmup=True) if recipe.ema_decay else None
    amp = place.type == "cuda" and torch.cuda.is_bf16_supported()
    total = 0.0
    net.train().to(memory_format=torch.channels_last)
    source = batches(images, labels, recipe, net.pretrained_cfg, batch, workers)
    for step, (pixels, targets) in enumerate(source, 1):
        inputs, wanted = mix(pixels.to(place, memory_format=torch.channels_last), targets.to(place))
        with torch.autocast(place.type, dtype=torch.bfloat16, enabled=amp):
            loss = loss_of(net(inputs), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step_update(step)
        if average is not None:
            average.update(net, step=step)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise CspedgeError(f"training diverged in step {step} (loss {value}); lower lr (now {recipe.lr})")
        total += value
        if step % steps == 0:
            if progress is not None:
                progress(step // steps, recipe.epochs, total / steps)
            total = 0.0
    return net if average is None else average.module


def _loss(recipe: Recipe, num_classes: int) -> tuple[Callable[[Any, Any], tuple[Any, Any]], Callable[[Any, Any], Any]]:
    import torch
    from timm.data import Mixup
    from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy

    if recipe.mixup:
        mix = Mixup(mixup_alpha=recipe.mixup, label_smoothing=recipe.label_smoothing, num_classes=num_classes)
        return mix, SoftTargetCrossEntropy()
    if recipe.label_smoothing:
        return _unmixed, LabelSmoothingCrossEntropy(recipe.label_smoothing)
    return _unmixed, torch.nn.CrossEntropyLoss()


def _unmixed(inputs: Any, targets: Any) -> tuple[Any, Any]:
    return inputs, targets


def _contract(cfg: Any, recipe: Recipe) -> Preprocess:
    size = (3, recipe.img_size, recipe.img_size)
    chosen = {"interpolation": recipe.interpolation, "crop_pct": recipe.crop_pct, "crop_mode": "center"}
    return resolve({"input_size": size, "mean": cfg["mean"], "std": cfg["std"], **chosen})


def _evaluate(folder: Path, val: ImageSet, contract: Preprocess, place: torch.device) -> dict[str, Any]:
    """Accuracy of the saved files in strict fp32; `val` went through the preprocessing of every later stage."""
    import numpy as np
    import timm
    import torch

    net = timm.create_model(f"local-dir:{folder}", pretrained=True).eval().to(place)
    if val.labels is None or resolve(net.pretrained_cfg) != contract:
        raise CspedgeError(f"the saved configuration asks for {resolve(net.pretrained_cfg)}, trained was {contract}")
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (contract.mean, contract.std))
    ranks: list[NDArray[np.int64]] = []
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for at in range(0, len(val), 64):
            inputs = (torch.from_numpy(to_float(val.images[at : at + 64])) - mean) / std
            logits = net(inputs.to(place)).float().cpu().numpy()
            wanted = val.labels[at : at + 64]
            ranks.append((logits > np.take_along_axis(logits, wanted[:, None], 1)).sum(1))
    rank = np.concatenate(ranks)
    recalls = [float((rank[val.labels == label] == 0).mean()) for label in np.unique(val.labels)]
    return {
        "n": len(rank),
        "top1": round(float((rank == 0).mean()), 6),
        "top5": round(float((rank < 5).mean()), 6),
        "macro_top1": round(float(np.mean(recalls)), 6),
    }


def _device(name: str | None) -> torch.device:
    import torch

    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))


def _device_kind(place: torch.device) -> str:
    import torch

    return f"cuda ({torch.cuda.get_device_name(place)})" if place.type == "cuda" else place.type
