"""`--device local-process://`: the native runner in fresh processes, through the commands and by itself."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cspedge.devices.base import Finished
from cspedge.devices.local import LocalProcess
from cspedge.devices.session import failure
from cspedge.devices.uri import FORMS
from cspedge.digest import sha256_file
from cspedge.errors import DeviceError, TargetError

Command = Callable[..., dict[str, Any]]
DEVICE = ("--device", "local-process://")


def _rows(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["precision"]: row for row in report["artifacts"]}


def test_validated_and_timed_by_the_native_runner(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same file in the same runtime gives the same answers, whether Python or the runner holds it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    here, there = command("validate"), command("bench", *DEVICE)
    assert not list(tmp_path.glob("cspedge-*"))
    for precision, row in _rows(there).items():
        place, beside = row["ran_on"], _rows(here)[precision]
        assert (place["uri"], place["machine"]) == ("local-process://", there["environment"]["os"].split()[-1])
        assert place["runtime"].startswith("executorch 1.")
        assert place["delegates"][0] == "XnnpackBackend"
        assert beside.get("ran_on") is None
        assert row["evidence"] == "measured"
        found, expected = row["accuracy"], beside["accuracy"]
        assert all(found[key] == expected[key] for key in ("n", "top1", "top5", "agreement"))
        assert found["sqnr_db"] == pytest.approx(expected["sqnr_db"], rel=1e-3)
        latency = row["latency"]
        assert latency["device"].endswith("(local-process://)")
        assert len(latency["samples_ms"]) == 100
        assert latency["protocol"] == "fresh-process"
        assert len(latency["warmup_ms"]) == len(latency["cold"]["first_samples_ms"]) == 10
        assert all(10 <= len(trace) <= 30 for trace in latency["warmup_ms"])
        assert len(latency["cores"]) == 1
        assert latency["p50_ci95"][0] <= latency["p50_ms"] <= latency["p50_ci95"][1]
        assert latency["noise"]["artifact"] == "executorch/int8"
        # a small native process, whose peak is its own and not that of the Python that started it
        assert 1 < latency["peak_rss_mb"] < 100
    assert _rows(there)["int8"]["latency"]["speedup_vs_fp32"] > 0
    assert all(stage["cached"] for stage in command("bench", *DEVICE)["stages"])


def test_a_runtime_without_a_native_runner(command: Command) -> None:
    report = command("validate", "--target", "onnxruntime", "--precision", "fp32", *DEVICE, code=4)
    rows = {f"{row['target']}/{row['precision']}": row for row in report["artifacts"]}
    assert rows["onnxruntime/fp32"]["status"] == "unavailable"
    assert "no native runner for 'onnxruntime'" in rows["onnxruntime/fp32"]["reason"]
    assert rows["executorch/fp32"]["status"] == "ok"


def test_a_device_that_nobody_knows_is_refused_before_any_work(command: Command, lowered: Path) -> None:
    before = sorted(lowered.rglob("*"))
    said = command("bench", "--device", "usb://phone", code=2)["stderr"]
    assert said == f"cspedge: unknown device 'usb://phone'; known: {', '.join(sorted(FORMS.values()))}"
    assert sorted(lowered.rglob("*")) == before


def test_what_is_there_is_not_copied_again(tmp_path: Path) -> None:
    device = LocalProcess("local-process://")
    try:
        file = tmp_path / "program"
        file.write_text("#!/bin/sh\necho out; echo last >&2; echo made > made; exit 3\n", encoding="utf-8")
        digest = sha256_file(file)
        device.push(file, "bin/program", digest, executable=True)
        device.push(tmp_path / "gone", "bin/program", digest)  # never opened: the file is there
        assert device.run(["bin/program"]) == Finished(code=3, stdout="out\n", stderr="last\n")
        device.fetch("made", tmp_path / "made")
        assert (tmp_path / "made").read_text(encoding="utf-8") == "made\n"
        with pytest.raises(DeviceError, match="cannot run 'bin/none': No such file"):
            device.run(["bin/none"])
    finally:
        device.close()


@pytest.mark.parametrize(
    ("stderr", "kind", "words"),
    [
        ("error: model was changed; take the bundle again\n", TargetError, "failed on device 'd': model was changed"),
        ("./r: version `GLIBC_2.38' not found (required by ./r)\n", DeviceError, "is too old for the runner"),
        (
            "./r: error while loading shared libraries: libx.so: cannot open shared object file\n",
            DeviceError,
            "libx.so",
        ),
        ("", TargetError, "exit code -11"),
    ],
)
def test_why_a_runner_stopped(stderr: str, kind: type[Exception], words: str) -> None:
    error = failure(Finished(code=-11, stdout="", stderr=stderr), "executorch/int8", "d")
    assert type(error) is kind
    assert words in str(error)
