"""Images and weights that are not as they should be, through the real `quantize`: a result or one clear sentence."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from cspedge import api
from cspedge.config import load_target
from cspedge.errors import InputError
from cspedge.models.reference import Reference
from cspedge.quantize.placement import QuantizedModel, place
from cspedge.types import ImageSet


@pytest.fixture(scope="module")
def reference() -> Reference:
    """The built-in lcnet on digits."""
    return api.load_reference()


@pytest.fixture(scope="module")
def digits(reference: Reference) -> ImageSet:
    return api.collect_calibration(reference, count=16)


def same(images: ImageSet, pixels: Any) -> ImageSet:
    """As many images as `pixels` holds (uint8 [n, 3, H, W]), under the names of the first ones."""
    count = len(pixels)
    return replace(images, images=pixels, names=images.names[:count], digests=images.digests[:count], labels=None)


def answers(model: QuantizedModel, images: Any) -> tuple[Any, Any]:
    """The fp32 graph's logits and those of the graph placed for OpenVINO."""
    x = torch.from_numpy(images).float() / 255
    with torch.no_grad():
        return model.float_graph(x), place(model, load_target("openvino").placement)(x)[0]


@pytest.mark.parametrize("value", [0, 128, 255])
def test_constant_images_quantize(reference: Reference, digits: ImageSet, value: int) -> None:
    pixels = np.full((4, *digits.images.shape[1:]), value, np.uint8)
    model = api.quantize(reference, same(digits, pixels))
    assert all(np.isfinite(e.scale) and e.scale > 0 for e in model.encodings.activations.values())
    expected, found = answers(model, pixels)
    assert bool(torch.isfinite(found).all())
    assert torch.equal(expected.argmax(1), found.argmax(1))


def test_one_image_quantizes(reference: Reference, digits: ImageSet) -> None:
    pixels = digits.images[:1]
    expected, found = answers(api.quantize(reference, same(digits, pixels)), pixels)
    assert torch.equal(expected.argmax(1), found.argmax(1))


def damaged(reference: Reference, damage: Callable[[nn.Module], None]) -> Reference:
    module = copy.deepcopy(reference.module)
    with torch.no_grad():
        damage(module)
    return replace(reference, module=module)


def first(module: nn.Module, kind: type[nn.Module]) -> Any:
    return next(m for m in module.modules() if isinstance(m, kind))


def _set_weight(value: float) -> Callable[[nn.Module], None]:
    def damage(module: nn.Module) -> None:
        first(module, nn.Conv2d).weight[1, 0, 0, 0] = value

    return damage


def _negative_variance(module: nn.Module) -> None:
    first(module, nn.BatchNorm2d).running_var[3] = -1.0


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_set_weight(float("nan")), r"infinite on an ordinary image; the weight 'model\.conv_stem\.weight' holds"),
        (_set_weight(float("-inf")), r"the weight 'model\.conv_stem\.weight' holds"),
        (_set_weight(3e38), "check the weights"),
        (_set_weight(1e12), "check the weights for huge values"),
        (_negative_variance, "NaN or infinite on an ordinary image; check the weights"),
    ],
)
def test_weights_that_cannot_be_used_are_refused(
    reference: Reference, digits: ImageSet, damage: Callable[[nn.Module], None], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        api.quantize(damaged(reference, damage), digits)
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)


def _dead_channels(module: nn.Module) -> None:
    norm = first(module, nn.BatchNorm2d)
    norm.weight[2] = 0.0
    norm.bias[2] = 0.0
    norm.weight[5] = 0.0  # a channel that is a constant


def _zero_row(module: nn.Module) -> None:
    first(module, nn.Linear).weight[4] = 0.0


def _large_channel(module: nn.Module) -> None:
    first(module, nn.BatchNorm2d).weight[1] *= 200.0


@pytest.mark.parametrize("damage", [_dead_channels, _zero_row, _large_channel])
def test_odd_weights_that_compute_are_quantized(
    reference: Reference, digits: ImageSet, damage: Callable[[nn.Module], None]
) -> None:
    model = api.quantize(damaged(reference, damage), digits)
    scales = [s for w in model.encodings.weights.values() for s in w.scales]
    assert np.isfinite(scales).all()
    assert min(scales) > 0
    expected, found = answers(model, digits.images)
    assert float((expected.argmax(1) == found.argmax(1)).float().mean()) >= 0.9
