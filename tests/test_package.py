"""The wheel, the README's example, the import rules."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_the_readmes_example_runs(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 1
    done = subprocess.run(
        [sys.executable, "-c", blocks[0]], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "cspedge-out" / "report.html").stat().st_size > 10_000
    assert "openvino/int8" in done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return next(out.glob("*.whl"))


def test_the_wheel_carries_its_data_and_types(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "cspedge/py.typed" in names
    assert "cspedge/_data/targets/coreml/target.toml" in names
    targets = subprocess.run(["git", "ls-files", "targets"], cwd=ROOT, capture_output=True, text=True, check=True)
    folder = "cspedge/_data/targets/"
    assert {f"cspedge/_data/{n}" for n in targets.stdout.split()} == {n for n in names if n.startswith(folder)}
    assert "cspedge/_data/calib/default.toml" in names
    assert "cspedge/_data/bundle.schema.json" in names
    assert "cspedge/bundle/apps/loader.py" in names
    assert "cspedge/devices/count_plugin.c" in names
    listed = subprocess.run(["git", "ls-files", "apps"], cwd=ROOT, capture_output=True, text=True, check=True)
    carried = {n.removeprefix("cspedge/_data/") for n in names if n.startswith("cspedge/_data/apps/")}
    # what is for this repository alone
    assert set(listed.stdout.split()) - carried == {"apps/README.md", "apps/android/kotlin-requirements.txt"}
    assert carried < set(listed.stdout.split())
    assert "cspedge/report/templates/report.html.j2" in names
    assert "cspedge/_builtin/lcnet_050.digits/model.safetensors" in names
    assert not [n for n in names if n.startswith(("tests/", "docs/"))]


def test_the_wheel_works_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    """A clean environment holds this wheel and nothing else; the 6 GB of dependencies are read from this one."""
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    install = ["-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", "--quiet", str(wheel)]
    done = subprocess.run([sys.executable, *install], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    site = next((tmp_path / "env" / "lib").glob("python3*")) / "site-packages"
    # a plain path line: .pth files over there (the checkout's own editable install) are not followed
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8")
    work = tmp_path / "work"
    work.mkdir()
    where = subprocess.run(
        [str(python), "-c", "import cspedge; print(cspedge.__file__)"],
        cwd=work,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert str(tmp_path) in where
    command = [str(site.parents[2] / "bin" / "cspedge"), "export", "--target", "onnxruntime", "--recipe", "fast"]
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    assert (work / "cspedge-out" / "onnxruntime" / "lcnet_050.digits.int8.onnx").is_file()


def test_heavy_libraries_are_imported_when_used() -> None:
    code = "import sys, cspedge, cspedge.cli.app, cspedge.pipeline; print(' '.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"torch", "timm", "numpy", "openvino", "onnxruntime", "coremltools", "executorch", "matplotlib", "sklearn"}
    assert not heavy & set(loaded)


def test_no_machine_path_or_host_is_committed() -> None:
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    home = str(ROOT) + "/"
    for name in names:
        data = (ROOT / name).read_bytes()
        assert home.encode() not in data, name
