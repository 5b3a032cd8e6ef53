"""`cspedge bench` on this host: a fresh, pinned process for each artifact and round, its noise check, and a sweep."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from cspedge.cli import options as opt
from cspedge.cli.app import app, call
from cspedge.devices import fresh, pinning
from cspedge.devices.rounds import Plan
from cspedge.digest import sha256_bytes
from cspedge.errors import TargetError, UsageError
from cspedge.evaluate.timing import BenchProtocol
from cspedge.measured import Latency
from cspedge.options import Silent
from cspedge.pipeline import Outcome, RunOptions, execute
from cspedge.types import Precision

PIXELS = np.zeros((1, 3, 64, 64), dtype=np.uint8)


class Notes(Silent):
    """What a run tells the user besides its report."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture(scope="module")
def notes() -> Notes:
    return Notes()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, notes: Notes) -> Outcome:
    """The built-in model for ONNX Runtime, timed in fresh processes."""
    folder = tmp_path_factory.mktemp("fresh")
    options = RunOptions(
        workspace=folder / "store",
        out=folder / "out",
        targets=("onnxruntime",),
        recipe="fast",
        calib_images=32,
        rounds=5,
        protocol=BenchProtocol.FRESH_PROCESS,
    )
    return execute(options, ui=notes)


@pytest.fixture
def job(made: Outcome, tmp_path: Path) -> fresh.Job:
    artifact = made.results[0].artifact
    assert artifact is not None
    (tmp_path / "inputs.u8").write_bytes(PIXELS.tobytes())
    return fresh.Job.of(artifact, tmp_path / "inputs.u8", PIXELS.shape[1:], threads=1, count=12)


def test_what_the_report_says_of_fresh_processes(made: Outcome, notes: Notes) -> None:
    assert made.report is not None
    for row in made.report["artifacts"]:
        latency = row["latency"]
        assert latency["protocol"] == "fresh-process"
        assert len(latency["samples_ms"]) == 50
        assert len(latency["warmup_ms"]) == 5
        cold = latency["cold"]
        assert len(cold["load_samples_ms"]) == len(cold["first_samples_ms"]) == 5
        assert latency["load_ms"] == np.median(cold["load_samples_ms"])
        assert cold["total_ci95"][0] <= cold["total_ms"] <= cold["total_ci95"][1]
        assert latency["p50_ci95"][0] <= latency["p50_ms"] <= latency["p50_ci95"][1]
        assert 0 < latency["base_rss_mb"] < latency["peak_rss_mb"]
        assert latency["cores"] == (None if pinning.choose(1) is None else list(pinning.choose(1) or ()))
        noise = latency["noise"]
        assert noise["artifact"] == "onnxruntime/int8"
        assert noise["conclusive"] == (noise["reason"] is None)
        for told in (made.report["notes"], notes.said):
            assert sum("Too noisy" in note for note in told) == (not noise["conclusive"])
    fp32, int8 = (row["latency"] for row in made.report["artifacts"])
    assert (fp32["speedup_vs_fp32"], int8["speedup_vs_fp32"] > 0) == (None, True)


@pytest.mark.parametrize("model", [None, "lcnet_050"])
def test_report_goes_on_with_the_protocol_of_the_last_bench(tmp_path: Path, model: str | None) -> None:
    """Else `cspedge report` would time again in one process, and put worse figures in the place of better ones."""

    def told(protocol: str | None, name: str | None = None) -> str | None:
        given = {"workspace": str(tmp_path), "protocol": protocol, "model": name}
        options, _ = opt.build(given, config=None, continues=protocol != "in-process")
        opt.remember(options)
        return options.protocol

    assert told("fresh-process", model) == "fresh-process"
    assert told(None) == "fresh-process"
    assert told("in-process", model) == "in-process"
    assert told(None) == "in-process"


def test_a_sweep_of_threads(made: Outcome) -> None:
    artifact = made.results[0].artifact
    assert artifact is not None
    done: list[tuple[int, int]] = []
    plan = Plan(threads=1, rounds=5, per_round=10, seed=0, sweep=(2,))
    found = fresh.bench([artifact], PIXELS, plan, lambda *at: done.append(at))
    latency = found[artifact.label]
    assert isinstance(latency, Latency)
    assert done == [(index, 5) for index in range(1, 6)]
    (point,) = latency.sweep
    assert (latency.threads, point.threads) == (1, 2)
    assert len(point.samples_ms) == len(latency.samples_ms) == 50
    assert point.samples_ms != latency.samples_ms
    assert point.cores == pinning.choose(2)
    assert latency.noise is not None
    assert latency.noise.artifact == artifact.label


def test_what_fails_says_why(made: Outcome, job: fresh.Job, tmp_path: Path) -> None:
    digest = sha256_bytes(PIXELS.tobytes())
    assert fresh.burst(job, digest).samples_ms
    other = replace(job, path=str(tmp_path / "other.onnx"))
    Path(other.path).write_bytes(b"no model")
    with pytest.raises(TargetError, match="in a process of its own: onnxruntime/fp32 was changed on disk"):
        fresh.burst(other, digest)
    refused = replace(other, sha256=sha256_bytes(b"no model"))
    with pytest.raises(TargetError, match=r"process of its own: ONNX Runtime refuses 'other\.onnx'"):
        fresh.burst(refused, digest)
    with pytest.raises(TargetError, match="its tensors' SHA-256 is"):
        fresh.burst(job, "0" * 64)
    artifact = made.results[0].artifact
    assert artifact is not None
    broken = replace(artifact, sha256="0" * 64, precision=Precision.INT8)
    plan = Plan(threads=1, rounds=5, per_round=10, seed=0)
    found = fresh.bench([broken], PIXELS, plan, lambda *at: None)
    assert "was changed on disk; lower it again (in round 1 of 5)" in str(found[broken.label])


def test_a_worker_s_line_is_all_that_it_prints(job: fresh.Job) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cspedge.devices.worker", json.dumps(asdict(job))], capture_output=True, check=True
    )
    assert set(json.loads(done.stdout)) >= {"load_ms", "first_ms", "samples_ms", "base_rss_bytes"}


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system does not pin processes")
def test_a_child_runs_on_the_cores_it_was_given_and_nowhere_else() -> None:
    cores, before = pinning.choose(1), os.sched_getaffinity(0)
    assert cores is not None
    assert len(cores) == 1
    code = "import os; print(sorted(os.sched_getaffinity(0)))"
    with pinning.pinned(cores):
        said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == str(list(cores))
    assert os.sched_getaffinity(0) == before
    assert pinning.choose(10_000) == tuple(sorted(before))
    with pinning.pinned(None):
        assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize("sweep", ["0", "1,x", "1,,2", "", "4096", "-1"])
def test_a_sweep_that_is_none(sweep: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(app, ["bench", "--sweep", sweep, "--workspace", str(tmp_path / "store")]) == 2
    assert f"--sweep is {sweep!r}; allowed are numbers of threads" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_needs_processes(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--sweep needs a process for each number of threads"):
        execute(RunOptions(workspace=tmp_path / "store", sweep=(1, 2)))
    assert list(tmp_path.iterdir()) == []
