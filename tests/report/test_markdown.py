"""The Markdown, read again by a Markdown parser with GitHub's tables and links."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from cspedge.cli.app import app, call
from cspedge.report import compare_markdown, load, markdown
from cspedge.report.compare import compare
from cspedge.report.given import Given, read
from cspedge.types import Head

EXAMPLE = Path(__file__).with_name("example_report.json")
OWN_TAGS = {"<details>", "</details>", "<summary>", "</summary>"}
NAMES = [
    "a|b`c``d",
    "[click](https://example.invalid)",
    "<img src=x onerror=alert(1)>",
    "@everyone #1 *bold* _it_ ~~gone~~",
    "https://example.invalid/x www.example.invalid",
    "# heading\n- list\n\n1. one",
    "back\\slash\\|pipe\\",
    "\u202ereversed",
    "`",
]


def parse(text: str) -> list[Token]:
    """Every token, those inside lines too."""
    found = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(text)
    return [inner for token in found for inner in (token, *(token.children or []))]


def assert_inert(text: str) -> list[Token]:
    tokens = parse(text)
    assert not {"link_open", "image", "em_open", "s_open", "hr", "fence", "code_block"} & {t.type for t in tokens}
    html = "".join(t.content for t in tokens if t.type.startswith("html"))
    assert set(re.findall(r"</?\w+>", html)) <= OWN_TAGS
    left = re.sub(r"<!-- -->|</?(details|summary)>|[\w ]+\(\d+\)|\s", "", html)
    assert left == ""
    for token in tokens:
        if token.type == "text":  # what GitHub makes links, people and issues of
            assert not re.search(r"[@#]\w", token.content)
    assert "\u202e" not in text
    # a bare URL is a link in GitHub's dialect
    assert not re.search(r"https?://|www\.", re.sub(r"(`+)[^`].*?[^`]?\1", "", text))
    return tokens


def rows(tokens: list[Token]) -> list[int]:
    """Cells in each row of the tables."""
    counts: list[int] = []
    for token in tokens:
        if token.type == "tr_open":
            counts.append(0)
        elif token.type in {"td_open", "th_open"}:
            counts[-1] += 1
    return counts


def codes(tokens: list[Token]) -> list[str]:
    return [token.content for token in tokens if token.type == "code_inline"]


@pytest.mark.parametrize("head", list(Head))
def test_a_real_report(real_run: Callable[[Head], Path], head: Head) -> None:
    report = load(real_run(head) / "report.json")
    text = markdown.render(report)
    tokens = assert_inert(text)
    assert len(rows(tokens)) == 1 + len(report["artifacts"])
    assert len(set(rows(tokens))) == 1
    assert {"onnxruntime/fp32", "onnxruntime/int8", report["model"]["name"]} <= set(codes(tokens))
    assert len(text) < 10_000


def test_every_artifact_of_the_example_with_its_verdict() -> None:
    report = load(EXAMPLE)
    report["notes"].append("openvino/int8 is over the budget: 0.92 MB, allowed 0.5.")
    text = markdown.render(report)
    tokens = assert_inert(text)
    assert len(rows(tokens)) == 11
    for artifact, line in zip(report["artifacts"], text.split("| ---")[1].splitlines()[1:], strict=False):
        assert f"`{artifact['target']}/{artifact['precision']}`" in text
        assert line.count("|") >= 8
    for words in ("ship", "caution", "failed", "unavailable", "**Over the budget**", "**Why not ship**"):
        assert words in text
    assert text.index("Over the budget") < text.index("<details>")


@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_text(name: str) -> None:
    report = load(EXAMPLE)
    report["model"]["name"] = name
    report["notes"] = [name]
    report["artifacts"][8]["reason"] = name
    report["artifacts"][8]["reasons"] = [name]
    report["artifacts"][0]["target"] = f"executorch{name}"
    report["agreement"] = []
    tokens = assert_inert(markdown.render(report))
    assert len(rows(tokens)) == 11
    assert len(set(rows(tokens))) == 1
    shown = re.sub(r"\s", "", name.replace("\u202e", ""))
    assert shown in [re.sub(r"\s", "", code) for code in codes(tokens)]
    other = Given(name=name, report={**load(EXAMPLE), "notes": [], "agreement": []})
    found = compare(Given(name=f"{name}2", report=report), other)
    compared = assert_inert(compare_markdown.render(found))
    assert len({count for count in rows(compared) if count != 3}) == 1


def test_two_real_runs(two_runs: tuple[Path, Path]) -> None:
    found = compare(*(read(str(path)) for path in two_runs))
    text = compare_markdown.render(found)
    tokens = assert_inert(text)
    assert rows(tokens)[:3] == [8, 8, 8]
    assert "calibration.n" in codes(tokens)
    assert "compared one by one" in text


def test_features_have_columns_of_their_own(real_run: Callable[[Head], Path]) -> None:
    given = read(str(real_run(Head.FEATURES)))
    text = compare_markdown.render(compare(given, given))
    assert "Cosine to fp32" in text
    assert "Top-1" not in text
    assert "Settings and environment are the same in both." in text


def test_a_report_that_is_there_is_rendered_again(
    real_run: Callable[[Head], Path], tmp_path: Path, capsys: Any
) -> None:
    folder = real_run(Head.LOGITS)
    assert call(app, ["report", str(folder), "--markdown", str(tmp_path / "r.md"), "--out", str(tmp_path)]) == 0
    assert "onnxruntime/int8" in capsys.readouterr().out
    assert (tmp_path / "r.md").read_text(encoding="utf-8") == markdown.render(load(folder / "report.json"))
    assert (tmp_path / "report.html").read_bytes() == (folder / "report.html").read_bytes()
    assert call(app, ["report", str(folder), "--markdown", str(tmp_path / "r.md" / "in a file.md")]) == 2
