"""Loading classifiers: every way in, and no code executed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch

from cspedge._builtin import builtin_path
from cspedge.errors import InputError, UsageError
from cspedge.models.reference import load_reference


def test_the_built_in_model_says_what_it_is() -> None:
    info = load_reference().info
    assert info.name == "lcnet_050.digits"
    assert info.architecture == "lcnet_050"
    assert info.labels == tuple(str(i) for i in range(10))
    assert info.num_classes == 10
    assert info.preprocess.input_size == (3, 64, 64)
    assert info.trained_on is not None
    assert info.trained_on["weights_sha256"] == info.weights_sha256


def test_normalisation_is_inside() -> None:
    reference = load_reference()
    inner = timm.create_model(f"local-dir:{builtin_path()}", pretrained=True).eval()
    image = torch.rand(2, 3, 64, 64)
    pre = reference.info.preprocess
    mean, std = torch.tensor(pre.mean).view(1, 3, 1, 1), torch.tensor(pre.std).view(1, 3, 1, 1)
    with torch.no_grad():
        assert torch.allclose(reference.module(image), inner((image - mean) / std), atol=1e-5)


@pytest.mark.parametrize("model", ["hf-hub:someone/thing", "org/name"])
def test_other_schemes_are_refused(model: str) -> None:
    with pytest.raises(UsageError, match="give a timm name"):
        load_reference(model)


def test_folders_that_are_no_models(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        load_reference(f"local-dir:{tmp_path / 'none'}")
    with pytest.raises(InputError, match=r"has no config\.json"):
        load_reference(f"local-dir:{tmp_path}")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "lcnet_050"}), encoding="utf-8")
    with pytest.raises(InputError, match="lacks 'num_classes'"):
        load_reference(f"local-dir:{tmp_path}")
    (tmp_path / "config.json").write_text(
        json.dumps({"architecture": "lcnet_050", "num_classes": 10}), encoding="utf-8"
    )
    with pytest.raises(InputError, match=r"has none of model\.safetensors"):
        load_reference(f"local-dir:{tmp_path}")


def test_given_references_reproduce_their_provenance(references: Path, caltech: Path) -> None:
    from cspedge import api

    folder = references / "lcnet_050.caltech101"
    reference = api.load_reference(f"local-dir:{folder}")
    images = api.collect_validation(reference, caltech / "val")
    logits = api.reference_logits(reference, images)
    said = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))["fp32"]["val"]
    assert images.labels is not None
    assert float((logits.argmax(1) == images.labels).mean()) == pytest.approx(said["top1"], abs=2e-3)
