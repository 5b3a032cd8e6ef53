"""`--device adb://`: the real adb client and server, and a device's side of the protocol (`adbd.py`)."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cspedge.devices import adb as module
from cspedge.devices import adbclient, climate, runner, uri
from cspedge.devices.adb import Adb
from cspedge.devices.base import Finished
from cspedge.devices.qemu import PROGRAM
from cspedge.digest import sha256_bytes, sha256_file
from cspedge.errors import DeviceError, RuntimeMissingError

Command = Callable[..., dict[str, Any]]
FOLDER = "cspedge-test"


@pytest.fixture
def host(adb_host: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """adb with its server, as cspedge finds it."""
    for name, value in adb_host.environment.items():
        monkeypatch.setenv(name, value)
    return adb_host


@pytest.fixture
def daemon(host: Any) -> Iterator[Any]:
    """A connected device."""
    with host.device() as found:
        yield found


@pytest.fixture
def device(daemon: Any) -> Iterator[Adb]:
    found = Adb(uri.parse(f"adb://{daemon.serial}"), FOLDER)
    try:
        yield found
    finally:
        found.close()
        assert daemon.answer != "device" or not list(daemon.folder.iterdir())


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adbclient, "WAITS", (0.0, 0.0))


@pytest.fixture
def cross() -> None:
    """What builds for Arm and runs that; qemu-aarch64:// needs Arm's C library too."""
    if shutil.which(PROGRAM) is None:
        pytest.skip("needs QEMU (apt-get install qemu-user)")
    try:
        runner.arm_options()
    except RuntimeMissingError as error:
        pytest.skip(str(error))


def _same(path: Path, other: Path) -> bool:
    with suppress(OSError):
        return path.samefile(other)
    return False


def _until(found: Callable[[], bool]) -> None:
    for _ in range(1200):
        if found():
            return
        time.sleep(0.05)
    pytest.fail("it did not come in a minute")


def _refused(name: str) -> str:
    with pytest.raises(DeviceError) as caught:
        Adb(uri.parse(name), FOLDER)
    assert caught.value.exit_code == 4
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_it_says_of_itself(device: Adb, daemon: Any) -> None:
    assert device.uri == f"adb://{daemon.serial}"
    assert (device.facts.machine, device.glibc) == ("x86_64", False)
    assert device.facts.cpu.startswith("loopback, ")
    assert device.facts.os.startswith("Android 14 (API 34), Debian stand-in, Linux ")


def test_programs_end_as_they_end(device: Adb, tmp_path: Path) -> None:
    text = '#!/bin/sh\necho "$1"; echo last >&2; [ "$1" = die ] && kill -9 $$; echo made > made; exit 3\n'
    (tmp_path / "program").write_text(text, encoding="utf-8")
    device.push(tmp_path / "program", "bin/program", sha256_file(tmp_path / "program"), executable=True)
    assert device.run(["bin/program", "a 'b' $HOME"]) == Finished(code=3, stdout="a 'b' $HOME\n", stderr="last\n")
    killed = device.run(["bin/program", "die"])
    assert (killed.code, killed.stdout) == (137, "die\n")
    device.fetch("made", tmp_path / "made")
    assert (tmp_path / "made").read_text(encoding="utf-8") == "made\n"
    assert device.run(["bin/none"]).code == 127


def test_a_program_whose_connection_broke_is_stopped_before_it_runs_again(
    device: Adb, daemon: Any, tmp_path: Path
) -> None:
    """It is a program of the machine: a script's would be the shell."""
    sleep = shutil.which("sleep")
    assert sleep is not None
    device.push(Path(sleep), "bin/program", sha256_file(Path(sleep)), executable=True)
    connections = iter(["breaks"])

    def drop(command: str) -> None:
        if "bin/program 600" in command and next(connections, None):
            threading.Timer(0.5, daemon.drop).start()

    daemon.before = drop
    running = threading.Thread(target=device.run, args=(["bin/program", "600"],), daemon=True)
    running.start()

    def found() -> set[str]:
        program = daemon.folder / FOLDER / "bin" / "program"
        return {path.parent.name for path in Path("/proc").glob("[0-9]*/exe") if _same(path, program)}

    _until(lambda: len(found()) == 1)
    (first,) = found()
    _until(lambda: bool(found() - {first}))
    assert first not in found()
    for process in found():
        os.kill(int(process), signal.SIGKILL)
    running.join(60)
    assert not running.is_alive()


