"""Graph preparation, calibration and placement, on real timm architectures with random weights at small sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn

from cspedge.backends.base import Readback, ReadbackActivation, ReadbackWeight
from cspedge.errors import InputError, UsageError
from cspedge.quantize import parity
from cspedge.quantize.calibrate import QuantizeOptions, calibrate, quantize_weights
from cspedge.quantize.graph import NAME, prepare, weighted_nodes
from cspedge.quantize.observers import BINS, Observer, choose_range
from cspedge.quantize.ops import op_name
from cspedge.quantize.placement import PlacedModel, Placement, QuantizedModel, place, place_float

SHAPE = (3, 64, 64)
AFTER = Placement(fuse=("relu", "hardtanh", "hardswish", "leaky_relu"), activation_dtype="uint8")
AROUND = Placement(fuse=("relu", "hardtanh"), quantize_output=True)


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False, num_classes=10)
    for module in model.modules():  # as after training: no batch norm is the identity
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
    return model.eval()


def images(count: int = 8) -> Any:
    return np.random.default_rng(0).integers(0, 256, (count, *SHAPE), dtype=np.uint8)


@pytest.fixture(scope="module")
def quantized() -> QuantizedModel:
    return calibrate(prepare(network("lcnet_050"), SHAPE), SHAPE, images(), QuantizeOptions())


@pytest.mark.parametrize("name", ["lcnet_050", "ese_vovnet19b_dw", "cspresnext50"])
def test_preparation_is_exact_and_folds_everything(name: str) -> None:
    model = network(name)
    graph = prepare(model, SHAPE)
    x = torch.rand((3, *SHAPE), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, found = model(x), graph(x)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    ops = {op_name(n) for n in graph.graph.nodes}
    assert not ops & {"batch_norm", "hardsigmoid", "dropout"}
    assert not {o for o in ops if o.endswith("_")}, "in-place operators remain"
    names = [n.meta[NAME] for n in graph.graph.nodes if NAME in n.meta]
    assert len(names) == len(set(names))


def test_lone_batch_norm_becomes_arithmetic() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    nn.init.uniform_(model[0].running_mean, 0.1, 0.5)
    x = torch.rand(2, *SHAPE)
    with torch.no_grad():
        assert torch.allclose(prepare(model, SHAPE)(x), model(x), atol=1e-6)


def test_the_gate_becomes_a_clamped_convolution() -> None:
    graph = prepare(network("lcnet_050"), SHAPE)
    gates = [n for n in graph.graph.nodes if op_name(n) == "hardtanh"]
    assert len(gates) == 2
    assert all(g.args[1:] == (0.0, 1.0) and op_name(g.args[0]) == "conv2d" for g in gates)


def test_every_image_tensor_has_its_encoding(quantized: QuantizedModel) -> None:
    activations = quantized.encodings.activations
    assert (activations["input"].scale, activations["input"].zero_point) == (float(np.float32(1 / 255)), -128)
    gate = activations["blocks.5.0.se.gate:hardtanh"]
    assert (gate.scale, gate.zero_point, gate.observer) == (float(np.float32(1 / 255)), -128, "fixed")
    stem = activations["conv_stem:conv2d"]
    assert stem.lo >= -3.0, "h-swish is 0 below -3: the range must be clipped there"
    assert len(quantized.encodings.weights) == len(weighted_nodes(quantized.graph)) == 33


def test_encodings_do_not_depend_on_the_batch_size(quantized: QuantizedModel) -> None:
    again = calibrate(prepare(network("lcnet_050"), SHAPE), SHAPE, images(), QuantizeOptions(batch_size=3)).encodings
    for name, encoding in quantized.encodings.activations.items():
        assert again.activations[name].scale == pytest.approx(encoding.scale, rel=1e-3), name


def test_calibration_repeats_bit_for_bit(quantized: QuantizedModel) -> None:
    again = calibrate(prepare(network("lcnet_050"), SHAPE), SHAPE, images(), QuantizeOptions())
    assert again.encodings == quantized.encodings


def test_concatenated_tensors_share_one_encoding() -> None:
    found = calibrate(prepare(network("ese_vovnet19b_dw"), SHAPE), SHAPE, images(2), QuantizeOptions())
    graph = found.graph
    for node in graph.graph.nodes:
        if op_name(node) == "cat":
            encodings = {
                (found.encodings.activations[n.meta[NAME]].scale, found.encodings.activations[n.meta[NAME]].zero_point)
                for n in [node, *node.args[0]]
            }
            assert len(encodings) == 1


@pytest.mark.parametrize("placement", [AFTER, AROUND])
def test_placement_uses_a_subset_of_the_same_numbers(quantized: QuantizedModel, placement: Placement) -> None:
    placed = place(quantized, placement)
    assert placed.activations.items() <= quantized.encodings.activations.items()
    assert set(placed.weights) == set(quantized.encodings.weights)
    shift = 128 if placement.activation_dtype == "uint8" else 0
    found = {(n.args[1], n.args[2] - shift) for n in placed.graph.graph.nodes if op_name(n) == "quantize_per_tensor"}
    assert found == {(e.scale, e.zero_point) for e in placed.activations.values()}


def test_placements_differ_where_the_runtime_fuses(quantized: QuantizedModel) -> None:
    after, around = place(quantized, AFTER), place(quantized, AROUND)
    assert "conv_stem:conv2d" not in after.activations
    assert "conv_stem:conv2d" in around.activations
    assert "classifier:linear" not in after.activations
    assert "classifier:linear" in around.activations


def test_placed_graph_is_near_the_float_one(quantized: QuantizedModel) -> None:
    x = torch.from_numpy(images()).float() / 255
    expected = place_float(quantized.graph, SHAPE)(x)[0].numpy()
    for placement in (AFTER, AROUND):
        found = place(quantized, placement)(x)[0].numpy()
        noise = float(((found - expected) ** 2).sum())
        assert 10 * np.log10(float((expected**2).sum()) / noise) > 20


def test_placing_leaves_the_model_alone(quantized: QuantizedModel) -> None:
    before = len(quantized.graph.graph.nodes)
    place(quantized, AFTER)
    place(quantized, AROUND)
    assert len(quantized.graph.graph.nodes) == before


def test_exported_program_is_the_placed_graph(quantized: QuantizedModel) -> None:
    placed = place(quantized, AROUND)
    x = placed.example()
    with torch.no_grad():
        assert torch.equal(placed.exported().module()(x), placed(x)[0])


def test_unknown_words_in_a_placement_are_refused() -> None:
    with pytest.raises(UsageError, match="cannot fuse 'softmax'"):
        Placement(fuse=("softmax",))
    with pytest.raises(UsageError, match="allowed: int8, uint8"):
        Placement(activation_dtype="int4")


def test_nan_activations_are_named() -> None:
    model = network("lcnet_050")
    graph = prepare(model, SHAPE)
    for name, buffer in graph.named_buffers():
        if name.startswith("blocks_2_0_conv_dw_weight"):
            buffer.fill_(float("nan"))
    with pytest.raises(InputError, match=r"'blocks\.2\.0\.conv_dw:conv2d' is NaN or infinite"):
        calibrate(graph, SHAPE, images(2), QuantizeOptions())


def test_zero_and_nearly_dead_channels_get_finite_scales() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    with torch.no_grad():
        model[0].weight[1] = 0
        model[0].weight[2] *= 1e-30
    encodings, integers = quantize_weights(prepare(model, SHAPE), search=True, activations={})
    (encoding,), (values,) = encodings.values(), integers.values()
    assert all(np.isfinite(s) and s > 0 for s in encoding.scales)
    assert max(encoding.scales) / min(encoding.scales) <= 2.0**16 * 1.01
    assert not values[1].any()
    assert int(values.abs().max()) <= 127


def test_constant_images_calibrate() -> None:
    found = calibrate(prepare(network("lcnet_050"), SHAPE), SHAPE, np.zeros((2, *SHAPE), np.uint8), QuantizeOptions())
    assert all(e.scale > 0 for e in found.encodings.activations.values())


def test_search_beats_the_extremes_on_a_long_tail() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0, 1, 100_000), [40.0]])
    counts, _ = np.histogram(values, BINS, (values.min(), 40.0))

    def error(lo: float, hi: float) -> float:
        scale = (hi - lo) / 255
        return float(
            (
                (np.clip(np.round(values / scale), np.round(lo / scale), np.round(hi / scale)) * scale - values) ** 2
            ).sum()
        )

    lo, hi = choose_range(counts, float(values.min()), 40.0, Observer.MSE)
    assert hi < 40.0
    assert error(lo, hi) < error(float(values.min()), 40.0)
    assert choose_range(counts, float(values.min()), 40.0, Observer.MINMAX) == (float(values.min()), 40.0)
    inner = choose_range(counts, float(values.min()), 40.0, Observer.PERCENTILE)
    assert inner[1] < 40.0


def test_one_image_out_of_range_does_not_own_the_encoding() -> None:
    """One image in 128 drives the activations a thousand times further; the others must keep their resolution."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    with torch.no_grad():
        model[0].weight[:] = 1000.0
        model[0].bias[:] = -999.0
    graph = prepare(model, SHAPE)
    usual = np.full((128, *SHAPE), 85, np.uint8)  # three channels of a third: just above the bias
    odd = usual.copy()
    odd[7] = 255
    fair = calibrate(graph, SHAPE, usual, QuantizeOptions()).encodings.activations["1:relu"]
    robust = calibrate(graph, SHAPE, odd, QuantizeOptions()).encodings.activations["1:relu"]
    greedy = calibrate(graph, SHAPE, odd, QuantizeOptions(outlier_images=0.0)).encodings.activations["1:relu"]
    assert robust.scale == fair.scale
    assert robust.hi > 1000 * fair.hi, "the record keeps the true extremes"
    assert greedy.scale > 100 * robust.scale


