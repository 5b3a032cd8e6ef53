"""A device's side of ADB, with Debian's own adb client and server before it: what adbd does, over TCP on loopback.

Debian has no adbd. This speaks its protocol as Android's `adb/protocol.txt`, `adb/SYNC.TXT` and
`adb/shell_protocol.h` describe it: CNXN and AUTH, streams, `shell,v2`, and `sync:` with both forms of stat. Commands
are run by this machine's shell. The device's `/data/local/tmp` and `/sys` lie below a folder of the test.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

import pytest

MESSAGE = struct.Struct("<4sIIII4s")
VERSION, MAX_DATA = 0x01000001, 1 << 18
FEATURES = "shell_v2,cmd,stat_v2,ls_v2,fixed_push_mkdir"
PROPERTIES = {
    "ro.product.cpu.abi": "x86_64",
    "ro.build.version.sdk": "34",
    "ro.build.version.release": "14",
    "ro.product.manufacturer": "Debian",
    "ro.product.model": "stand-in",
    "ro.soc.model": "loopback",
}
STATUS = "IsStatusOverride: false\\nThermal Status: 0\\n"
MAPPED = re.compile(r"(?<![\w./])/(?=data/local/tmp|sys/)")


@dataclass
class Daemon:
    """What the device is and does, which tests change while it runs.

    answer: `device`, `unauthorized` (it refuses every key) or `offline` (it says nothing); emulate: what is put before
    Arm's loader, as an Arm kernel would run it; cut: bytes of a connection after which it breaks, `cuts` times.
    before: called with each command before it runs. sent: bytes that files took, over all connections.
    """

    root: Path
    answer: str = "device"
    features: str = FEATURES
    properties: dict[str, str] = field(default_factory=lambda: dict(PROPERTIES))
    thermal: str = STATUS
    emulate: str = ""
    cut: int = 0
    cuts: int = 0
    sent: int = 0
    before: Callable[[str], None] = lambda command: None
    listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))
    connections: list[socket.socket] = field(default_factory=list)
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.serial = f"127.0.0.1:{self.listener.getsockname()[1]}"

    @property
    def folder(self) -> Path:
        """Its folder for temporary files."""
        return self.root / "data/local/tmp"

    def there(self, text: str) -> str:
        """A path or command of the device, as this machine has it."""
        return MAPPED.sub(f"{self.root}/", text)

    def serve(self) -> None:
        with suppress(OSError):  # closed at the end of the test
            while True:
                connection, _ = self.listener.accept()
                self.connections.append(connection)
                threading.Thread(target=Connection(self, connection).serve, daemon=True).start()

    def leave(self) -> None:
        """The device is gone, and does not come back."""
        with suppress(OSError):  # it has left
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.drop()

    def drop(self) -> None:
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.connections.clear()

    def environment(self) -> dict[str, str]:
        """With `getprop` and `dumpsys` as programs; the rest are this machine's."""
        tools = self.root / "system/bin"
        tools.mkdir(parents=True, exist_ok=True)
        cases = "".join(f"{name}) echo '{value}';;\n" for name, value in self.properties.items())
        for name, script in (
            ("getprop", f'case "$1" in\n{cases}*) echo;;\nesac\n'),
            ("dumpsys", f"printf '{self.thermal}'\n"),
        ):
            (tools / name).write_text(f"#!/bin/sh\n{script}", encoding="utf-8")
            (tools / name).chmod(0o755)
        return {"PATH": f"{tools}:/usr/bin:/bin"}


class Lost(Exception):
    """The connection is over."""


