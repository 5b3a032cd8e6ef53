"""A command that is stopped in the middle of a device's work leaves nothing, here or there."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., dict[str, Any]]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def untimed(command: Command, lowered: Path) -> Path:
    """A workspace where everything is made but times."""
    command("validate", "--device", "local-process://")
    for found in list((lowered / "store").rglob("latency.json")):
        shutil.rmtree(found.parents[1])  # an object that is gone is made again
    return lowered / "store"


def _children(process: int) -> list[int]:
    """Processes that this one started, and those that they started, from Linux's /proc."""
    found = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        for child in map(int, task.read_text(encoding="ascii").split()):
            found += [child, *_children(child)]
    return found


@pytest.fixture
def bench(untimed: Path, tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Starts `cspedge bench` on a device, with `tmp_path / "tmp"` for temporary folders."""
    started: list[subprocess.Popen[str]] = []
    (tmp_path / "tmp").mkdir()

    def start(device: str) -> subprocess.Popen[str]:
        small = ["--target", "executorch", "--recipe", "fast", "--calib-images", "32", "--device", device]
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored, and that inherited, behind a shell's `&`
        command = [sys.executable, "-m", "cspedge", "bench", *small, "--out", str(tmp_path / "out")]
        started.append(
            subprocess.Popen(
                [*command, "--workspace", str(untimed)],
                env=os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path / "tmp")},
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


def _reached(process: subprocess.Popen[str], folder: Path, pattern: str) -> None:
    """Waits until an artifact is in the device's folder."""
    while not list(folder.glob(pattern)):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_command_leaves_nothing_here(
    bench: Callable[[str], subprocess.Popen[str]], tmp_path: Path, number: signal.Signals
) -> None:
    process = bench("local-process://")
    _reached(process, tmp_path / "tmp", "cspedge-device-*/artifact-*/manifest.json")
    children = _children(process.pid)
    process.send_signal(number)
    assert "cspedge: stopped; the same command continues where it stopped" in process.communicate(timeout=60)[1]
    assert process.returncode == 128 + number
    assert not list((tmp_path / "tmp").iterdir())
    assert not [child for child in children if Path(f"/proc/{child}").exists()]


def test_a_stopped_command_leaves_nothing_behind_ssh(
    bench: Callable[[str], subprocess.Popen[str]], sshd: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CSPEDGE_SSH_CONFIG", str(sshd.config))
    process = bench(f"ssh://{sshd.user}@127.0.0.1:{sshd.port}")
    _reached(process, sshd.home, ".cspedge-device-*/artifact-*/manifest.json")
    process.terminate()
    assert "cspedge: stopped; the same command continues where it stopped" in process.communicate(timeout=60)[1]
    assert process.returncode == 143
    assert not list(sshd.home.iterdir())
    assert not list((tmp_path / "tmp").iterdir())
