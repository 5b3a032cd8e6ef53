"""Two reports compared: two real runs, then what each rule says of figures that are changed on purpose."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from cspedge.cli.app import app, call
from cspedge.errors import InputError
from cspedge.report import load
from cspedge.report.compare import compare
from cspedge.report.given import Given, is_report, read
from cspedge.report.single_images import unpack
from cspedge.types import Head

EXAMPLE = Path(__file__).with_name("example_report.json")

NOISY = {"artifact": "a/int8", "ratio": 0.9, "ci95": [0.8, 0.95], "conclusive": False, "reason": "differs"}


@pytest.fixture
def given(two_runs: tuple[Path, Path]) -> tuple[Given, Given]:
    a, b = two_runs
    found = read(str(a)), read(str(b / "report.json"))
    for artifact in (artifact for g in found for artifact in g.report["artifacts"]):
        artifact["latency"]["noise"] = None  # the machine of a test may be too noisy to conclude; tested below
    return found


def row(found: dict[str, Any], precision: str) -> dict[str, Any]:
    (wanted,) = [r for r in found["artifacts"] if r["precision"] == precision]
    return dict(wanted)


def test_two_real_runs_are_compared_image_by_image(given: tuple[Given, Given]) -> None:
    found = compare(*given)
    a, b = (next(x for x in g.report["artifacts"] if x["precision"] == "int8") for g in given)
    top1, n = row(found, "int8")["top1"], found["validation"]["n"]
    before, after = (unpack(x["images"]["right"], n) for x in (a, b))
    assert top1["paired"]
    assert (top1["only_a"], top1["only_b"]) == ((before & ~after).sum(), (~before & after).sum())
    assert top1["change"] == pytest.approx(b["accuracy"]["top1"] - a["accuracy"]["top1"])
    assert top1["ci95"][0] <= top1["change"] <= top1["ci95"][1]
    assert len(set(row(found, "int8")["sqnr_db"].values())) == 2  # two calibration images are not as good as 32
    assert row(found, "fp32")["same_file"]
    assert not row(found, "int8")["same_file"]
    assert found["drift"]["artifacts"] == 1
    differing = {item["what"]: (item["a"], item["b"]) for item in found["differs"]}
    assert differing["calibration.n"] == (32, 2)
    assert "calibration.recipe" not in differing
    assert not any(what.startswith("environment") for what in differing)


def test_a_run_against_itself_changes_nothing(given: tuple[Given, Given]) -> None:
    found = compare(given[0], given[0])
    assert found["differs"] == found["worse"] == found["only_a"] == found["only_b"] == []
    for artifact in found["artifacts"]:
        assert artifact["same_file"]
        assert artifact["top1"]["change"] == 0
        assert artifact["latency"]["ratio"] == 1.0


def test_without_single_images_the_interval_is_unpaired_and_wider(given: tuple[Given, Given]) -> None:
    paired = row(compare(*given), "int8")["top1"]
    for artifact in given[1].report["artifacts"]:
        del artifact["images"]
    unpaired = row(compare(*given), "int8")["top1"]
    assert not unpaired["paired"]
    assert unpaired["p"] is None
    assert unpaired["change"] == pytest.approx(paired["change"])
    assert unpaired["ci95"][1] - unpaired["ci95"][0] > paired["ci95"][1] - paired["ci95"][0]


@pytest.fixture
def worse(changed: Callable[..., dict[str, Any]]) -> tuple[Given, Given]:
    """The digits' logits whole, and rounded to three values, as one artifact of two runs."""
    b = changed(False, levels=1)
    a = deepcopy(b)
    for key in ("accuracy", "paired", "images", "verdict", "reasons"):
        a["artifacts"][5][key] = a["artifacts"][4][key]
    b["artifacts"][5]["verdict"] = "do-not-ship"
    return Given(name="a", report=a), Given(name="b", report=b)


def test_what_is_surely_worse_is_said(worse: tuple[Given, Given]) -> None:
    found = compare(*worse)
    (changed,) = [r for r in found["artifacts"] if (r["target"], r["precision"]) == ("openvino", "int8")]
    assert changed["top1"]["answer"] == changed["agreement"]["answer"] == "worse"
    assert changed["top1"]["ci95"][1] < 0
    assert [s.split()[0] for s in found["worse"]] == ["openvino/int8", "openvino/int8"]
    assert "from ship to do-not-ship" in found["worse"][0]
    assert "points of top-1" in found["worse"][1]
    back = compare(worse[1], worse[0])
    assert back["worse"] == []
    assert {r["top1"]["answer"] for r in back["artifacts"] if r["top1"]} == {"better", "open"}


