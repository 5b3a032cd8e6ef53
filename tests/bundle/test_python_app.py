"""`--app python`: the unpacked bundle runs by itself, where cspedge cannot be imported."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from cspedge.bundle.write import Bundled

# Isolated from PYTHONPATH and the user's packages; importing cspedge or torch is an error there.
ALONE = (
    "import runpy, sys; sys.modules.update(cspedge=None, torch=None, timm=None); "
    "sys.argv[:] = ['run.py', *sys.argv[1:]]; runpy.run_path('run.py', run_name='__main__')"
)


def run(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-c", ALONE, *args]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def unpacked(made: Bundled, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(str(made.zip)) as archive:
        archive.extractall(folder)
    return folder / made.path.name


def test_it_reproduces_golden_on_both_runtimes(unpacked: Path) -> None:
    done = run(unpacked, "--self-test")
    assert done.returncode == 0, done.stderr
    assert [line.split(":")[1].split(",")[0] for line in done.stdout.splitlines()] == [" 8 images"] * 2


def test_it_names_what_it_sees(unpacked: Path, made: Bundled) -> None:
    image = made.manifest["golden"]["images"][0]
    done = run(unpacked, image["file"])
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows[0][1] == str(image["label"])
    assert [float(row[0]) for row in rows] == sorted((float(row[0]) for row in rows), reverse=True)


@pytest.mark.parametrize(
    ("size", "says"),
    [
        ((10_000, 10_000), "the image is 10000 x 10000 pixels; 1 to 89,478,485"),
        ((400_000, 1), "the image would be resized to"),
    ],
)
def test_images_that_are_too_large(unpacked: Path, tmp_path: Path, size: tuple[int, int], says: str) -> None:
    Image.new("1", size).save(tmp_path / "large.png")
    done = run(unpacked, str(tmp_path / "large.png"))
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith(says)


def test_it_loads_nothing_that_was_changed(unpacked: Path, made: Bundled, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(unpacked, copy)
    artifact = copy / made.manifest["artifacts"][0]["files"][0]
    data = bytearray(artifact.read_bytes())
    data[len(data) // 2] ^= 1
    artifact.write_bytes(data)
    done = run(copy, "--self-test")
    assert done.returncode == 1
    assert "was changed; take the bundle again" in done.stderr
