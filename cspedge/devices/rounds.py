"""Times from fresh processes, one for every artifact and round, whatever starts them, and the figures from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cspedge.devices.pinning import pinned
from cspedge.errors import CspedgeError
from cspedge.measured import Latency
from cspedge.types import Artifact, Precision

if TYPE_CHECKING:
    from cspedge.devices.line import Line
    from cspedge.evaluate.timing import NoiseCheck, Timed
    from cspedge.options import RunOptions

# Starts one process that loads an artifact, runs it once, and then times so many inferences from the first on.
Burst = Callable[[int], "Line"]
Opener = Callable[[Artifact, int], Burst]  # by artifact and number of threads; raises a CspedgeError


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is timed how often. sweep: other numbers of threads besides; seed: of the order and the intervals."""

    threads: int
    rounds: int
    per_round: int
    seed: int
    sweep: tuple[int, ...] = ()

    @classmethod
    def of(cls, options: RunOptions) -> Plan:
        """What a run is asked for; the sweep without the number of threads that all is timed with anyway."""
        others = tuple(count for count in options.sweep if count != options.threads)
        return cls(
            threads=options.threads,
            rounds=options.rounds,
            per_round=options.per_round,
            seed=options.seed,
            sweep=others,
        )


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where it runs, for the report; cores: by number of threads, those that a process is confined to.

    here: whether it is started with this process's own confinement; where not, the burst confines it.
    """

    device: str
    isa: tuple[str, ...]
    cores: Callable[[int], tuple[int, ...] | None]
    here: bool = True


@dataclass(frozen=True, kw_only=True)
class _Arm:
    """One entry of the list that runs in every round; again: the second of the artifact that checks for noise."""

    artifact: Artifact
    threads: int
    burst: Burst
    again: bool = False

    @property
    def name(self) -> str:
        from cspedge.evaluate.noise import AGAIN

        return f"{self.artifact.label} x{self.threads}{AGAIN if self.again else ''}"


def bench(
    artifacts: Sequence[Artifact], opener: Opener, plan: Plan, place: Place, progress: Callable[[int, int], None]
) -> dict[str, Latency | str]:
    """Times every artifact in every round, each time in a fresh process; by label, or why it dropped out.

    An artifact that fails with one number of threads drops out with all. Raises UsageError for too few inferences.
    """
    from cspedge.evaluate.latency import check_counts
    from cspedge.evaluate.noise import subject

    check_counts(plan.rounds, plan.per_round)
    arms: list[_Arm] = []
    failures: dict[str, str] = {}
    for artifact in artifacts:
        try:
            for threads in (plan.threads, *plan.sweep):
                arms.append(_Arm(artifact=artifact, threads=threads, burst=opener(artifact, threads)))
        except CspedgeError as error:
            failures[artifact.label] = str(error)
    able = [arm for arm in arms if arm.artifact.label not in failures]
    if able:
        twice = subject([arm.artifact for arm in able])
        one = next(arm for arm in able if arm.artifact is twice and arm.threads == plan.threads)
        able.append(_Arm(artifact=twice, threads=one.threads, burst=one.burst, again=True))
    times = _times(_lines(able, plan, place, failures, progress), able, plan, failures)
    return dict(failures) | _figures(able, times, plan, place)


def _lines(
    arms: Sequence[_Arm], plan: Plan, place: Place, failures: dict[str, str], progress: Callable[[int, int], None]
) -> dict[str, list[Line]]:
    """Each arm's lines, one a round; an artifact that fails goes into `failures` with its reason."""
    from cspedge.evaluate.latency import round_order
    from cspedge.evaluate.steady import CAP

    by_name = {arm.name: arm for arm in arms}
    lines: dict[str, list[Line]] = {name: [] for name in by_name}
    for index, names in enumerate(round_order(tuple(by_name), rounds=plan.rounds, seed=plan.seed)):
        for name in names:
            arm = by_name[name]
            if arm.artifact.label in failures:
                continue
            try:
                with pinned(place.cores(arm.threads) if place.here else None):
                    # so many that a process which is steady only at the cap still has all that are timed
                    lines[name].append(arm.burst(CAP + plan.per_round))
            except CspedgeError as error:
                failures[arm.artifact.label] = f"{error} (in round {index + 1} of {plan.rounds})"
        progress(index + 1, plan.rounds)
    return lines


def _times(
    lines: Mapping[str, Sequence[Line]], arms: Sequence[_Arm], plan: Plan, failures: Mapping[str, str]
) -> dict[str, Timed]:
    return {a.name: timed(lines[a.name], plan.per_round) for a in arms if a.artifact.label not in failures}


def timed(lines: Sequence[Line], per_round: int) -> Timed:
    """One artifact's times from the lines of its processes: after each one's warm-up, the next `per_round`."""
    import numpy as np

    from cspedge.evaluate.steady import warm_up
    from cspedge.evaluate.timing import Timed

    ends = [warm_up(line.samples_ms) for line in lines]
    rows = [line.samples_ms[end : end + per_round] for line, (end, _) in zip(lines, ends, strict=True)]
    peak, base = (max(line.peak_rss_bytes for line in lines), max(line.base_rss_bytes or 0 for line in lines))
    return Timed(
        samples_ms=np.array(rows, dtype=np.float64),
        load_ms=tuple(line.load_ms for line in lines),
        first_ms=tuple(line.first_ms for line in lines),
        warmup_ms=tuple(line.samples_ms[:end] for line, (end, _) in zip(lines, ends, strict=True)),
        unsteady=sum(not steady for _, steady in ends),
        peak_rss_mb=peak / (1 << 20) if peak else None,
        base_rss_mb=base / (1 << 20) if base else None,
    )


def _figures(arms: Sequence[_Arm], times: Mapping[str, Timed], plan: Plan, place: Place) -> dict[str, Latency]:
    from cspedge.evaluate.timing import BenchProtocol, summarise, with_sweep

    there = [arm for arm in arms if arm.name in times]
    main = {arm.artifact.label: arm for arm in there if arm.threads == plan.threads and not arm.again}
    floats = {a.artifact.target: times[a.name] for a in main.values() if a.artifact.precision.is_float}
    noise = _noise(there, times, plan)
    found: dict[str, Latency] = {}
    for label, arm in main.items():
        others = {a.threads: (times[a.name], place.cores(a.threads)) for a in there if _other(a, arm)}
        latency = summarise(
            times[arm.name],
            device=place.device,
            isa=place.isa,
            threads=plan.threads,
            protocol=BenchProtocol.FRESH_PROCESS,
            cores=place.cores(plan.threads),
            fp32=floats.get(arm.artifact.target) if arm.artifact.precision is Precision.INT8 else None,
            noise=noise,
            seed=plan.seed,
        )
        found[label] = with_sweep(latency, others, seed=plan.seed)
    return found


def _other(arm: _Arm, main: _Arm) -> bool:
    """Whether `arm` is the same artifact with another number of threads."""
    return arm.artifact is main.artifact and arm.threads != main.threads


def _noise(arms: Sequence[_Arm], times: Mapping[str, Timed], plan: Plan) -> NoiseCheck | None:
    from cspedge.evaluate.noise import check

    for again in arms:
        if again.again:
            one = next(a for a in arms if a.artifact is again.artifact and a.threads == again.threads and not a.again)
            return check(one.artifact.label, times[one.name], times[again.name], seed=plan.seed)
    return None
