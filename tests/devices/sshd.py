"""A real sshd on loopback as an ordinary process with keys of its own, and a way to it that can break."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest


@dataclass
class Way:
    """Forwards a port to sshd; cuts every connection once it has carried `cut` bytes to sshd, `times` times.

    carried: bytes that went to sshd, over all connections.
    """

    target: int
    cut: int = 0
    times: int = 0
    carried: int = 0
    listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))

    @property
    def port(self) -> int:
        found: int = self.listener.getsockname()[1]
        return found

    def serve(self) -> None:
        with suppress(OSError):  # closed at the end of the test
            while True:
                here, _ = self.listener.accept()
                there = socket.create_connection(("127.0.0.1", self.target))
                threading.Thread(target=self._carry, args=(here, there, True), daemon=True).start()
                threading.Thread(target=self._carry, args=(there, here, False), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        sent = 0
        with suppress(OSError):
            while data := source.recv(1 << 15):
                target.sendall(data)
                if counted:
                    sent += len(data)
                    self.carried += len(data)
                    if self.times and sent >= self.cut:
                        self.times -= 1
                        break
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@dataclass(frozen=True, kw_only=True)
class Server:
    """config: the client's, to be named in CSPEDGE_SSH_CONFIG; user: who may log in; home: where commands begin.

    It is no real home folder: another session's tests may use that of the same user.
    """

    port: int
    config: Path
    user: str
    home: Path

    @contextmanager
    def way(self, *, cut: int = 0, times: int = 0) -> Iterator[Way]:
        way = Way(target=self.port, cut=cut, times=times)
        threading.Thread(target=way.serve, daemon=True).start()
        try:
            yield way
        finally:
            way.listener.close()


@contextmanager
def running(folder: Path, *, arm: bool = False) -> Iterator[Server]:
    """Starts sshd; skips where there is none. arm: it looks like an Arm board to who comes (`_as_arm`)."""
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if program is None or shutil.which("ssh-keygen") is None:
        pytest.skip("ssh:// is tested against a real sshd (apt-get install openssh-server)")
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # what the service's start would have made
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    home = folder / "home"
    home.mkdir()
    server = {
        "Port": port,
        "ListenAddress": "127.0.0.1",
        "HostKey": folder / "host",
        "AuthorizedKeysFile": folder / "user.pub",
        "PidFile": "none",
        "StrictModes": "no",
        "UsePAM": "no",
        "PasswordAuthentication": "no",
        "PermitRootLogin": "prohibit-password",
        "ForceCommand": f'cd {home} && {_as_arm(folder) if arm else ""}eval "$SSH_ORIGINAL_COMMAND"',
    }
    client = {
        "IdentityFile": folder / "user",
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": folder / "known",
        "HostKeyAlias": "device",
        "StrictHostKeyChecking": "yes",
    }
    for name, options in (("server", server), ("client", client)):
        (folder / name).write_text("".join(f"{k} {v}\n" for k, v in options.items()), encoding="utf-8")
    public = (folder / "host.pub").read_text(encoding="utf-8")
    (folder / "known").write_text(f"device {public}", encoding="utf-8")
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen([program, "-D", "-e", "-f", str(folder / "server")], stderr=log) as process,
    ):
        try:
            _wait(process, port, folder / "log")
            yield Server(port=port, config=folder / "client", user=getpass.getuser(), home=home)
        finally:
            process.terminate()


def _as_arm(folder: Path) -> str:
    """Words for a shell in which `uname -m` says aarch64 and what is run by path runs under QEMU.

    The kernel's binfmt_misc would do the same, for the whole machine. /proc/cpuinfo stays this machine's.
    """
    shim = folder / "shim"
    shim.mkdir()
    (shim / "uname").write_text(
        '#!/bin/sh\nif [ "$1" = -m ]; then echo aarch64; else exec /bin/uname "$@"; fi\n', encoding="utf-8"
    )
    (shim / "uname").chmod(0o700)
    (shim / "arm.sed").write_text("s#&& \\./#\\&\\& qemu-aarch64 -cpu cortex-a76 ./#\n", encoding="utf-8")
    edited = f'$(printf %s "$SSH_ORIGINAL_COMMAND" | sed -f {shim}/arm.sed)'
    return f'PATH={shim}:$PATH && SSH_ORIGINAL_COMMAND="{edited}" && '


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    while process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.02)
    pytest.fail(f"sshd ended: {log.read_text(encoding='utf-8', errors='replace')}")