def slower(report: dict[str, Any], index: int, factor: float) -> None:
    latency = report["artifacts"][index]["latency"]
    latency["samples_ms"] = [factor * sample for sample in latency["samples_ms"]]
    for key in ("p50_ms", "p90_ms", "p99_ms"):
        latency[key] *= factor


def test_latency_is_worse_only_beyond_what_unchanged_files_did(worse: tuple[Given, Given]) -> None:
    a, b = worse[0].report, worse[1].report
    b["artifacts"][1]["sha256"] = "0" * 64
    for index in (0, 1):
        slower(b, index, 1.5)  # the machine is slower, the unchanged fp32 too
    (machine,) = [r for r in compare(*worse)["artifacts"] if (r["target"], r["precision"]) == ("executorch", "int8")]
    assert machine["latency"]["ratio"] == pytest.approx(1.5, rel=0.01)
    assert machine["latency"]["answer"] == "open"
    slower(b, 0, 1 / 1.5)
    found = compare(*worse)
    assert any(sentence.startswith("executorch/int8 takes") for sentence in found["worse"])
    for index in range(8):  # nothing is the same file: 1 alone is left out or not
        a["artifacts"][index]["sha256"] = f"{index}" * 64
    assert compare(*worse)["drift"] is None


def test_nothing_is_concluded_from_a_run_that_was_too_noisy(worse: tuple[Given, Given]) -> None:
    a, b = worse
    slower(b.report, 1, 3.0)
    a.report["artifacts"][1]["sha256"] = "1" * 64
    assert any("executorch/int8 takes" in sentence for sentence in compare(a, b)["worse"])
    b.report["artifacts"][1]["latency"]["noise"] = NOISY
    found = compare(a, b)
    assert not any("executorch/int8 takes" in sentence for sentence in found["worse"])
    (latency,) = [r["latency"] for r in found["artifacts"] if (r["target"], r["precision"]) == ("executorch", "int8")]
    assert latency["ratio"] == pytest.approx(3.0, rel=0.01)
    assert (latency["answer"], latency["reason"]) == ("open", "too noisy to conclude about speed in B")


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("device", "another CPU", "different devices"),
        ("threads", 4, "with 2 and 4 threads"),
        ("samples_ms", [1.0] * 12, "too few samples"),
        ("protocol", "fresh-process", "different protocols"),
        ("cores", [1], "pinned to cores in B only"),
    ],
)
def test_latency_of_another_device_or_protocol_is_not_compared(key: str, value: Any, reason: str) -> None:
    a, b = load(EXAMPLE), load(EXAMPLE)
    b["artifacts"][1]["latency"][key] = value
    found = compare(Given(name="a", report=a), Given(name="b", report=b))
    (artifact,) = [r for r in found["artifacts"] if (r["target"], r["precision"]) == ("executorch", "int8")]
    assert reason in artifact["latency"]["reason"]
    assert artifact["latency"]["ratio"] is artifact["latency"]["ci95"] is artifact["latency"]["answer"] is None
    assert artifact["latency"]["b"] is not None


def test_artifacts_of_one_side_and_failures(worse: tuple[Given, Given]) -> None:
    a, b = worse
    lost = b.report["artifacts"].pop(1)
    failed = {"status": "failed", "reason": "out of memory", "verdict": "do-not-ship", "evidence": "not-run"}
    gone = ("accuracy", "paired", "images", "latency", "audit")
    b.report["artifacts"][0] |= failed | dict.fromkeys(gone) | {"outputs": []}
    b.report["agreement"] = []
    found = compare(a, b)
    assert [r["artifact"] for r in found["only_a"]] == [f"{lost['target']}/{lost['precision']}"]
    assert found["only_b"] == []
    assert not any("executorch/int8" in item["what"] for item in found["differs"]), "it is named once"
    assert any("executorch/fp32" in item["what"] for item in found["differs"])
    assert "executorch/int8 is not in B." in found["worse"]
    assert any(s.startswith("executorch/fp32 is failed in B: ") for s in found["worse"])
    assert found["artifacts"][0]["top1"] is None


