"""Paired evidence of a real classifier in a report: its schema, its words on the page, its part in a verdict."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from dataclasses import asdict
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cspedge.errors import UsageError
from cspedge.evaluate.paired import paired
from cspedge.report import judge, load, render, validate
from cspedge.report.changes import changes

EXAMPLE = Path(__file__).with_name("example_report.json")


@pytest.fixture
def report(changed: Callable[[bool], dict[str, Any]]) -> dict[str, Any]:
    return changed(True)


def words_of(html: str) -> str:
    text = unescape(re.sub(r"<style>.*?</style>|<[^>]*>", " ", html, flags=re.DOTALL)).replace("\xa0", " ")
    return re.sub(r"\s+", " ", text)


def test_the_page_says_what_changed(report: dict[str, Any]) -> None:
    validate(report)
    words, figures = words_of(render(report)), report["artifacts"][5]["paired"]
    assert figures["only_reference"] > figures["only_artifact"] > 0
    assert "Right on the very images that fp32 is right on: openvino/fp32 ." in words
    assert f"Only fp32 right {figures['only_reference']} images Only this right" in words
    assert f"Calibration error {100 * figures['ece_reference']:.2f} with fp32, {100 * figures['ece']:.2f} here" in words
    worst = figures["changed"][0]
    net = worst["only_reference"] - worst["only_artifact"]
    assert f"Class, of 10 Images Turned Net lost q {worst['label']} {worst['n']} " in words
    assert f" {net:+d} " in words
    more = len(figures["changed"]) - 6
    assert f"{more} more with changes in report.json" in words
    assert "ECE-sweep, Roelofs et al. 2022" in words


def test_a_report_from_before_has_no_such_section() -> None:
    assert "What changed" not in words_of(render(load(EXAMPLE)))


def test_every_key_is_demanded_and_no_other_taken(report: dict[str, Any]) -> None:
    for path in (["paired"], ["paired", "changed", 0]):
        broken = copy.deepcopy(report)
        node = broken["artifacts"][5]
        for key in path:
            node = node[key]
        for key in list(node):
            value = node.pop(key)
            with pytest.raises(UsageError, match=rf"{key} is missing"):
                validate(broken)
            node[key] = value
        node["surprise"] = 1
        with pytest.raises(UsageError, match="surprise is an unknown key"):
            validate(broken)


def test_an_artifact_that_failed_has_none(report: dict[str, Any]) -> None:
    report["artifacts"][8]["paired"] = report["artifacts"][5]["paired"]
    with pytest.raises(UsageError, match=r"artifacts\[8\]\.paired is given though status is 'failed'"):
        validate(report)


def test_a_class_that_surely_loses_is_a_caution(report: dict[str, Any]) -> None:
    """Class 7 alone falls: top-1 over all classes passes, the class is named."""
    good = load(EXAMPLE)["artifacts"][5]
    labels = np.arange(3000) % 100
    reference = np.eye(100, dtype=np.float32)[labels]
    other = reference.copy()
    other[np.flatnonzero(labels == 7)[:18]] = 0.0
    for values, verdict in ((other, "caution"), (reference, "ship")):
        found = {**good, "paired": json.loads(json.dumps(asdict(paired(values, reference, labels))))}
        got, reasons = judge(found, {})
        assert got == verdict
        named = "1 of 100 classes loses more than chance explains (q < 0.05; up to 60.0 % of a class's images)."
        assert (reasons[0] == named) == (verdict == "caution")
    report["artifacts"][5]["paired"] = found["paired"]
    assert changes(report)["same"] == ["openvino/fp32", "openvino/int8"]
