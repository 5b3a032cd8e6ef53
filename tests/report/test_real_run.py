"""What a real run of each head says: on the page, in the console's table, in the verdict."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cspedge.cli.console import report_table
from cspedge.report import load, recommend, render
from cspedge.report.words import cosine, decibels, percent
from cspedge.types import Head

HEADS = list(Head)


def spaced(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def words_of(html: str) -> str:
    return spaced(unescape(re.sub(r"<style>.*?</style>|<[^>]*>", " ", html, flags=re.DOTALL)))


@pytest.fixture(params=HEADS)
def ran(request: pytest.FixtureRequest, real_run: Callable[[Head], Path]) -> tuple[dict[str, Any], str]:
    """The report of a head, and its page as words."""
    out = real_run(request.param)
    html = (out / "report.html").read_text(encoding="utf-8")
    report = load(out / "report.json")
    assert render(report) == html
    return report, words_of(html)


def test_the_page_has_every_figure_of_every_output(ran: tuple[dict[str, Any], str]) -> None:
    report, words = ran
    head = report["model"]["head"]
    for artifact in report["artifacts"]:
        ratio = artifact["pt2e"]["sqnr_db"]
        assert f"Against PT2E {'equal bit for bit' if ratio is None else f'{decibels(ratio)} dB, largest'}" in words
        for row in artifact["outputs"]:
            assert cosine(row["cosine_mean"]) in words
            assert cosine(row["cosine_min"]) in words
            if row["neighbour_agreement"] is not None:
                assert percent(row["neighbour_agreement"]) in words
            if head != Head.LOGITS:
                assert f" {decibels(row['sqnr_db'])} " in words
    for output in report["model"]["outputs"] if head == Head.FEATURES else []:
        shape = " \u00d7 ".join(map(str, output["shape"]))
        assert f"Stride {output['stride']} {output['name']} , {shape} values an image" in words


def test_the_words_are_the_heads(ran: tuple[dict[str, Any], str]) -> None:
    report, words = ran
    logits, features = (report["model"]["head"] == head for head in (Head.LOGITS, Head.FEATURES))
    for phrase in ("Top-1 lost", "Points lost", "Same answer", "any logit", "of the logits", "Top-1 here"):
        assert (phrase in words) == logits, phrase
    for phrase in ("SQNR by level", "Every level of the feature maps", "of a feature map", "least of 5 levels"):
        assert (phrase in words) == features, phrase
    for phrase in ("Same nearest neighbour", "any value", "of the embedding", "Keeps nearest neighbour"):
        assert (phrase in words) == (report["model"]["head"] == Head.EMBEDDING), phrase
    assert ("Agreement between runtimes" in words) != features
    assert "None %" not in words


def test_where_the_reference_comes_from(ran: tuple[dict[str, Any], str]) -> None:
    report, words = ran
    trained = report["reference"]["trained_on"]
    assert f"Trained on {trained['data']}." in words
    assert "Top-1 when trained 99.6 % (95 % interval" in words
    assert f"Training images {trained['train']['n']:,}" in words
    assert trained["train"]["sha256"] in words
    assert "Optimizer adamw" in words
    assert "than its provenance says" not in words


def test_an_app_can_follow_the_preprocessing(ran: tuple[dict[str, Any], str]) -> None:
    _, words = ran
    assert "Resize so that the shorter side is 64 px, keeping the proportions, with bilinear interpolation." in words
    assert "float32 of shape [1, 3, 64, 64], channels first" in words
    assert "the graph itself subtracts the mean (0.485, 0.456, 0.406)" in words


def test_the_console_table_fits_80_columns(ran: tuple[dict[str, Any], str]) -> None:
    report, _ = ran
    screen = io.StringIO()
    Console(file=screen, width=80).print(report_table(report))
    lines = screen.getvalue().splitlines()
    assert "\u2026" not in screen.getvalue()
    for artifact in report["artifacts"]:
        line = next(line for line in lines if line.startswith(f"{artifact['target']}/{artifact['precision']} "))
        assert line.split()[-1] == artifact["verdict"]
        sqnrs = [row["sqnr_db"] for row in artifact["outputs"]]
        assert decibels(None if None in sqnrs else min(sqnrs)) in line.split()


def test_the_recommendation_says_why(ran: tuple[dict[str, Any], str]) -> None:
    report, words = ran
    advice = recommend(report)
    assert advice["artifact"] in {"onnxruntime/int8", "onnxruntime/fp32"}
    for sentence in advice["why"]:
        assert spaced(sentence) in words
    measured = (
        "points of top-1|nothing in top-1" if report["model"]["head"] == Head.LOGITS else "Mean cosine similarity"
    )
    assert any(re.search(measured, sentence) for sentence in advice["why"])
