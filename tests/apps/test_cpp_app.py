"""`--app cpp`: the unpacked bundle builds with CMake and runs, with nothing of cspedge's but what is in it."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cspedge.bundle.write import Bundled, BundleOptions, bundle
from cspedge.options import RunOptions, Silent


@dataclass(frozen=True, kw_only=True)
class Runner:
    """The program that was built from the unpacked bundle in `folder`."""

    folder: Path
    program: Path
    made: Bundled

    def __call__(self, *args: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        command = [str(self.program), str(folder or self.folder), *args]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", timeout=120)


@pytest.fixture(scope="module")
def runner(toolchains: Any, tmp_path_factory: pytest.TempPathFactory) -> Runner:
    toolchains.require_cpp()
    cmake = Path(sys.executable).with_name("cmake")
    root = tmp_path_factory.mktemp("cpp")
    run = RunOptions(
        workspace=root / "store",
        out=root / "out",
        recipe="fast",
        calib_images=32,
        targets=("executorch", "openvino"),
    )
    made = bundle(run, BundleOptions(app="cpp", latency=False, zip=True), Silent())
    with zipfile.ZipFile(str(made.zip)) as archive:
        archive.extractall(root)
    folder, build = root / made.path.name, root / "build"
    site = Path(str(importlib.metadata.distribution("executorch").locate_file("")))
    found = ";".join(str(site / name) for name in ("executorch", "openvino"))
    for command in (
        [str(cmake), "-S", str(folder / "cpp"), "-B", str(build), f"-DCMAKE_PREFIX_PATH={found}"],
        [str(cmake), "--build", str(build)],
    ):
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=root, env={"PATH": "/usr/bin:/bin"}
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "warning" not in done.stderr, done.stderr
    return Runner(folder=folder, program=build / "cspedge-runner", made=made)


def test_ctest_replays_golden(runner: Runner) -> None:
    ctest = str(Path(sys.executable).with_name("ctest"))
    command = [ctest, "--test-dir", str(runner.program.parent), "--verbose"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    for label in ("executorch/int8", "openvino/int8"):
        assert f"{label}: 8 images, " in done.stdout


def test_its_requirements_are_the_versions_that_answered(runner: Runner) -> None:
    lines = (runner.folder / "cpp" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert lines == [f"{name}=={importlib.metadata.version(name)}" for name in ("executorch", "openvino")]


def test_an_image_is_named_as_in_golden(runner: Runner, tmp_path: Path) -> None:
    for image in runner.made.manifest["golden"]["images"][:3]:
        with Image.open(runner.folder / image["file"]) as opened:
            opened.convert("RGB").save(tmp_path / "image.ppm")
        done = runner("--image", str(tmp_path / "image.ppm"), "--artifact", "executorch/int8", "--top", "3")
        assert done.returncode == 0, done.stderr
        rows = [line.split() for line in done.stdout.splitlines()]
        assert rows[0][1] == str(image["label"])
        assert len(rows) == 3
        assert float(rows[0][0]) > 0.5 > float(rows[1][0])


@pytest.mark.parametrize("target", ["executorch", "openvino"])
def test_times_and_outputs_of_given_tensors(runner: Runner, target: str, tmp_path: Path) -> None:
    """The outputs are those of the same runtime under Python, which golden/ holds."""
    images = runner.made.manifest["golden"]["images"][2:5]
    (tmp_path / "tensors").write_bytes(b"".join((runner.folder / image["tensor"]).read_bytes() for image in images))
    told = ["--tensors", str(tmp_path / "tensors"), "--outputs", str(tmp_path / "outputs"), "--rounds", "4"]
    done = runner("--bench", "--artifact", f"{target}/int8", *told)
    assert done.returncode == 0, done.stderr
    (entry,) = [a for a in runner.made.manifest["artifacts"] if a["target"] == target]
    line = json.loads(done.stdout)
    assert line["sha256"] == entry["sha256"]
    assert line["runtime"]["version"].startswith(entry["runtime"]["version"])
    assert (line["images"], line["threads"]) == (3, 1)
    assert len(line["samples_ms"]) == 4
    assert min(line["samples_ms"]) > 0
    golden = np.fromfile(runner.folder / entry["golden"][0]["file"], "<f4").reshape(8, 10)[2:5]
    found = np.fromfile(tmp_path / "outputs", "<f4").reshape(3, 10)
    np.testing.assert_allclose(found, golden, rtol=0, atol=entry["golden"][0]["max_abs"])


@pytest.mark.parametrize(
    "name", ["artifacts/executorch/lcnet_050.digits.int8.pte", "golden/03.rgb", "golden/03.tensor"]
)
def test_it_loads_nothing_that_was_changed(runner: Runner, name: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(runner.folder, copy)
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    done = runner(folder=copy)
    assert (done.returncode, done.stderr) == (3, f"error: {name} was changed; take the bundle again\n")


def test_answers_that_are_off_are_refused(runner: Runner, tmp_path: Path) -> None:
    """Golden answers of another image, with the digest to go with them."""
    import hashlib

    copy = tmp_path / "copy"
    shutil.copytree(runner.folder, copy)
    manifest = json.loads((copy / "manifest.json").read_text(encoding="utf-8"))
    path = manifest["artifacts"][0]["golden"][0]["file"]
    answers = np.roll(np.fromfile(copy / path, "<f4").reshape(8, 10), 1, axis=0).tobytes()
    (copy / path).write_bytes(answers)
    (entry,) = [file for file in manifest["files"] if file["path"] == path]
    entry["sha256"] = hashlib.sha256(answers).hexdigest()
    (copy / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    done = runner(folder=copy)
    assert done.returncode == 1
    assert "executorch/int8 does not reproduce golden/" in done.stderr


@pytest.mark.parametrize(
    ("args", "code", "sentence"),
    [
        (["--nope"], 2, "unknown option '--nope'; known: --image"),
        (["--bench", "--threads", "0"], 2, "--threads is '0'; it is a number from 1 to 999999"),
        (["--artifact", "openvino/fp32"], 2, "unknown artifact 'openvino/fp32'; known: executorch/int8, openvino/int8"),
        (["--image", "/does/not/exist.ppm"], 3, "/does/not/exist.ppm cannot be read"),
        (["--bench", "--tensors", "{folder}/labels.txt"], 3, "labels.txt has 20 bytes; an image has 12288"),
        (["--image", "{folder}/golden/00.png"], 3, "is no binary PPM of 8 bits (it does not begin with P6)"),
        (["--bench", "--outputs", "x"], 2, "--outputs is for one artifact; name it with --artifact"),
    ],
)
def test_what_it_refuses(runner: Runner, args: list[str], code: int, sentence: str) -> None:
    done = runner(*(arg.format(folder=runner.folder) for arg in args))
    assert done.returncode == code
    assert done.stdout == ""
    assert sentence in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"P6 0 4 255\n", "0 x 4 pixels; both sides must be 1 or more"),
        (b"P6 2 2 65535\n" + bytes(24), "its largest value is not 255"),
        (b"P6\n# a comment\n2 2\n255\n" + bytes(11), "its pixels end early"),
        (b"P6 99999999999999999999 1 255\n", "names a size above"),
        (b"P6", "its header ends early"),
    ],
)
def test_damaged_images(runner: Runner, content: bytes, why: str, tmp_path: Path) -> None:
    (tmp_path / "image.ppm").write_bytes(content)
    done = runner("--image", str(tmp_path / "image.ppm"))
    assert done.returncode == 3
    assert why in done.stderr


def test_other_processors_are_compared(runner: Runner, tmp_path: Path) -> None:
    """`benchmarks/other_cpus.py`: x86 without VNNI, emulated; its last column is the bundle's own self-test there."""
    if shutil.which("qemu-x86_64") is None:
        pytest.skip("other processors are emulated (apt-get install qemu-user)")
    for image in runner.made.manifest["golden"]["images"]:
        source = runner.folder / image["file"]
        (tmp_path / "val" / str(image["label"])).mkdir(parents=True)
        shutil.copy(source, tmp_path / "val" / str(image["label"]) / source.name)
    program = Path(__file__).resolve().parents[2] / "benchmarks" / "other_cpus.py"
    where = [str(runner.folder), str(tmp_path / "val"), "--work", str(tmp_path / "work")]
    command = [sys.executable, str(program), *where, "--cpus", "Haswell"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines()]
    assert head[2] == "same top-1 as here (n = 8)"
    found = {row[0]: dict(zip(head[2:], row[2:], strict=True)) for row in rows}
    assert found.keys() == {"executorch/int8", "openvino/int8"}
    # XNNPACK multiplies in int16 and is exact without VNNI; OpenVINO's products may saturate there
    assert found["executorch/int8"]["same top-1 as here (n = 8)"] == "100.00%"
    assert 0 <= float(found["executorch/int8"]["golden/, in tolerances"]) <= 1
    assert 0 < float(found["openvino/int8"]["golden/, in tolerances"]) < 100
