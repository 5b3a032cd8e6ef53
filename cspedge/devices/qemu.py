"""`qemu-aarch64://CPU`: an Arm processor emulated here, instruction by instruction, for what it computes.

QEMU's user emulation runs the very kernels that a runtime picks for that processor. It says nothing of their time, so
this device validates and never times.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from cspedge.devices.base import Facts
from cspedge.devices.host import describe
from cspedge.devices.local import LocalProcess
from cspedge.devices.uri import DeviceUri
from cspedge.errors import RuntimeMissingError

INSTALL = (
    "dpkg --add-architecture arm64 && apt-get update && apt-get install qemu-user libstdc++6:arm64 libssl-dev:arm64"
)
LOADER = Path("/lib/ld-linux-aarch64.so.1")
PROGRAM = "qemu-aarch64"

# What these processors have of `host.ISA_FLAGS` (Arm's reference manuals of each).
_ARMV8 = ("asimd",)
_DOT = ("asimd", "fphp", "asimdhp", "asimddp")
CPUS = {
    "cortex-a53": _ARMV8,
    "cortex-a57": _ARMV8,
    "cortex-a72": _ARMV8,
    "cortex-a76": _DOT,
    "neoverse-n1": _DOT,
}


class QemuAarch64(LocalProcess):
    """A folder here whose programs run emulated."""

    timed = False

    def __init__(self, uri: DeviceUri) -> None:
        """Raises RuntimeMissingError without QEMU or Arm's C library."""
        emulator = shutil.which(PROGRAM)
        if emulator is None or not LOADER.exists():
            lacks = PROGRAM if emulator is None else str(LOADER)
            raise RuntimeMissingError(f"device {uri.text!r} needs {lacks}, which is not here: {INSTALL}")
        super().__init__(uri.text)
        assert uri.cpu is not None
        self._prefix = [emulator, "-cpu", uri.cpu]
        said = subprocess.run([emulator, "--version"], capture_output=True, text=True, check=False).stdout
        version = said.split("\n")[0].removeprefix(f"{PROGRAM} version ").split(" ")[0]
        self.facts = Facts(
            cpu=f"{uri.cpu}, emulated by QEMU {version}", machine="aarch64", isa=CPUS[uri.cpu], os=describe().os
        )
