"""`--robustness` on the built-in model: the figures are those of the artifact on images corrupted again by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from cspedge import api
from cspedge.cli.app import app, call
from cspedge.data.corrupt import MILD, corrupter
from cspedge.data.digits import digits
from cspedge.data.images import decode_listed
from cspedge.data.sampling import sample
from cspedge.errors import UsageError
from cspedge.models.preprocess import transform
from cspedge.pipeline import RunOptions, Upto, execute
from cspedge.types import Head

COUNT = 60
MAC: dict[str, Any] = {"device": "mac://", "targets": ("coreml",)}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunOptions, dict[str, Any]]:
    """The report of onnxruntime in both precisions."""
    folder = tmp_path_factory.mktemp("robust")
    options = RunOptions(
        workspace=folder / "store",
        out=folder / "out",
        recipe="fast",
        calib_images=32,
        targets=("onnxruntime",),
        robustness=COUNT,
    )
    report = execute(options, Upto.EVALUATE).report
    assert report is not None
    return options, report


def test_the_figures_are_those_of_corrupted_images(done: tuple[RunOptions, dict[str, Any]]) -> None:
    options, report = done
    listed, reference = digits("val"), api.load_reference()
    chosen = sample(listed, COUNT, seed=options.seed)
    labels = np.array([int(listed.class_of[i] or 0) for i in chosen])
    preprocess = reference.info.preprocess
    path = next(options.out.rglob("*.int8.onnx"))
    session = onnxruntime.InferenceSession(path)
    artifact = next(a for a in report["artifacts"] if a["precision"] == "int8")
    for corruption, own, row in zip(MILD, report["robustness"]["corruptions"], artifact["robustness"], strict=True):
        change, finish = corrupter(corruption, preprocess), transform(preprocess)
        images = np.stack([finish(change(decode_listed(listed, i).image)) for i in chosen]).astype(np.float32) / 255
        with torch.no_grad():
            expected = reference.module(torch.from_numpy(images)).numpy().argmax(axis=1)
        found = np.array([session.run(None, {"image": image[None]})[0][0].argmax() for image in images])
        assert (own["name"], own["kind"], own["value"]) == (corruption.name, str(corruption.kind), corruption.value)
        assert own["n"] == row["n"] == COUNT
        assert own["top1"] == pytest.approx((expected == labels).mean())
        assert own["drop_top1"] == pytest.approx(own["clean_top1"] - own["top1"])
        # the runtime's threads and batch may turn a tie; no more than one image of sixty
        assert row["top1"] == pytest.approx((found == labels).mean(), abs=1.01 / COUNT)
        assert row["agreement"] == pytest.approx((found == expected).mean(), abs=1.01 / COUNT)
        assert row["drop_top1"] == pytest.approx((row["only_reference"] - row["only_artifact"]) / COUNT)


def test_float_artifacts_are_left_out_and_nothing_is_done_twice(done: tuple[RunOptions, dict[str, Any]]) -> None:
    options, report = done
    assert [bool(a["robustness"]) for a in report["artifacts"]] == [False, True]
    again = execute(options, Upto.EVALUATE)
    assert all(row.cached for row in again.stages)
    assert again.report is not None
    assert again.report["artifacts"] == report["artifacts"]
    without = execute(replace(options, robustness=0), Upto.EVALUATE).report
    assert without is not None
    assert without["robustness"] is None
    assert all(a["robustness"] == [] for a in without["artifacts"])


def test_the_command_line_says_it(
    done: tuple[RunOptions, dict[str, Any]], capsys: Any, monkeypatch: Any, tmp_path: Path
) -> None:
    options, report = done
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    where = ["--workspace", str(options.workspace), "--out", str(tmp_path / "out")]
    args = ["--recipe", "fast", "--calib-images", "32", "--target", "onnxruntime", "--robustness", str(COUNT)]
    assert call(app, ["validate", *args, *where]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert f"int8 against fp32 on the same {COUNT}" in printed
    for row in report["robustness"]["corruptions"]:
        assert row["name"] in printed
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "<h2>Under mild corruptions</h2>" in page
    assert "quality 25" in page


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (RunOptions(robustness=-1), "robustness is -1; it is a number of images, 1 or more"),
        (RunOptions(robustness=5, head=Head.FEATURES), "which --head features does not give"),
        (RunOptions(robustness=5, emit=Path("elsewhere"), **MAC), "--robustness compares here alone"),
        (RunOptions(trace=True, emit=Path("elsewhere"), **MAC), "--emit writes what runs elsewhere"),
    ],
)
def test_what_cannot_be_compared_is_refused_at_once(options: RunOptions, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        execute(replace(options, workspace=tmp_path / "store", out=tmp_path / "out"), Upto.EVALUATE)
    assert not (tmp_path / "store").exists()