def test_a_file_goes_on_where_a_connection_broke(device: Adb, daemon: Any, tmp_path: Path) -> None:
    data = os.urandom(5 * module.CHUNK // 2)
    (tmp_path / "file").write_bytes(data)
    daemon.cut, daemon.cuts = 3 * module.CHUNK // 2, 1
    daemon.drop()  # so that the bytes of a new connection are counted
    device.push(tmp_path / "file", "folder/file", sha256_bytes(data))
    assert daemon.cuts == 0, "no connection broke"
    there = daemon.folder / FOLDER / "folder" / "file"
    assert there.read_bytes() == data
    assert len(data) < daemon.sent < len(data) + module.CHUNK  # sent anew it would be 4 chunks
    before = daemon.sent
    device.push(tmp_path / "file", "folder/file", sha256_bytes(data))
    assert daemon.sent == before
    device.fetch("folder/file", tmp_path / "back")
    assert sha256_file(tmp_path / "back") == sha256_bytes(data)
    assert not there.exists()


@pytest.mark.usefixtures("impatient")
def test_the_next_command_goes_on_with_what_a_lost_one_left(
    device: Adb, daemon: Any, host: Any, tmp_path: Path
) -> None:
    data = os.urandom(2 * module.CHUNK)
    (tmp_path / "file").write_bytes(data)
    appended = threading.Event()

    def leave(command: str) -> None:
        if "cat chunk" in command and appended.is_set():
            daemon.answer = "offline"
            daemon.drop()
        elif "cat chunk" in command:
            appended.set()

    daemon.before = leave
    with pytest.raises(DeviceError, match=r"is gone \(adb: .*\); connect it, .* it goes on with what is there"):
        device.push(tmp_path / "file", "file", sha256_bytes(data))
    parts = [path for path in (daemon.folder / FOLDER).iterdir() if path.name.startswith("part-")]
    assert parts[0].stat().st_size >= module.CHUNK
    daemon.before, before = lambda command: None, daemon.sent
    host.turn(daemon, "device")
    again = Adb(uri.parse(f"adb://{daemon.serial}"), FOLDER)
    again.push(tmp_path / "file", "file", sha256_bytes(data))
    assert (daemon.folder / FOLDER / "file").read_bytes() == data
    assert daemon.sent - before <= module.CHUNK


def test_a_damaged_part_is_sent_anew(device: Adb, daemon: Any, tmp_path: Path) -> None:
    data = os.urandom(1 << 16)
    (tmp_path / "file").write_bytes(data)
    device.push(tmp_path / "file", "other", sha256_bytes(data))
    part = daemon.folder / FOLDER / f"part-{sha256_bytes(data)[:32]}"
    part.write_bytes(bytes(1 << 12))
    device.push(tmp_path / "file", "file", sha256_bytes(data))
    assert (daemon.folder / FOLDER / "file").read_bytes() == data
    with pytest.raises(DeviceError, match="does not keep what is sent"):
        device.push(tmp_path / "file", "third", sha256_bytes(b"of something else"))


@pytest.mark.usefixtures("impatient")
def test_devices_that_cannot_be_used(host: Any) -> None:
    assert "adb sees no device; connect one with USB debugging on" in _refused("adb://")
    with host.device() as first, host.device() as second:
        both = _refused("adb://")
        assert "names none of the 2 that are connected; use one of adb://127.0.0.1:" in both
        absent = _refused("adb://R58M123ABC")
        assert absent.startswith("device 'adb://R58M123ABC' is not connected (adb sees adb://127.0.0.1:")
        host.turn(second, "offline")
        assert "is offline: adb sees it and it does not answer" in _refused(f"adb://{second.serial}")
        host.turn(first, "unauthorized")
        assert "has not allowed this machine to use it; unlock it" in _refused(f"adb://{first.serial}")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("ro.build.version.sdk", "25", "is too old: it has Android 14 (API 25), and the native runner needs Android 8"),
        ("ro.build.version.sdk", "", "(API ?)"),
        ("ro.product.cpu.abi", "armeabi-v7a", "runs 'armeabi-v7a' programs, and the native runner is built for arm64"),
    ],
)
def test_devices_that_are_too_old(daemon: Any, name: str, value: str, words: str) -> None:
    daemon.properties[name] = value
    assert words in _refused("adb://")
    assert not list(daemon.folder.iterdir())


