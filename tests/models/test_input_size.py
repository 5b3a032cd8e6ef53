"""Input sizes that networks can and cannot take."""

from __future__ import annotations

import pytest
import timm
import torch

from cspedge.errors import InputError
from cspedge.models.input_size import MAX_SIZE, check
from cspedge.models.reference import load_reference


@pytest.mark.parametrize("size", [0, -5, MAX_SIZE + 1])
def test_sizes_out_of_bounds(size: int) -> None:
    with pytest.raises(InputError, match=f"input size {size} x {size} for lcnet_050: allowed are 1 to {MAX_SIZE}"):
        check(timm.create_model("lcnet_050"), "lcnet_050", (3, size, size))


@pytest.mark.parametrize(
    ("architecture", "size", "works"),
    [
        ("densenet121", 16, "32 x 32"),  # too small: a pooling has nothing left
        ("vit_tiny_patch16_224", 192, "224 x 224"),  # one size only
        ("inception_v3", 32, "299 x 299"),
    ],
)
def test_a_size_that_the_network_cannot_take(architecture: str, size: int, works: str) -> None:
    model = timm.create_model(architecture, num_classes=2).eval()
    with pytest.raises(InputError, match=f"{architecture} cannot take an input of {size} x {size}.* works: {works}"):
        check(model, architecture, (3, size, size))
    side = int(works.split()[0])
    check(model, architecture, (3, side, side))
    with torch.no_grad():
        assert model(torch.zeros(1, 3, side, side)).shape == (1, 2)


def test_loading_checks_the_size() -> None:
    with pytest.raises(InputError, match=f"allowed are 1 to {MAX_SIZE}"):
        load_reference(img_size=5000)
    assert load_reference(img_size=70).info.preprocess.input_size == (3, 70, 70)
