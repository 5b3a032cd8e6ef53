"""What a user gets wrong: one sentence, the right exit code, and nothing half-written."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from cspedge._builtin import builtin_path
from cspedge.cli.app import app, call
from cspedge.data.digits import write_digits


@pytest.fixture(scope="module")
def digit_folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in digits as the user's own folders `train` and `val`."""
    folder = tmp_path_factory.mktemp("digits")
    write_digits(folder)
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of the built-in model that a test may damage."""
    return Path(shutil.copytree(builtin_path(), tmp_path / "lcnet_050.digits", ignore=shutil.ignore_patterns("*.py")))


def refused(args: list[str], code: int, words: str, capsys: Any, folder: Path) -> str:
    """Runs the command in `folder`; checks the exit code, one sentence on stderr, nothing on stdout, no leftovers."""
    before = {p for p in folder.rglob("*") if ".cspedge" not in p.parts}
    found = call(app, args)
    out, err = capsys.readouterr()
    assert found == code, err
    lines = [line for line in err.splitlines() if line.startswith("cspedge: ")]
    assert len(lines) == 1, err
    assert words in lines[0]
    assert "Traceback" not in err
    assert out == ""
    assert {p for p in folder.rglob("*") if ".cspedge" not in p.parts} == before, "something was left behind"
    assert not list(folder.rglob(".tmp-*")), "a temporary file was left behind"
    return lines[0]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["run", "lcnet_050x"], "unknown model 'lcnet_050x'; known: lcnet_050"),
        (["run", "lcnet_050.nosuch"], "unknown tag in 'lcnet_050.nosuch'; timm knows lcnet_050.ra2_in1k"),
        (["run", "qqqq"], "unknown model 'qqqq'; known: "),
        (["export", "--target", "tflite"], "unknown target 'tflite'; known: coreml, executorch, onnxruntime, openvino"),
        (["run", "--precision", "int4"], "unknown precision 'int4'; known: fp16, fp32, int8"),
        (
            ["export", "--target", "onnxruntime", "--precision", "fp16"],
            "cannot be lowered to 'fp16'; it offers fp32, int8",
        ),
        (["quantize", "--recipe", "best"], "unknown recipe 'best'; known: accurate, default, fast, qat"),
        (["export", "--head", "boxes"], "unknown head 'boxes'; known: embedding, features, logits"),
        (["run", "lcnet_050.ra2_in1k"], "needs calibration images: give --calib DIR"),
        (["run", "--weights", "x.pth"], "--weights needs MODEL"),
        (["run", "--config", "none.toml"], "'none.toml' does not exist"),
    ],
)
def test_usage_errors(args: list[str], words: str, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    refused(args, 2, words, capsys, tmp_path)


def test_unknown_key_in_the_configuration(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cspedge.toml").write_text("treads = 2\n", encoding="utf-8")
    refused(["run"], 2, "unknown key 'treads' in cspedge.toml; valid keys: allow_overlap", capsys, tmp_path)


def test_missing_and_empty_folders(model: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("no image", encoding="utf-8")
    name = f"local-dir:{model}"
    refused(["quantize", name, "--calib", "nowhere"], 3, "no such folder: 'nowhere'", capsys, tmp_path)
    refused(["quantize", name, "--calib", "empty"], 3, "no images in 'empty'", capsys, tmp_path)
    refused(["quantize", name, "--calib", "texts"], 3, "no images in 'texts' (only 1 other files)", capsys, tmp_path)


def test_fewer_images_than_asked_for(
    model: Path, digit_folders: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    args = ["quantize", f"local-dir:{model}", "--calib", str(digit_folders / "val"), "--calib-images", "100000"]
    refused(args, 3, "100000 images are asked for", capsys, tmp_path)


def test_shared_images_are_an_error_unless_allowed(
    model: Path, digit_folders: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    val = str(digit_folders / "val")
    args = ["validate", f"local-dir:{model}", "--calib", val, "--val", val, "--calib-images", "20"]
    refused(args, 3, "share 20 images by content", capsys, tmp_path)
    fast = ["--target", "onnxruntime", "--recipe", "fast", "--allow-overlap", "--json"]
    assert call(app, args + fast) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["calibration"]["overlap_with_validation"] == 20
    assert any("share 20 images" in note for note in report["notes"])


def test_labels_the_model_does_not_have(
    model: Path, digit_folders: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    val = tmp_path / "val"
    shutil.copytree(digit_folders / "val" / "3", val / "three")
    args = ["validate", f"local-dir:{model}", "--calib", str(digit_folders / "train"), "--val", str(val)]
    refused(args, 3, "no class of the model: 'three'", capsys, tmp_path)


def test_unreadable_images_are_counted_and_named(
    model: Path, digit_folders: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    photos = tmp_path / "photos"
    shutil.copytree(digit_folders / "train" / "1", photos)
    good = sorted(photos.glob("*.png"))
    (photos / "zero.png").write_bytes(b"")
    (photos / "cut.png").write_bytes(good[0].read_bytes()[:40])
    count = len(good) + 2
    args = ["quantize", f"local-dir:{model}", "--calib", "photos", "--calib-images", str(count)]
    line = refused(args, 3, "cannot be used", capsys, tmp_path)
    assert "zero.png" in line
    assert "cut.png" in line
    assert call(app, [*args, "--max-unreadable", "0.1", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["calibration"]["n"] == len(good)
    assert "2 of" in err, "images that were left out must be said"


def test_odd_but_readable_images_are_converted(model: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    photos = tmp_path / "photos"
    photos.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 4), dtype=np.uint8)
    Image.fromarray(pixels, "RGBA").save(photos / "alpha.png")
    Image.fromarray(pixels, "CMYK").save(photos / "cmyk.jpg")
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 256).save(photos / "deep.png")
    frames = [Image.fromarray(pixels[..., i]) for i in range(3)]
    frames[0].save(photos / "moving.gif", save_all=True, append_images=frames[1:])
    assert call(app, ["quantize", f"local-dir:{model}", "--calib", "photos", "--calib-images", "4", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["calibration"]["n"] == 4
    assert "deep.png" in err, "16-bit images lose depth: that must be said"


def damaged(model: Path, kind: str) -> str:
    file = model / "model.safetensors"
    if kind == "truncated":
        file.write_bytes(file.read_bytes()[:-1000])
        return "cannot be read as tensors"
    if kind == "nan":
        state = load_file(file)
        state["classifier.weight"][3, 7] = float("nan")
        save_file(state, file)
        return "NaN or infinite values in classifier.weight"
    if kind == "sibling":
        import timm

        save_file(timm.create_model("lcnet_075", num_classes=10).state_dict(), file)
        return "does not fit lcnet_050"
    if kind == "classes":
        import timm

        save_file(timm.create_model("lcnet_050", num_classes=7).state_dict(), file)
        return "classifier.weight is [7, 1280], not [10, 1280]"
    if kind == "labels":
        config = json.loads((model / "config.json").read_text(encoding="utf-8"))
        config["label_names"] = config["label_names"][:-1]
        (model / "config.json").write_text(json.dumps(config), encoding="utf-8")
        return "names 9 labels but the model has 10 classes"
    assert kind == "config"
    (model / "config.json").write_text("{", encoding="utf-8")
    return "not readable JSON"


@pytest.mark.parametrize("kind", ["truncated", "nan", "sibling", "classes", "labels", "config"])
def test_damaged_models(kind: str, model: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    words = damaged(model, kind)
    args = ["export", f"local-dir:{model}", "--target", "onnxruntime", "--precision", "fp32"]
    refused(args, 3, words, capsys, tmp_path)


class Bomb:
    """A pickle that would create a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_a_pickle_that_would_execute_code(model: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    executed = tmp_path / "executed"
    evil = tmp_path / "evil.pth"
    evil.write_bytes(pickle.dumps({"state_dict": Bomb(executed)}))
    args = ["export", f"local-dir:{model}", "--weights", str(evil), "--target", "onnxruntime", "--precision", "fp32"]
    refused(args, 3, "cannot be read as tensors", capsys, tmp_path)
    assert not executed.exists()


def test_output_that_cannot_be_written(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    refused(["quantize", "--workspace", "file", "--recipe", "fast"], 2, "'file", capsys, tmp_path)
    refused(["quantize", "--out", "file", "--recipe", "fast"], 2, "'file'", capsys, tmp_path)


@pytest.mark.parametrize(
    ("mount", "words"),
    [("-t tmpfs -o size=256k tmpfs store", "full"), ("-t tmpfs -o ro,size=256k tmpfs store", "read-only")],
    ids=["full-disk", "read-only"],
)
def test_a_disk_that_takes_nothing(mount: str, words: str, tmp_path: Path) -> None:
    """A real tiny and a real read-only file system, in a mount namespace of the command's own."""
    (tmp_path / "store").mkdir()
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("mounting is not permitted here")
    command = f"mount {mount} && {sys.executable} -m cspedge quantize --workspace store --recipe fast; code=$?; "
    command += "find store -name '.tmp-*' | sed 's/^/LEFT /'; exit $code"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("cspedge: ")]
    assert len(lines) == 1
    assert words in lines[0]
    assert "LEFT" not in done.stdout
    assert not (tmp_path / "cspedge-out").exists()
