"""A device that a run uses: opened before any work, with runners from the store, closed with nothing left behind."""

from __future__ import annotations

import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cspedge.config import load_target
from cspedge.devices import pinning, rounds, runner, uri
from cspedge.devices.local import LocalProcess
from cspedge.devices.session import DeviceSession, Runner
from cspedge.digest import sha256_file, sha256_json
from cspedge.errors import TargetError
from cspedge.measured import Latency, RanOn
from cspedge.types import Artifact, Output

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cspedge.devices.base import Device
    from cspedge.devices.line import Line
    from cspedge.devices.rounds import Burst
    from cspedge.inputs import Ledger
    from cspedge.options import RunOptions
    from cspedge.store import StoredObject


@contextmanager
def opened(text: str | None, workspace: Path) -> Iterator[Lab | None]:
    """The device of `--device`, None where none was asked for. Raises UsageError or DeviceError, before any work.

    workspace: a device keeps the files of one apart from another's.
    """
    if text is None:
        yield None
        return
    device = _device(uri.parse(text), workspace)
    try:
        with tempfile.TemporaryDirectory(prefix="cspedge-lab-") as work:
            yield Lab(device, Path(work))
    finally:
        device.close()


def _device(found: uri.DeviceUri, workspace: Path) -> Device:
    if found.scheme == uri.SSH:
        from cspedge.devices.ssh import Ssh

        return Ssh(found, f".cspedge-device-{sha256_json([platform.node(), str(workspace.absolute())])[:16]}")
    if found.scheme == uri.QEMU:
        from cspedge.devices.qemu import QemuAarch64

        return QemuAarch64(found)
    if found.scheme == uri.ADB:
        from cspedge.devices.adb import Adb

        return Adb(found, f"cspedge-{sha256_json([platform.node(), str(workspace.absolute())])[:16]}")
    return LocalProcess(found.text)


class Lab:
    """An open device and this run's sessions on it."""

    def __init__(self, device: Device, work: Path) -> None:
        self.device = device
        self._work = work
        self._runners: dict[str, Runner] = {}

    def runner(self, backend: str, ledger: Ledger) -> Runner:
        """Built once for a machine and a runtime's version. Raises RuntimeMissingError."""
        if backend in self._runners:
            return self._runners[backend]
        machine = self.device.facts.machine
        inputs = runner.inputs(backend, machine)

        def build(folder: Path) -> Mapping[str, object]:
            runner.build(backend, machine, folder)
            return {}

        stored = ledger.stage(f"runner {backend} {machine}", "runner", inputs, build)
        if not self.device.glibc:
            stored = _with_libc(stored, backend, machine, ledger)
        self._runners[backend] = Runner(folder=stored.path, files=stored.files)
        return self._runners[backend]

    def key(self, artifact: Artifact, ledger: Ledger) -> dict[str, Any]:
        """What a result of this artifact depends on, besides artifact, images and threads."""
        facts = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self.device.facts).items()}
        return {"uri": self.device.uri, "runner": self.runner(artifact.backend, ledger).digest, "facts": facts}

    def session(
        self, artifact: Artifact, shape: Sequence[int], outputs: tuple[Output, ...], threads: int, ledger: Ledger
    ) -> DeviceSession:
        """shape: of an image, [3, H, W]. Raises DeviceError, RuntimeMissingError, TargetError."""
        options = load_target(artifact.target).options
        if options:
            raise TargetError(
                f"the native runner of --device knows no runtime options, and target {artifact.target!r} sets "
                f"{', '.join(sorted(options))}; take them out of its target.toml"
            )
        return DeviceSession(
            self.device,
            self.runner(artifact.backend, ledger),
            artifact,
            shape=tuple(shape),
            outputs=outputs,
            threads=threads,
            work=self._work,
        )

    def ran_on(self, line: Line) -> RanOn:
        facts = self.device.facts
        return RanOn(
            uri=self.device.uri,
            cpu=facts.cpu,
            machine=facts.machine,
            isa=facts.isa,
            os=facts.os,
            runtime=f"{line.runtime} {line.version}",
            delegates=line.delegates,
        )

    def bench(
        self,
        artifacts: Sequence[Artifact],
        image: NDArray[np.uint8],
        outputs: tuple[Output, ...],
        options: RunOptions,
        ledger: Ledger,
    ) -> dict[str, Latency | str]:
        """Times every artifact in every round, each time in a fresh process on the device; by label, or why not.

        image: uint8 [1, 3, H, W]. On this machine a process is confined to as many cores as it has threads.
        """
        facts = self.device.facts

        def opener(artifact: Artifact, threads: int) -> Burst:
            session = self.session(artifact, image.shape[1:], outputs, threads, ledger)
            return lambda count: session.burst(image, warmup=0, rounds=count)

        found = rounds.bench(
            artifacts,
            opener,
            rounds.Plan.of(options),
            rounds.Place(
                device=f"{facts.cpu} ({self.device.uri})",
                isa=facts.isa,
                cores=self._cores,
                here=isinstance(self.device, LocalProcess),
            ),
            ledger.ui.progress("bench"),
        )
        return self._with_conditions(found)

    def _cores(self, threads: int) -> tuple[int, ...] | None:
        """Those that a timed process with so many threads is confined to."""
        if isinstance(self.device, LocalProcess):
            return pinning.choose(threads)
        return None if self.device.climate is None else self.device.climate.cores(threads)

    def _with_conditions(self, found: Mapping[str, Latency | str]) -> dict[str, Latency | str]:
        climate = self.device.climate
        if climate is None:
            return dict(found)
        return {
            label: one if isinstance(one, str) else replace(one, conditions=climate.conditions(label))
            for label, one in found.items()
        }


def _with_libc(stored: StoredObject, backend: str, machine: str, ledger: Ledger) -> StoredObject:
    """The runner for a device with another C library than the one that it was built with."""
    libc = runner.libc(machine)

    def build(folder: Path) -> Mapping[str, object]:
        for name, path in ({name: stored.path / name for name in stored.files} | libc).items():
            shutil.copyfile(path, folder / name)
        return {}

    inputs = {"runner": stored.digest, "libc": {name: sha256_file(path) for name, path in libc.items()}}
    return ledger.stage(f"runner {backend} {machine} with its C library", "runner", inputs, build)
