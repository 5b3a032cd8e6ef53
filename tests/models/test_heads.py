"""Heads: every level of timm's `features_only` and the pre-logits, with the classifier's own weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch

from cspedge.errors import InputError, UsageError
from cspedge.models.heads import outputs_from, params_of, with_head
from cspedge.models.reference import load_reference
from cspedge.types import Head

SIZE = (3, 64, 64)
FAMILIES = ("lcnet_050", "fbnetv3_b", "ese_vovnet19b_dw", "cspdarknet53", "cspresnet50", "cspresnext50", "resnet18")


@pytest.fixture(scope="module", params=FAMILIES)
def network(request: Any) -> Any:
    """A classifier whose batch norms have seen data: fresh statistics hide a mix-up of two of them."""
    torch.manual_seed(0)
    model = timm.create_model(request.param, pretrained=False, num_classes=7).train()
    with torch.no_grad():
        model(torch.rand(4, *SIZE))
    return request.param, model.eval()


def build(name: str) -> Callable[[dict[str, Any]], Any]:
    return lambda more: timm.create_model(name, num_classes=7, **more)


def test_features_are_the_classifiers_own(network: tuple[str, Any]) -> None:
    name, model = network
    extractor, compute, outputs = with_head(model, Head.FEATURES, build(name), SIZE)
    images = torch.rand(2, *SIZE)
    with torch.no_grad():
        found = compute(extractor, images)
        through = model.forward_intermediates(images, intermediates_only=True)
    assert [o.stride for o in outputs] == extractor.feature_info.reduction()
    assert [o.channels for o in outputs] == extractor.feature_info.channels()
    assert len({o.name for o in outputs}) == len(outputs) == len(found)
    for output, values in zip(outputs, found, strict=True):
        assert output.name == f"features_s{output.stride}_c{output.channels}"
        assert tuple(values.shape[1:]) == output.shape == (output.channels, 64 // output.stride, 64 // output.stride)
    # timm's intermediates of the classifier are the same stages, computed by the classifier itself
    last = through[-1]
    assert any(v.shape == last.shape and torch.allclose(v, last, atol=1e-5) for v in found)


def test_embedding_is_what_the_classifier_reads(network: tuple[str, Any]) -> None:
    name, model = network
    same, compute, outputs = with_head(model, Head.EMBEDDING, build(name), SIZE)
    images = torch.rand(2, *SIZE)
    with torch.no_grad():
        embedding = compute(same, images)
        assert torch.allclose(model.get_classifier()(embedding), model(images), atol=1e-5)
    assert [o.name for o in outputs] == ["embedding"]
    assert outputs[0].shape == (embedding.shape[1],)
    classifier = sum(p.numel() for p in model.get_classifier().parameters())
    assert params_of(model, Head.EMBEDDING) == params_of(model, Head.LOGITS) - classifier


def test_outputs_survive_the_store(network: tuple[str, Any]) -> None:
    from dataclasses import asdict

    name, model = network
    outputs = with_head(model, Head.FEATURES, build(name), SIZE)[2]
    assert outputs_from([asdict(o) for o in outputs]) == outputs


def test_the_reference_carries_its_head() -> None:
    whole = load_reference()
    embedding = load_reference(head="embedding")
    images = torch.rand(2, *whole.info.preprocess.input_size)
    with torch.no_grad():
        vectors = embedding.module(images)
        classifier = whole.module.model.get_classifier()
        assert torch.allclose(classifier(vectors), whole.module(images), atol=1e-5)
    assert embedding.info.file_stem == "lcnet_050.digits.embedding"
    assert whole.info.file_stem == "lcnet_050.digits"
    assert embedding.info.weights_sha256 == whole.info.weights_sha256


def test_unknown_head() -> None:
    with pytest.raises(UsageError, match="unknown head 'boxes'; known: embedding, features, logits"):
        load_reference(head="boxes")


def test_an_extractor_with_other_weights_is_refused(network: tuple[str, Any]) -> None:
    name, model = network
    with pytest.raises(InputError, match=r"does not take over '.*' from the classifier"):
        with_head(model, Head.FEATURES, lambda _: timm.create_model(name, features_only=True), SIZE)


@pytest.mark.parametrize("name", ["convmixer_768_32", "xception41"])
def test_timms_other_extractors_are_understood(name: str) -> None:
    """These wrap the network or hang hooks into it instead of taking it apart."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=7).eval()
    extractor, compute, outputs = with_head(model, Head.FEATURES, build(name), SIZE)
    with torch.no_grad():
        found = compute(extractor, torch.rand(1, *SIZE))
    assert [tuple(v.shape[1:]) for v in found] == [o.shape for o in outputs]
