"""What the quantizer's tests share: networks with random weights and lively batch norms, the built-in trained one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import timm
import torch
from torch import nn

from cspedge import api
from cspedge.data import labels_for, load, sample
from cspedge.quantize.placement import QuantizedModel


@pytest.fixture(scope="session")
def network() -> Callable[[str], nn.Module]:
    """A timm model of ten classes in eval mode; no batch norm is the identity, as after training."""

    def make(name: str) -> nn.Module:
        torch.manual_seed(0)
        model = timm.create_model(name, pretrained=False, num_classes=10)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.running_mean, -0.2, 0.2)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.bias, -0.3, 0.3)
        return model.eval()

    return make


@dataclass(frozen=True, kw_only=True)
class Digits:
    """The built-in model, quantized by the fast recipe, and 192 digits that calibration did not see.

    images: uint8 [192, 3, 64, 64]; labels: int64 [192].
    """

    model: QuantizedModel
    images: Any
    labels: Any

    def coarse(self, *tensors: str, factor: float = 48.0) -> QuantizedModel:
        """The model with the scales of some tensors far too wide: what a failed calibration looks like."""
        activations = dict(self.model.encodings.activations)
        for name in tensors:
            activations[name] = replace(activations[name], scale=activations[name].scale * factor)
        return replace(self.model, encodings=replace(self.model.encodings, activations=activations))


@pytest.fixture(scope="session")
def digits() -> Digits:
    reference = api.load_reference()
    calibration = api.collect_calibration(reference, count=64)
    listed = api.list_images(None, "train")
    used = set(calibration.digests)
    rest = listed.subset(i for i, digest in enumerate(listed.digests) if digest not in used)
    indices = sample(rest, 192, seed=0)
    labels = labels_for(rest, reference.info.labels, num_classes=reference.info.num_classes)
    images = load(rest, indices, reference.info.preprocess, labels=labels)
    model = api.quantize(reference, calibration, recipe="fast")
    return Digits(model=model, images=images.images, labels=images.labels)
