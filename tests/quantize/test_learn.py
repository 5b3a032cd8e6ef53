"""Simulation, bias correction and learning, on real timm architectures with random weights at small sizes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn

from cspedge import api, objects
from cspedge.config import known_placements
from cspedge.errors import InputError, UsageError
from cspedge.quantize import learn as learning
from cspedge.quantize.calibrate import QuantizeOptions, calibrate
from cspedge.quantize.correct import correct_biases
from cspedge.quantize.graph import as_tuple, prepare
from cspedge.quantize.learn import learn, loss_on
from cspedge.quantize.placement import Placement, QuantizedModel, place
from cspedge.quantize.quantizer import CorrectOptions, LearnOptions, QuantizerOptions, distinct, quantize
from cspedge.quantize.simulate import ActivationQuantizer, Learned, simulation

SHAPE = (3, 64, 64)
PLACEMENTS = known_placements()


def images(count: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (count, *SHAPE), dtype=np.uint8)


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False, num_classes=10)
    for module in model.modules():  # as after training: no batch norm is the identity
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
    return model.eval()


def calibrated(name: str) -> QuantizedModel:
    return calibrate(prepare(network(name), SHAPE), SHAPE, images(8), QuantizeOptions())


@pytest.fixture(scope="module")
def lcnet() -> QuantizedModel:
    return calibrated("lcnet_050")


@pytest.fixture
def batch() -> torch.Tensor:
    return torch.from_numpy(images(3, seed=1).astype(np.float32) / np.float32(255))


@pytest.mark.parametrize("name", ["lcnet_050", "ese_vovnet19b_dw"])
def test_a_simulation_computes_what_is_placed_to_the_bit(name: str, batch: torch.Tensor) -> None:
    model = calibrated(name)
    learned = Learned(model)
    for placement in PLACEMENTS:
        keep = [n for n in model.encodings.activations if n.endswith(":mul")][:1]
        for kept in ([], keep):
            found = simulation(learned, placement, kept)(batch)
            assert torch.equal(found, place(model, placement, kept)(batch)[0])
    again = learned.result()
    assert again.encodings == model.encodings
    assert all(torch.equal(again.integer_weights[k], v) for k, v in model.integer_weights.items())


def test_what_was_learned_is_what_is_placed(lcnet: QuantizedModel, batch: torch.Tensor) -> None:
    """Scales that fp16 holds, zero points and integers in range, biases on the accumulator's grid: nothing is lost."""
    learned = Learned(lcnet)
    learn(learned, PLACEMENTS, images(8), LearnOptions(epochs=2, batch_size=4))
    result = learned.result()
    assert result.encodings != lcnet.encodings
    for encoding in result.encodings.activations.values():
        assert encoding.observer == "fixed" or float(np.float16(encoding.scale)) == encoding.scale
    for placement in PLACEMENTS:
        assert torch.equal(simulation(learned, placement)(batch), place(result, placement)(batch)[0])
        assert torch.equal(simulation(Learned(result), placement)(batch), place(result, placement)(batch)[0])


def test_gradients_of_a_quantizer() -> None:
    """Inside the range x passes, and the scale gets the rounding error; outside, the end of the range moves."""
    quantizer = ActivationQuantizer(0.5, -3, fixed=False)
    quantizer.frozen = None
    x = torch.tensor([-100.0, 0.6, 3.3, 200.0], requires_grad=True)
    quantizer(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 1.0, 1.0, 0.0]
    steps = [-128 + 3, 1 - 1.2, 7 - 6.6, 127 + 3]
    assert quantizer.log_scale.grad is not None
    assert float(quantizer.log_scale.grad) == pytest.approx(0.5 * sum(steps), rel=1e-4)
    assert quantizer.zero.grad is not None
    assert float(quantizer.zero.grad) == pytest.approx(-2 * 0.5)


def test_bias_correction_restores_means(lcnet: QuantizedModel) -> None:
    """Weights that all lean to one side shift every mean; corrected layer by layer, the logits' mean comes back."""
    leaning = {k: (v.int() + 2).clamp(-127, 127).to(torch.int8) for k, v in lcnet.integer_weights.items()}
    model = replace(lcnet, integer_weights=leaning)
    x = torch.from_numpy(images(64).astype(np.float32) / np.float32(255))
    with torch.no_grad():
        wanted = as_tuple(lcnet.graph(x))[0].mean(0)

    def off(found: QuantizedModel) -> float:
        return float((place(found, PLACEMENTS[0])(x)[0].mean(0) - wanted).abs().max())

    learned = Learned(model)
    correct_biases(learned, PLACEMENTS[:1], images(64))
    assert off(learned.result()) < 0.1 * off(model)


