"""What mmpretrain's own modules and transforms give; run in the environment of `make mmpretrain`, never imported.

    python mmpretrain_reference.py FOLDER PHOTOGRAPH...

Writes to FOLDER, for each of the three models: NAME.pth with random weights, saved by mmengine; NAME.npz with the
photographs after the model's own test pipeline ("crops", uint8 [n, 3, H, W] RGB), their files, its logits of the first
two ("photograph_logits") and of a fixed tensor of normalised values ("tensor", "tensor_logits"); NAME.json with the
mean and standard deviation of its configuration and the address of its published weights. And trained.pth with
trained.npz: a checkpoint as mmengine's own training loop leaves it, optimizer, schedule, log and moving average
included.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.hooks import EMAHook
from mmengine.runner import Runner, save_checkpoint
from mmpretrain import ModelHub, get_model
from mmpretrain.registry import TRANSFORMS

NAMES = (
    "cspdarknet50_3rdparty_8xb32_in1k",
    "cspresnet50_3rdparty_8xb32_in1k",
    "cspresnext50_3rdparty_8xb32_in1k",
)
CLASSES = ("left", "middle", "right")


def pipeline_of(model: Any) -> Compose:
    """The steps of the model's own test pipeline."""
    return Compose([TRANSFORMS.build(step) for step in model._config.test_dataloader.dataset.pipeline])


def after(pipeline: Compose, photograph: Path) -> torch.Tensor:
    """uint8 [3, H, W], in the channel order that the pipeline leaves: BGR."""
    return pipeline({"img_path": str(photograph)})["inputs"]


def logits_of(model: Any, inputs: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return model(inputs, mode="tensor").numpy()


def randomize(model: Any, images: torch.Tensor, generator: torch.Generator) -> None:
    """Random weights, scales and shifts; the batch norms' statistics are those of real photographs."""
    model.init_weights()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.2, generator=generator)
            module.momentum = 1.0
    model.head.fc.weight.data.normal_(0, 0.05, generator=generator)
    model.head.fc.bias.data.normal_(0, 0.1, generator=generator)
    logits_of(model.train(), images)
    model.eval()


def save(model: Any, folder: Path, name: str, photographs: list[Path], generator: torch.Generator) -> None:
    pipeline = pipeline_of(model)
    packed = [after(pipeline, photograph) for photograph in photographs]
    prepared = model.data_preprocessor({"inputs": packed[:2]}, training=False)["inputs"]
    randomize(model, prepared, generator)
    tensor = torch.randn(1, *prepared.shape[1:], generator=generator)
    save_checkpoint({"meta": {"epoch": 0, "cfg": model._config}, "state_dict": model.state_dict()}, str(folder / name))
    np.savez(
        folder / f"{name.removesuffix('.pth')}.npz",
        crops=torch.stack(packed).flip(1).numpy(),
        files=[str(p) for p in photographs],
        photograph_logits=logits_of(model, prepared),
        tensor=tensor.numpy(),
        tensor_logits=logits_of(model, tensor),
    )


def train_briefly(folder: Path, photographs: list[Path]) -> None:
    """Two epochs of mmengine's own loop on cspresnext50, with the hooks that leave most in a checkpoint."""
    for index, name in enumerate(CLASSES):
        (folder / "images" / name).mkdir(parents=True)
        shutil.copy(photographs[index % 2], folder / "images" / name)
    config: Config = get_model(NAMES[2], pretrained=False)._config
    config.model.head.num_classes = config.data_preprocessor.num_classes = len(CLASSES)
    config.model.head.topk = (1,)
    config.work_dir = str(folder / "work")
    config.train_dataloader = {
        "batch_size": 3,
        "num_workers": 0,
        "dataset": {
            "type": "CustomDataset",
            "data_prefix": str(folder / "images"),
            "pipeline": [
                {"type": "LoadImageFromFile"},
                {"type": "RandomResizedCrop", "scale": 64},
                {"type": "PackInputs"},
            ],
        },
        "sampler": {"type": "DefaultSampler", "shuffle": True},
    }
    config.train_cfg = {"by_epoch": True, "max_epochs": 2}
    config.val_dataloader = config.val_cfg = config.val_evaluator = None
    config.test_dataloader = config.test_cfg = config.test_evaluator = None
    config.default_hooks.checkpoint.interval = 2
    config.custom_hooks = [{"type": "EMAHook", "momentum": 0.1}]
    config.randomness = {"seed": 0}
    runner = Runner.from_cfg(config)
    runner.train()
    (folder / "work" / "epoch_2.pth").rename(folder / "trained.pth")
    tensor = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(5))
    average = next(hook for hook in runner.hooks if isinstance(hook, EMAHook)).ema_model.module
    np.savez(folder / "trained.npz", tensor=tensor.numpy(), tensor_logits=logits_of(average.eval(), tensor))
    shutil.rmtree(folder / "work")


def main() -> None:
    torch.set_num_threads(1)
    folder, photographs = Path(sys.argv[1]), [Path(p) for p in sys.argv[2:]]
    for seed, name in enumerate(NAMES):
        model = get_model(name, pretrained=False)
        torch.manual_seed(seed)
        save(model, folder, f"{name}.pth", photographs, torch.Generator().manual_seed(seed))
        preprocessor = model._config.data_preprocessor
        figures = {"mean": preprocessor.mean, "std": preprocessor.std, "weights": ModelHub.get(name).weights}
        (folder / f"{name}.json").write_text(json.dumps(figures), encoding="utf-8")
    train_briefly(folder, photographs)


if __name__ == "__main__":
    main()
