"""A reference's provenance in words: the files that exist, the form `cspedge train` writes, and anything else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cspedge._builtin import builtin_path
from cspedge.report.provenance import provenance, reference_facts

DIGEST = "99f8a70a2fdcf9191e4acdd73c20516ddc3a258bc3fb7018845e396856a37aad"
TRAINED: dict[str, Any] = {
    "data": "photos, 12 classes, train split (5,204 images)",
    "device": "cuda (NVIDIA H200)",
    "device_name": "NVIDIA H200",
    "precision": "bf16",
    "wall_s": 3725.4,
    "images_per_s": 5210.7,
    "start": {"name": "lcnet_050.ra2_in1k", "sha256": DIGEST, "fresh": ["classifier.weight", "classifier.bias"]},
    "fp32": {"val": {"n": 1000, "top1": 0.7, "top1_ci95": [0.671, 0.7276], "top5": 0.9, "top5_ci95": [0.88, 0.917]}},
    "recipe": {"epochs": 60, "scale": [0.08, 1.0], "lr": 0.002, "schedule": {"name": "cosine", "warmup": 3}},
    "val": {"n": 1000, "sha256": DIGEST},
    "versions": {"timm": "1.0.31", "torch": "2.14.1"},
    "weights_sha256": DIGEST,
}


def reference(trained: dict[str, Any] | None, top1: float | None = None, n: int = 1000) -> dict[str, Any]:
    return {"precision": "fp32", "device": "x", "top1": top1, "top5": top1, "macro_top1": top1, "n": n,
            "trained_on": trained}  # fmt: skip


def test_the_form_that_train_writes() -> None:
    found = provenance(reference(TRAINED))
    assert found is not None
    assert found.data == TRAINED["data"]
    facts = dict(found.facts)
    assert facts["Wall time"] == "62 min 5 s"
    assert facts["Images per second"] == "5,211"
    assert facts["Started from"] == "lcnet_050.ra2_in1k"
    assert facts["Started from, SHA-256"] == DIGEST
    assert facts["Started from, fresh"] == "classifier.weight, classifier.bias"
    assert facts["fp32, val top-1"] == "70.0 % (95 % interval 67.1 to 72.8 %)"
    assert facts["fp32, val images"] == "1,000"
    assert facts["Held-out images"] == "1,000"
    assert facts["Device name"] == "NVIDIA H200"
    tables = dict(found.tables)
    assert ("Schedule warmup", "3") in tables["Recipe"]
    assert ("Learning rate", "0.002") in tables["Recipe"]
    assert ("torch", "2.14.1") in [(name.lower(), value) for name, value in tables["Versions"]]


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for item in value.values() for leaf in leaves(item)]
    return [value]


def test_files_that_exist(references: Path) -> None:
    files = [builtin_path() / "provenance.json", *sorted(references.glob("*/provenance.json"))]
    assert len(files) >= 3
    for file in files:
        trained = json.loads(file.read_text(encoding="utf-8"))
        found = provenance(reference(trained))
        assert found is not None
        assert found.data == trained["data"]
        facts = found.facts + [fact for _, table in found.tables for fact in table]
        # One fact for each value of the file, those of strings as they are: nothing is left out.
        assert len(facts) == len(leaves(trained))
        said = {value for _, value in facts}
        assert {leaf for leaf in leaves(trained) if isinstance(leaf, str)} <= said


def test_keys_that_nobody_knows_are_shown() -> None:
    odd = {"curator": "me", "nested": {"deep": {"er": [1, None, True]}}, "start": None, "fp32": 0.7, "train": 12,
           "wall_s": "long", "images_per_s": None, "recipe": "by hand", "versions": [],
           "data": {"set": "mine"}}  # fmt: skip
    found = provenance(reference(odd))
    assert found is not None
    assert found.data is None
    facts = dict(found.facts)
    assert facts["Curator"] == "me"
    assert facts["Nested deep er"] == "1, none, yes"
    assert facts["Started from"] == "scratch"
    assert facts["Wall s"] == "long"
    assert facts["Data set"] == "mine"
    assert len(facts) == len(odd)


@pytest.mark.parametrize("trained", [None, {}])
def test_none_is_none(trained: Any) -> None:
    assert provenance(reference(trained)) is None


@pytest.mark.parametrize(
    ("top1", "n", "word"),
    [(0.71, 1000, None), (0.65, 1000, None), (0.60, 1000, "less"), (0.78, 1000, "more"), (0.6, 20, None)],
)
def test_a_top1_that_cannot_be_of_the_same_images_is_said(top1: float, n: int, word: str | None) -> None:
    found = provenance(reference(TRAINED, top1, n))
    assert found is not None
    assert (found.note is None) == (word is None)
    if word is not None:
        assert f"Top-1 here is {word} than its provenance says" in (found.note or "")


def test_both_top1_stand_side_by_side() -> None:
    model = {"name": "m", "architecture": "a", "head": "logits", "params": 5, "num_classes": 2,
             "weights_sha256": DIGEST, "outputs": [{"name": "logits", "shape": [2], "stride": None}]}  # fmt: skip
    names = [name for name, _ in reference_facts({"model": model, "reference": reference(TRAINED, 0.71)})]
    assert names.index("Top-1 when trained") == names.index("Top-1 here") + 1
    plain = dict(reference_facts({"model": model | {"head": "embedding"}, "reference": reference(TRAINED)}))
    assert plain["Head"] == "embedding, 2 values"
    assert plain["Top-1 when trained"].startswith("70.0 %")
    assert "Top-1 here" not in plain
