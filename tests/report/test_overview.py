"""Many reports on one page: three real runs, and the layout of many."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cspedge.cli.app import app, call
from cspedge.report import load, overview, overview_markdown
from cspedge.report.given import Given
from cspedge.types import Head


@pytest.fixture
def three(two_runs: tuple[Path, Path], real_run: Callable[[Head], Path]) -> list[str]:
    return [*map(str, two_runs), str(real_run(Head.EMBEDDING))]


def test_three_real_runs(three: list[str], tmp_path: Path, capsys: Any) -> None:
    capsys.readouterr()
    args = ["report", *three, "--out", str(tmp_path / "out")]
    assert call(app, [*args, "--json", "--markdown", str(tmp_path / "o.md")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((tmp_path / "out" / "overview.json").read_text(encoding="utf-8"))
    assert sorted(run["report"] for run in found["runs"]) == sorted(three)
    for run in found["runs"]:
        artifacts = {a["precision"]: a for a in load(Path(run["report"]) / "report.json")["artifacts"]}
        assert len(run["artifacts"]) == len(artifacts) == 2
        for row in run["artifacts"]:
            source = artifacts[row["precision"]]
            assert row["verdict"] == source["verdict"]
            assert row["p50_ms"] == source["latency"]["p50_ms"]
            assert row["drop_top1"] == (source["accuracy"] or {}).get("drop_top1")
            assert row["cosine"] == source["outputs"][0]["cosine_mean"]
    assert sum(found["verdicts"].values()) == 6
    text = (tmp_path / "o.md").read_text(encoding="utf-8")
    assert text.startswith("### cspedge: 3 runs")
    assert text.count("`lcnet_050.digits`") == 3
    # model and recipe are the same in all three, so each has its path beside it
    assert overview.second_names(found["runs"]) == [run["report"] for run in found["runs"]]
    page = (tmp_path / "out" / "overview.html").read_text(encoding="utf-8")
    assert page.count('<details class="panel run"') == page.count('" open>') == 3


def test_the_worst_stands_first_and_every_anchor_is_there(fourteen: list[Given]) -> None:
    found = overview.overview(fourteen)
    order = ["do-not-ship", "caution", "ship"]
    for run in found["runs"]:
        places = [order.index(row["verdict"]) for row in run["artifacts"]]
        assert places == sorted(places)
    html = overview.render(found)
    assert html == overview.render(found)
    anchors, targets = (re.findall(pattern, html) for pattern in (r'href="#([^"]+)"', r' id="([^"]+)"'))
    assert set(anchors) <= set(targets)
    assert len(targets) == len(set(targets))
    assert len(re.findall(r'<tr role="row" id="a', html)) == sum(found["verdicts"].values()) == 14 * 12
    text = overview_markdown.render(found)
    assert len(text) < 65_536
    assert len({line.count(" | ") for line in text.splitlines() if line.startswith("| ")}) == 1


def test_check_is_for_two(three: list[str], capsys: Any) -> None:
    assert call(app, ["report", *three, "--check"]) == 2
    assert "--check compares two reports, and 3 are given" in capsys.readouterr().err
