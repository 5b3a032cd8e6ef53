"""`local-process://`: this machine as a device, with the native runner in a fresh process and no Python in it."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cspedge import atomic
from cspedge.devices.base import Facts, Finished
from cspedge.devices.host import describe
from cspedge.digest import sha256_file
from cspedge.errors import DeviceError


class LocalProcess:
    """A folder of its own in the system's place for temporary files."""

    timed = True
    glibc = True
    climate = None

    def __init__(self, uri: str) -> None:
        host = describe()
        self.uri = uri
        self.facts = Facts(cpu=host.cpu, machine=host.arch, isa=host.isa, os=host.os)
        self._folder = tempfile.TemporaryDirectory(prefix="cspedge-device-")
        self._root = Path(self._folder.name)
        self._prefix: list[str] = []  # what runs the program

    def push(self, source: Path, name: str, sha256: str, *, executable: bool = False) -> None:
        target = self._root / name
        if target.is_file() and sha256_file(target) == sha256:
            return
        with atomic.translate_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            target.chmod(0o700 if executable else 0o600)

    def run(self, command: Sequence[str]) -> Finished:
        program = [*self._prefix, str(self._root / command[0]), *command[1:]]
        try:
            done = subprocess.run(
                program,
                cwd=self._root,
                env={"PATH": "/usr/bin:/bin"},  # nothing of ours (OMP_NUM_THREADS) changes what it does
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
            )
        except OSError as error:
            raise DeviceError(f"device {self.uri!r} cannot run {command[0]!r}: {error.strerror}") from error
        return Finished(code=done.returncode, stdout=done.stdout, stderr=done.stderr)

    def fetch(self, name: str, target: Path) -> None:
        with atomic.translate_errors(target):
            shutil.move(self._root / name, target)

    def close(self) -> None:
        self._folder.cleanup()