@pytest.fixture
def small(daemon: Any) -> Iterator[None]:
    """The device's folder on a file system of 2 MiB."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "cspedge-test", str(daemon.folder)]
    with suppress(FileNotFoundError):
        if subprocess.run(mount, capture_output=True, check=False).returncode == 0:
            yield
            subprocess.run(["umount", str(daemon.folder)], check=True)
            return
    pytest.skip("a full device needs a small file system, and tmpfs may not be mounted here")


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("size", [1 << 20, 3 << 20])
def test_a_device_that_is_full(device: Adb, size: int, tmp_path: Path) -> None:
    """The chunk has no room, or it beside what is there already."""
    (tmp_path / "file").write_bytes(os.urandom(size + (1 << 18)))
    with pytest.raises(DeviceError, match="has no room left in /data/local/tmp; free some and run it again"):
        device.push(tmp_path / "file", "file", sha256_file(tmp_path / "file"))


def _thermal(daemon: Any, celsius: float, status: int) -> None:
    sensor = f"Temperature{{mValue={celsius}, mType=3, mName=skin, mStatus={status}}}"
    battery = "Temperature{mValue=91.0, mType=2, mName=battery, mStatus=0}"
    daemon.thermal = f"Thermal Status: {status}\\nCurrent temperatures from HAL:\\n\\t{battery}\\n\\t{sensor}\\n"


@pytest.fixture
def policy(daemon: Any) -> Path:
    """The device's group of cores; their clock is in `scaling_cur_freq`."""
    found = Path(daemon.root) / "sys/devices/system/cpu/cpufreq/policy4"
    found.mkdir(parents=True)
    told = {"scaling_governor": "schedutil", "scaling_cur_freq": "600000", "scaling_max_freq": "2400000"}
    for name, text in (told | {"cpuinfo_max_freq": "2800000"}).items():
        (found / name).write_text(f"{text}\n", encoding="utf-8")
    return found