def test_biases_are_whole_steps_of_the_accumulator(quantized: QuantizedModel) -> None:
    placed = place(quantized, AROUND)
    assert placed.encodings is not None
    for node in weighted_nodes(quantized.graph):
        name = node.meta[NAME]
        twin = next(n for n in placed.graph.graph.nodes if n.meta.get(NAME) == name)
        bias = getattr(placed.graph, str(twin.args[2].target))
        source = twin.args[0].args[1]
        steps = bias.double() / (torch.tensor(placed.encodings.weights[name].scales).double() * source)
        assert torch.allclose(steps, steps.round(), atol=1e-2 * float(steps.abs().max() * 1e-5 + 1))
        assert float(steps.abs().max()) < 2**31


def test_a_nearly_dead_channel_keeps_its_bias_inside_int32() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    with torch.no_grad():
        model[0].weight[2] = 1e-12
        model[0].bias[2] = 20.0
    found = calibrate(prepare(model, SHAPE), SHAPE, images(4), QuantizeOptions())
    scale = found.encodings.weights["0:conv2d"].scales[2]
    source = found.encodings.activations["model:mul" if "model:mul" in found.encodings.activations else "input"].scale
    assert 20.0 / (scale * source) < 2**31


# ---- structural parity: every kind of difference must be seen ------------------------------------------------------


