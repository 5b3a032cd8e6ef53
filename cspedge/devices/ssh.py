"""`ssh://user@host[:port]`: any Linux machine that the system's OpenSSH client reaches. No Python is needed there.

The client is OpenSSH's own, as a process, because it alone knows the user's keys, agents, jump hosts and host keys
(`~/.ssh/config`, or the file that CSPEDGE_SSH_CONFIG names). On the device only POSIX tools and sha256sum are used.
All lies in one folder below the home folder; a file counts as there when it has its SHA-256, and a part of one is
continued.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from cspedge import atomic
from cspedge.devices.base import Facts, Finished
from cspedge.devices.host import parse_cpuinfo
from cspedge.devices.pinning import taskset
from cspedge.devices.uri import DeviceUri
from cspedge.errors import DeviceError, RuntimeMissingError

Attempt = Callable[[], Finished]

LOST = 255  # OpenSSH's exit code where the connection fails
WAITS = (0.5, 1.0, 2.0, 4.0, 8.0)  # seconds before each new attempt, once a connection has been there
_LONGEST = 80  # a socket's path has at most 104 characters on macOS, and OpenSSH adds 19 while it makes one
_DAMAGED = 76  # all bytes are there and their digest is another's
# What no further attempt changes, as OpenSSH says it, and what to do.
_FINAL = {
    "Permission denied": "refused us; put your public key there (ssh-copy-id), and check the user's name",
    "Host key verification failed": "is not the machine that its host key names; connect once with ssh to see why",
    "Could not resolve hostname": "has a name that nothing knows; check the host's name",
    "Bad configuration option": "cannot be reached with this configuration of ssh",
    "Can't open user config file": "cannot be reached: the file that CSPEDGE_SSH_CONFIG names cannot be read",
}


class Ssh:
    """One folder on a machine behind ssh."""

    timed = True
    glibc = True
    climate = None

    def __init__(self, uri: DeviceUri, folder: str) -> None:
        """folder: its name in the home folder there. Raises DeviceError, RuntimeMissingError without a client."""
        client = shutil.which("ssh")
        if client is None:
            raise RuntimeMissingError("ssh:// needs OpenSSH's client: apt-get install openssh-client")
        self.uri = uri.text
        self._root = folder
        kept = ["ServerAliveInterval=5", "ServerAliveCountMax=3", "ConnectTimeout=10", "BatchMode=yes"]
        self._control = tempfile.TemporaryDirectory(prefix="cspedge-", ignore_cleanup_errors=True)
        if len(self._control.name) <= _LONGEST:
            # one connection carries all commands: making one costs more than most of them
            kept += ["ControlMaster=auto", f"ControlPath={self._control.name}/c", "ControlPersist=30"]
        self._client = [client, "-T", *(part for option in kept for part in ("-o", option))]
        if config := os.environ.get("CSPEDGE_SSH_CONFIG"):
            self._client += ["-F", config]
        if uri.port is not None:
            self._client += ["-p", str(uri.port)]
        if uri.user is not None:
            self._client += ["-l", uri.user]
        self._client += ["--", str(uri.host)]
        try:
            self.facts = self._describe()
        except BaseException:
            self._disconnect()
            raise

    def push(self, source: Path, name: str, sha256: str, *, executable: bool = False) -> None:
        if self._again(lambda: self._push(source, name, sha256, executable)).code == _DAMAGED:  # it was removed
            done = self._again(lambda: self._push(source, name, sha256, executable))
            if done.code:
                raise DeviceError(f"device {self.uri!r} does not keep what is sent ({name}); check its disk")

    def run(self, command: Sequence[str], *, cores: tuple[int, ...] | None = None) -> Finished:
        # no exec: the shell there tells a program that was killed from a connection that was
        told = shlex.join([*taskset(cores), f"./{command[0]}", *command[1:]])
        return self._again(lambda: self._shell(f"cd {self._root} && {told}; exit $?", plain=False))

    def fetch(self, name: str, target: Path) -> None:
        with atomic.translate_errors(target):
            target.unlink(missing_ok=True)

        def more() -> Finished:
            with atomic.translate_errors(target), target.open("ab") as file:
                return self._shell(f"cd {self._root} && tail -c +{file.tell() + 1} {shlex.quote(name)}", stdout=file)

        self._again(more)
        self._again(lambda: self._shell(f"cd {self._root} && rm -f {shlex.quote(name)}"))

    def close(self) -> None:
        """Where the connection is lost the folder stays, and the next command goes on with what it holds."""
        self._shell(f"rm -rf {self._root}", plain=False)
        self._disconnect()

    def _disconnect(self) -> None:
        subprocess.run([*self._client[:-2], "-O", "exit", *self._client[-2:]], capture_output=True, check=False)
        self._control.cleanup()

    def _describe(self) -> Facts:
        done = self._shell(
            f"umask 077; mkdir -p {self._root} && uname -m && uname -sr && command -v sha256sum && "
            "{ . /etc/os-release 2>/dev/null; echo \"$PRETTY_NAME\"; cat /proc/cpuinfo; }"
        )  # fmt: skip
        if done.code == LOST:
            raise self._lost(done)
        machine, system, _, name, *cpuinfo = done.stdout.split("\n")
        cpu, isa = parse_cpuinfo("\n".join(cpuinfo))
        return Facts(
            cpu=cpu or machine,
            machine=machine,
            isa=isa,
            os=f"{name}, {system} {machine}" if name else f"{system} {machine}",
        )

    def _push(self, source: Path, name: str, sha256: str, executable: bool) -> Finished:
        """One attempt, which goes on where another one stopped."""
        place, part, size = shlex.quote(name), f"part-{sha256[:32]}", source.stat().st_size
        folder = shlex.quote(str(Path(name).parent))
        enter = f"umask 077; cd {self._root} && mkdir -p {folder}"
        same = f'[ "$(sha256sum < %s | cut -c1-64)" = {sha256} ]'
        asked = self._shell(
            f"{enter} && if [ -f {place} ] && {same % place}; then echo have; else touch {part} && wc -c < {part}; fi"
        )
        if asked.code or asked.stdout.strip() == "have":
            return asked
        there = int(asked.stdout)
        with source.open("rb") as file:
            file.seek(min(there, size))
            return self._shell(
                f"{enter} && cat >> {part} && if [ $(wc -c < {part}) -lt {size} ]; then exit {LOST}; fi; "
                f"if {same % part}; then chmod {'700' if executable else '600'} {part} && mv -f {part} {place}; "
                f"else rm -f {part}; exit {_DAMAGED}; fi",
                stdin=file,
            )

    def _again(self, attempt: Attempt) -> Finished:
        """Repeats what fails with the connection, for as long as `WAITS` says. Raises DeviceError."""
        for wait in (*WAITS, None):
            done = attempt()
            if done.code != LOST:
                return done
            if wait is None or any(words in done.stderr for words in _FINAL):
                break
            time.sleep(wait)
        raise self._lost(done)

    def _lost(self, done: Finished) -> DeviceError:
        said = " ".join((done.stderr.strip().splitlines() or ["the connection was closed"])[-1].split())[:300]
        for words, sentence in _FINAL.items():
            if words in done.stderr:
                return DeviceError(f"device {self.uri!r} {sentence} (ssh: {said})")
        return DeviceError(
            f"device {self.uri!r} cannot be reached (ssh: {said}); check that it is on, then run the same command "
            "again: it goes on with what is there"
        )

    def _shell(
        self, script: str, *, stdin: IO[bytes] | None = None, stdout: IO[bytes] | None = None, plain: bool = True
    ) -> Finished:
        """A POSIX shell's script there. plain: whether it has no reason to fail, so that a failure is the device's."""
        done = subprocess.run(
            [*self._client, f"sh -c {shlex.quote(script)}"],
            stdin=stdin or subprocess.DEVNULL,
            stdout=stdout or subprocess.PIPE,
            stderr=subprocess.PIPE,
            check=False,
        )
        said = done.stderr.decode(errors="replace")
        if "No space left on device" in said or "Disk quota exceeded" in said:
            raise DeviceError(f"device {self.uri!r} has no room left in the home folder; free some and run it again")
        if plain and done.returncode not in (0, LOST, _DAMAGED):
            raise DeviceError(
                f"device {self.uri!r} cannot do what is needed ({' '.join(said.split())[-200:] or script[:80]}); it "
                "takes a Linux machine with a POSIX shell, sha256sum and a home folder that can be written"
            )
        return Finished(code=done.returncode, stdout=(done.stdout or b"").decode(errors="replace"), stderr=said)
