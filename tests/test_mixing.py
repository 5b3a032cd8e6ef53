"""The accuracy loop as part of `cspedge run`, on the built-in model with ranges that are far too tight."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cspedge import api, inputs, mixing
from cspedge.config import load_recipe
from cspedge.models import source as sources
from cspedge.options import Silent
from cspedge.pipeline import Outcome, RunOptions, Upto, execute
from cspedge.quantize.mixed import from_dict
from cspedge.report import validate
from cspedge.store import Store

TIGHT = """
summary = "the inner 97 % of all values, and tensors in float until 99 % agree"
[images]
count = 64
[quantize]
observer = "percentile"
percentile = 97.0
[mixed]
min_agreement = 0.99
max_float_macs = 0.3
images = 192
seconds = {seconds}
"""


class Notes(Silent):
    """A Ui that keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def recipe(folder: Path, seconds: float) -> str:
    path = folder / f"tight-{seconds:g}.toml"
    path.write_text(TIGHT.format(seconds=seconds), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunOptions, Outcome]:
    folder = tmp_path_factory.mktemp("mixing")
    options = RunOptions(
        workspace=folder / "store",
        out=folder / "out",
        recipe=recipe(folder, 600.0),
        targets=("onnxruntime", "openvino"),
    )
    return options, execute(options, Upto.EVALUATE)


def rows(outcome: Outcome) -> dict[str, Any]:
    assert outcome.report is not None
    return {f"{a['target']}/{a['precision']}": a for a in outcome.report["artifacts"]}


def test_the_report_says_what_stays_in_float_and_why(done: Any) -> None:
    _, outcome = done
    validate(outcome.report)
    for label, row in rows(outcome).items():
        kept = row["kept"]
        if label.endswith("fp32"):
            assert kept is None
            continue
        assert kept["met"] is True
        assert 0 < kept["mac_share"] <= 0.3
        assert kept["mac_share"] == pytest.approx(1 - row["audit"]["int8_mac_share"])
        assert set(kept["layers"]) <= set(row["audit"]["fp32_islands"])
        assert row["audit"]["encodings_match"] is True
        assert f"{label}, accuracy loop: {kept['reason']}" in outcome.report["notes"]
        # of validation images the network is less sure than of the training images that the loop sees
        assert row["accuracy"]["agreement"] > 0.96, kept["reason"]


def test_the_artifacts_manifest_lists_the_tensors(done: Any) -> None:
    options, outcome = done
    for row in rows(outcome).values():
        manifest = json.loads((options.out / row["manifest"]).read_text(encoding="utf-8"))
        assert manifest["float_tensors"] == ([] if row["kept"] is None else row["kept"]["tensors"])


def test_tuning_images_are_nobody_elses(done: Any) -> None:
    options, outcome = done
    assert outcome.report["tuning"]["n"] == 192
    store = Store(options.workspace)
    seen = [json.loads(_file(store, e.key, "images.json")) for e in store.ls() if e.stage == "images"]
    digests = [set(listing["digests"]) for listing in seen]
    assert sorted(map(len, digests)) == [64, 192, 450]
    assert len(set.union(*digests)) == 64 + 192 + 450


@pytest.mark.parametrize("upto", [Upto.QUANTIZE, Upto.EVALUATE])
def test_training_images_leave_the_tuning_images_alone(upto: Upto, tmp_path: Path) -> None:
    """Also where no accuracy loop follows: `quantize` and `run` learn the same numbers."""
    path = tmp_path / "greedy.toml"
    learn = "[learn]\nepochs = 1\nimages = 4096\nmax_gmacs = 0.1\n"
    path.write_text(TIGHT.format(seconds=0.001) + learn, encoding="utf-8")
    options = RunOptions(workspace=tmp_path / "store", out=tmp_path / "out", recipe=str(path), targets=("openvino",))
    execute(options, upto)
    store = Store(options.workspace)
    seen = [json.loads(_file(store, e.key, "images.json")) for e in store.ls() if e.stage == "images"]
    total = set(api.list_images(None, "train").digests)
    tuning, training = (
        {d for s in seen if len(s["digests"]) == n for d in s["digests"]} for n in (192, len(total) - 192)
    )
    assert len(tuning) == 192
    assert training == total - tuning


def _file(store: Store, key: str, name: str) -> str:
    stored = store.get(key)
    assert stored is not None
    return stored.file(name).read_text(encoding="utf-8")


def test_a_second_run_does_no_work(done: Any) -> None:
    options, first = done
    again = execute(options, Upto.EVALUATE)
    assert all(row.cached for row in again.stages)
    assert again.report["artifacts"] == first.report["artifacts"]


def test_a_larger_budget_goes_on_from_the_smaller_ones_evaluations(done: Any, tmp_path: Path) -> None:
    options, first = done
    small = replace(options, workspace=tmp_path / "store", out=tmp_path / "out", targets=("openvino",))
    short = replace(small, recipe=recipe(tmp_path, 0.001))
    row = rows(execute(short, Upto.EVALUATE))["openvino/int8"]
    assert row["kept"]["tensors"] == []
    assert row["kept"]["met"] is False
    assert "the time ended" in row["kept"]["reason"]
    (journal,) = (tmp_path / "store" / "journals").iterdir()
    before = json.loads(journal.read_text())["evaluations"]
    longer = execute(small, Upto.EVALUATE)
    after = json.loads(journal.read_text())["evaluations"]
    assert before.items() < after.items(), "what was measured stays, seconds and all"
    assert rows(longer)["openvino/int8"]["sha256"] == rows(first)["openvino/int8"]["sha256"]
    store = Store(small.workspace)
    results = [from_dict(json.loads(_file(store, e.key, "mixed.json"))) for e in store.ls() if e.stage == "mixed"]
    assert len({r.history[0].seconds for r in results}) == 1


def test_too_few_images_are_said(done: Any) -> None:
    """All but twenty images of the train split calibrate."""
    options, _ = done
    ui = Notes()
    ledger = inputs.Ledger(store=Store(options.workspace), ui=ui, name="few")
    loaded = inputs.load_model(sources.resolve(None, None, None), options, ledger)
    wanted = load_recipe(options.recipe)
    total = len(set(api.list_images(None, "train").digests))

    def draw(count: int) -> mixing.Tuning | str:
        used = inputs.calibration_images(options, wanted, loaded, None, ledger, count=count)
        return mixing.tuning_images(options, wanted, loaded, used, None, ledger)

    drawn = draw(total - 100)
    assert isinstance(drawn, mixing.Tuning)
    assert len(drawn.images) == 100
    assert any("the accuracy loop tunes on 100 images, all that are left" in note for note in ui.notes)
    left = draw(total - 20)
    assert isinstance(left, str)
    assert re.search(r"nothing is kept in float: that takes 32 images .* 20 are left", left)
    assert left in ui.notes
