"""`--device qemu-aarch64://`: Arm's kernels on an emulated processor."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cspedge.devices import uri
from cspedge.devices.qemu import LOADER, PROGRAM, QemuAarch64
from cspedge.devices.runner import arm_options
from cspedge.errors import RuntimeMissingError

Command = Callable[..., dict[str, Any]]
DEVICE = "qemu-aarch64://cortex-a76"


@pytest.fixture
def emulator() -> None:
    if shutil.which(PROGRAM) is None or not LOADER.exists():
        pytest.skip("needs QEMU and Arm's C library (apt-get install qemu-user libstdc++6:arm64)")


@pytest.mark.usefixtures("emulator")
def test_arm_kernels_answer_as_x86_ones_do(command: Command) -> None:
    """XNNPACK's int8 arithmetic is the same integers on both; what is float between them may round otherwise."""
    try:
        arm_options()
    except RuntimeMissingError as error:
        pytest.skip(str(error))
    int8 = ("validate", "--precision", "int8")
    there, here = command(*int8, "--device", DEVICE, code=None), command(*int8, "--device", "local-process://")
    (row,), (beside,) = there["artifacts"], here["artifacts"]
    if row["status"] == "unavailable" and "it needs the network once" in row["reason"]:
        pytest.skip(row["reason"])
    assert (row["evidence"], row["latency"]) == ("emulated", None)
    assert row["ran_on"]["machine"] == "aarch64"
    assert row["ran_on"]["cpu"].startswith("cortex-a76, emulated by QEMU ")
    assert "asimddp" in row["ran_on"]["isa"]
    assert row["ran_on"]["delegates"] == beside["ran_on"]["delegates"]
    assert row["accuracy"]["agreement"] == pytest.approx(beside["accuracy"]["agreement"], abs=0.01)
    assert row["accuracy"]["sqnr_db"] == pytest.approx(beside["accuracy"]["sqnr_db"], abs=1)
    assert "not run on a device" in " ".join(row["reasons"])


@pytest.mark.usefixtures("emulator")
def test_emulation_gives_no_times(command: Command) -> None:
    said = command("bench", "--device", DEVICE, code=2)["stderr"]
    assert f"device '{DEVICE}' is emulated, and its times say nothing" in said


def test_what_it_needs_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeMissingError, match=f"needs {PROGRAM}, which is not here: dpkg --add-architecture arm64"):
        QemuAarch64(uri.parse(DEVICE))
