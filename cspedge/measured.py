"""What a device gave: where an artifact ran, in what state that was, and what it took there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cspedge.evaluate.timing import BenchProtocol, ColdStart, NoiseCheck, ThreadPoint


@dataclass(frozen=True, kw_only=True)
class AppleState:
    """How Core ML ran on one of Apple's devices: what it may run on (`units`, its own words) and the device's state.

    compile_ms: of the package, which an app does once; operations: how many Core ML means to run on each kind of
    processor (MLComputePlan), empty where it does not tell.
    """

    units: str
    low_power_mode: bool
    thermal_before: str
    thermal_after: str
    compile_ms: float
    operations: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class RanOn:
    """The device whose answers an evaluation is made of (`--device`), and what computed them there.

    machine: in uname's words; runtime: name and version as the native runner says; delegates: who computed inside it.
    """

    uri: str
    cpu: str
    machine: str
    isa: tuple[str, ...]
    os: str
    runtime: str
    delegates: tuple[str, ...]
    apple: AppleState | None = None  # of Core ML on a device alone


@dataclass(frozen=True, kw_only=True)
class Clock:
    """A group of a device's cores with one clock, around timed processes; limit_mhz: the lowest allowed then.

    cores: the kernel's name of the group (`policy4`); before_mhz, after_mhz: medians over processes.
    """

    cores: str
    governor: str
    max_mhz: float
    limit_mhz: float
    before_mhz: float
    after_mhz: float


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """A device's state around the processes that timed one artifact; None: it does not tell.

    status: Android's thermal status, 0 (none) to 6 (shutdown); celsius: of the processor's hottest sensor; each at
    the run's start, and the worst before and after a process. cooldown_s: waited in all; warm_starts: processes that
    began although the device had not cooled within the bound.
    """

    clocks: tuple[Clock, ...]
    status_start: int | None
    status_before: int | None
    status_after: int | None
    celsius_start: float | None
    celsius_before: float | None
    celsius_after: float | None
    cooldown_s: float
    processes: int
    warm_starts: int


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Single-image latency of one artifact on one device (docs/latency.md); milliseconds, MiB.

    samples_ms: of all rounds, in order; load_ms: median over processes; warmup_ms: each process's untimed inferences;
    unsteady: processes that were not steady after them; noise: the bench's A/A test, None where there was none; cold:
    None in-process; cores: those the process was confined to, None for all; sweep: other numbers of threads;
    conditions: a phone's clocks and warmth meanwhile, None elsewhere.
    """

    device: str
    isa: tuple[str, ...]
    threads: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    mean_ms: float
    load_ms: float
    peak_rss_mb: float | None
    samples_ms: tuple[float, ...]
    speedup_vs_fp32: float | None = None
    speedup_ci95: tuple[float, float] | None = None
    p50_ci95: tuple[float, float] | None = None
    protocol: BenchProtocol | None = None
    cores: tuple[int, ...] | None = None
    base_rss_mb: float | None = None
    warmup_ms: tuple[tuple[float, ...], ...] = ()
    unsteady: int = 0
    noise: NoiseCheck | None = None
    cold: ColdStart | None = None
    sweep: tuple[ThreadPoint, ...] = ()
    conditions: Conditions | None = None


@dataclass(frozen=True, kw_only=True)
class Instructions:
    """Instructions that one image's inference executes on an emulated processor: a coarse cost model, and no time.

    instructions_per_inference: the median of `samples`; ratio_to_fp32: to the float artifact of the same target, None
    for that one itself or without it.
    """

    device: str
    threads: int
    instructions_per_inference: int
    samples: tuple[int, ...]
    ratio_to_fp32: float | None = None
