"""The sensitivity plot: inline in a page or a file of its own, from a real table, nothing foreign in it."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest

from cspedge import api
from cspedge.config import load_target
from cspedge.models.reference import load_reference
from cspedge.quantize.explain import explain
from cspedge.quantize.sensitivity import study
from cspedge.report.sensitivity_plot import MOST, sensitivity_plot, standalone
from cspedge.report.words import percent, shorten


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    """The table of the built-in model, on 32 digits."""
    reference = load_reference()
    calibration = api.collect_calibration(reference, count=32)
    model = api.quantize(reference, calibration, recipe="fast")
    found: list[dict[str, Any]] = explain(
        study(model, load_target("openvino").placement, calibration.images)
    ).to_dict()["rows"]
    return found


def texts(svg: str) -> list[str]:
    return ["".join(e.itertext()) for e in ElementTree.fromstring(svg).iter() if e.tag.endswith("text")]


def test_the_costliest_tensors_are_named_with_their_figures(rows: list[dict[str, Any]]) -> None:
    words = texts(sensitivity_plot(rows))
    ranked = sorted(rows, key=lambda row: -row["saved"])[:MOST]
    for row in ranked:
        assert shorten(row["tensor"], 42) in words
        assert percent(row["saved"], 2) in words
    assert "0" in words
    assert "30" in words


def test_inline_clean_and_the_same_twice(rows: list[dict[str, Any]]) -> None:
    svg = sensitivity_plot(rows)
    assert svg == sensitivity_plot(rows)
    for word in ("http", "<?xml", "<!", "<metadata", "<style", "xmlns", "#0a0b0", "DejaVu", "<script"):
        assert word not in svg


def test_a_file_of_its_own_needs_no_page(rows: list[dict[str, Any]]) -> None:
    svg = standalone(sensitivity_plot(rows))
    assert "var(" not in svg
    root = ElementTree.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.get("viewBox")
    assert len(texts(svg)) == len(texts(sensitivity_plot(rows)))


@pytest.mark.parametrize("name", ["a<b>&\"'", "$x^2$", "x" * 200, "]]>-->"])
def test_any_tensor_name(name: str, rows: list[dict[str, Any]]) -> None:
    svg = standalone(sensitivity_plot([{**rows[0], "tensor": name, "saved": 0.5}, *rows[1:]]))
    assert any(word.startswith(name[:3]) for word in texts(svg))
    assert "<b>" not in svg


def test_exact_tensors_and_empty_tables_are_drawn(rows: list[dict[str, Any]]) -> None:
    exact = [{**row, "sqnr_db": None, "cumulative_db": None, "saved": 0.0} for row in rows]
    assert "exact dB alone" in sensitivity_plot(exact)
    assert sensitivity_plot([]).startswith("<svg ")
