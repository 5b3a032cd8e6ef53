"""The plots: inline SVG without anything that could be fetched or run, every artifact in it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from cspedge.report import load
from cspedge.report.levels import levels_plot
from cspedge.report.pareto import front, measured, pareto_plot
from cspedge.report.plots import cosine_plot, drop_plot, latency_plot, size_plot
from cspedge.report.strip import samples_plot
from cspedge.report.words import cosine, decibels
from cspedge.types import Head

EXAMPLE = Path(__file__).with_name("example_report.json")
OUTPUTS = load(EXAMPLE)["model"]["outputs"]
Plot = Callable[[list[Any]], str]


def one_level(artifacts: list[Any]) -> str:
    """The plot for feature maps, of the one output that the example has."""
    return levels_plot(artifacts, OUTPUTS)


def against_latency(artifacts: list[Any]) -> str:
    return pareto_plot(artifacts, load(EXAMPLE)["reference"]["top1"])


ROWS: list[Plot] = [drop_plot, latency_plot, size_plot, cosine_plot, one_level, samples_plot]
PLOTS: list[Plot] = [*ROWS, against_latency]


@pytest.fixture(scope="module")
def artifacts() -> list[dict[str, Any]]:
    artifacts: list[dict[str, Any]] = load(EXAMPLE)["artifacts"]
    return artifacts


def texts(svg: str) -> list[str]:
    return ["".join(e.itertext()) for e in ElementTree.fromstring(svg).iter("text")]


@pytest.mark.parametrize("plot", PLOTS)
def test_inline_clean_and_the_same_twice(plot: Plot, artifacts: list[dict[str, Any]]) -> None:
    svg = plot(artifacts)
    assert svg == plot(artifacts)
    assert svg.startswith("<svg ")
    for word in ("http", "<?xml", "<!", "<metadata", "<style", "xmlns", "#0a0b0", "DejaVu", "<script"):
        assert word not in svg
    root = ElementTree.fromstring(svg)
    assert root.get("role") == "img"
    names = [e.get("id") for e in root.iter() if e.get("id")]
    assert len(names) == len(set(names))
    assert set((root.get("aria-labelledby") or "").split()) <= set(names)
    for element in root.iter():
        if element.get("href"):
            assert (element.get("href") or "").removeprefix("#") in names


def test_ids_do_not_meet_between_plots(artifacts: list[dict[str, Any]]) -> None:
    seen: set[str] = set()
    for plot in PLOTS:
        names = {e.get("id") or "" for e in ElementTree.fromstring(plot(artifacts)).iter()} - {""}
        assert not names & seen
        seen |= names


def test_what_was_not_run_is_said_and_not_drawn_as_zero(artifacts: list[dict[str, Any]]) -> None:
    words = texts(latency_plot(artifacts))
    assert words.count("not run here") == 2  # Core ML's two
    assert words.count("failed") == 1
    assert words.count("unavailable") == 1
    values = [word for word in words if word.endswith(" ms")]
    assert values == ["1.31 ms", "1.72 ms", "0.642 ms", "0.471 ms", "0.583 ms", "0.597 ms"]
    assert "coreml/fp16 not run here" in latency_plot(artifacts)


def test_values_and_groups(artifacts: list[dict[str, Any]]) -> None:
    words = texts(drop_plot(artifacts))
    for group in ("executorch", "coreml", "openvino", "onnxruntime", "openvino-npu", "coreml-ios18"):
        assert words.count(group) == 1
    assert "1.67" in words


@pytest.mark.parametrize("plot", PLOTS)
@pytest.mark.parametrize(
    "name", ["a<b>&\"'", "$x^2$", "\u6570\u5b57", "x" * 200, "]]>-->", "nul\x00l", 'id="x" href="#y"']
)
def test_any_name(plot: Plot, name: str, artifacts: list[dict[str, Any]]) -> None:
    svg = plot([{**artifacts[0], "target": name}])
    shown = texts(svg)
    assert any(word.startswith(name.replace("\x00", "")[:3]) for word in shown)
    assert "<b>" not in svg


@pytest.mark.parametrize("plot", ROWS)
def test_nothing_to_show(plot: Plot, artifacts: list[dict[str, Any]]) -> None:
    assert plot([]).startswith("<svg ")
    assert "failed" in texts(plot([artifacts[8]]))


def test_latencies_far_apart_take_a_logarithmic_axis(artifacts: list[dict[str, Any]]) -> None:
    slow = {**artifacts[1], "latency": {**artifacts[1]["latency"], "p50_ms": 900.0, "p90_ms": 950.0, "p99_ms": 990.0}}
    words = texts(latency_plot([artifacts[0], slow]))
    assert "900 ms" in words
    ticks = [float(word) for word in words if word.replace(".", "").isdigit()]
    assert len(ticks) >= 2
    assert max(ticks) >= 10 * min(ticks) > 0


@pytest.fixture
def features(real_run: Callable[[Head], Path]) -> dict[str, Any]:
    return load(real_run(Head.FEATURES) / "report.json")


def bars(svg: str) -> list[float]:
    """Heights of the bars, in the order they were drawn: paths that close, with a fill."""
    found = []
    for path in ElementTree.fromstring(svg).iter("path"):
        if "z" in (path.get("d") or "") and "fill: var" in (path.get("style") or ""):
            ys = [float(y) for y in re.findall(r"[ML] [\d.-]+ ([\d.-]+)", path.get("d") or "")]
            found.append(max(ys) - min(ys))
    return found


def test_levels_are_bars_of_int8_as_long_as_their_sqnr(features: dict[str, Any]) -> None:
    svg = levels_plot(features["artifacts"], features["model"]["outputs"])
    words = texts(svg)
    assert "onnxruntime int8" in words
    assert "onnxruntime fp32" not in words
    rows = next(a for a in features["artifacts"] if a["precision"] == "int8")["outputs"]
    assert [word for word in words if "." in word] == [decibels(row["sqnr_db"]) for row in rows]
    assert [word for word in words if word in {"2", "4", "8", "16", "32"}] == ["2", "4", "8", "16", "32"]
    most = max(row["sqnr_db"] for row in rows)
    lengths = bars(svg)
    assert lengths == pytest.approx([40 * row["sqnr_db"] / most for row in rows], abs=0.1)


def test_levels_of_float_where_there_is_no_int8(features: dict[str, Any]) -> None:
    floats = [a for a in features["artifacts"] if a["precision"] == "fp32"]
    assert "onnxruntime fp32" in texts(levels_plot(floats, features["model"]["outputs"]))


@pytest.mark.parametrize(
    ("ratio", "word", "share"), [(None, "exact", 1.0), (-3.0, "\u22123.0", 0.0), (0.0, "0.0", 0.0)]
)
def test_levels_at_the_ends(features: dict[str, Any], ratio: float | None, word: str, share: float) -> None:
    artifact = next(a for a in features["artifacts"] if a["precision"] == "int8")
    artifact["outputs"][1]["sqnr_db"] = ratio
    svg = levels_plot([artifact], features["model"]["outputs"])
    assert word in texts(svg)
    assert bars(svg)[1] == pytest.approx(40 * share, abs=0.1)


def test_cosine_of_a_real_embedding(real_run: Callable[[Head], Path]) -> None:
    artifacts = load(real_run(Head.EMBEDDING) / "report.json")["artifacts"]
    words = texts(cosine_plot(artifacts))
    for artifact in artifacts:
        assert cosine(artifact["outputs"][0]["cosine_mean"]) in words


def test_a_users_matplotlibrc_changes_nothing(artifacts: list[dict[str, Any]]) -> None:
    import matplotlib

    before = drop_plot(artifacts)
    with matplotlib.rc_context({"font.family": "monospace", "axes.grid": True, "svg.fonttype": "path"}):
        assert drop_plot(artifacts) == before


def test_the_front_is_what_nothing_else_beats(
    real_run: Callable[[Head], Path], artifacts: list[dict[str, Any]]
) -> None:
    for found in (artifacts, load(real_run(Head.LOGITS) / "report.json")["artifacts"]):
        best = front(found)
        assert best
        for artifact in measured(found):
            beaten = [
                other
                for other in measured(found)
                if other is not artifact
                and other["latency"]["p50_ms"] <= artifact["latency"]["p50_ms"]
                and other["accuracy"]["top1"] >= artifact["accuracy"]["top1"]
            ]
            assert (artifact in best) == (not beaten)


def test_the_front_is_marked_and_said(artifacts: list[dict[str, Any]]) -> None:
    svg = against_latency(artifacts)
    best = [f"{a['target']} {a['precision']}" for a in front(artifacts)]
    bold = [e for e in ElementTree.fromstring(svg).iter("text") if "font-weight: 700" in (e.get("style") or "")]
    assert ["".join(e.itertext()) for e in bold] == best == ["openvino int8", "onnxruntime fp32"]
    assert svg.count(", on the Pareto front") == 2
    assert "coreml" not in svg  # which was not timed


def test_equals_stand_on_the_front_once(artifacts: list[dict[str, Any]]) -> None:
    assert front([artifacts[1], {**artifacts[1], "target": "twin"}]) == [artifacts[1]]
    assert texts(against_latency([]))[-1] == "no artifact has both figures"


def strokes(svg: str) -> list[tuple[float, float]]:
    """Where the ticks of the raw samples stand, and how high: paths of more than one upright line, no fill."""
    found = []
    for path in ElementTree.fromstring(svg).iter("path"):
        lines = re.findall(r"M ([\d.-]+) ([\d.-]+)\s+L ([\d.-]+) ([\d.-]+)", path.get("d") or "")
        if len(lines) > 1:
            found += [(float(x), abs(float(low) - float(high))) for x, low, _, high in lines]
    return found


def test_every_sample_has_its_tick_and_crowds_are_higher(artifacts: list[dict[str, Any]]) -> None:
    samples = [1.0] * 9 + [2.0] + [1.5] * 4
    timed = {**artifacts[1], "latency": {**artifacts[1]["latency"], "samples_ms": samples}}
    ticks = strokes(samples_plot([timed]))
    assert [height for _, height in sorted(ticks)] == pytest.approx([17, 4 + 13 * 2 / 3, 4 + 13 / 3], abs=0.01)
    places = sorted(x for x, _ in ticks)
    assert places[1] - places[0] == pytest.approx(places[2] - places[1], abs=2.1)
    more = {**timed, "latency": {**timed["latency"], "samples_ms": samples * 50}}
    assert strokes(samples_plot([more])) == ticks


def test_the_slowest_inference_is_said_though_it_lies_beyond_the_axis(artifacts: list[dict[str, Any]]) -> None:
    samples = [*artifacts[1]["latency"]["samples_ms"], 4000.0]
    timed = {**artifacts[1], "latency": {**artifacts[1]["latency"], "samples_ms": samples}}
    assert "4000 ms" in texts(samples_plot([timed]))
