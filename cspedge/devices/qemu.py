"""`qemu-aarch64://CPU`: an Arm processor emulated here, instruction by instruction, for what it computes.

QEMU's user emulation runs the very kernels that a runtime picks for that processor. It says nothing of their time, so
this device validates and never times. It can count the instructions that a program executes, by a plugin of QEMU's
(`count_plugin.c`).
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cspedge.devices.base import Facts, Finished
from cspedge.devices.host import describe
from cspedge.devices.local import LocalProcess
from cspedge.devices.uri import DeviceUri
from cspedge.errors import DeviceError, RuntimeMissingError

INSTALL = (
    "dpkg --add-architecture arm64 && apt-get update && apt-get install qemu-user libstdc++6:arm64 libssl-dev:arm64"
)
LOADER = Path("/lib/ld-linux-aarch64.so.1")
PROGRAM = "qemu-aarch64"
PLUGIN = Path(__file__).with_name("count_plugin.c")
_COUNT = "count"  # the file that the plugin writes

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
        self._counts: list[int] | None = None
        said = subprocess.run([emulator, "--version"], capture_output=True, text=True, check=False).stdout
        version = said.split("\n")[0].removeprefix(f"{PROGRAM} version ").split(" ")[0]
        self.facts = Facts(
            cpu=f"{uri.cpu}, emulated by QEMU {version}", machine="aarch64", isa=CPUS[uri.cpu], os=describe().os
        )

    @contextmanager
    def counting(self) -> Iterator[list[int]]:
        """Programs that run meanwhile are counted: the instructions that each executed, over its threads, in order.

        Raises RuntimeMissingError where the plugin cannot be built.
        """
        plain, built = self._prefix, self._root / f"{PLUGIN.stem}.so"
        if not built.exists():
            _build_plugin(built)
        # relative to the folder that programs run in: a comma in a path would end it
        self._prefix = [*plain, "-plugin", f"./{built.name},out={_COUNT}"]
        self._counts = []
        try:
            yield self._counts
        finally:
            self._prefix, self._counts = plain, None

    def run(self, command: Sequence[str]) -> Finished:
        """Raises DeviceError too where a program was to be counted and QEMU gave no count."""
        written = self._root / _COUNT
        written.unlink(missing_ok=True)
        done = super().run(command)
        if self._counts is not None and done.code == 0:
            if not written.exists():
                raise DeviceError(f"device {self.uri!r} counted nothing; it takes a QEMU with plugins, as 7.2 is")
            self._counts.append(int(written.read_text(encoding="ascii")))
        return done


def _build_plugin(target: Path) -> None:
    compiler = shutil.which("gcc")
    if compiler is None:
        raise RuntimeMissingError("instructions are counted by a plugin built with 'gcc': apt-get install gcc")
    command = [compiler, "-O2", "-shared", "-fPIC", str(PLUGIN), "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        said = " ".join(done.stderr.split())[-300:]
        raise RuntimeMissingError(f"the plugin that counts instructions cannot be built (gcc: {said})")
