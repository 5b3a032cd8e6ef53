"""What a bench gives of one artifact, and the report's figures from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from cspedge.errors import InputError
from cspedge.measured import Clock, Conditions, Latency

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class BenchProtocol(StrEnum):
    """in-process: all artifacts loaded into one process; fresh-process: a new process per artifact and round;
    fresh-load: one process, in which every round loads each artifact anew."""

    IN_PROCESS = "in-process"
    FRESH_PROCESS = "fresh-process"
    FRESH_LOAD = "fresh-load"


@dataclass(frozen=True, kw_only=True)
class NoiseCheck:
    """One artifact beside itself in a bench (A/A): the ratio of the two medians is 1 but for noise.

    artifact: its label; conclusive: whether speeds of this bench may be compared; reason: why not, None where they may.
    """

    artifact: str
    ratio: float
    ci95: tuple[float, float]
    conclusive: bool
    reason: str | None

    @property
    def sentence(self) -> str | None:
        """For the report and the console, None where speeds may be compared."""
        if self.conclusive:
            return None
        return f"Too noisy to conclude about speed: {self.reason}; time it again on a quieter machine."


@dataclass(frozen=True, kw_only=True)
class ColdStart:
    """Load and first inference in new processes, milliseconds; the file is in the system's cache.

    load_samples_ms, first_samples_ms: one a process; first_ms, total_ms: medians, of the first inference and of both
    together, total_ci95 its interval, None for fewer than two processes.
    """

    load_samples_ms: tuple[float, ...]
    first_samples_ms: tuple[float, ...]
    first_ms: float
    total_ms: float
    total_ci95: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True)
class ThreadPoint:
    """Another number of threads in the same rounds; cores: those the process was confined to, None for all."""

    threads: int
    cores: tuple[int, ...] | None
    p50_ms: float
    p50_ci95: tuple[float, float] | None
    p90_ms: float
    p99_ms: float
    samples_ms: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Timed:
    """Raw times of one artifact with one number of threads, milliseconds.

    samples_ms: float64 [rounds, per_round]; load_ms: one a process; warmup_ms: of each process the untimed inferences,
    in order; unsteady: processes that were not steady after them (`cspedge.evaluate.steady`); first_ms: the very first
    inference of each process, empty where it is not told apart; peak_rss_mb, base_rss_mb: the largest resident set,
    and the one before the model was loaded, MiB.
    """

    samples_ms: NDArray[np.float64]
    load_ms: tuple[float, ...]
    warmup_ms: tuple[tuple[float, ...], ...] = ()
    unsteady: int = 0
    first_ms: tuple[float, ...] = ()
    peak_rss_mb: float | None = None
    base_rss_mb: float | None = None


def summarise(
    timed: Timed,
    *,
    device: str,
    isa: tuple[str, ...],
    threads: int,
    protocol: BenchProtocol,
    cores: tuple[int, ...] | None = None,
    fp32: Timed | None = None,
    noise: NoiseCheck | None = None,
    seed: int = 0,
) -> Latency:
    """The report's figures of one artifact; lower is better in all but the speed-up.

    Percentiles are numpy's "linear" (Hyndman and Fan's type 7); samples are kept raw, in the order measured. fp32: the
    same runtime's float artifact in the same bench, giving `speedup_vs_fp32` = median fp32 / median of this one, with
    its interval over rounds (`cspedge.evaluate.stats.bootstrap_ratio`, `seed`). noise: of the same bench. Raises
    InputError on empty, non-finite or negative samples.
    """
    import numpy as np

    from cspedge.evaluate.stats import bootstrap_ratio

    samples = timed.samples_ms
    point = _point(samples, threads, cores, seed)
    ratio, interval = (None, None) if fp32 is None else bootstrap_ratio(fp32.samples_ms, samples, seed=seed)
    return Latency(
        device=device,
        isa=isa,
        threads=threads,
        p50_ms=point.p50_ms,
        p50_ci95=point.p50_ci95,
        p90_ms=point.p90_ms,
        p99_ms=point.p99_ms,
        mean_ms=float(samples.mean()),
        load_ms=float(np.median(timed.load_ms)),
        peak_rss_mb=timed.peak_rss_mb,
        base_rss_mb=timed.base_rss_mb,
        samples_ms=point.samples_ms,
        speedup_vs_fp32=ratio,
        speedup_ci95=interval,
        protocol=protocol,
        cores=cores,
        warmup_ms=timed.warmup_ms,
        unsteady=timed.unsteady,
        noise=noise,
        cold=_cold(timed, seed),
    )


def _point(samples: NDArray[np.float64], threads: int, cores: tuple[int, ...] | None, seed: int) -> ThreadPoint:
    import numpy as np

    from cspedge.evaluate.stats import bootstrap_median

    if samples.ndim != 2 or samples.size == 0:
        raise InputError(f"latency samples have shape {list(samples.shape)}; needed is [rounds, per_round], not empty")
    if not (np.isfinite(samples).all() and (samples >= 0.0).all()):
        raise InputError("latency samples are negative or not finite; the clock they were taken with cannot be trusted")
    p50, p90, p99 = (float(v) for v in np.percentile(samples, [50, 90, 99], method="linear"))
    return ThreadPoint(
        threads=threads,
        cores=cores,
        p50_ms=p50,
        p50_ci95=bootstrap_median(samples, seed=seed) if len(samples) > 1 else None,
        p90_ms=p90,
        p99_ms=p99,
        samples_ms=tuple(float(v) for v in samples.ravel()),
    )


def with_sweep(latency: Latency, others: Mapping[int, tuple[Timed, tuple[int, ...] | None]], *, seed: int) -> Latency:
    """`latency` with what other numbers of threads gave: number to raw times and cores."""
    points = [_point(timed.samples_ms, threads, cores, seed) for threads, (timed, cores) in sorted(others.items())]
    return replace(latency, sweep=tuple(points))


def _cold(timed: Timed, seed: int) -> ColdStart | None:
    import numpy as np

    from cspedge.evaluate.stats import bootstrap_median

    if not timed.first_ms:
        return None
    totals = np.add(timed.load_ms, timed.first_ms)
    return ColdStart(
        load_samples_ms=timed.load_ms,
        first_samples_ms=timed.first_ms,
        first_ms=float(np.median(timed.first_ms)),
        total_ms=float(np.median(totals)),
        total_ci95=bootstrap_median(totals[:, None], seed=seed) if len(totals) > 1 else None,
    )


def latency_from(data: Mapping[str, Any]) -> Latency:
    """A Latency from its plain JSON values."""
    values = _tuples(data)
    noise, cold, protocol = data.get("noise"), data.get("cold"), data.get("protocol")
    conditions = data.get("conditions")
    return Latency(
        **values
        | {
            "protocol": None if protocol is None else BenchProtocol(protocol),
            "noise": None if noise is None else NoiseCheck(**_tuples(noise)),
            "cold": None if cold is None else ColdStart(**_tuples(cold)),
            "warmup_ms": tuple(tuple(trace) for trace in data.get("warmup_ms", ())),
            "sweep": tuple(ThreadPoint(**_tuples(point)) for point in data.get("sweep", ())),
            "conditions": None if conditions is None else _conditions(conditions),
        }
    )


def _conditions(data: Mapping[str, Any]) -> Conditions:
    return Conditions(**{**data, "clocks": tuple(Clock(**clock) for clock in data["clocks"])})


def _tuples(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
