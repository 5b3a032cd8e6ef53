"""What keeping tensors in float takes along and costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from torch import nn

from cspedge.config import load_target
from cspedge.errors import UsageError
from cspedge.quantize.calibrate import QuantizeOptions, calibrate
from cspedge.quantize.graph import prepare
from cspedge.quantize.islands import Cost, Islands, check_keep
from cspedge.quantize.partial import elements, multiply_accumulates
from cspedge.quantize.placement import QuantizedModel

GATE = "blocks.5.0.se.gate:hardtanh"


def islands(model: QuantizedModel, target: str, cost: Cost | None = None) -> Islands:
    sizes = elements(model)
    placement = load_target(target).placement
    return Islands(model, placement, cost or Cost(), sizes, multiply_accumulates(model, sizes))


@pytest.mark.parametrize("target", ["openvino", "onnxruntime", "executorch", "coreml"])
def test_all_in_int8_costs_nothing_and_all_in_float_everything(digits: Any, target: str) -> None:
    found = islands(digits.model, target)
    assert found.float_share(()) == 0.0
    assert found.price(()) == 0.0
    assert found.float_share(found.chosen) == 1.0
    assert found.converts(found.chosen) == 0
    assert found.layers(found.chosen) == frozenset()


@pytest.mark.parametrize(
    ("target", "layers"),
    [
        # behind the h-swish: OpenVINO's convolution before it may end in float, Core ML's and XNNPACK's may not
        ("openvino", {"blocks.2.0.conv_pw:conv2d"}),
        ("coreml", {"blocks.2.0.conv_dw:conv2d", "blocks.2.0.conv_pw:conv2d"}),
        ("executorch", {"blocks.2.0.conv_pw:conv2d"}),
    ],
)
def test_a_unit_takes_the_layers_around_it(digits: Any, target: str, layers: set[str]) -> None:
    found = islands(digits.model, target)
    unit = next(u for u in found.units if u.name == "blocks.2.0.bn1.act:hardswish")
    assert set(unit.layers) == layers
    assert unit.mac_share == pytest.approx(found.float_share(unit.tensors))
    assert 0 < unit.mac_share < 0.1
    assert unit.price > 0
    assert unit.converts > 0


def test_every_chosen_tensor_is_in_one_unit(digits: Any) -> None:
    found = islands(digits.model, "executorch")
    names = [name for unit in found.units for name in unit.tensors]
    assert sorted(names) == sorted(found.chosen)


def test_neighbouring_islands_share_their_conversions(digits: Any) -> None:
    found = islands(digits.model, "executorch")
    one, two = ["blocks.2.0.conv_pw:conv2d"], ["blocks.2.0.bn2.act:hardswish"]
    apart = found.converts(one) + found.converts(two) - found.converts(())
    assert found.converts([*one, *two]) < apart
    assert found.price([*one, *two]) < found.price(one) + found.price(two)


def test_what_float_costs_is_the_runtimes_matter(digits: Any) -> None:
    keep = ["blocks.5.1.se:mul"]
    prices = [
        islands(digits.model, "openvino", cost).price(keep)
        for cost in (Cost(), replace(Cost(), float_mac=7.0), replace(Cost(), convert=0.0))
    ]
    assert prices[1] > prices[0] > prices[2] > 0


def test_tensors_of_one_encoding_are_kept_together(network: Callable[[str], nn.Module]) -> None:
    shape = (3, 32, 32)
    images = np.random.default_rng(0).integers(0, 256, (2, *shape), dtype=np.uint8)
    options = QuantizeOptions(weight_search=False)
    model = calibrate(prepare(network("ese_vovnet19b_dw"), shape), shape, images, options)
    found = islands(model, "executorch")
    joined = max(found.units, key=lambda unit: len(unit.tensors))
    assert len(joined.tensors) > 3
    check_keep(model, found.placement, joined.tensors)
    with pytest.raises(UsageError, match=r"cannot keep '.*' in float without '.*': the two share one encoding"):
        check_keep(model, found.placement, joined.tensors[:1])


def test_an_unknown_tensor_is_named(digits: Any) -> None:
    with pytest.raises(UsageError, match=r"cannot keep 'blocks\.9:conv2d' in float: this model has no such tensor"):
        check_keep(digits.model, load_target("openvino").placement, [GATE, "blocks.9:conv2d"])


@pytest.mark.parametrize("name", ["float_mac", "value", "convert"])
@pytest.mark.parametrize("value", [-1.0, float("inf"), float("nan")])
def test_costs_are_finite_and_not_negative(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=f"{name} is .*; it is a cost, 0 or more"):
        Cost(**{name: value})
