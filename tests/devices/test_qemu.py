"""`--device qemu-aarch64://`: Arm's kernels on an emulated processor."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cspedge.devices import uri
from cspedge.devices.qemu import LOADER, PROGRAM, QemuAarch64
from cspedge.devices.runner import arm_options
from cspedge.digest import sha256_file
from cspedge.errors import RuntimeMissingError

Command = Callable[..., dict[str, Any]]
DEVICE = "qemu-aarch64://cortex-a76"


@pytest.fixture
def emulator() -> None:
    if shutil.which(PROGRAM) is None or not LOADER.exists():
        pytest.skip("needs QEMU and Arm's C library (apt-get install qemu-user libstdc++6:arm64)")


@pytest.fixture
def arm(command: Command, emulator: None) -> Command:
    """`command` on the emulated device; skips where the runner for Arm cannot be built."""
    try:
        arm_options()
    except RuntimeMissingError as error:
        pytest.skip(str(error))

    def run(name: str, *args: str) -> dict[str, Any]:
        report = command(name, "--device", DEVICE, *args, code=None)
        for row in report["artifacts"]:
            if row["status"] == "unavailable" and "it needs the network once" in row["reason"]:
                pytest.skip(row["reason"])
        return report

    return run


def test_arm_kernels_answer_as_x86_ones_do(command: Command, arm: Command) -> None:
    """XNNPACK's int8 arithmetic is the same integers on both; what is float between them may round otherwise."""
    there = arm("validate", "--precision", "int8")
    here = command("validate", "--precision", "int8", "--device", "local-process://")
    (row,), (beside,) = there["artifacts"], here["artifacts"]
    assert (row["evidence"], row["latency"]) == ("emulated", None)
    assert row["ran_on"]["machine"] == "aarch64"
    assert row["ran_on"]["cpu"].startswith("cortex-a76, emulated by QEMU ")
    assert "asimddp" in row["ran_on"]["isa"]
    assert row["ran_on"]["delegates"] == beside["ran_on"]["delegates"]
    assert row["accuracy"]["agreement"] == pytest.approx(beside["accuracy"]["agreement"], abs=0.01)
    assert row["accuracy"]["sqnr_db"] == pytest.approx(beside["accuracy"]["sqnr_db"], abs=1)
    assert "not run on a device" in " ".join(row["reasons"])


def test_emulation_gives_instructions_and_no_times(arm: Command, lowered: Path) -> None:
    report = arm("bench")
    rows = {row["precision"]: row for row in report["artifacts"]}
    for row in rows.values():
        assert row["latency"] is None
        found = row["instructions"]
        assert found["device"].endswith(f"({DEVICE})")
        assert found["threads"] == 1
        assert found["instructions_per_inference"] in found["samples"]
        # what differs is how the runner prints its own clock's readings; now and then one count is thousands off, which
        # the median of three leaves out
        low, middle, high = sorted(found["samples"])
        assert min(middle - low, high - middle) < found["instructions_per_inference"] / 1000
        assert high - low < found["instructions_per_inference"] / 50
    int8, fp32 = (rows[p]["instructions"] for p in ("int8", "fp32"))
    ratio = int8["instructions_per_inference"] / fp32["instructions_per_inference"]
    assert int8["ratio_to_fp32"] == ratio
    assert fp32["ratio_to_fp32"] is None
    assert 0.2 < ratio < 1  # the dot product does four products in one instruction
    assert "instructions an inference, 0." in " ".join(rows["int8"]["reasons"])
    assert "instructions, emulated; no time</td>" in (lowered / "out" / "report.html").read_text(encoding="utf-8")
    assert all(stage["cached"] for stage in arm("bench")["stages"])


def test_what_looks_like_an_arm_board_behind_ssh(
    command: Command, arm: Command, arm_sshd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No board: this machine's sshd says aarch64 and runs programs under QEMU. The runner for Arm is what is sent."""
    (emulated,) = arm("validate", "--precision", "int8")["artifacts"]
    monkeypatch.setenv("CSPEDGE_SSH_CONFIG", str(arm_sshd.config))
    device = f"ssh://{arm_sshd.user}@127.0.0.1:{arm_sshd.port}"
    (row,) = command("validate", "--precision", "int8", "--device", device)["artifacts"]
    assert (row["ran_on"]["machine"], row["ran_on"]["uri"]) == ("aarch64", device)
    assert row["accuracy"] == emulated["accuracy"]
    assert not list(arm_sshd.home.iterdir())


LOOP = """
    .global _start
_start:
    ldr x0, [sp]            // the number of arguments, the program's own name among them
    lsl x0, x0, #20
again:
    subs x0, x0, #1
    b.ne again
    mov x0, #0
    mov x8, #93             // exit
    svc #0
"""


def test_counts_are_of_instructions(emulator: None, tmp_path: Path) -> None:
    """A program of known length, in assembler: 5 instructions, and 2 in each of 2^20 rounds per argument."""
    compiler = shutil.which("aarch64-linux-gnu-gcc")
    if compiler is None:
        pytest.skip("assembles for Arm (apt-get install gcc-aarch64-linux-gnu)")
    (tmp_path / "loop.s").write_text(LOOP, encoding="ascii")
    subprocess.run([compiler, "-nostdlib", "-static", "loop.s", "-o", "loop"], cwd=tmp_path, check=True)
    device = QemuAarch64(uri.parse(DEVICE))
    try:
        device.push(tmp_path / "loop", "loop", sha256_file(tmp_path / "loop"), executable=True)
        with device.counting() as counts:
            for given in ((), ("1",), ()):
                assert device.run(["loop", *given]).code == 0
        assert counts == [5 + (2 << 20), 5 + (4 << 20), 5 + (2 << 20)]
        assert device.run(["loop"]).code == 0
        assert len(counts) == 3
    finally:
        device.close()


def test_a_plugin_that_cannot_be_built_is_named(
    emulator: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    device = QemuAarch64(uri.parse(DEVICE))
    monkeypatch.setenv("PATH", str(tmp_path))
    try:
        with pytest.raises(RuntimeMissingError, match="apt-get install gcc"), device.counting():
            pass
    finally:
        device.close()


def test_what_it_needs_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeMissingError, match=f"needs {PROGRAM}, which is not here: dpkg --add-architecture arm64"):
        QemuAarch64(uri.parse(DEVICE))
