"""Keys: each thing a result depends on, changed alone, changes the key; nothing else does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cspedge import stages
from cspedge._builtin import builtin_path
from cspedge.config import known_placements, load_recipe, load_target
from cspedge.data.digits import digits
from cspedge.models import source as sources
from cspedge.quantize.mixed import MixedOptions
from cspedge.quantize.observers import Observer
from cspedge.stages import CODE
from cspedge.store import Store
from cspedge.types import Head, Precision, Preprocess

PREPROCESS = Preprocess(
    input_size=(3, 64, 64), crop_pct=1.0, crop_mode="center", interpolation="bilinear", mean=(0.5,) * 3, std=(0.5,) * 3
)


def lower_key(**changes: Any) -> str:
    target = load_target("openvino")
    base: dict[str, Any] = {
        "reference": "r",
        "quantized": "q",
        "images": "i",
        "target": target,
        "precision": Precision.INT8,
        "backend_code": 1,
        "sdk": {"openvino": "1"},
        "name": "m",
    }
    return Store.key("lower", CODE["lower"], stages.lower_inputs(**(base | changes)))


def test_every_input_of_an_artifact_changes_its_key(monkeypatch: Any) -> None:
    target = load_target("openvino")
    changes: list[dict[str, Any]] = [
        {"reference": "other weights"},
        {"quantized": "other encodings"},
        {"images": "other images"},
        {"precision": Precision.FP32},
        {"backend_code": 2},
        {"sdk": {"openvino": "2"}},
        {"name": "n"},
        {"target": replace(target, name="mine")},
        {"target": replace(target, options={"x": 1})},
        {"target": replace(target, placement=replace(target.placement, fuse=()))},
        {"target": replace(target, placement=replace(target.placement, quantize_output=True))},
        {"target": replace(target, tolerance=replace(target.tolerance, int8_sqnr_db=1.0))},
        {"target": replace(target, floor=replace(target.floor, isa=("sse",)))},
        {"keep": ("blocks.2.0.bn2.act:hardswish",)},
    ]
    keys = [lower_key(), *(lower_key(**c) for c in changes)]
    assert len(set(keys)) == len(keys)
    monkeypatch.setitem(CODE, "lower", CODE["lower"] + 1)
    assert lower_key() not in keys
    monkeypatch.undo()
    monkeypatch.setattr("cspedge.lowering.CODE_VERSION", 99)
    assert lower_key() not in keys
    monkeypatch.undo()
    monkeypatch.setattr(stages, "version", lambda package: "9.9")
    assert lower_key() not in keys


def test_a_budget_does_not_change_an_artifact() -> None:
    target = load_target("openvino")
    assert lower_key() == lower_key(target=replace(target, budget=replace(target.budget, max_drop=0.5), summary="x"))


def test_images_their_order_and_their_preprocessing_change_the_key() -> None:
    images = digits("val")

    def key(indices: tuple[int, ...] = (0, 1, 2), preprocess: Preprocess = PREPROCESS, **other: Any) -> str:
        values = {"max_unreadable": 0.01, "labels": [0, 1, 2]} | other
        return Store.key("images", 1, stages.images_inputs(images, indices, preprocess, **values))

    keys = [
        key(),
        key((0, 2, 1)),
        key((0, 1)),
        key((0, 1, 3)),
        key(labels=[0, 1, 3]),
        key(labels=None),
        key(max_unreadable=0.5),
        key(preprocess=replace(PREPROCESS, interpolation="bicubic")),
        key(preprocess=replace(PREPROCESS, crop_pct=0.875)),
        key(preprocess=replace(PREPROCESS, input_size=(3, 32, 32))),
    ]
    assert len(set(keys)) == len(keys)


def test_changed_bytes_of_an_image_change_the_key(tmp_path: Path) -> None:
    from cspedge.data.images import scan

    file = tmp_path / "a.png"
    file.write_bytes(digits("val").read(0))
    before = stages.images_inputs(scan(tmp_path), (0,), PREPROCESS, 0.01, None)
    file.write_bytes(digits("val").read(1))
    assert stages.images_inputs(scan(tmp_path), (0,), PREPROCESS, 0.01, None) != before


def test_recipes_change_the_key() -> None:
    recipe = load_recipe("default").quantizer
    placements = known_placements()
    changed = [
        recipe,
        replace(recipe, quantize=replace(recipe.quantize, observer=Observer.MINMAX)),
        replace(recipe, quantize=replace(recipe.quantize, weight_search=False)),
        replace(recipe, quantize=replace(recipe.quantize, lossless_clip=False)),
        replace(recipe, correct=replace(recipe.correct, bias=False)),
        replace(recipe, learn=replace(recipe.learn, epochs=3)),
        replace(recipe, quantize=replace(recipe.quantize, equalize=False)),
        replace(recipe, quantize=replace(recipe.quantize, percentile=99.9)),
        replace(recipe, quantize=replace(recipe.quantize, weight_bits=7)),
    ]
    inputs = [stages.quantize_inputs("r", ["i"], r, placements, 1, "cpu") for r in changed]
    inputs += [
        stages.quantize_inputs("r2", ["i"], recipe, placements, 1, "cpu"),
        stages.quantize_inputs("r", ["i2"], recipe, placements, 1, "cpu"),
        stages.quantize_inputs("r", ["i", "more"], recipe, placements, 1, "cpu"),
        stages.quantize_inputs("r", ["i"], recipe, placements[:1], 1, "cpu"),
        stages.quantize_inputs("r", ["i"], recipe, placements, 2, "cpu"),
        stages.quantize_inputs("r", ["i"], recipe, placements, 1, "cuda"),
    ]
    assert len({Store.key("quantize", 1, i) for i in inputs}) == len(inputs)


def test_head_and_input_size_change_the_reference() -> None:
    source = sources.resolve(None)
    inputs = [(Head.LOGITS, None), (Head.EMBEDDING, None), (Head.FEATURES, None), (Head.LOGITS, 96)]
    assert len({Store.key("reference", 1, stages.reference_inputs(source, *i)) for i in inputs}) == len(inputs)


def test_weights_and_configuration_change_the_source(tmp_path: Path) -> None:
    import shutil

    folder = Path(shutil.copytree(builtin_path(), tmp_path / "lcnet_050.digits"))
    first = sources.resolve(f"local-dir:{folder}")
    assert first.digest == sources.resolve(None).digest
    weights = folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    second = sources.resolve(f"local-dir:{folder}")
    config = folder / "config.json"
    config.write_text(config.read_text(encoding="utf-8").replace('"bilinear"', '"bicubic"'), encoding="utf-8")
    third = sources.resolve(f"local-dir:{folder}")
    assert len({first.digest, second.digest, third.digest}) == 3


@pytest.mark.parametrize(
    "change",
    [
        {"artifact": "b"},
        {"images": "j"},
        {"threads": 2},
        {"backend_code": 2},
        {"sdk": {"onnxruntime": "2"}},
        {"options": {"x64quantprecision": False}},
        {"isa": ["avx2", "avx512_vnni"]},
        {"reference": "r on cpu"},
    ],
)
def test_evaluation_keys(change: dict[str, Any]) -> None:
    base: dict[str, Any] = {
        "artifact": "a", "images": "i", "threads": 1, "sdk": {"onnxruntime": "1"}, "backend_code": 1,
        "options": {}, "isa": ["avx2"], "reference": None,
    }  # fmt: skip
    assert stages.evaluate_inputs(**base) != stages.evaluate_inputs(**(base | change))


@pytest.mark.parametrize(
    "change",
    [
        {"artifacts": {"a": "2"}},
        {"image": "j"},
        {"threads": 2},
        {"rounds": 11},
        {"per_round": 11},
        {"seed": 1},
        {"host": {"cpu": "y"}},
        {"sdk": {"onnxruntime": "2"}},
        {"protocol": "fresh-process"},
        {"sweep": (2,)},
        {"device": {"uri": "local-process://"}},
    ],
)
def test_bench_keys(change: dict[str, Any]) -> None:
    base: dict[str, Any] = {
        "artifacts": {"a": "1"}, "image": "i", "threads": 1, "rounds": 10, "per_round": 10, "seed": 0,
        "host": {"cpu": "x"}, "sdk": {"onnxruntime": "1"}, "protocol": "in-process", "sweep": (),
    }  # fmt: skip
    assert stages.bench_inputs(**base) != stages.bench_inputs(**(base | change))


def test_the_accuracy_loop_depends_on_numbers_images_goals_and_costs() -> None:
    """Its evaluations on the numbers, the placement and the images alone, so that a new budget goes on with them."""
    target, options = load_target("openvino"), MixedOptions(max_drop=0.01)
    basis = stages.mixed_basis("r", "q", "i", target.placement, 1)
    same = replace(target.placement, activation_dtype="int8", one_user=False)
    assert stages.mixed_basis("r", "q", "i", same, 1) == basis, "these change no value"
    others = [
        stages.mixed_basis("r2", "q", "i", target.placement, 1),
        stages.mixed_basis("r", "q2", "i", target.placement, 1),
        stages.mixed_basis("r", "q", "i2", target.placement, 1),
        stages.mixed_basis("r", "q", "i", replace(target.placement, int8_output=True), 1),
        stages.mixed_basis("r", "q", "i", target.placement, 2),
    ]
    inputs = [stages.mixed_inputs(b, target.cost, options) for b in (basis, *others)]
    inputs += [
        stages.mixed_inputs(basis, replace(target.cost, convert=1.0), options),
        stages.mixed_inputs(basis, target.cost, replace(options, max_drop=0.02)),
        stages.mixed_inputs(basis, target.cost, replace(options, seconds=1.0)),
    ]
    assert len({Store.key("mixed", 1, i) for i in inputs}) == len(inputs)
