"""Every first-class family, and parts of many others, through all four targets in fp32 and int8.

Stages are cut to a block or two and images are small: the operators and their neighbours are those of the whole models,
which `benchmarks/models.py` lowers at their full size.
"""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from timm.layers import BlurPool2d, Conv2dSame, EcaModule, LayerNorm2d, ScaledStdConv2d, SelectiveKernel, SplitAttn
from torch import nn
from torch.nn import functional as F

from cspedge.backends import get_backend
from cspedge.backends.onnx_writer import write
from cspedge.config import load_target
from cspedge.errors import TargetError
from cspedge.lowering import lower
from cspedge.quantize.graph import prepare
from cspedge.quantize.placement import QuantizedModel, place_float
from cspedge.resources import target_names

SMALL: dict[str, Any] = runpy.run_path(str(Path(__file__).with_name("small_model.py")))
SHAPE = (3, 32, 32)
FAMILIES = {  # and how many blocks of each stage are kept
    "lcnet_035": 2,
    "fbnetv3_b": 2,
    "ese_vovnet19b_dw": 1,
    "cspdarknet53": 1,
    "cspresnet50": 1,
    "cspresnext50": 1,
}


class Classifier(nn.Module):
    """stem, `body` (8 channels in, `width` out), classifier."""

    def __init__(self, body: nn.Module, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.body = body
        self.last = nn.Conv2d(width, 12, 1)
        self.head = nn.Linear(12, 5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.last(self.body(F.relu(self.stem(image)))))
        logits: torch.Tensor = self.head(x.mean((2, 3)))
        return logits


class Parts(nn.Module):
    """NFNet, EfficientNet of TensorFlow, ECA-ResNet, SK-Net: weights made in `forward`, uneven padding, gates."""

    def __init__(self) -> None:
        super().__init__()
        self.same = Conv2dSame(8, 8, 3, stride=2, groups=8)
        self.scaled = ScaledStdConv2d(8, 8, 3, padding=1)
        self.eca = EcaModule(8)
        self.kernels = SelectiveKernel(8, 8, rd_ratio=0.5)
        self.scale = nn.Parameter(torch.rand(8))
        self.pool = nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.silu(self.scaled(self.same(x))) * 1.7881
        x = torch.add(self.eca(x), x * self.scale.view(1, -1, 1, 1), alpha=0.5)
        x = self.pool(self.kernels(x))
        return torch.stack([x, F.softplus(x)]).sum(0) * torch.amax(x, (2, 3), keepdim=True).sigmoid()


class Normalised(nn.Module):
    """ConvNeXt, ResNeSt, HRNet: layer norms, a linear over channels, split attention, upsampling."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = LayerNorm2d(8)
        self.inner = nn.LayerNorm(8)
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)
        self.group = nn.GroupNorm(2, 8)
        self.slope = nn.PReLU(8)
        self.split = SplitAttn(8, 8, radix=2)
        self.blur = BlurPool2d(8, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(x)
        x = x + self.down(F.gelu(self.up(self.inner(x.permute(0, 2, 3, 1))))).permute(0, 3, 1, 2)
        x = self.slope(self.group(self.split(x)))
        small = self.blur(x)
        smaller = F.max_pool2d(small, 2)
        near = F.interpolate(small, scale_factor=2, mode="nearest")
        far = F.interpolate(smaller, size=(16, 16), mode="bilinear", align_corners=False)
        return F.mish(near) + far


BODIES: dict[str, Callable[[], nn.Module]] = {"parts": Parts, "normalised": Normalised}


def images(count: int, shape: tuple[int, int, int]) -> np.ndarray:
    found: np.ndarray = SMALL["noise"](shape, count, seed=5)
    return found


@pytest.fixture(scope="module", params=[*FAMILIES, *BODIES])
def model(request: Any) -> tuple[nn.Module, QuantizedModel]:
    """A float module and its quantized form."""
    name = request.param
    if name in FAMILIES:
        module, shape = SMALL["timm_model"](name, SMALL["LCNET"], FAMILIES[name]), SMALL["LCNET"]
    else:
        torch.manual_seed(0)
        module, shape = Classifier(BODIES[name]()).eval(), SHAPE
    return module, SMALL["quantize"](module, shape)


@pytest.mark.parametrize("target", target_names())
def test_all_targets_in_float_and_int8(model: tuple[nn.Module, QuantizedModel], target: str, tmp_path: Path) -> None:
    module, quantized = model
    available = get_backend(load_target(target).backend).availability()
    if not available.ok:
        pytest.skip(available.reason)
    photos = images(4, quantized.input_shape)
    batch = photos.astype(np.float32) / np.float32(255)
    with torch.no_grad():
        expected = module(torch.from_numpy(batch)).numpy()
    artifact = lower(quantized, target, "fp32", tmp_path, check_images=photos)
    session = get_backend(artifact.backend).load(artifact.path, threads=1, options={})
    assert np.abs(session.run(batch)[0] - expected).max() <= 1e-3 * np.abs(expected).max()
    artifact = lower(quantized, target, "int8", tmp_path, check_images=photos)  # compares with PT2E
    assert artifact.audit is not None
    assert artifact.audit.encodings_match, artifact.audit.notes
    assert artifact.audit.int8_mac_share > 0.98


@pytest.mark.parametrize("body", BODIES)
def test_onnx_is_written_directly(body: str) -> None:
    write(place_float(prepare(Classifier(BODIES[body]()).eval(), SHAPE), SHAPE))  # raises Unwritable where it cannot


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (
            "coreml",
            r"backend 'coreml' cannot convert the graph at op 'pad' in module 'body': Pad mode should be one of",
        ),
        ("openvino", r"openvino cannot convert pad at 'body': Unsupported padding mode: \[wrap\]"),
    ],
)
def test_what_a_backend_lacks_is_named(circular: QuantizedModel, target: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=message):
        lower(circular, target, "fp32", tmp_path)


@pytest.mark.parametrize("target", ["executorch", "onnxruntime"])
def test_the_other_targets_go_on(circular: QuantizedModel, target: str, tmp_path: Path) -> None:
    artifact = lower(circular, target, "int8", tmp_path)
    assert artifact.audit is not None
    assert artifact.audit.encodings_match


@pytest.fixture(scope="module")
def circular() -> QuantizedModel:
    """A padding that two of the runtimes lack."""
    torch.manual_seed(0)
    body = nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular")
    found: QuantizedModel = SMALL["quantize"](Classifier(body), SHAPE)
    return found
