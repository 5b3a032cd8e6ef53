"""The commands on data, through the app: JSON on stdout and nothing else there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cspedge.cli.app import app, call


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: Any) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `cspedge quantize` ran with nothing but its name."""
    folder = tmp_path_factory.mktemp("workspace")
    command = [sys.executable, "-m", "cspedge", "quantize", "--int8"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def stdout_json(args: list[str], capsys: Any, code: int = 0) -> Any:
    assert call(app, args) == code
    out = capsys.readouterr().out
    return json.loads(out)


def test_help_names_every_command_of_the_design(capsys: Any) -> None:
    assert call(app, ["--help"]) == 0
    text = capsys.readouterr().out
    making = ("run", "quantize", "export", "validate", "bench", "report", "bundle", "keygen", "verify")
    for command in (*making, "train", "models", "targets", "doctor"):
        assert f"  {command} " in text


def test_targets_say_what_is_available(fresh: Path, capsys: Any) -> None:
    rows = {r["name"]: r for r in stdout_json(["targets", "--json"], capsys)}
    assert set(rows) == {"executorch", "coreml", "openvino", "onnxruntime"}
    assert rows["coreml"]["default"] == ["fp16", "int8"]
    assert all(r["available"] or "pip install cspedge[" in r["reason"] for r in rows.values())


def test_models_are_listed(fresh: Path, capsys: Any) -> None:
    rows = {r["name"]: r for r in stdout_json(["models", "--json"], capsys)}
    assert rows["lcnet_050.digits"]["weights"] == "built in"
    assert rows["fbnetv3_b.ra2_in1k"]["interpolation"] == "bilinear"
    assert rows["cspdarknet53.ra_in1k"]["input_size"] == [3, 256, 256]
    assert call(app, ["models", "nothing_like_this"]) == 2


def test_doctor_describes_this_machine(fresh: Path, capsys: Any) -> None:
    code = call(app, ["doctor", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert code == (0 if all(t["available"] for t in found["targets"]) else 4)
    assert found["environment"]["python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}")
    assert call(app, ["doctor"]) == code
    assert found["environment"]["cpu"] in capsys.readouterr().out


def test_quantize_needs_no_argument(workspace: Path) -> None:
    encodings = json.loads((workspace / "cspedge-out" / "encodings.json").read_text(encoding="utf-8"))
    assert encodings["activations"]["input"]["zero_point"] == -128


def test_quantize_explains_every_tensor_that_a_target_quantizes(workspace: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(workspace)
    found = stdout_json(["quantize", "--explain", "--target", "openvino", "--json"], capsys)
    rows = found["explain"]["openvino"]["rows"]
    encodings = json.loads((workspace / "cspedge-out" / "encodings.json").read_text(encoding="utf-8"))["activations"]
    assert rows
    assert all(row["scale"] == encodings[row["tensor"]]["scale"] for row in rows)
    assert {"explain/openvino.json", "explain/openvino.svg"} <= set(found["files"])
    assert (workspace / "cspedge-out" / "explain" / "openvino.svg").read_text(encoding="utf-8").startswith("<svg ")


def test_export_needs_no_argument_and_continues(workspace: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(workspace)
    found = stdout_json(["export", "--target", "coreml", "--precision", "int8", "--json"], capsys)
    (row,) = found["artifacts"]
    assert (row["status"], row["encodings_match"]) == ("ok", True)
    package = workspace / "cspedge-out" / row["path"]
    assert (package / "Manifest.json").is_file()
    manifest = json.loads(next(package.parent.glob("*.manifest.json")).read_text(encoding="utf-8"))
    assert manifest["file"]["sha256"] == row["sha256"]


def test_store_commands(workspace: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(workspace)
    entries = stdout_json(["store", "ls", "--json"], capsys)
    assert {"reference", "images", "quantize"} <= {e["stage"] for e in entries}
    assert all(v["problem"] is None for v in stdout_json(["store", "verify", "--json"], capsys))
    assert stdout_json(["store", "gc", "--dry-run", "--json"], capsys) == []


def test_a_later_command_takes_up_the_model_of_the_last(fresh: Path, capsys: Any) -> None:
    import shutil

    from cspedge._builtin import builtin_path
    from cspedge.data.digits import write_digits

    shutil.copytree(builtin_path(), fresh / "mine")
    write_digits(fresh / "photos")
    args = ["quantize", "local-dir:mine", "--calib", "photos/train", "--recipe", "fast"]
    assert call(app, args) == 0
    capsys.readouterr()
    args = ["export", "--target", "onnxruntime", "--precision", "int8", "--json"]
    assert call(app, args) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["model"] == "mine"
    assert "continuing with local-dir:" in err
    narrow = ["--target", "onnxruntime", "--precision", "int8", "--json"]
    report = stdout_json(["validate", *narrow, "--val", "photos/val"], capsys)
    assert report["model"]["name"] == "mine"
    assert report["validation"]["n"] == 450
    again = stdout_json(["validate", *narrow], capsys)
    assert again["artifacts"] == report["artifacts"]
    assert all(stage["cached"] for stage in again["stages"])


def test_progress_goes_to_stderr(workspace: Path) -> None:
    command = [sys.executable, "-m", "cspedge", "quantize", "--json"]
    done = subprocess.run(command, cwd=workspace, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["weights"] == 33
    assert "unchanged, taken from the store" in done.stderr