class Connection:
    """One connection of adb's server, with its streams."""

    def __init__(self, daemon: Daemon, connection: socket.socket) -> None:
        self.daemon = daemon
        self._socket = connection
        self._lock = threading.Lock()
        self._streams: dict[int, Stream] = {}
        self._came = 0

    def serve(self) -> None:
        with suppress(OSError, Lost):
            while True:
                command, first, second, length, _, _ = MESSAGE.unpack(self._exactly(MESSAGE.size))
                self._take(command, first, second, self._exactly(length))
        for stream in list(self._streams.values()):
            stream.end()
        self._socket.close()

    def send(self, command: bytes, first: int, second: int, data: bytes = b"") -> None:
        magic = bytes(0xFF - byte for byte in command)
        with self._lock:
            self._socket.sendall(MESSAGE.pack(command, first, second, len(data), sum(data) & 0xFFFFFFFF, magic) + data)

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self._socket.recv(size - len(data))
            if not more:
                raise Lost
            data += more
        self._came += size
        if self.daemon.cuts and self._came >= self.daemon.cut:
            self.daemon.cuts -= 1
            self._socket.shutdown(socket.SHUT_RDWR)
            raise Lost
        return data

    def _take(self, command: bytes, first: int, second: int, data: bytes) -> None:
        if command in (b"CNXN", b"AUTH"):
            self._greet(command, first)
        elif command == b"OPEN":
            number = max(self._streams, default=0) + 1
            stream = self._streams[number] = Stream(self, number, first)
            threading.Thread(target=stream.serve, args=(data.rstrip(b"\0").decode(),), daemon=True).start()
        elif (known := self._streams.get(second)) is not None:
            if command == b"WRTE":
                known.came.put(data)
                self.send(b"OKAY", second, first)
            elif command == b"OKAY":
                known.ready.release()
            elif command == b"CLSE":
                self._streams.pop(second).end()

    def _greet(self, command: bytes, kind: int) -> None:
        if self.daemon.answer == "device":
            text = f"device::ro.product.name=standin;ro.product.model=standin;features={self.daemon.features}"
            self.send(b"CNXN", VERSION, MAX_DATA, text.encode())
        elif self.daemon.answer == "unauthorized" and (command, kind) != (b"AUTH", 3):  # 3: a key to be asked about
            self.send(b"AUTH", 1, 0, os.urandom(20))


