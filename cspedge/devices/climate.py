"""A device's clocks and warmth around timed processes, and the wait for it to cool down between them.

A phone that is warm lowers its clocks, and then the artifact that runs later looks slower. What it tells: its governors
and clocks (the kernel's cpufreq), its temperatures and, on Android 10 and newer, its thermal status (`dumpsys
thermalservice`: PowerManager's THERMAL_STATUS_NONE = 0 to SHUTDOWN = 6).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

from cspedge.measured import Clock, Conditions

T = TypeVar("T")
Number = TypeVar("Number", int, float)

NEAR = 3.0  # degrees above the start that count as cool again
STEP, LIMIT, TOTAL = 2.0, 60.0, 600.0  # seconds: between two looks, of one wait, of all waits of a run
LOOK = """\
for p in /sys/devices/system/cpu/cpufreq/policy*; do
  cd $p && echo policy ${p##*/} $(cat scaling_governor scaling_cur_freq scaling_max_freq cpuinfo_max_freq related_cpus)
done 2>/dev/null
for z in /sys/class/thermal/thermal_zone*; do echo "zone $(cat $z/temp) $(cat $z/type)"; done 2>/dev/null
dumpsys thermalservice 2>/dev/null
true
"""
_POLICY = re.compile(r"^policy (\w+) (\w+) (\d+) (\d+) (\d+)((?: \d+)+)$", re.MULTILINE)
_ZONE = re.compile(r"^zone (-?\d+) (\S+)$", re.MULTILINE)
_PROCESSOR = re.compile("cpu|soc|skin|tsens|pkg", re.IGNORECASE)  # of the many zones, those that inference warms
_STATUS = re.compile(r"Thermal Status: (\d)")
# android.hardware.thermal.TemperatureType: 0 CPU, 3 SKIN, 13 SOC. The cached list comes first, the sensors' own last.
_SENSOR = re.compile(r"Temperature\{mValue=(-?[\d.]+), mType=(?:0|3|13), mName=([^,}]+),")


@dataclass(frozen=True, kw_only=True)
class Group:
    """Cores with one clock, at one look; in kHz: now, the limit that holds, and the most that they can."""

    governor: str
    now: int
    limit: int
    most: int
    cores: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One look. groups: by the kernel's name of the policy; celsius: by sensor."""

    groups: dict[str, Group]
    celsius: dict[str, float]
    status: int | None

    @property
    def hottest(self) -> float | None:
        return max(self.celsius.values(), default=None)


@dataclass(frozen=True, kw_only=True)
class _Burst:
    before: Reading
    after: Reading
    waited: float
    cool: bool


def parse(text: str) -> Reading:
    """What `LOOK` printed; what a device does not tell is not in it."""
    celsius = {name: float(value) for value, name in _SENSOR.findall(text)}
    if not celsius:
        zones = [(name, int(value)) for value, name in _ZONE.findall(text) if _PROCESSOR.search(name)]
        # millidegrees by the kernel's rule, whole degrees on some devices
        celsius = {name: value / 1000 if abs(value) >= 1000 else float(value) for name, value in zones}
    status = _STATUS.search(text)
    return Reading(
        groups={name: _group(*told) for name, *told in _POLICY.findall(text)},
        celsius={name: value for name, value in celsius.items() if 0 < value < 150},  # others are no sensor's
        status=int(status[1]) if status else None,
    )


def _group(governor: str, now: str, limit: str, most: str, cores: str) -> Group:
    numbers = tuple(int(core) for core in cores.split())
    return Group(governor=governor, now=int(now), limit=int(limit), most=int(most), cores=numbers)


class Climate:
    """A device's, from the moment that this is made."""

    def __init__(self, ask: Callable[[str], str]) -> None:
        """ask: runs a script there and gives what it printed; its DeviceError goes through."""
        self._ask = ask
        self._start = self._look()
        self._left = TOTAL
        self._bursts: dict[str, list[_Burst]] = {}

    def cores(self, threads: int) -> tuple[int, ...] | None:
        """The numbers of the `threads` fastest cores, ascending; None where the device does not tell of so many."""
        groups = sorted(self._start.groups.values(), key=lambda group: group.most, reverse=True)
        fastest = [core for group in groups for core in sorted(group.cores, reverse=True)]
        return tuple(sorted(fastest[:threads])) if len(fastest) >= threads else None

    def timed(self, label: str, work: Callable[[], T]) -> T:
        """Does what takes times of the artifact `label`, once the device is as cool as at the start or will not be."""
        before, waited, cool = self._settle()
        result = work()
        burst = _Burst(before=before, after=self._look(), waited=waited, cool=cool)
        self._bursts.setdefault(label, []).append(burst)
        return result

    def conditions(self, label: str) -> Conditions:
        """Over all of an artifact's timed processes."""
        bursts = self._bursts[label]
        before, after = [burst.before for burst in bursts], [burst.after for burst in bursts]
        return Conditions(
            clocks=tuple(_clock(name, before, after) for name in before[0].groups),
            status_start=self._start.status,
            status_before=_worst(look.status for look in before),
            status_after=_worst(look.status for look in after),
            celsius_start=self._start.hottest,
            celsius_before=_worst(look.hottest for look in before),
            celsius_after=_worst(look.hottest for look in after),
            cooldown_s=sum(burst.waited for burst in bursts),
            processes=len(bursts),
            warm_starts=sum(not burst.cool for burst in bursts),
        )

    def _settle(self) -> tuple[Reading, float, bool]:
        """Waits; the last look, the seconds that it took, and whether the device is cool."""
        look, waited, most = self._look(), 0.0, min(LIMIT, self._left)
        began = time.monotonic()
        while not (cool := self._cool(look)) and waited < most:
            time.sleep(min(STEP, most - waited))
            look, waited = self._look(), time.monotonic() - began
        self._left = max(0.0, self._left - waited)
        return look, waited, cool

    def _cool(self, look: Reading) -> bool:
        if look.status is not None and self._start.status is not None and look.status > self._start.status:
            return False
        return all(value <= self._start.celsius.get(name, value) + NEAR for name, value in look.celsius.items())

    def _look(self) -> Reading:
        return parse(self._ask(LOOK))


def _worst(values: Iterable[Number | None]) -> Number | None:
    return max((value for value in values if value is not None), default=None)


def _clock(name: str, before: Sequence[Reading], after: Sequence[Reading]) -> Clock:
    """A group over all looks; the first one has it."""
    first, earlier, later = before[0].groups[name], _groups(name, before), _groups(name, after)
    return Clock(
        cores=name,
        governor=first.governor,
        max_mhz=first.most / 1000,
        limit_mhz=min(group.limit for group in [*earlier, *later]) / 1000,
        before_mhz=median(group.now for group in earlier) / 1000,
        after_mhz=median(group.now for group in later or earlier) / 1000,
    )


def _groups(name: str, looks: Sequence[Reading]) -> list[Group]:
    return [look.groups[name] for look in looks if name in look.groups]
