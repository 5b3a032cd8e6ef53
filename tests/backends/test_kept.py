"""Tensors kept in float, in all four runtimes: the layers really run in float, the rest in int8, PT2E agrees."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cspedge import api
from cspedge.config import load_target
from cspedge.errors import UsageError
from cspedge.evaluate.metrics import agreement, sqnr_db
from cspedge.lowering import manifest
from cspedge.models.reference import load_reference
from cspedge.quantize.islands import Cost, Islands
from cspedge.quantize.partial import batches, elements, multiply_accumulates
from cspedge.quantize.placement import QuantizedModel, place
from cspedge.resources import target_names
from cspedge.types import Artifact, ImageSet

# a tensor behind an h-swish, one behind a gate, a squeezed vector, and the logits where they are quantized
KEEP = ("bn1.act:hardswish", "blocks.5.1.se:mul", "blocks.5.0.se:mean", "classifier:linear")


@pytest.fixture(scope="module")
def quantized() -> QuantizedModel:
    reference = load_reference()
    return api.quantize(reference, api.collect_calibration(reference, count=64), recipe="fast")


@pytest.fixture(scope="module")
def photos() -> ImageSet:
    return api.collect_validation(load_reference())


@pytest.fixture(scope="module", params=target_names())
def kept(request: Any, quantized: QuantizedModel, photos: ImageSet, lowered: Any) -> tuple[Artifact, Islands]:
    sizes = elements(quantized)
    placement = load_target(request.param).placement
    islands = Islands(quantized, placement, Cost(), sizes, multiply_accumulates(quantized, sizes))
    keep = sorted(set(KEEP) & islands.chosen)
    return lowered(quantized, request.param, "int8", photos.images, keep=keep), islands


def test_the_layers_of_kept_tensors_run_in_float_and_no_others(kept: tuple[Artifact, Islands]) -> None:
    artifact, islands = kept
    assert artifact.audit is not None
    assert artifact.audit.encodings_match is True
    assert 1 - artifact.audit.int8_mac_share == pytest.approx(islands.float_share(artifact.float_tensors))
    in_float = islands.layers(()) - islands.layers(artifact.float_tensors)
    assert len(in_float) >= 2
    assert in_float <= set(artifact.audit.fp32_islands)
    assert not islands.layers(artifact.float_tensors) & set(artifact.audit.fp32_islands)


def test_it_gives_pt2es_answers(kept: tuple[Artifact, Islands], quantized: QuantizedModel, photos: ImageSet) -> None:
    artifact, islands = kept
    placed = place(quantized, islands.placement, artifact.float_tensors)
    batch = next(batches(photos.images, 64))
    expected, found = placed(batch)[0].numpy(), api.open_session(artifact).run(batch.numpy())[0]
    assert agreement(expected, found) >= 0.98
    sqnr = sqnr_db(expected, found)
    assert sqnr is None or sqnr > 20


def test_the_manifest_lists_what_is_in_float(kept: tuple[Artifact, Islands]) -> None:
    artifact, _ = kept
    target = load_target(artifact.target)
    found = manifest(artifact, load_reference().info, target, encodings_sha256=None, calibration=None, versions={})
    assert found["float_tensors"] == list(artifact.float_tensors)
    assert set(found["float_tensors"]) <= set(KEEP)


@pytest.mark.parametrize("target", target_names())
def test_a_tensor_that_does_not_exist_is_no_artifact(target: str, quantized: QuantizedModel, tmp_path: Any) -> None:
    with pytest.raises(UsageError, match="this model has no such tensor"):
        api.lower(quantized, target, out=tmp_path, keep=["nothing:conv2d"])
    assert list(tmp_path.iterdir()) == []


def test_a_float_artifact_keeps_nothing(quantized: QuantizedModel, photos: ImageSet, tmp_path: Any) -> None:
    artifact = api.lower(quantized, "onnxruntime", "fp32", out=tmp_path, keep=KEEP[:1], check_images=photos.images[:8])
    assert artifact.float_tensors == ()
    assert np.isclose(artifact.audit.int8_mac_share, 0.0)
