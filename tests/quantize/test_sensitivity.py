"""The ranking finds what was made bad, survives JSON, and the table says what it says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cspedge.config import load_target
from cspedge.quantize.explain import Explanation, explain
from cspedge.quantize.sensitivity import Sensitivity, Study, from_dict, rank, study

BAD = "blocks.2.0.bn2.act:hardswish"
AFTER = "blocks.2.1.conv_dw:conv2d"


@pytest.fixture(scope="module")
def coarse(digits: Any) -> Study:
    model = digits.coarse(BAD, factor=20.0)
    return study(model, load_target("executorch").placement, digits.images, digits.labels)


@pytest.fixture(scope="module")
def ranking(coarse: Study) -> Sensitivity:
    return rank(coarse, top=3)


def test_the_bad_tensor_comes_first_and_the_measurements_agree(ranking: Sensitivity) -> None:
    first, second = ranking.units[:2]
    assert first.unit.name == BAD
    assert first.alone is not None
    assert first.left_out is not None
    assert second.alone is not None
    assert second.left_out is not None
    assert first.alone.sqnr_db < second.alone.sqnr_db - 10
    assert first.left_out.sqnr_db > ranking.all_int8.sqnr_db + 4
    assert first.shift.mean > 2 * second.shift.mean
    assert 0 < first.saved <= ranking.flips
    assert [row.saved for row in ranking.units] == sorted((row.saved for row in ranking.units), reverse=True)
    assert ranking.units[3].alone is None


def test_weights_are_ranked_by_themselves(ranking: Sensitivity, digits: Any) -> None:
    assert {row.name for row in ranking.layers} == set(digits.model.integer_weights)
    assert all(row.alone is not None for row in ranking.layers[:3])
    assert ranking.layers[0].shift.mean >= ranking.layers[-1].shift.mean > 0


def test_a_ranking_survives_json(ranking: Sensitivity) -> None:
    assert from_dict(json.loads(json.dumps(ranking.to_dict(), allow_nan=False))) == ranking


def test_a_ranking_repeats_bit_for_bit(coarse: Study, ranking: Sensitivity, digits: Any) -> None:
    again = study(coarse.partial.model, coarse.islands.placement, digits.images, digits.labels)
    assert rank(again, top=3) == ranking


@pytest.fixture(scope="module")
def table(coarse: Study) -> Explanation:
    return explain(coarse)


def test_the_table_has_a_row_for_each_quantized_tensor_in_order(table: Explanation, coarse: Study) -> None:
    names = [row.tensor for row in table.rows]
    assert set(names) == coarse.islands.chosen
    assert names[0] == "input"
    assert names[-1] == "classifier:linear"
    json.dumps(table.to_dict(), allow_nan=False)


def test_the_table_shows_where_it_is_lost(table: Explanation, coarse: Study) -> None:
    rows = {row.tensor: row for row in table.rows}
    bad, before, after = rows[BAD], rows["blocks.2.0.conv_pw:conv2d"], rows[AFTER]
    encoding = coarse.partial.model.encodings.activations[BAD]
    assert (bad.scale, bad.zero_point, bad.observer) == (encoding.scale, encoding.zero_point, "minmax")
    assert bad.range_hi > 10 * bad.hi, "the range was made far too wide"
    assert bad.sqnr_db < min(row.sqnr_db for name, row in rows.items() if name != BAD and row.sqnr_db) - 10
    assert before.cumulative_db > after.cumulative_db + 10, "what comes after it inherits its error"
    assert after.sqnr_db > after.cumulative_db + 10, "by itself it is fine"
    assert bad.saved == max(row.saved for row in table.rows)


def test_the_table_tells_what_float_would_cost(table: Explanation) -> None:
    rows = {row.tensor: row for row in table.rows}
    row = rows["blocks.2.0.conv_pw:conv2d"]
    assert row.layer == "blocks.2.0.conv_pw:conv2d"
    assert row.weight_sqnr_db > 25
    assert row.float_layers == ("blocks.2.0.conv_pw:conv2d",)
    assert 0 < row.mac_share < 0.1
    assert row.price > 0
    assert rows[BAD].layer is None, "XNNPACK's h-swish is an op of its own"
