"""`cspedge bundle`: what is in it, that it is the same every time, and what is refused before any work."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cspedge.bundle import golden
from cspedge.bundle.apps import APPS
from cspedge.bundle.manifest import validate
from cspedge.bundle.write import Bundled
from cspedge.cli.app import app, call
from cspedge.data.images import scan
from cspedge.digest import sha256_bytes, sha256_path
from cspedge.models.preprocess import transform
from cspedge.types import Precision, Preprocess

ROOT = Path(__file__).resolve().parents[2]


def test_the_manifest_says_what_the_report_says(made: Bundled) -> None:
    manifest = json.loads((made.path / "manifest.json").read_text(encoding="utf-8"))
    validate(manifest)
    report = json.loads((made.path.parent / "report.json").read_text(encoding="utf-8"))
    rows = {(row["target"], row["precision"]): row for row in report["artifacts"]}
    assert manifest["reference"]["top1"] == report["reference"]["top1"]
    assert manifest["calibration"]["sha256"] == report["calibration"]["sha256"]
    assert {a["precision"] for a in manifest["artifacts"]} == {"int8"}
    for artifact in manifest["artifacts"]:
        row = rows[artifact["target"], artifact["precision"]]
        assert artifact["evidence"]["accuracy"] == row["accuracy"]
        assert artifact["evidence"]["verdict"] == row["verdict"]
        assert artifact["evidence"]["latency"] is None
        assert sha256_path(made.path / artifact["path"]) == artifact["sha256"] == row["sha256"]
    encodings = (made.path.parent / "encodings.json").read_bytes()
    assert manifest["encodings_sha256"] == sha256_bytes(encodings)
    assert (made.path / "labels.txt").read_text(encoding="utf-8") == "".join(f"{i}\n" for i in range(10))
    assert all(not file.is_symlink() for file in made.path.rglob("*"))


def test_what_each_part_takes_and_buys(made: Bundled) -> None:
    sizes = {part.name: part for part in made.sizes}
    assert sum(part.bytes for part in made.sizes) == sum(made.files.values())
    rows = json.loads((made.path.parent / "report.json").read_text(encoding="utf-8"))["artifacts"]
    for artifact in made.manifest["artifacts"]:
        part = sizes[f"{artifact['target']}/int8"]
        (row,) = [r for r in rows if (r["target"], r["precision"]) == (artifact["target"], "fp32")]
        assert part.bytes == artifact["bytes"]
        assert f"top-1 {artifact['evidence']['accuracy']['top1']:.2%}" in part.buys
        assert f"{row['bytes'] / part.bytes:.1f} times smaller" in part.buys
    golden = sum(size for name, size in made.files.items() if name.startswith("golden/"))
    assert sizes["golden/"].bytes == golden
    assert sizes["golden/"].buys.startswith("8 images")
    assert sizes["run.py"].buys == "what runs it: --app python"
    assert "what runs it" not in sizes["bom.cdx.json"].buys


def test_golden_holds_real_images_and_the_reference(made: Bundled) -> None:
    images = made.manifest["golden"]["images"]
    assert len(images) == 8
    assert len({image["label"] for image in images}) == 8  # the classes take turns
    logits = np.fromfile(made.path / "golden/reference.logits.f32", "<f4").reshape(8, 10)
    assert list(logits.argmax(1)) == [image["label"] for image in images]
    for image in images:
        assert image["encoding"] == "original"
        assert sha256_bytes((made.path / image["file"]).read_bytes()) == image["source_sha256"]
        rgb = np.asarray(Image.open(made.path / image["file"]).convert("RGB"))
        assert rgb.tobytes() == (made.path / image["rgb"]).read_bytes()
    for artifact in made.manifest["artifacts"]:
        (entry,) = artifact["golden"]
        found = np.fromfile(made.path / entry["file"], "<f4").reshape(8, 10)
        assert 0 < np.abs(found - logits).max() <= entry["max_abs"]


def test_the_bill_of_materials_is_cyclonedx_with_a_model_card(made: Bundled) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = (made.path / "bom.cdx.json").read_text(encoding="utf-8")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bom = json.loads(text)
    model = bom["metadata"]["component"]
    card = model["modelCard"]
    assert model["pedigree"]["ancestors"][0]["hashes"][0]["content"] == made.manifest["model"]["weights_sha256"]
    metrics = {(m["type"], m["slice"]): m for m in card["quantitativeAnalysis"]["performanceMetrics"]}
    top1 = metrics["top1", "openvino/int8, n = 450"]
    accuracy = made.manifest["artifacts"][1]["evidence"]["accuracy"]
    assert float(top1["value"]) == pytest.approx(accuracy["top1"], abs=1e-6)
    interval = {key: float(value) for key, value in top1["confidenceInterval"].items()}
    assert interval["lowerBound"] < accuracy["top1"] < interval["upperBound"]
    assert card["considerations"]["useCases"] == ["unknown"]
    assert {c["bom-ref"] for c in bom["components"]} >= {"runtime:openvino", "artifact:onnxruntime/int8"}
    assert "timestamp" not in bom["metadata"]


def test_the_same_bytes_from_nothing_in_another_folder(made: Bundled, keys: tuple[Path, Path], tmp_path: Path) -> None:
    args = ["--recipe", "fast", "--calib-images", "32", "--app", "python", "--no-latency", "--zip"]
    args += ["--bundle-version", "1.2.3", "--min-version", "1.0.0", "--sign", str(keys[0])]
    args += ["--workspace", "elsewhere", "--out", "here"]
    env = os.environ | {"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}
    command = [sys.executable, "-m", "cspedge", "bundle", *args]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    again = tmp_path / "here" / made.path.name
    names = sorted(p.relative_to(again).as_posix() for p in again.rglob("*") if p.is_file())
    assert names == sorted(made.files)
    assert [n for n in names if (again / n).read_bytes() != (made.path / n).read_bytes()] == []
    assert made.zip is not None
    assert (tmp_path / "here" / made.zip.name).read_bytes() == made.zip.read_bytes()
    sizes = {m[2]: int(m[1].replace(",", "")) for m in re.finditer(r"^ *([\d,]+) +(\S+) ", done.stdout, re.MULTILINE)}
    assert sizes == {part.name: part.bytes for part in made.sizes} | {"in": sum(made.files.values())}


def test_a_version_that_exists_is_never_replaced(made: Bundled, keys: tuple[Path, Path], capsys: Any) -> None:
    root = made.path.parent.parent
    again = ["bundle", "--recipe", "fast", "--calib-images", "32", "--target", "onnxruntime", "--target", "openvino"]
    again += ["--workspace", str(root / "store"), "--out", str(root / "out"), "--bundle-version", "1.2.3"]
    assert call(app, [*again, "--no-latency", "--app", "plain"]) == 2
    assert "exists with other content; give a higher --bundle-version" in capsys.readouterr().err
    assert sorted(p.name for p in made.path.parent.glob(".tmp-*")) == []
    assert call(app, [*again, "--no-latency", "--app", "python", "--min-version", "1.0.0", "--sign", str(keys[0])]) == 0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--app", "watch"], f"unknown app 'watch'; known: {', '.join(sorted(APPS))}"),
        (["--delivery", "post"], "unknown delivery 'post' for --app plain; known: inside it, so leave --delivery away"),
        (["--app", "python", "--target", "coreml"], "--app python cannot load target 'coreml'; it loads onnxruntime"),
        (["--bundle-version", "1.0"], "the version is '1.0'; give MAJOR.MINOR.PATCH"),
        (["--min-version", "2.0.0"], "the minimum version 2.0.0 is above the version 1.0.0"),
        (["--license", "do what you like"], "is no SPDX identifier; give one of https://spdx.org/licenses"),
        (["--sign", "none.pem"], "'none.pem' is no usable key"),
    ],
)
def test_an_option_that_cannot_be_honoured(
    args: list[str], message: str, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(app, ["bundle", *args]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.split("cspedge: ")[1].splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_photographs_keep_no_place_and_no_camera(tmp_path: Path, caltech: Path) -> None:
    preprocess = Preprocess(
        input_size=(3, 64, 64),
        crop_pct=0.875,
        crop_mode="center",
        interpolation="bicubic",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )
    photos = sorted((caltech / "val").rglob("*.jpg"))[:5]
    plain = Image.open(photos[0]).convert("RGB")
    exif = Image.Exif()
    exif[271] = "a camera's maker"
    plain.save(tmp_path / "maker.jpg", exif=exif)
    plain.save(tmp_path / "picture.webp", lossless=True)
    plain.resize((1400, 900)).save(tmp_path / "large.jpg")
    plain.save(tmp_path / "plain.png")
    found = {i.name: i for i in golden.choose(scan(tmp_path), None, preprocess, 4)}
    assert {name: (i.encoding, i.reason) for name, i in found.items()} == {
        "maker.jpg": ("png", "metadata"),
        "picture.webp": ("png", "format"),
        "large.jpg": ("png-crop", "size"),
        "plain.png": ("original", None),
    }
    assert found["large.jpg"].rgb.shape == (900, 1024, 3)
    assert b"a camera" not in found["maker.jpg"].file
    for image in found.values():
        np.testing.assert_array_equal(image.tensor, transform(preprocess)(Image.fromarray(image.rgb)))
        if image.suffix == ".png":
            np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(image.file))), image.rgb)


def test_the_tolerance_covers_what_quantization_does() -> None:
    reference = np.array([[10.0, -2.0]], np.float32)
    near, far = reference + np.float32(0.01), reference + np.float32(0.5)
    assert golden.tolerance(Precision.FP32, reference, near) == pytest.approx(0.01, rel=1e-3)
    assert golden.tolerance(Precision.INT8, reference, near) == pytest.approx(0.2, rel=1e-3)
    assert golden.tolerance(Precision.INT8, reference, far) >= 0.5


def test_the_documents_name_every_kind() -> None:
    from cspedge.bundle.refusal import Kind

    text = (ROOT / "docs" / "bundle.md").read_text(encoding="utf-8")
    assert [kind for kind in Kind if f"`{kind}`" not in text] == []
