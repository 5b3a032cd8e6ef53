"""A small model with every shape of op the first-class models have, and programs written op by op with coremltools."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from cspedge.backends.coreml.quiet import converting, import_coremltools
from cspedge.quantize.calibrate import QuantizeOptions, calibrate
from cspedge.quantize.graph import prepare
from cspedge.quantize.placement import Placement, QuantizedModel

SHAPE = (3, 32, 32)
PLACEMENT = Placement(fuse=("relu", "relu6", "hardtanh", "hardswish", "leaky_relu", "silu"))


class Small(nn.Module):
    """Stem, depthwise, squeeze-excite, split and concat, residual, max pool, classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.Hardswish())
        self.depthwise = nn.Sequential(nn.Conv2d(16, 16, 5, 1, 2, groups=16), nn.LeakyReLU(0.01))
        self.reduce, self.expand = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 16, 1)
        self.left, self.right = nn.Conv2d(8, 8, 3, 1, 1), nn.Conv2d(8, 8, 1)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.mix = nn.Sequential(nn.Conv2d(16, 16, 1), nn.ReLU())
        self.classifier = nn.Linear(16, 10)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.depthwise(self.stem((x - self.mean) / self.std))
        gate = x.mean((2, 3), keepdim=True)
        x = x * nn.functional.hardsigmoid(self.expand(nn.functional.relu(self.reduce(gate))))
        first, second = x.split(8, 1)
        x = torch.cat([self.left(first), first + self.right(second)], 1)
        x = self.mix(self.pool(x))
        return self.classifier(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


def small_model() -> QuantizedModel:
    """`Small` with fixed weights, calibrated on fixed noise."""
    torch.manual_seed(0)
    graph = prepare(Small().eval(), SHAPE)
    images = np.random.Generator(np.random.PCG64(0)).integers(0, 256, (16, *SHAPE), dtype=np.uint8)
    return calibrate(graph, SHAPE, images, QuantizeOptions())


def images(count: int) -> torch.Tensor:
    """8-bit images as float32 in [0, 1]."""
    values = torch.randint(0, 256, (count, *SHAPE), generator=torch.Generator().manual_seed(1))
    return values.float() / 255


@pytest.fixture(scope="session")
def small() -> QuantizedModel:
    return small_model()


@pytest.fixture(scope="session")
def small_packages(small: QuantizedModel, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """`Small` lowered in each precision."""
    from cspedge.backends.coreml import BACKEND
    from cspedge.quantize.placement import place, place_float
    from cspedge.types import Precision

    folder = tmp_path_factory.mktemp("small")
    placed = {True: place_float(small.graph, SHAPE), False: place(small, PLACEMENT)}
    paths = {}
    for precision in Precision:
        paths[str(precision)] = folder / f"small.{precision}.mlpackage"
        BACKEND.lower(placed[precision.is_float], precision, paths[str(precision)], {})
    return paths


@pytest.fixture
def mil(tmp_path: Path) -> Callable[..., Path]:
    """mil(build, shape): a package whose program is exactly what `build(mb, x)` adds, x: fp32 of `shape`."""

    def make(build: Callable[[Any, Any], Any], shape: tuple[int, ...], name: str = "op", target: str = "iOS17") -> Path:
        ct = import_coremltools()
        system = getattr(ct.target, target)
        from coremltools.converters.mil import Builder as mb

        with converting():

            @mb.program(input_specs=[mb.TensorSpec(shape=shape)], opset_version=system)
            def program(x: Any) -> Any:
                return build(mb, x)

            model = ct.convert(
                program,
                convert_to="mlprogram",
                minimum_deployment_target=system,
                pass_pipeline=ct.PassPipeline.EMPTY,
                compute_precision=ct.precision.FLOAT32,
                skip_model_load=True,
            )
            path = tmp_path / f"{name}.mlpackage"
            model.save(str(path))
        return path

    return make