def test_it_waits_until_the_device_is_cool(daemon: Any, policy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Warm after the first process, it cools a little with each look; the third one begins warm: the bound is over."""
    monkeypatch.setattr(climate, "STEP", 0.0)
    _thermal(daemon, 31.0, 0)
    device = Adb(uri.parse("adb://"), FOLDER)
    assert device.climate is not None

    def work() -> None:
        _thermal(daemon, 41.5, 2)
        (policy / "scaling_cur_freq").write_text("1800000\n", encoding="utf-8")

    def cooling(command: str) -> None:
        if "thermalservice" in command and looks:
            _thermal(daemon, looks.pop(), 0)

    looks = [33.9, 34.1, 38.0, 41.5]
    device.climate.timed("a", work)
    daemon.before = cooling
    device.climate.timed("a", work)
    monkeypatch.setattr(climate, "LIMIT", 0.0)
    device.climate.timed("a", work)
    found = device.climate.conditions("a")
    (clock,) = found.clocks
    assert (clock.cores, clock.governor, clock.max_mhz, clock.limit_mhz) == ("policy4", "schedutil", 2800, 2400)
    assert (clock.before_mhz, clock.after_mhz) == (1800, 1800)
    assert (found.status_start, found.status_before, found.status_after) == (0, 2, 2)
    assert (found.celsius_start, found.celsius_before, found.celsius_after) == (31.0, 41.5, 41.5)
    assert found.cooldown_s > 0
    assert (found.processes, found.warm_starts) == (3, 1)
    device.close()


def test_zones_where_there_is_no_thermal_service() -> None:
    zones = "zone 41000 cpu-0-0-usr\nzone 38 mtktscpu\nzone 91000 battery\nzone -40960 skin-therm\n"
    found = climate.parse(f"{zones}Can't find service: thermalservice\n")
    assert (found.celsius, found.status, found.clocks) == ({"cpu-0-0-usr": 41.0, "mtktscpu": 38.0}, None, {})
    assert climate.parse("").hottest is None


@pytest.mark.usefixtures("policy")
def test_validated_and_timed_there_with_nothing_left(command: Command, daemon: Any) -> None:
    """The same machine through adb, with the C library that came along: the same answers, to the bit, as here."""
    commands: list[str] = []
    daemon.before = commands.append
    _thermal(daemon, 30.0, 0)
    here = command("validate", "--device", "local-process://")
    found = command("bench", "--device", "adb://")
    for row, beside in zip(found["artifacts"], here["artifacts"], strict=True):
        assert row["accuracy"] == beside["accuracy"]
        assert row["ran_on"]["uri"] == f"adb://{daemon.serial}"
        assert row["ran_on"]["runtime"] == beside["ran_on"]["runtime"]
        latency = row["latency"]
        assert len(latency["samples_ms"]) == 100
        assert latency["device"].endswith(f"(adb://{daemon.serial})")
        told = latency["conditions"]
        assert (told["status_after"], told["celsius_start"]) == (0, 30.0)
        assert told["clocks"][0] | {"governor": "schedutil", "after_mhz": 600} == told["clocks"][0]
        twice = latency["noise"]["artifact"] == f"{row['target']}/{row['precision']}"
        assert told["processes"] == (20 if twice else 10)
    assert any("/ld-linux-x86-64.so.2 --inhibit-cache --library-path runner-" in one for one in commands)
    assert not list(daemon.folder.iterdir())


@pytest.mark.usefixtures("impatient")
def test_a_device_that_goes_in_the_middle(command: Command, daemon: Any) -> None:
    """What it had done stands; what it had not is a row with its reason, in a sentence."""

    def leave(text: str) -> None:
        if "--rounds" in text:
            daemon.leave()

    daemon.before = leave
    report = command("validate", "--precision", "int8", "--device", "adb://", code=4)
    (row,) = report["artifacts"]
    assert row["status"] == "unavailable"
    assert row["reason"].startswith(f"device 'adb://{daemon.serial}' is gone (adb: ")
    assert "\n" not in row["reason"]


def test_a_device_that_is_off_is_said_before_any_work(command: Command, host: Any, lowered: Path) -> None:
    del host
    before = sorted(lowered.rglob("*"))
    said = command("bench", "--device", "adb://R58M123ABC", code=4)["stderr"]
    assert said.startswith("cspedge: device 'adb://R58M123ABC' is not connected (adb sees none)")
    assert sorted(lowered.rglob("*")) == before


def test_a_compiler_without_the_c_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "LIBC", ("libc.so.6", "libnone.so.1"))
    with pytest.raises(
        RuntimeMissingError, match=r"needs 'libnone\.so\.1', which .*g\+\+ does not have: apt-get install"
    ):
        runner.libc("x86_64")


@pytest.mark.usefixtures("cross")
def test_arm_programs_bring_their_own_libraries(command: Command, host: Any, tmp_path: Path) -> None:
    """The aarch64 runner, by its own loader on an emulated processor: no library but those that were pushed."""
    log = tmp_path / "system-calls"
    with host.device(emulate=f"qemu-aarch64 -cpu cortex-a76 -L /nonexistent -strace -D {log}") as device:
        device.properties["ro.product.cpu.abi"] = "arm64-v8a"
        report = command("validate", "--precision", "int8", "--device", "adb://", code=None)
    (row,) = report["artifacts"]
    if row["status"] == "unavailable" and "it needs the network once" in row["reason"]:
        pytest.skip(row["reason"])
    assert row["ran_on"]["machine"] == "aarch64"
    (beside,) = command("validate", "--precision", "int8", "--device", "local-process://")["artifacts"]
    assert row["accuracy"]["agreement"] == pytest.approx(beside["accuracy"]["agreement"], abs=0.01)
    opened = re.findall(r'openat\(AT_FDCWD,"([^"]*\.so[^"]*)".*= \d', log.read_text(encoding="utf-8"))
    assert len(opened) >= 8
    assert all(re.match(r"runner-[0-9a-f]{16}/lib", name) for name in opened), opened
