"""The system's adb client: which devices it sees, and a shell and files on one of them, whose loss is noticed.

The client itself says nothing of a loss: a shell whose connection breaks ends with exit code 0 and no output (adb 29,
measured). So each script prints a last line of its own, and what lacks it is lost.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from cspedge.devices.base import Finished
from cspedge.devices.uri import ADB
from cspedge.errors import DeviceError, RuntimeMissingError

LOST = -1  # in place of an exit code: the device went away
WAITS = (0.5, 1.0, 2.0, 4.0, 8.0)  # seconds before each new attempt, once a device has been there
FOLDER = "/data/local/tmp"  # where Android lets adb's shell write files and execute them
_END = "cspedge: all was done"
_PASSING = ("offline", "connecting", "authorizing")  # states that a device leaves by itself, where it does
_READY = "device"
_STATES = {
    "unauthorized": "has not allowed this machine to use it; unlock it and accept its question about USB debugging",
    "authorizing": "has not answered whether this machine may use it; unlock it and accept its question",
    "offline": "is offline: adb sees it and it does not answer; unlock it and connect it again",
    "connecting": "does not answer; unlock it and connect it again",
    "no permissions": "may not be opened by this user; see `adb devices`, and udev's rules for Android",
}


class AdbClient:
    """adb, speaking to one device."""

    def __init__(self, serial: str | None, text: str) -> None:
        """serial: None for the only device that there is; text: the device's name as it was given, for messages.

        Raises RuntimeMissingError without a client, DeviceError where that device cannot be used.
        """
        program = shutil.which("adb")
        if program is None:
            raise RuntimeMissingError("adb:// needs Android's adb: apt-get install adb")
        self._program = program
        self.name = text
        self.serial = serial or self._only()
        if serial is None:
            self.name = f"{ADB}://{self.serial}"
        self._ready()

    def again(self, attempt: Callable[[], Finished]) -> Finished:
        """Repeats what fails with the device's connection, for as long as `WAITS` says. Raises DeviceError."""
        for wait in (*WAITS, None):
            done = attempt()
            if done.code != LOST:
                return done
            if wait is None or "unauthorized" in done.stderr:
                break
            time.sleep(wait)
        said = " ".join(done.stderr.split())[:200] or "the connection was closed"
        raise DeviceError(
            f"device {self.name!r} is gone (adb: {said}); connect it, see `adb devices`, then run the same command "
            "again: it goes on with what is there"
        )

    def shell(self, script: str) -> Finished:
        """A script that has no reason to fail. Raises DeviceError where it does, and where the device stays away."""
        done = self.again(lambda: self.attempt(script))
        if done.code:
            said = " ".join(done.stderr.split())[-200:] or script[:80]
            raise DeviceError(
                f"device {self.name!r} cannot do what is needed ({said}); it takes an Android device whose adb shell "
                f"has sha256sum and can write to {FOLDER}"
            )
        return done

    def attempt(self, script: str) -> Finished:
        """A script, tried once; its own exit code, or `LOST`. Raises DeviceError where there is no room."""
        # -T: no terminal, which would change line ends; the subshell keeps an `exit` from passing over the last line
        done = self._call("shell", "-T", f"( {script} ); code=$?; printf '\\n{_END}\\n'; exit $code")
        self._room(done.stderr)
        if not done.stdout.endswith(f"\n{_END}\n"):
            return Finished(code=LOST, stdout="", stderr=done.stderr)
        return Finished(code=done.code, stdout=done.stdout.removesuffix(f"\n{_END}\n"), stderr=done.stderr)

    def push(self, source: Path, place: str) -> None:
        """A whole file, however often that takes. Raises DeviceError."""
        self.again(lambda: self._copied("push", str(source), place))

    def pull(self, place: str, target: Path) -> None:
        """As `push`, the other way."""
        self.again(lambda: self._copied("pull", place, str(target)))

    def _copied(self, *args: str) -> Finished:
        done = self._call(*args)
        said = f"{done.stdout} {done.stderr}"  # adb says on stdout too what went wrong
        self._room(said)
        if done.code and ("Permission denied" in said or "Read-only file system" in said):
            raise DeviceError(
                f"device {self.name!r} does not let adb write ({' '.join(said.split())[:200]}); it takes a "
                f"{FOLDER} that can be written"
            )
        return Finished(code=LOST if done.code else 0, stdout="", stderr=said)

    def _room(self, said: str) -> None:
        if "No space left on device" in said or "Disk quota exceeded" in said:
            raise DeviceError(f"device {self.name!r} has no room left in {FOLDER}; free some and run it again")

    def _call(self, *args: str, whole: bool = False) -> Finished:
        command = [self._program, *(() if whole else ("-s", self.serial)), *args]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        out, err = (part.decode(errors="replace") for part in (done.stdout, done.stderr))
        return Finished(code=done.returncode, stdout=out, stderr=err)

    def _states(self) -> dict[str, str]:
        """What adb says of each device that it sees, by serial."""
        done = self._call("devices", whole=True)
        if done.code:
            said = " ".join(done.stderr.split())[-200:]
            raise DeviceError(f"device {self.name!r} cannot be asked for: adb does not start ({said})")
        rows = (line.split("\t", 1) for line in done.stdout.splitlines() if "\t" in line)
        return {serial: state.strip() for serial, state in rows}

    def _only(self) -> str:
        found = self._states()
        if len(found) == 1:
            return next(iter(found))
        if not found:
            raise DeviceError(
                f"device {self.name!r}: adb sees no device; connect one with USB debugging on, or `adb connect "
                "HOST:PORT`, and see `adb devices`"
            )
        names = ", ".join(f"{ADB}://{serial}" for serial in sorted(found))
        raise DeviceError(f"device {self.name!r} names none of the {len(found)} that are connected; use one of {names}")

    def _ready(self) -> None:
        for wait in (*WAITS[:3], None):
            found = self._states()
            state = found.get(self.serial)
            if state == _READY:
                return
            if wait is None or state is None or state not in _PASSING:
                break
            time.sleep(wait)
        if state is None:
            seen = ", ".join(f"{ADB}://{serial}" for serial in sorted(found)) or "none"
            raise DeviceError(
                f"device {self.name!r} is not connected (adb sees {seen}); connect it with USB debugging on, or `adb "
                "connect HOST:PORT`, and see `adb devices`"
            )
        for words, sentence in _STATES.items():
            if state.startswith(words):
                raise DeviceError(f"device {self.name!r} {sentence}")
        raise DeviceError(f"device {self.name!r} is in state {state!r} for adb; start Android on it")