def faithful(placed: PlacedModel) -> Readback:
    assert placed.encodings is not None
    return Readback(
        activations=tuple(
            ReadbackActivation(where=k, scale=e.scale, zero_point=e.zero_point) for k, e in placed.activations.items()
        ),
        weights=tuple(
            ReadbackWeight(where=k, values=v.numpy(), scales=np.array(placed.encodings.weights[k].scales, np.float32))
            for k, v in placed.weights.items()
        ),
    )


def test_parity_accepts_the_same_numbers(quantized: QuantizedModel) -> None:
    placed = place(quantized, AROUND)
    assert parity.differences(placed, faithful(placed)) == ()


@pytest.mark.parametrize(
    "kind", ["scale", "zero_point", "missing", "extra", "value", "weight_scale", "lost_weight", "extra_weight"]
)
def test_parity_sees_every_single_difference(quantized: QuantizedModel, kind: str) -> None:
    from dataclasses import replace

    placed = place(quantized, AROUND)
    good = faithful(placed)
    first, rest = good.activations[1], good.activations[2:]
    weight, weights = good.weights[0], good.weights[1:]
    changed = weight.values.copy()
    changed.reshape(-1)[0] += 1 if changed.reshape(-1)[0] < 0 else -1
    bad = {
        "scale": replace(good, activations=(good.activations[0], replace(first, scale=first.scale * 1.0001), *rest)),
        "zero_point": replace(
            good, activations=(good.activations[0], replace(first, zero_point=first.zero_point + 1), *rest)
        ),
        "missing": replace(good, activations=(good.activations[0], *rest)),
        "extra": replace(good, activations=(*good.activations, replace(first, scale=3.14))),
        "value": replace(good, weights=(replace(weight, values=changed), *weights)),
        "weight_scale": replace(good, weights=(replace(weight, scales=weight.scales * np.float32(1.001)), *weights)),
        "lost_weight": replace(good, weights=weights),
        "extra_weight": replace(good, weights=(*good.weights, replace(weight, values=changed))),
    }[kind]
    assert parity.differences(placed, bad)
