"""A device that a run uses: opened before any work, with runners from the store, closed with nothing left behind."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cspedge.config import load_target
from cspedge.devices import runner, uri
from cspedge.devices.session import DeviceSession, Runner
from cspedge.digest import sha256_json
from cspedge.errors import CspedgeError, TargetError
from cspedge.types import Artifact, Latency, Output, Precision, RanOn

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cspedge.devices.base import Device
    from cspedge.devices.line import Line
    from cspedge.inputs import Ledger
    from cspedge.options import RunOptions

WARMUP = 5  # untimed inferences of each process, as on this host


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
    from cspedge.devices.local import LocalProcess

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

        image: uint8 [1, 3, H, W]. Load time is the median over processes, peak memory the largest.
        """
        sessions: dict[str, DeviceSession] = {}
        found: dict[str, Latency | str] = {}
        for artifact in artifacts:
            try:
                sessions[artifact.label] = self.session(artifact, image.shape[1:], outputs, options.threads, ledger)
            except CspedgeError as error:
                found[artifact.label] = str(error)
        lines = _rounds(sessions, image, options, found, ledger.ui.progress("bench"))
        floats = {a.target: a.label for a in artifacts if a.precision.is_float}
        for artifact in artifacts:
            if artifact.label not in found:
                base = floats.get(artifact.target) if artifact.precision is Precision.INT8 else None
                fp32 = None if base is None or isinstance(found.get(base), str) else lines[base]
                found[artifact.label] = self._summary(lines[artifact.label], fp32, options)
        return found

    def _summary(self, lines: Sequence[Line], fp32: Sequence[Line] | None, options: RunOptions) -> Latency:
        import numpy as np

        from cspedge.evaluate.latency import summarise

        peak = max(line.peak_rss_bytes for line in lines)
        facts = self.device.facts
        return summarise(
            np.array([line.samples_ms for line in lines]),
            float(np.median([line.load_ms for line in lines])),
            device=f"{facts.cpu} ({self.device.uri})",
            isa=facts.isa,
            threads=options.threads,
            peak_rss_mb=peak / (1 << 20) if peak else None,
            fp32=None if fp32 is None else np.array([line.samples_ms for line in fp32]),
            seed=options.seed,
        )


def _rounds(
    sessions: Mapping[str, DeviceSession],
    image: NDArray[np.uint8],
    options: RunOptions,
    failures: dict[str, Latency | str],
    progress: Callable[[int, int], None],
) -> dict[str, list[Line]]:
    """Each artifact's lines, one a round; what drops out goes into `failures` with its reason."""
    from cspedge.evaluate.latency import check_counts, round_order

    check_counts(options.rounds, options.per_round, WARMUP)
    lines: dict[str, list[Line]] = {label: [] for label in sessions}
    order = round_order(tuple(sessions), rounds=options.rounds, seed=options.seed)
    for index, labels in enumerate(order):
        for label in labels:
            if label in failures:
                continue
            try:
                lines[label].append(sessions[label].burst(image, warmup=WARMUP, rounds=options.per_round))
            except CspedgeError as error:
                failures[label] = f"{error} (in round {index + 1} of {options.rounds})"
        progress(index + 1, options.rounds)
    return lines
