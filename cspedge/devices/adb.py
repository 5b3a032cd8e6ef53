"""`adb://SERIAL`: an Android device with USB debugging, through the system's adb.

All lies in one folder of /data/local/tmp. Android's C library is not the one that runners are built with, so a runner
comes with its own and that one's loader (`runner.build`). A push of adb's starts anew where it broke: large files go in
chunks, each checked by its digest, and go on after the last one that came whole.
"""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cspedge import atomic
from cspedge.devices.adbclient import FOLDER, AdbClient
from cspedge.devices.base import Facts, Finished
from cspedge.devices.climate import Climate
from cspedge.devices.host import parse_cpuinfo
from cspedge.devices.uri import DeviceUri
from cspedge.digest import sha256_bytes
from cspedge.errors import DeviceError

CHUNK = 8 << 20  # bytes
MIN_API = 26  # Android 8, as the apps of a bundle; older ones lack sha256sum
MACHINES = {"arm64-v8a": "aarch64", "x86_64": "x86_64"}  # by Android's name of the ABI
_TRIES = 3  # of a chunk, or a file, that arrives as other bytes
_PROPERTIES = (
    "ro.product.cpu.abi",
    "ro.build.version.sdk",
    "ro.build.version.release",
    "ro.product.manufacturer",
    "ro.product.model",
    "ro.soc.manufacturer",
    "ro.soc.model",
)


class Adb:
    """One folder on an Android device."""

    timed = True
    glibc = False

    def __init__(self, uri: DeviceUri, folder: str) -> None:
        """folder: its name below /data/local/tmp. Raises DeviceError, RuntimeMissingError without a client."""
        self._client = AdbClient(uri.serial, uri.text)
        self.uri = self._client.name
        self._root = f"{FOLDER}/{folder}"
        self.facts = self._describe()
        self.climate: Climate | None = Climate(lambda script: self._client.shell(script).stdout)
        self._scratch = tempfile.TemporaryDirectory(prefix="cspedge-")

    def push(self, source: Path, name: str, sha256: str, *, executable: bool = False) -> None:
        if not any(self._push(source, name, sha256, "700" if executable else "600") for _ in range(_TRIES)):
            raise self._unkept(name)

    def run(self, command: Sequence[str]) -> Finished:
        program = shlex.quote(f"./{command[0]}")
        # where a connection broke its program may still run, and would take time from this one
        stop = f"for p in /proc/[0-9]*; do if [ $p/exe -ef {program} ]; then kill -9 ${{p#/proc/}}; fi; done"
        told = f"cd {self._root} && {{ {stop}; true; }} && {program} {shlex.join(command[1:])}"
        return self._client.again(lambda: self._client.attempt(told))

    def fetch(self, name: str, target: Path) -> None:
        with atomic.translate_errors(target):
            target.unlink(missing_ok=True)
        self._client.pull(f"{self._root}/{name}", target)
        self._client.shell(f"rm -f {self._root}/{shlex.quote(name)}")

    def close(self) -> None:
        """Where the device is gone the folder stays, and the next command goes on with what it holds."""
        self._scratch.cleanup()
        self._client.attempt(f"rm -rf {self._root}")

    def _describe(self) -> Facts:
        asked = f"for name in {' '.join(_PROPERTIES)}; do getprop $name; done; uname -sr; cat /proc/cpuinfo"
        abi, api, release, maker, model, *soc, system, cpuinfo = self._client.shell(asked).stdout.split(
            "\n", len(_PROPERTIES) + 1
        )
        if not api.isdigit() or int(api) < MIN_API:
            raise DeviceError(
                f"device {self.uri!r} is too old: it has Android {release or '?'} (API {api or '?'}), and the native "
                f"runner needs Android 8 (API {MIN_API}) or newer"
            )
        if abi not in MACHINES:
            raise DeviceError(
                f"device {self.uri!r} runs {abi or 'unknown'!r} programs, and the native runner is built for "
                f"{' and '.join(MACHINES)}; use a 64-bit device"
            )
        cpu, isa = parse_cpuinfo(cpuinfo)
        chip = " ".join(part for part in soc if part)
        return Facts(
            cpu=", ".join(part for part in (chip, cpu) if part) or abi,
            machine=MACHINES[abi],
            isa=isa,
            os=f"Android {release} (API {api}), {maker} {model}, {system}",
        )

    def _push(self, source: Path, name: str, sha256: str, mode: str) -> bool:
        """False where all bytes are there and are others; they are removed then."""
        place, part, size = shlex.quote(name), f"part-{sha256[:32]}", source.stat().st_size
        enter = f"umask 077; mkdir -p {self._root}/{shlex.quote(str(Path(name).parent))} && cd {self._root}"
        have = f"[ -f {place} ] && {_is(place, sha256)}"
        asked = self._client.shell(f"{enter} && if {have}; then echo have; else touch {part} && wc -c < {part}; fi")
        if asked.stdout.strip() == "have":
            return True
        there, damaged = int(asked.stdout), 0
        while there < size:
            came = self._append(source, there, part)
            damaged = damaged + 1 if came == there else 0
            if damaged == _TRIES:
                raise self._unkept(name)
            there = came
        kept = self._client.shell(
            f"{enter} && if {_is(part, sha256)}; then chmod {mode} {part} && mv -f {part} {place}; "
            f"else rm -f {part}; fi; {have} && echo kept; true"
        )
        return kept.stdout.strip() == "kept"

    def _append(self, source: Path, there: int, part: str) -> int:
        """Sends what follows the first `there` bytes; how many are there then. Safe to repeat wherever it broke."""
        chunk = Path(self._scratch.name) / "chunk"
        with source.open("rb") as file:
            file.seek(there)
            data = file.read(CHUNK)
        with atomic.translate_errors(chunk):
            chunk.write_bytes(data)
        self._client.push(chunk, f"{self._root}/chunk")
        done = self._client.shell(
            f"cd {self._root} && if [ $(wc -c < {part}) = {there} ] && {_is('chunk', sha256_bytes(data))}; "
            f"then cat chunk >> {part} || exit; fi; rm -f chunk; wc -c < {part}"
        )
        return int(done.stdout)

    def _unkept(self, name: str) -> DeviceError:
        return DeviceError(f"device {self.uri!r} does not keep what is sent ({name}); check its storage and its cable")


def _is(place: str, sha256: str) -> str:
    return f'[ "$(sha256sum < {place} | cut -c1-64)" = {sha256} ]'
