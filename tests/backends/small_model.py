"""Small placed models for the ONNX and OpenVINO tests; also run as a child process: `lower` or `run`.

`python small_model.py lower BACKEND PRECISION PATH` lowers lcnet_050 and prints the artifact's digest;
`python small_model.py run BACKEND PATH IMAGES LOGITS` loads the artifact and runs the .npy images.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from cspedge.backends import get_backend
from cspedge.config import load_target
from cspedge.digest import sha256_path
from cspedge.quantize.calibrate import QuantizeOptions, calibrate
from cspedge.quantize.graph import prepare
from cspedge.quantize.observers import Observer
from cspedge.quantize.placement import PlacedModel, QuantizedModel, place, place_float
from cspedge.types import Precision

LCNET = (3, 64, 64)


def noise(shape: tuple[int, int, int], count: int, seed: int) -> np.ndarray:
    """uint8 [count, 3, H, W]."""
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def images(shape: tuple[int, int, int], count: int = 6) -> np.ndarray:
    """float32 [count, 3, H, W] in [0, 1]."""
    found: np.ndarray = noise(shape, count, seed=1).astype(np.float32) / np.float32(255)
    return found


def eager(model: PlacedModel, batch: np.ndarray) -> np.ndarray:
    """PT2E's answer of a model with one output."""
    (found,) = model(torch.from_numpy(batch))
    return found.numpy()


def quantize(module: nn.Module, shape: tuple[int, int, int]) -> QuantizedModel:
    """Calibrated on four images of noise, without searches."""
    options = QuantizeOptions(observer=Observer.MINMAX, weight_search=False)
    return calibrate(prepare(module.eval(), shape), shape, noise(shape, 4, seed=0), options)


def timm_model(name: str, shape: tuple[int, int, int] = LCNET, blocks: int | None = None) -> nn.Module:
    """A timm model with random weights and 10 classes; its batch norms see noise once, else all signal dies out.

    blocks: how many of each stage's are kept, the last one among them; None for all. Batch-norm shifts are one: with
    zero a random network is chaotic, and rounding grows from layer to layer as in no trained one.
    """
    import timm

    torch.manual_seed(0)
    module = timm.create_model(name, pretrained=False, num_classes=10).train()
    for path, stage in module.named_modules():
        if blocks is not None and re.fullmatch(r"blocks\.\d+|stages\.\d+\.blocks", path):
            del stage[blocks - 1 : -1]
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0
            nn.init.ones_(layer.bias)
    with torch.no_grad():
        module(torch.from_numpy(noise(shape, 16, seed=2)).float() / 255)
    return module.eval()


def lcnet() -> QuantizedModel:
    """lcnet_050 at 64 px, calibrated."""
    return quantize(timm_model("lcnet_050"), LCNET)


def placed(model: QuantizedModel, target: str, precision: Precision | str) -> PlacedModel:
    """What `target` lowers for `precision`."""
    if Precision(precision).is_float:
        return place_float(model.graph, model.input_shape)
    return place(model, load_target(target).placement)


def main(action: str, backend: str, *arguments: str) -> None:
    if action == "lower":
        precision, path = Precision(arguments[0]), Path(arguments[1])
        get_backend(backend).lower(placed(lcnet(), backend, precision), precision, path, {})
        print(sha256_path(path))
    else:
        path, images, logits = map(Path, arguments)
        np.save(logits, get_backend(backend).load(path, threads=1, options={}).run(np.load(images))[0])


if __name__ == "__main__":
    main(*sys.argv[1:])
