"""SQNR layer by layer in the report: what `--explain` measured, one plot for targets with the same figures."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from cspedge.cli.app import app, call
from cspedge.errors import UsageError
from cspedge.report import load, render, validate
from cspedge.report.layers import drawings


@pytest.fixture
def report(explained: Path) -> dict[str, Any]:
    return load(explained / "report.json")


def test_the_report_keeps_what_was_explained(report: dict[str, Any], explained: Path) -> None:
    (entry,) = report["layers"]
    table = json.loads((explained / "explain" / "onnxruntime.json").read_text(encoding="utf-8"))["rows"]
    assert (entry["target"], entry["n"]) == ("onnxruntime", 32)
    assert entry["tensors"] == [{key: row[key] for key in entry["tensors"][0]} for row in table]
    html = render(report)
    assert "Layer by layer" in html
    assert len(html.encode()) < 1_500_000
    del report["layers"]
    assert "Layer by layer" not in render(report)


def test_targets_with_the_same_figures_share_a_plot(report: dict[str, Any]) -> None:
    other = deepcopy(report["layers"][0])
    other["tensors"][0]["sqnr_db"] = 1.0
    report["layers"] += [{**report["layers"][0], "target": "twin"}, {**other, "target": "other"}]
    assert [found["targets"] for found in drawings(report)] == [["onnxruntime", "twin"], ["other"]]
    assert render(report).count("layers0-title") == render(report).count("layers1-title") == 2


@pytest.mark.parametrize(("key", "value"), [("saved", 2.0), ("sqnr_db", "much"), ("tensor", ""), ("more", 1)])
def test_damage_is_refused(report: dict[str, Any], key: str, value: Any) -> None:
    report["layers"][0]["tensors"][3][key] = value
    with pytest.raises(UsageError, match=rf"layers\[0\]\.tensors\[3\]\.{key}"):
        validate(report)


def test_explain_is_about_a_run(explained: Path, capsys: Any) -> None:
    assert call(app, ["report", str(explained), "--explain"]) == 2
    assert "--explain is about a run" in capsys.readouterr().err
