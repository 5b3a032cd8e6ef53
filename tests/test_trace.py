"""`--trace` on the built-in model's real Core ML packages: what is compared, what is said, what is kept."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from cspedge.backends.coreml.package import read_program
from cspedge.backends.coreml.tracing import Layer
from cspedge.cli.app import app, call
from cspedge.errors import UsageError
from cspedge.layers import _plain
from cspedge.pipeline import RunOptions, Upto, execute
from cspedge.report import render, validate
from cspedge.report.traces import LIMITS, first, lines, sentence
from cspedge.types import Precision

Done = tuple[RunOptions, dict[str, Any]]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """The report of both of Core ML's precisions."""
    folder = tmp_path_factory.mktemp("trace")
    options = RunOptions(
        workspace=folder / "store", out=folder / "out", recipe="fast", calib_images=32, targets=("coreml",), trace=True
    )
    report = execute(options, Upto.EVALUATE).report
    assert report is not None
    return options, report


def traced(report: dict[str, Any], precision: str) -> dict[str, Any]:
    found: dict[str, Any] = next(a for a in report["artifacts"] if a["precision"] == precision)
    return found


def words(page: str) -> str:
    """The page with its characters as they are read; a unit stays with its number on the page."""
    return unescape(page).replace("\u00a0", " ")


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_every_convolution_is_compared_in_the_programs_order(done: Done, precision: str) -> None:
    options, report = done
    layers = traced(report, precision)["trace"]["layers"]
    names = [layer["name"] for layer in layers]
    package = read_program(next((options.out / "coreml").glob(f"*.{precision}.mlpackage")))
    convolutions = [op.outputs[0].name for op in package.operations if op.type == "conv"]
    plain = [name.removesuffix("_cast_fp16").removesuffix("_cast_fp32") for name in convolutions]
    assert [name for name in names if name in plain] == plain
    assert {layer["module"] for layer in layers} >= {"conv_stem", "blocks.5.1.conv_pw", "conv_head"}
    assert first(traced(report, precision)["trace"]) is None


def test_the_first_layer_below_a_limit_has_a_name(done: Done) -> None:
    """With a limit that float16's own rounding does not meet, it is the first that falls below it."""
    artifact = copy.deepcopy(traced(done[1], "fp16"))
    sqnrs = [layer["sqnr_db"] for layer in artifact["trace"]["layers"]]
    artifact["trace"]["limit_db"] = sqnrs[8] + 0.01
    expected = next(layer for layer in artifact["trace"]["layers"] if layer["sqnr_db"] < sqnrs[8] + 0.01)
    assert first(artifact["trace"]) == expected
    assert sentence(artifact).startswith(f"the first that differs is {expected['module']} ({expected['kind']}, ")
    report = done[1] | {"artifacts": [artifact]}
    report["agreement"] = []
    page = words(render(report))
    assert sentence(artifact) in page
    assert page.count('<tr class="do-not-ship">') == sum(s < artifact["trace"]["limit_db"] for s in sqnrs)


def test_the_report_and_the_console_say_it_with_its_limits(
    done: Done, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    options, report = done
    monkeypatch.chdir(tmp_path)
    where = ["--workspace", str(options.workspace), "--out", str(tmp_path / "out")]
    assert (
        call(app, ["validate", "--target", "coreml", "--recipe", "fast", "--calib-images", "32", "--trace", *where])
        == 0
    )
    printed = capsys.readouterr()
    assert "trace coreml/int8" in printed.err
    assert "unchanged, taken from the store" in printed.err
    said = [" ".join(line.split()) for line in printed.out.splitlines()]
    for line in lines(report):
        assert line in said
    page = words((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    assert LIMITS in page
    assert page.count("<polyline points=") == 2


def test_without_it_nothing_is_traced_and_where_there_is_no_package_it_is_refused(done: Done) -> None:
    options, _ = done
    outcome = execute(replace(options, trace=False), Upto.EVALUATE)
    assert outcome.report is not None
    assert all(row.cached for row in outcome.stages)
    assert [a["trace"] for a in outcome.report["artifacts"]] == [None, None]
    with pytest.raises(UsageError, match=r"the targets asked for \('openvino'\) make none; add --target coreml"):
        execute(replace(options, targets=("openvino",)), Upto.EVALUATE)


@pytest.mark.parametrize(
    ("sqnr", "most", "expected"),
    [
        (math.inf, 0.0, "equal to PT2E bit for bit in all 1 values on 4 images"),
        (-math.inf, 2.0, "conv (conv, conv__x): no signal in PT2E"),
        (-math.inf, math.nan, "conv (conv, conv__x): not finite"),
        (-3.0, 2.0, "conv (conv, conv__x): \u22123.0 dB SQNR"),
    ],
)
def test_values_that_are_no_numbers_are_said_in_words(done: Done, sqnr: float, most: float, expected: str) -> None:
    layer = _plain(Layer(name="conv__x", module="conv", kind="conv", sqnr_db=sqnr, max_abs=most, carried_db=sqnr))
    artifact = copy.deepcopy(traced(done[1], "int8"))
    artifact["trace"]["layers"] = [{k: getattr(layer, k) for k in artifact["trace"]["layers"][0]}]
    assert expected in sentence(artifact)
    report = done[1] | {"artifacts": [artifact], "agreement": []}
    validate(report)
    assert expected in words(render(report))


@pytest.mark.parametrize(
    ("key", "value"), [("sqnr_db", "far"), ("max_abs_diff", -1.0), ("name", ""), ("kind", None), ("module", 3)]
)
def test_a_malformed_layer_is_named(done: Done, key: str, value: Any) -> None:
    report = copy.deepcopy(done[1])
    traced(report, Precision.INT8)["trace"]["layers"][1][key] = value
    with pytest.raises(UsageError, match=rf"artifacts\[1\]\.trace\.layers\[1\]\.{key} is "):
        validate(report)
