"""`cspedge run` on the built-in model: what it gives, what a second run does, what a killed one leaves."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cspedge.cli.app import app, call
from cspedge.digest import sha256_path
from cspedge.pipeline import RunOptions, Upto, execute
from cspedge.report import validate
from cspedge.store import Store

FAST = ("--target", "onnxruntime", "--target", "openvino", "--recipe", "fast")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One complete run of two targets, in a folder of its own."""
    folder = tmp_path_factory.mktemp("run")
    options = RunOptions(
        workspace=folder / "store", out=folder / "out", recipe="fast", targets=("onnxruntime", "openvino"), per_round=5
    )
    return options, execute(options)


def test_a_run_gives_what_the_design_promises(done: Any) -> None:
    options, outcome = done
    report = json.loads((options.out / "report.json").read_text(encoding="utf-8"))
    validate(report)
    assert outcome.exit_code == 0
    assert report["reference"]["n"] == report["validation"]["n"] == 450
    assert report["calibration"]["overlap_with_validation"] == 0
    rows = {f"{a['target']}/{a['precision']}": a for a in report["artifacts"]}
    assert set(rows) == {"onnxruntime/fp32", "onnxruntime/int8", "openvino/fp32", "openvino/int8"}
    for label, row in rows.items():
        assert row["status"] == "ok"
        assert row["evidence"] == "measured"
        path = options.out / row["path"]
        assert sha256_path(path) == row["sha256"]
        assert len(row["latency"]["samples_ms"]) >= 50
        assert row["accuracy"]["top1"] > 0.9
        assert row["accuracy"]["drop_ci95"][0] <= row["accuracy"]["drop_top1"] <= row["accuracy"]["drop_ci95"][1]
        if label.endswith("int8"):
            assert row["audit"]["encodings_match"] is True
            assert row["latency"]["speedup_vs_fp32"] > 0
    assert len(report["agreement"]) == 10  # five sets of logits: the reference's and four artifacts'


def test_the_manifest_holds_the_contract(done: Any) -> None:
    options, _ = done
    text = (options.out / "openvino" / "lcnet_050.digits.int8.manifest.json").read_text(encoding="utf-8")
    found = json.loads(text)
    assert found["input"]["range"] == [0.0, 1.0]
    assert found["input"]["shape"] == [1, 3, 64, 64]
    assert found["labels"] == [str(i) for i in range(10)]
    assert found["preprocess"]["resize"]["interpolation"] == "bilinear"
    assert found["file"]["sha256"] == sha256_path(options.out / "openvino" / found["file"]["name"])
    assert str(options.out) not in text


def test_a_second_run_does_no_work(done: Any) -> None:
    options, first = done
    before = {p: p.stat().st_mtime_ns for p in Path(options.workspace).rglob("*") if p.is_file()}
    again = execute(options)
    assert all(row.cached for row in again.stages)
    assert [row.name for row in again.stages] == [row.name for row in first.stages]
    assert {p: p.stat().st_mtime_ns for p in Path(options.workspace).rglob("*") if p.is_file()} == before
    assert again.report["artifacts"] == first.report["artifacts"]


def test_damage_is_noticed_and_only_that_stage_is_built_again(done: Any, tmp_path: Path) -> None:
    options, first = done
    store = Store(options.workspace)
    victim = next(e for e in store.ls() if e.stage == "lower")
    stored = store.get(victim.key)
    assert stored is not None
    file = next(stored.path.rglob("*.onnx"), None) or next(stored.path.rglob("*.bin"))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    again = execute(options)
    assert [row.cached for row in again.stages].count(False) == 1
    assert [a["sha256"] for a in again.report["artifacts"]] == [a["sha256"] for a in first.report["artifacts"]]
    assert list((options.workspace / "quarantine").iterdir())


def test_encodings_serve_every_target(done: Any) -> None:
    options, _ = done
    encodings = json.loads((options.out / "encodings.json").read_text(encoding="utf-8"))
    image = encodings["activations"]["input"]
    assert (image["scale"], image["zero_point"]) == (0.003921568859368563, -128)
    assert encodings["weights"]["conv_stem:conv2d"]["axis"] == 0


def test_a_missing_sdk_is_one_targets_matter(done: Any, monkeypatch: Any, capsys: Any, tmp_path: Path) -> None:
    """The real import machinery without OpenVINO: that target is unavailable, the rest goes on, exit code 4."""
    options, _ = done
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.chdir(tmp_path)
    args = ["run", "--workspace", str(options.workspace), "--out", str(tmp_path / "out"), *FAST, "--json"]
    assert call(app, args) == 4
    report = json.loads(capsys.readouterr().out)
    rows = {f"{a['target']}/{a['precision']}": a for a in report["artifacts"]}
    assert rows["openvino/int8"]["status"] == "unavailable"
    assert "cspedge[openvino]" in rows["openvino/int8"]["reason"]
    assert rows["onnxruntime/int8"]["status"] == "ok"


def test_budget_decides_the_exit_code(done: Any) -> None:
    from cspedge.config import Budget

    options, _ = done
    assert execute(replace(options, budget=Budget(max_mb=0.1)), Upto.EVALUATE).exit_code == 1
    assert execute(replace(options, budget=Budget(max_drop=1.0, min_agreement=0.0)), Upto.EVALUATE).exit_code == 0


@pytest.mark.parametrize("delay", [3.0, 6.0, 9.0, 12.0])
def test_killed_runs_continue_and_end_with_the_same_bytes(done: Any, delay: float, tmp_path: Path) -> None:
    options, first = done
    command = [sys.executable, "-m", "cspedge", "run", *FAST, "--workspace", "store", "--out", "out"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(delay)
    process.kill()
    process.wait()
    result = subprocess.run([*command, "--json"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert [a["sha256"] for a in report["artifacts"]] == [a["sha256"] for a in first.report["artifacts"]]
    for name in ("encodings.json", "openvino/lcnet_050.digits.int8.manifest.json"):
        assert (tmp_path / "out" / name).read_bytes() == (options.out / name).read_bytes()
    assert all(problem is None for _, problem in Store(tmp_path / "store").verify())
    Store(tmp_path / "store").gc()
    assert not list(tmp_path.rglob(".tmp-*"))
