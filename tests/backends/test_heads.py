"""Features and embeddings on every target, float and int8, on the built-in model and real digits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

from cspedge import api
from cspedge._builtin import builtin_path
from cspedge.config import load_target
from cspedge.evaluate.outputs import neighbour_agreement
from cspedge.models.reference import Reference
from cspedge.quantize.graph import output_nodes
from cspedge.quantize.placement import QuantizedModel, place
from cspedge.resources import target_names
from cspedge.types import Artifact, ImageSet, Precision

HEADS = ("features", "embedding")
NORMALISED = ("mean", "std")


@dataclass(frozen=True, kw_only=True)
class Prepared:
    reference: Reference
    model: QuantizedModel
    images: ImageSet


@pytest.fixture(scope="session", params=HEADS)
def prepared(request: Any) -> Prepared:
    reference = api.load_reference(head=request.param)
    model = api.quantize(reference, api.collect_calibration(reference, count=64))
    return Prepared(reference=reference, model=model, images=api.collect_validation(reference))


@pytest.fixture(scope="session", params=[(t, kind) for t in target_names() for kind in ("float", "int8")], ids="/".join)
def artifact(request: Any, prepared: Prepared, lowered: Any) -> Artifact:
    found: Artifact = lowered(prepared.model, *request.param, prepared.images.images)
    return found


def timms_answers(reference: Reference, images: np.ndarray) -> list[np.ndarray]:
    """What timm itself gives for the same checkpoint, without cspedge's code between."""
    features = reference.info.head == "features"
    model = timm.create_model(f"local-dir:{builtin_path()}", pretrained=True, features_only=features).eval()
    contract = reference.info.preprocess
    mean, std = (torch.tensor(getattr(contract, k)).view(1, 3, 1, 1) for k in NORMALISED)
    inputs = (torch.from_numpy(images).float() / 255 - mean) / std
    with torch.no_grad():
        found = model(inputs) if features else [model.forward_head(model.forward_features(inputs), pre_logits=True)]
    return [v.numpy() for v in found]


def test_every_output_is_close_to_timms(prepared: Prepared, artifact: Artifact) -> None:
    images = prepared.images.images[:48]
    expected = timms_answers(prepared.reference, images)
    found = api.open_session(artifact).run(images.astype(np.float32) / np.float32(255))
    assert artifact.outputs == tuple(o.name for o in prepared.reference.info.outputs)
    assert [v.shape for v in found] == [v.shape for v in expected]
    for name, a, b in zip(artifact.outputs, expected, found, strict=True):
        error = float(np.abs(a - b).max() / np.abs(a).max())
        cosine = float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))
        if artifact.precision is Precision.FP32:
            assert error < 1e-3, name
        assert cosine > (0.95 if artifact.precision is Precision.INT8 else 0.99999), name


def test_int8_carries_the_encodings(artifact: Artifact) -> None:
    assert artifact.audit is not None
    assert artifact.audit.encodings_match is (True if artifact.precision is Precision.INT8 else None)
    if artifact.precision is Precision.INT8:
        assert artifact.audit.int8_mac_share > 0.95


def test_evaluation_judges_each_output(prepared: Prepared, artifact: Artifact) -> None:
    few = _first(prepared.images, 64)
    found = api.evaluate(artifact, few, prepared.reference)
    assert found.accuracy is None
    assert [row.name for row in found.outputs] == [o.name for o in prepared.reference.info.outputs]
    assert all(row.n == 64 and 0.9 < row.cosine_min <= row.cosine_mean <= 1 for row in found.outputs)
    if prepared.reference.info.head == "embedding":
        expected = api.reference_logits(prepared.reference, few)
        assert found.vectors is not None
        assert found.outputs[0].neighbour_agreement == neighbour_agreement(expected, found.vectors)
    else:
        assert found.vectors is None
        assert all(row.neighbour_agreement is None for row in found.outputs)


def _first(images: ImageSet, count: int) -> ImageSet:
    from dataclasses import replace

    return replace(images, images=images.images[:count], labels=None, names=images.names[:count])


@pytest.mark.parametrize("target", target_names())
def test_feature_maps_are_quantized_where_they_are_read(prepared: Prepared, target: str) -> None:
    """Else each would leave the convolution a second time, in float, and break its fusion."""
    placed = place(prepared.model, load_target(target).placement)
    kinds = {str(node.target).split(".")[1] for node in output_nodes(placed.graph)}
    if prepared.reference.info.head == "features":
        assert kinds == {"dequantize_per_tensor"}
    else:
        assert len(kinds) == 1


def test_feature_maps_are_not_collected(prepared: Prepared) -> None:
    from cspedge.errors import UsageError

    if prepared.reference.info.head == "features":
        with pytest.raises(UsageError, match="feature maps are not collected"):
            api.reference_logits(prepared.reference, prepared.images)


def test_artifacts_of_heads_are_the_same_bytes(prepared: Prepared, tmp_path: Path) -> None:
    first, second = (
        api.lower(prepared.model, "openvino", "int8", out=tmp_path / name, check_images=prepared.images.images[:4])
        for name in ("a", "b")
    )
    assert first.sha256 == second.sha256
