"""Single-image latency on this host, in this process: every artifact loaded once, all interleaved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import TYPE_CHECKING

from cspedge.devices.rounds import Plan
from cspedge.errors import UsageError
from cspedge.measured import Latency
from cspedge.types import Artifact, Evidence, Precision

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cspedge.backends.base import Session
    from cspedge.evaluate.latency import BenchResult
    from cspedge.evaluate.timing import NoiseCheck, Timed


def bench(
    artifacts: Sequence[Artifact],
    image: NDArray[np.uint8],
    plan: Plan,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Latency | str]:
    """image: uint8 [1, 3, H, W]. By label, or why it dropped out; those that do not run natively here are left out.

    Raises UsageError for too few inferences, or for other numbers of threads: a runtime has one pool in a process.
    """
    from cspedge.api import open_session
    from cspedge.evaluate.latency import bench as interleave
    from cspedge.evaluate.noise import AGAIN, subject

    if plan.sweep:
        raise UsageError("a sweep needs a process for each number of threads; time it with `cspedge bench`")
    sessions: dict[str, Session] = {}
    load_ms: dict[str, float] = {}
    for artifact in artifacts:
        start = perf_counter()
        session = open_session(artifact, threads=plan.threads)
        if session.evidence is Evidence.MEASURED:
            sessions[artifact.label] = session
            load_ms[artifact.label] = (perf_counter() - start) * 1e3
    if not sessions:
        return {}
    twice = subject([a for a in artifacts if a.label in sessions]).label
    sessions[twice + AGAIN] = sessions[twice]
    pixels = (image.astype("float32") / 255).astype("float32")
    result = interleave(
        sessions, pixels, rounds=plan.rounds, per_round=plan.per_round, seed=plan.seed, progress=progress
    )
    return _figures(artifacts, result, load_ms, twice, plan)


def _figures(
    artifacts: Sequence[Artifact], result: BenchResult, load_ms: dict[str, float], twice: str, plan: Plan
) -> dict[str, Latency | str]:
    from cspedge.devices.host import describe
    from cspedge.evaluate.timing import BenchProtocol, summarise

    host = describe()
    floats = {a.target: a.label for a in artifacts if a.precision.is_float and a.label in result.samples}
    noise = _noise(result, twice, plan)
    found: dict[str, Latency | str] = {label: why for label, why in result.failures.items() if label in load_ms}
    for artifact in artifacts:
        if artifact.label not in result.samples:
            continue
        base = floats.get(artifact.target) if artifact.precision is Precision.INT8 else None
        found[artifact.label] = summarise(
            _timed(result, artifact.label, load_ms[artifact.label]),
            device=host.cpu,
            isa=host.isa,
            threads=plan.threads,
            protocol=BenchProtocol.IN_PROCESS,
            fp32=_timed(result, base, load_ms[base]) if base else None,
            noise=noise,
            seed=plan.seed,
        )
    return found


def _timed(result: BenchResult, label: str, load_ms: float) -> Timed:
    from cspedge.evaluate.timing import Timed

    return Timed(
        samples_ms=result.samples[label],
        load_ms=(load_ms,),
        warmup_ms=(result.warmup[label],),
        unsteady=int(label in result.unsteady),
    )


def _noise(result: BenchResult, twice: str, plan: Plan) -> NoiseCheck | None:
    from cspedge.evaluate.noise import AGAIN, check

    if not {twice, twice + AGAIN} <= set(result.samples):
        return None
    one, other = (_timed(result, label, 0.0) for label in (twice, twice + AGAIN))
    return check(twice, one, other, seed=plan.seed)