def test_the_command_writes_a_page_and_values(two_runs: tuple[Path, Path], tmp_path: Path, capsys: Any) -> None:
    a, b = map(str, two_runs)
    assert call(app, ["report", a, b, "--out", str(tmp_path / "out"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "out" / "comparison.json").read_text(encoding="utf-8"))
    assert printed["a"]["report"] == a
    page = (tmp_path / "out" / "comparison.html").read_text(encoding="utf-8")
    assert page.lower().lstrip().startswith("<!doctype html>")
    assert len(page.encode()) < 1_500_000
    code = call(app, ["report", a, b, "--out", str(tmp_path / "out"), "--check", "--markdown", "-"])
    assert code == (1 if printed["worse"] else 0)
    assert capsys.readouterr().out.startswith("### cspedge: `")


def test_check_fails_where_something_is_worse(worse: tuple[Given, Given], tmp_path: Path, capsys: Any) -> None:
    paths = []
    for given in worse:
        paths.append(tmp_path / f"{given.name}.json")
        paths[-1].write_text(json.dumps(given.report), encoding="utf-8")
    a, b = map(str, paths)
    out = ["--out", str(tmp_path / "out")]
    assert call(app, ["report", a, b, "--check", *out]) == 1
    assert "2 changes for the worse" in capsys.readouterr().out
    assert call(app, ["report", a, b, *out]) == 0
    assert call(app, ["report", b, a, "--check", *out]) == 0


@pytest.fixture
def refused(tmp_path: Path, capsys: Any) -> Callable[[list[str], int], str]:
    """A function from arguments and an exit code to the one sentence on stderr; nothing is written."""

    def refuse(args: list[str], code: int) -> str:
        capsys.readouterr()  # of the real runs, made when first asked for
        assert call(app, ["report", *args, "--out", str(tmp_path / "out")]) == code
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("cspedge: ")
        assert err.count("\n") == 1
        assert not (tmp_path / "out").exists()
        return str(err)

    return refuse


Refused = Callable[[list[str], int], str]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda text: text.replace('"schema": 1', '"schema": 2'), "schema 2"),
        (lambda text: text.replace('"lower_s": 6.1', '"lower_s": NaN'), "NaN"),
        (lambda text: text[: len(text) // 2], "cannot be read"),
        (lambda text: "[]", "expected an object"),
        (lambda text: text.replace('"notes"', '"remarks"'), "remarks"),
    ],
)
def test_a_damaged_report_is_one_sentence(
    damage: Callable[[str], str], said: str, tmp_path: Path, refused: Refused
) -> None:
    text = json.dumps({**load(EXAMPLE)})
    text = text.replace(f'"lower_s": {load(EXAMPLE)["artifacts"][0]["lower_s"]}', '"lower_s": 6.1')
    bad = tmp_path / "bad.json"
    bad.write_text(damage(text), encoding="utf-8")
    assert damage(text) != text
    assert said in refused([str(EXAMPLE), str(bad)], 3)
    assert said in refused([str(bad)], 3)


def test_what_cannot_be_compared_is_refused(
    two_runs: tuple[Path, Path], real_run: Callable[[Head], Path], tmp_path: Path, refused: Refused
) -> None:
    real, embedding = str(two_runs[0]), str(real_run(Head.EMBEDDING))
    assert "different images" in refused([real, str(EXAMPLE)], 3)
    assert "of one head" in refused([real, embedding], 3)
    assert "no report at" in refused([real, str(tmp_path / "none.json")], 3)
    assert "no report.json in" in refused([real, str(tmp_path)], 3)
    assert "it is a workspace" in refused([real, str(two_runs[0].parent / "store")], 3)
    assert "--recipe is about a run" in refused([real, real, "--recipe", "fast"], 2)
    assert "two reports" in refused([real, "--check"], 2)
    assert "both want stdout" in refused([real, real, "--json", "--markdown", "-"], 2)


def test_a_folder_with_a_models_name_is_no_report(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lcnet_050").mkdir()
    assert not is_report("lcnet_050")
    assert is_report("./lcnet_050")
    assert is_report("a.json")
    with pytest.raises(InputError, match=r"no report\.json in"):
        read("lcnet_050")
