"""Single-image latency on this host, a fresh process per artifact and round, with the runtimes' own Python packages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cspedge.config import load_target
from cspedge.devices import pinning, rounds
from cspedge.devices.line import Asked, Line, parse
from cspedge.digest import sha256_bytes
from cspedge.errors import TargetError
from cspedge.lowering import require
from cspedge.measured import Latency
from cspedge.types import Artifact

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

HERE = "this machine"
# Settings of threads that a runtime would prefer to the number it is given.
_THREADS = ("OMP_", "KMP_", "GOMP_", "MKL_", "OPENBLAS_")


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a worker is told: the artifact's file or folder, tensors (uint8, whole images of `shape` [3, H, W])."""

    label: str
    backend: str
    path: str
    sha256: str
    options: Mapping[str, object]
    tensors: str
    shape: tuple[int, ...]
    threads: int
    count: int

    @classmethod
    def of(cls, artifact: Artifact, tensors: Path, shape: tuple[int, ...], *, threads: int, count: int) -> Job:
        """The artifact with its target's own options."""
        return cls(
            label=artifact.label,
            backend=artifact.backend,
            path=str(artifact.path),
            sha256=artifact.sha256,
            options=load_target(artifact.target).options,
            tensors=str(tensors),
            shape=shape,
            threads=threads,
            count=count,
        )


def bench(
    artifacts: Sequence[Artifact], image: NDArray[np.uint8], plan: rounds.Plan, progress: Callable[[int, int], None]
) -> dict[str, Latency | str]:
    """Times every artifact in every round, each time in a fresh process; by label, or why it dropped out.

    image: uint8 [1, 3, H, W]. Raises UsageError for too few inferences.
    """
    from cspedge.devices.host import describe

    host, data = describe(), image.tobytes()
    with tempfile.TemporaryDirectory(prefix="cspedge-bench-") as folder:
        tensors = Path(folder) / "inputs.u8"
        tensors.write_bytes(data)
        digest = sha256_bytes(data)

        def opener(artifact: Artifact, threads: int) -> rounds.Burst:
            require(load_target(artifact.target))
            shape = image.shape[1:]
            return lambda count: burst(Job.of(artifact, tensors, shape, threads=threads, count=count), digest)

        place = rounds.Place(device=host.cpu, isa=host.isa, cores=pinning.choose)
        return rounds.bench(artifacts, opener, plan, place, progress)


def burst(job: Job, tensors_sha256: str) -> Line:
    """One process. Raises TargetError where it fails, or prints another line than was asked for."""
    # sys.path goes along: this cspedge, wherever it was imported from
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_THREADS)}
    environment["PYTHONPATH"] = os.pathsep.join(entry for entry in sys.path if entry)
    done = subprocess.run(
        [sys.executable, "-m", "cspedge.devices.worker", json.dumps(asdict(job))],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        said = " ".join((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1].split())[:300]
        raise TargetError(f"{job.label} failed in a process of its own: {said.removeprefix('error: ')}")
    asked = Asked(
        label=job.label,
        sha256=job.sha256,
        threads=job.threads,
        images=1,
        tensors_sha256=tensors_sha256,
        rounds=job.count,
        outputs=False,
    )
    return parse(done.stdout, asked, HERE)