class Stream:
    """One service on a connection; number: of this side, other: of the client's."""

    def __init__(self, connection: Connection, number: int, other: int) -> None:
        self.came: SimpleQueue[bytes] = SimpleQueue()
        self.ready = threading.Semaphore(0)
        self._connection, self._number, self._other = connection, number, other
        self._held, self._over = b"", False
        self._process: subprocess.Popen[bytes] | None = None

    def end(self) -> None:
        """The other side is gone: its shell is told, as by adbd, and what the shell has started may go on."""
        self._over = True
        self.came.put(b"")
        self.ready.release()
        if self._process is not None:
            self._process.send_signal(signal.SIGHUP)

    def serve(self, service: str) -> None:
        with suppress(OSError, Lost):
            if service == "sync:":
                self._connection.send(b"OKAY", self._number, self._other)
                self._sync()
            elif service.startswith("shell,v2"):
                self._connection.send(b"OKAY", self._number, self._other)
                self._shell(service.partition(":")[2])
            self._connection.send(b"CLSE", self._number, self._other)

    def _write(self, data: bytes) -> None:
        for start in range(0, len(data), MAX_DATA):
            self._connection.send(b"WRTE", self._number, self._other, data[start : start + MAX_DATA])
            self.ready.acquire()
            if self._over:
                raise Lost

    def _exactly(self, size: int) -> bytes:
        while len(self._held) < size:
            more = self.came.get()
            if not more:
                raise Lost
            self._held += more
        data, self._held = self._held[:size], self._held[size:]
        return data

    def _shell(self, command: str) -> None:
        daemon = self._connection.daemon
        daemon.before(command)
        if daemon.emulate:
            command = re.sub(r"\./(?=[^ ]*/ld-linux-aarch64)", f"{daemon.emulate} ./", command)
        self._process = subprocess.Popen(
            ["sh", "-c", daemon.there(command)],
            cwd="/",
            env=daemon.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        daemon.started.append(self._process)
        with self._process as process:
            for kind, data in zip((1, 2), process.communicate(), strict=True):
                for start in range(0, len(data), MAX_DATA // 2):
                    part = data[start : start + MAX_DATA // 2]
                    self._write(struct.pack("<BI", kind, len(part)) + part)
            code = process.returncode
            self._write(struct.pack("<BIB", 3, 1, 128 - code if code < 0 else code))

    def _sync(self) -> None:
        while True:
            kind, size = struct.unpack("<4sI", self._exactly(8))
            if kind == b"QUIT":
                return
            text = self._exactly(size).decode()
            if kind in (b"STAT", b"STA2", b"LST2"):
                self._stat(kind, Path(self._connection.daemon.there(text)))
                continue
            try:
                if kind == b"SEND":
                    self._send(text)
                elif kind == b"RECV":
                    self._receive(Path(self._connection.daemon.there(text)))
            except OSError as error:
                said = (error.strerror or "").encode()
                self._write(struct.pack("<4sI", b"FAIL", len(said)) + said)

    def _stat(self, kind: bytes, path: Path) -> None:
        try:
            found, error = path.stat(), 0
        except OSError as caught:
            found, error = None, caught.errno or 0
        mode, size, changed = (0, 0, 0) if found is None else (found.st_mode, found.st_size, int(found.st_mtime))
        if kind == b"STAT":
            self._write(struct.pack("<4sIII", b"STAT", mode, size, changed))
        else:
            self._write(
                struct.pack("<4sIQQIIIIQqqq", kind, error, 0, 0, mode, 1, 0, 0, size, changed, changed, changed)
            )

    def _send(self, text: str) -> None:
        place, _, mode = text.rpartition(",")
        path, failed = Path(self._connection.daemon.there(place)), None
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb", buffering=0) as file:
            while True:
                kind, size = struct.unpack("<4sI", self._exactly(8))
                if kind == b"DONE":
                    break
                data = self._exactly(size)
                self._connection.daemon.sent += size
                try:
                    if failed is None and file.write(data) != size:
                        file.write(b"\0")  # the system says why
                except OSError as error:
                    failed = error
        if failed is not None:
            path.unlink()
            raise failed
        path.chmod(int(mode) & 0o777)
        self._write(struct.pack("<4sI", b"OKAY", 0))

    def _receive(self, path: Path) -> None:
        data = path.read_bytes()
        for start in range(0, len(data), 1 << 16):
            part = data[start : start + (1 << 16)]
            self._write(struct.pack("<4sI", b"DATA", len(part)) + part)
        self._write(struct.pack("<4sI", b"DONE", 0))


@dataclass(frozen=True, kw_only=True)
class Host:
    """Debian's adb with a server of its own; environment: what its client needs to find that server."""

    client: str
    environment: dict[str, str]
    folder: Path

    def adb(self, *args: str) -> str:
        done = subprocess.run(
            [self.client, *args],
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.stdout + done.stderr

    def turn(self, daemon: Daemon, answer: str) -> None:
        """The device answers so from now on; returns once adb knows, which connects again by itself."""
        daemon.answer = answer
        daemon.drop()
        wanted = f"{daemon.serial}\t{answer}"
        for _ in range(600):
            if wanted in self.adb("devices"):
                return
            time.sleep(0.05)
        pytest.fail(f"adb does not see {wanted!r}")

    @contextmanager
    def device(self, *, emulate: str = "") -> Iterator[Daemon]:
        """A device that is connected."""
        daemon = Daemon(root=Path(tempfile.mkdtemp(dir=self.folder)), emulate=emulate)
        daemon.folder.mkdir(parents=True)
        threading.Thread(target=daemon.serve, daemon=True).start()
        try:
            self.adb("connect", daemon.serial)
            yield daemon
        finally:
            self.adb("disconnect", daemon.serial)
            daemon.leave()
            for process in daemon.started:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def running(folder: Path) -> Iterator[Host]:
    """Starts adb's server on a free port with a key of its own; skips where there is no adb."""
    client = shutil.which("adb")
    if client is None:
        pytest.skip("adb:// is tested with the real adb (apt-get install adb)")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {"ANDROID_ADB_SERVER_PORT": str(port), "HOME": str(folder), "ADB_LOCAL_TRANSPORT_MAX_PORT": "5554"}
    host = Host(client=client, environment=environment, folder=folder)
    host.adb("start-server")
    try:
        yield host
    finally:
        host.adb("kill-server")
