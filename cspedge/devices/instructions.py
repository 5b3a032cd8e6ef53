"""Instructions per inference on an emulated processor: what there is where a clock would say nothing.

A process that infers twice is compared with one that infers once, so that start, loading and the runtime's own start
drop out. The count is of the processor's instructions, however long each takes there: caches, memory and the width of
the pipeline are not in it, so it compares artifacts of one runtime and never two processors.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from cspedge.devices.qemu import PLUGIN
from cspedge.digest import sha256_file
from cspedge.measured import Instructions
from cspedge.types import ArtifactResult, Precision

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cspedge.devices.qemu import QemuAarch64
    from cspedge.devices.session import DeviceSession

REPEATS = 3  # pairs of processes: their spread is the evidence that a count can be repeated


def plugin_sha256() -> str:
    """What a count depends on, besides artifact, image, threads and device."""
    return sha256_file(PLUGIN)


def sample(
    session: DeviceSession,
    device: QemuAarch64,
    image: NDArray[np.uint8],
    progress: Callable[[int, int], None],
) -> tuple[int, ...]:
    """Instructions of one inference of uint8 [1, 3, H, W], `REPEATS` times.

    Raises DeviceError, RuntimeMissingError, or TargetError where the artifact fails.
    """
    found = []
    for index in range(REPEATS):
        with device.counting() as counts:
            for inferences in (1, 2):  # the first of each process is the runner's own
                session.burst(image, warmup=inferences - 1, rounds=0)
        found.append(counts[1] - counts[0])
        progress(index + 1, REPEATS)
    return tuple(found)


def summarise(samples: Sequence[int], device: str, threads: int) -> Instructions:
    """device: in words."""
    median = statistics.median_low(samples)
    return Instructions(device=device, threads=threads, instructions_per_inference=median, samples=tuple(samples))


def with_ratios(rows: Sequence[ArtifactResult]) -> list[ArtifactResult]:
    """The same rows; those of int8 artifacts with their ratio to the float artifact of the same target."""
    floats = {r.target: r.instructions for r in rows if r.precision.is_float and r.instructions is not None}
    found = []
    for row in rows:
        base = floats.get(row.target)
        if row.instructions is not None and row.precision is Precision.INT8 and base is not None:
            ratio = row.instructions.instructions_per_inference / base.instructions_per_inference
            row = replace(row, instructions=replace(row.instructions, ratio_to_fp32=ratio))
        found.append(row)
    return found