def test_one_odd_image_does_not_move_the_biases() -> None:
    """A network whose every layer amplifies an image that is brighter than the others by a hundred times."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(1152, 4)
    )
    shape = (3, 16, 16)
    dim = np.random.default_rng(0).integers(0, 3, (64, *shape), dtype=np.uint8)
    odd = dim.copy()
    odd[5] = 255
    found = calibrate(prepare(model.eval(), shape), shape, dim, QuantizeOptions())
    biases = []
    for batch in (dim, odd):
        learned = Learned(found)
        correct_biases(learned, PLACEMENTS, batch)
        biases.append(torch.cat([b.detach() for b in learned.biases.values()]))
    untouched = torch.cat([b.detach() for b in Learned(found).biases.values()])
    assert float((biases[1] - biases[0]).abs().max()) < 0.2 * float((biases[0] - untouched).abs().max())


def test_learning_brings_unseen_images_closer() -> None:
    """The built-in model on real digits; 64 of them teach, 64 others judge."""
    reference = api.load_reference()
    shape = reference.info.preprocess.input_size
    digits = api.collect_calibration(reference, count=128).images
    learned = Learned(calibrate(prepare(reference.module, shape), shape, digits[:64], QuantizeOptions()))
    before = loss_on(learned, PLACEMENTS, digits[64:])
    learn(learned, PLACEMENTS, digits[:64], LearnOptions(epochs=8, batch_size=4, flip=False))
    assert loss_on(learned, PLACEMENTS, digits[64:]) < 0.9 * before


def test_learning_repeats_itself(lcnet: QuantizedModel) -> None:
    results = []
    for _ in range(2):
        learned = Learned(lcnet)
        learn(learned, PLACEMENTS, images(8), LearnOptions(epochs=2, batch_size=4, mix=True))
        results.append(learned.result())
    assert results[0].encodings == results[1].encodings
    assert all(torch.equal(v, results[1].biases[k]) for k, v in results[0].biases.items())


def test_a_large_network_learns_for_fewer_steps(lcnet: QuantizedModel) -> None:
    seen: list[tuple[int, int]] = []
    options = LearnOptions(epochs=4, batch_size=4, max_gmacs=1e-6)
    learn(Learned(lcnet), PLACEMENTS, images(8), options, progress=lambda *at: seen.append(at))
    assert seen == [(1, 1)]


def test_parts_of_a_batch_add_up_to_it(lcnet: QuantizedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that does not fit goes through image by image; its gradient is the same but for rounding."""
    gradients = []
    for live in (learning.LIVE, 1):
        monkeypatch.setattr(learning, "LIVE", live)
        learned = Learned(lcnet)
        learn(learned, PLACEMENTS[:1], images(4), LearnOptions(epochs=1, batch_size=4, weights=0.0, flip=False))
        gradients.append(torch.cat([b.grad for b in learned.biases.values() if b.grad is not None]))
    assert torch.allclose(gradients[0], gradients[1], rtol=1e-3, atol=1e-5 * float(gradients[0].abs().max()))


def test_a_step_that_does_harm_is_left_out() -> None:
    """Rates that tear the network apart: the result is what there was before, and no worse."""
    graph = prepare(network("lcnet_050"), SHAPE)
    careful = QuantizerOptions(correct=CorrectOptions(bias=True))
    wild = replace(careful, learn=LearnOptions(epochs=1, weights=9.0, scales=2.0, zeros=9.0, biases=9.0))
    found = [quantize(graph, SHAPE, images(64), options, PLACEMENTS) for options in (careful, wild)]
    assert found[0].encodings == found[1].encodings
    assert all(torch.equal(v, found[1].biases[k]) for k, v in found[0].biases.items())


def test_a_loss_that_is_not_finite_is_said(lcnet: QuantizedModel) -> None:
    broken = replace(lcnet, biases={k: torch.full((v.shape[0],), torch.nan) for k, v in lcnet.integer_weights.items()})
    with pytest.raises(InputError, match=r"learning gave a loss of nan .* \[learn\] table"):
        learn(Learned(broken), PLACEMENTS, images(4), LearnOptions(epochs=1))


def test_corrected_biases_are_stored(lcnet: QuantizedModel, tmp_path: Path) -> None:
    class Stored:
        """A stage's folder."""

        files = ("biases.safetensors",)

        def file(self, name: str) -> Path:
            return tmp_path / name

    learned = Learned(lcnet)
    correct_biases(learned, PLACEMENTS, images(8))
    result = learned.result()
    objects.write_quantized(result, tmp_path)
    again = objects.read_quantized(Stored(), lcnet.graph, SHAPE)  # type: ignore[arg-type]
    assert again.biases.keys() == result.biases.keys()
    assert all(torch.equal(v, again.biases[k]) for k, v in result.biases.items())


def test_distinct_placements() -> None:
    after, around = Placement(fuse=("relu", "hardswish")), Placement(fuse=("relu",))
    same = replace(after, activation_dtype="uint8", one_user=False)
    harder = replace(around, quantize_output=True, int8_output=True)
    assert len(distinct([after, same, around, harder])) == 2
    assert all(p.quantize_output == (p.fuse == ("relu",)) for p in distinct([after, around, harder]))


@pytest.mark.parametrize(
    "values", [{"epochs": -1}, {"images": -1}, {"batch_size": 0}, {"weights": 10.0}, {"drop": 1.0}]
)
def test_bad_options(values: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"0 or more|from 0 to below 10?"):
        LearnOptions(**values)


def test_settling_without_learning_is_refused() -> None:
    with pytest.raises(UsageError, match=r"settle is 2 with epochs 0; .* set epochs, or settle = 0"):
        LearnOptions(settle=2)
