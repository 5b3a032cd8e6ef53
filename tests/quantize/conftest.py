"""Networks that the quantizer's tests share: timm architectures with random weights and lively batch norms."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
from torch import nn


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
