"""First-order changes of margin against the true ones, and what is made of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from cspedge.config import load_target
from cspedge.errors import InputError
from cspedge.quantize.calibrate import QuantizeOptions, calibrate
from cspedge.quantize.graph import prepare
from cspedge.quantize.margins import FirstOrder, expected_flips, first_order, lead, positions, room
from cspedge.quantize.partial import Partial, batches
from cspedge.quantize.placement import chosen_tensors, int8_layers
from cspedge.quantize.scaling import fitted


def answers(partial: Partial, images: Any, *quantized: Any) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([partial.run(batch, *quantized)[0] for batch in batches(images, 32)])


@pytest.fixture(scope="module")
def found(digits: Any) -> tuple[Partial, FirstOrder]:
    placement = load_target("executorch").placement
    model = fitted(digits.model, placement)
    chosen = chosen_tensors(model.graph, placement)
    partial = Partial(model)
    return partial, first_order(partial, chosen, int8_layers(model.graph, placement, chosen), digits.images)


def test_every_tensor_and_layer_gets_its_change(found: tuple[Partial, FirstOrder], digits: Any) -> None:
    _, first = found
    assert set(first.layers) == set(digits.model.integer_weights)
    assert all(values.shape == (192,) for values in (*first.tensors.values(), *first.layers.values(), first.room))


@pytest.mark.parametrize("kind", ["tensors", "layers"])
def test_first_order_is_near_the_truth(found: tuple[Partial, FirstOrder], digits: Any, kind: str) -> None:
    """One tensor at a time really quantized: the margins move as the gradients said, image by image."""
    partial, first = found
    exact = answers(partial, digits.images)
    before = positions([exact], [exact], logits=True)
    predicted = getattr(first, kind)
    ranked = sorted(predicted, key=lambda name: -float(np.abs(predicted[name]).mean()))
    for name in (*ranked[:3], *ranked[10:20:5]):
        quantized = ((name,), ()) if kind == "tensors" else ((), (name,))
        after = positions([exact], [answers(partial, digits.images, *quantized)], logits=True)
        true = (after - before).numpy()
        assert np.corrcoef(true, predicted[name])[0, 1] > 0.9, name
        assert np.abs(predicted[name]).mean() == pytest.approx(np.abs(true).mean(), rel=0.2), name


def test_the_batch_size_does_not_matter(found: tuple[Partial, FirstOrder], digits: Any) -> None:
    partial, first = found
    names = sorted(first.tensors)[:5]
    again = first_order(partial, names, (), digits.images[:40], batch=7)
    for name in names:
        same = np.isclose(again.tensors[name], first.tensors[name][:40], rtol=0.01, atol=1e-4)
        assert same.mean() >= 0.95, name  # a value on the edge of two codes goes either way


def test_fewer_quantized_tensors_flip_fewer_answers(found: tuple[Partial, FirstOrder]) -> None:
    _, first = found
    everything = first.flips(first.tensors, first.layers)
    assert first.flips((), ()) == 0.0
    assert 0.0 < first.flips(list(first.tensors)[::2], ()) < everything < 0.5


def test_a_lead_below_zero_is_a_flipped_answer() -> None:
    generator = torch.Generator().manual_seed(0)
    exact, other = torch.randn(500, 6, generator=generator), torch.randn(500, 6, generator=generator)
    mixed = 0.6 * exact + 0.4 * other
    flipped = exact.argmax(1) != mixed.argmax(1)
    assert 0 < int(flipped.sum()) < 500
    assert torch.equal(lead([exact], [mixed], logits=True) < 0, flipped)
    assert torch.equal(room([exact], logits=True), lead([exact], [exact], logits=True))


@given(st.integers(1, 200), st.floats(0.0, 3.0), st.integers(0, 5))
def test_expected_flips_is_a_share_and_counts_what_is_certain(n: int, size: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    margins = random.random(n)
    changes = size * random.standard_normal(n)
    assert 0.0 <= expected_flips(margins, changes) <= 1.0
    assert expected_flips(margins, np.zeros(n)) == 0.0
    assert expected_flips(margins, np.full(n, -2.0)) == 1.0


def test_expected_flips_is_steadier_than_counting() -> None:
    """Of 200 draws of 256 images the expectation scatters less around the same mean as the count does."""
    random = np.random.default_rng(0)
    counted, expected = [], []
    for _ in range(200):
        margins = np.abs(random.standard_normal(256)) * 2
        changes = 0.1 * random.standard_normal(256)
        counted.append(float((margins + changes < 0).mean()))
        expected.append(expected_flips(margins, changes))
    assert np.mean(expected) == pytest.approx(np.mean(counted), rel=0.1)
    assert np.std(expected) < 0.8 * np.std(counted)


def test_maps_are_judged_by_their_relative_error(network: Callable[[str], nn.Module]) -> None:
    """Without logits a change of position is on average the relative error of the output."""
    shape = (3, 32, 32)
    images = np.random.default_rng(0).integers(0, 256, (16, *shape), dtype=np.uint8)
    module = nn.Sequential(*list(network("lcnet_050").children())[:2]).eval()
    graph = prepare(module, shape, ["features_s2_c8"])
    model = calibrate(graph, shape, images, QuantizeOptions())
    partial = Partial(model)
    exact = answers(partial, images)
    noisy = exact + 0.1 * exact.abs().mean() * torch.randn(exact.shape, generator=torch.Generator().manual_seed(0))
    changes = positions([exact], [noisy], logits=False) - positions([exact], [exact], logits=False)
    relative = (noisy - exact).flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)
    assert float(changes.square().mean().sqrt()) == pytest.approx(float(relative.mean()), rel=0.5)
    name = next(n for n in model.encodings.activations if n != "input")
    assert first_order(partial, [name], (), images).tensors[name].shape == (16,)


def test_an_answer_that_is_no_number_is_bad_input(digits: Any) -> None:
    import copy
    from dataclasses import replace

    graph = copy.deepcopy(digits.model.graph)
    next(iter(graph.buffers())).data.fill_(float("nan"))
    broken = replace(digits.model, graph=graph)
    with pytest.raises(InputError, match="answers NaN or infinities"):
        first_order(Partial(broken), ["input"], (), digits.images[:8])
