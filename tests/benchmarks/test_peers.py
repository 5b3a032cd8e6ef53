"""`benchmarks/peers.py` on the built-in model: one peer, measured once, and its table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def peers(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / "peers.py"), "--references", "digits", "--images", "32"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run([*command, *arguments], cwd=folder, env=environment, capture_output=True, text=True)


def test_a_peer_is_measured_once(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    first = peers(tmp_path, "--only", "static", "--val-limit", "100")
    assert first.returncode == 0, first.stderr
    (row,) = map(json.loads, (tmp_path / "bench-out" / "peers.jsonl").read_text().splitlines())
    assert row["status"] == "ok", row
    assert row["n"] == 100
    assert row["agreement"] > 0.9
    assert 10 < row["sqnr_db"] < 60
    assert f"{row['sqnr_db']:.2f}" in first.stdout
    assert "100 validation images (a sample); 32 calibration images" in first.stdout
    again = peers(tmp_path, "--only", "static", "--val-limit", "100")
    assert (again.returncode, again.stdout) == (0, first.stdout)
    assert len((tmp_path / "bench-out" / "peers.jsonl").read_text().splitlines()) == 1


def test_an_unknown_flow_is_refused(tmp_path: Path) -> None:
    done = peers(tmp_path, "--only", "statik")
    assert done.returncode == 2
    assert "unknown flow 'statik'; known: nncf, " in done.stderr
