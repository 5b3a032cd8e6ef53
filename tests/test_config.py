"""TOML in: every file we ship parses, and every kind of mistake is named with the file and what is allowed."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cspedge.backends import BACKENDS
from cspedge.config import Recipe, RunConfig, Target, load_config, load_recipe, load_target, parse
from cspedge.errors import CspedgeError, UsageError
from cspedge.resources import recipe_names, target_file, target_names
from cspedge.types import Precision


@pytest.mark.parametrize("name", target_names())
def test_shipped_targets_parse(name: str) -> None:
    target = load_target(name)
    assert target.backend in BACKENDS
    assert set(target.precision.default) <= set(target.precision.supported)
    assert Precision.INT8 in target.precision.default
    assert any(p.is_float for p in target.precision.default)
    assert target.floor.os
    assert target.floor.isa


def test_the_four_targets_are_there() -> None:
    assert target_names() == ["coreml", "executorch", "onnxruntime", "openvino"]


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipes_parse(name: str) -> None:
    assert load_recipe(name).summary


def _lines(name: str) -> dict[str, object]:
    return tomllib.loads(target_file(name).read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": 1}, r"unknown key 'colour' in target\.toml; valid keys: backend, "),
        ({"placement": {"fuse": ["relu"], "activation_type": "int8"}}, r"unknown key 'activation_type' in .*placement"),
        ({"placement": {"fuse": "relu"}}, "a list is wanted"),
        ({"placement": {"fuse": ["softmax"]}}, "cannot fuse 'softmax'"),
        ({"placement": {"activation_dtype": "int4"}}, "allowed: int8, uint8"),
        ({"precision": {"supported": ["int4"], "default": []}}, "allowed: fp32, fp16, int8"),
        ({"precision": "int8"}, "a table is wanted"),
        ({"precision": {"supported": []}}, "key 'default' is missing"),
        ({"summary": 3}, "str is wanted"),
        ({"tolerance": {"int8_sqnr_db": True}}, "float is wanted"),
        ({"name": "other"}, "unknown key 'name'"),
        ({"cost": {"float_mac": -1.0}}, r"key 'cost': float_mac is -1\.0; it is a cost, 0 or more"),
        ({"cost": {"int8_mac": 1.0}}, "unknown key 'int8_mac' in .*cost"),
    ],
)
def test_mistakes_in_a_target_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse(_lines("openvino") | change, Target, where="target.toml", given={"name": "openvino"})


junk = st.recursive(
    st.one_of(st.integers(), st.booleans(), st.text(max_size=8), st.floats(allow_nan=False)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=6,
)
target_keys = st.sampled_from(["backend", "summary", "platforms", "precision", "placement", "floor", "budget", "zzz"])
recipe_keys = st.sampled_from(["summary", "images", "quantize", "observer", "count"])


@given(st.dictionaries(target_keys, junk, max_size=4))
def test_any_target_table_parses_or_is_refused_clearly(change: dict[str, object]) -> None:
    try:
        parse(_lines("coreml") | change, Target, where="target.toml", given={"name": "coreml"})
    except CspedgeError as error:
        assert error.exit_code == 2
        assert "target.toml" in str(error)


@given(st.dictionaries(recipe_keys, junk, max_size=4))
def test_any_recipe_table_parses_or_is_refused_clearly(change: dict[str, object]) -> None:
    try:
        parse({"summary": "x"} | change, Recipe, where="mine.toml", given={"name": "mine"})
    except CspedgeError as error:
        assert error.exit_code == 2
        assert "mine.toml" in str(error)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "model": st.text(max_size=9),
            "threads": st.integers(1, 64),
            "target": st.lists(st.sampled_from(["coreml", "openvino"]), max_size=2),
            "precision": st.lists(st.sampled_from(["fp32", "int8"]), max_size=2),
            "max_unreadable": st.floats(0, 1),
            "allow_overlap": st.booleans(),
        },
    )
)
def test_run_configurations_keep_what_they_say(table: dict[str, object]) -> None:
    found = parse(table, RunConfig, where="cspedge.toml")
    for key, value in table.items():
        assert getattr(found, key) == (tuple(value) if isinstance(value, list) else value)


def test_a_recipe_file_of_the_users_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('summary = "mine"\n[images]\ncount = 7\n[quantize]\nobserver = "percentile"\n', encoding="utf-8")
    recipe = load_recipe(str(file))
    assert (recipe.name, recipe.images.count, recipe.quantize.observer) == ("mine", 7, "percentile")


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(UsageError, match="unknown recipe 'best'; known: accurate, default, fast, qat"):
        load_recipe("best")
    with pytest.raises(UsageError, match="unknown target 'tflite'; known: coreml, executorch, onnxruntime, openvino"):
        load_target("tflite")
    with pytest.raises(UsageError, match=r"'no\.toml' does not exist; known recipes"):
        load_recipe("no.toml")


def test_broken_toml_and_missing_files(tmp_path: Path) -> None:
    bad = tmp_path / "cspedge.toml"
    bad.write_text("model = ", encoding="utf-8")
    with pytest.raises(UsageError, match="is not valid TOML"):
        load_config(bad)
    with pytest.raises(UsageError, match="does not exist"):
        load_config(tmp_path / "none.toml")


def test_a_recipe_without_goals_keeps_nothing_in_float(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('summary = "mine"\n', encoding="utf-8")
    assert load_recipe(str(file)).mixed is None
    file.write_text('summary = "mine"\n[mixed]\nmax_drop = 0.01\n', encoding="utf-8")
    found = load_recipe(str(file)).mixed
    assert found is not None
    assert (found.max_drop, found.min_agreement, found.max_float_macs) == (0.01, None, 0.1)
    file.write_text('summary = "mine"\n[mixed]\nseconds = 5\n', encoding="utf-8")
    with pytest.raises(UsageError, match=r"mine\.toml, key 'mixed': the accuracy loop has no goal"):
        load_recipe(str(file))
