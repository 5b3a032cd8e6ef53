"""`--device ssh://`: against a real sshd on loopback, through connections that break too."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cspedge.devices import ssh as module
from cspedge.devices import uri
from cspedge.devices.base import Finished
from cspedge.devices.ssh import Ssh
from cspedge.digest import sha256_bytes, sha256_file
from cspedge.errors import DeviceError

Command = Callable[..., dict[str, Any]]
FOLDER = ".cspedge-device-test"


@pytest.fixture
def address(sshd: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], str]:
    """A function from a port to the device's name, with the client's configuration set."""
    monkeypatch.setenv("CSPEDGE_SSH_CONFIG", str(sshd.config))
    return lambda port: f"ssh://{sshd.user}@127.0.0.1:{port}"


@pytest.fixture
def connect(address: Callable[[int], str], sshd: Any) -> Callable[..., Ssh]:
    return lambda port=None: Ssh(uri.parse(address(port or sshd.port)), FOLDER)


@pytest.fixture
def there(sshd: Any) -> Path:
    """The device's folder there, as `connect` names it."""
    return Path(sshd.home) / FOLDER


def test_validated_and_timed_there_with_nothing_left(
    command: Command, address: Callable[[int], str], sshd: Any
) -> None:
    """The same machine through ssh: the same answers, to the bit, as the same runner here."""
    here = command("validate", "--device", "local-process://")
    found = command("bench", "--device", address(sshd.port))
    for row, beside in zip(found["artifacts"], here["artifacts"], strict=True):
        assert row["accuracy"] == beside["accuracy"]
        assert row["ran_on"] | {"uri": ""} == beside["ran_on"] | {"uri": ""}
        assert row["ran_on"]["uri"] == address(sshd.port)
        assert len(row["latency"]["samples_ms"]) == 100
        assert row["latency"]["device"].endswith(f"({address(sshd.port)})")
    assert not list(sshd.home.iterdir())


def test_a_file_goes_on_where_a_connection_broke(
    connect: Callable[..., Ssh], sshd: Any, there: Path, tmp_path: Path
) -> None:
    data = os.urandom(8 << 20)
    (tmp_path / "file").write_bytes(data)
    with sshd.way(cut=6 << 20, times=1) as way:
        device = connect(way.port)
        try:
            device.push(tmp_path / "file", "folder/file", sha256_bytes(data))
            assert way.times == 0, "no connection broke"
            assert (there / "folder" / "file").read_bytes() == data
            # sent anew it would be 14; up to 2 (ssh's window) had left here and not been written there
            assert way.carried < 12 << 20
            before = way.carried
            device.push(tmp_path / "file", "folder/file", sha256_bytes(data))
            assert way.carried - before < 1 << 18
            device.fetch("folder/file", tmp_path / "back")
            assert sha256_file(tmp_path / "back") == sha256_bytes(data)
            assert not (there / "folder" / "file").exists()
        finally:
            device.close()
    assert not list(sshd.home.iterdir())


def test_the_next_command_goes_on_with_what_a_lost_one_left(
    connect: Callable[..., Ssh], sshd: Any, there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAITS", ())
    data = os.urandom(6 << 20)
    (tmp_path / "file").write_bytes(data)
    lost = pytest.raises(DeviceError, match=r"cannot be reached .* it goes on with what is there")
    with sshd.way(cut=5 << 20, times=1) as way, lost:
        connect(way.port).push(tmp_path / "file", "file", sha256_bytes(data))
    (part,) = there.iterdir()
    assert 1 << 20 < part.stat().st_size < len(data)
    device = connect()
    try:
        device.push(tmp_path / "file", "file", sha256_bytes(data))
        assert (there / "file").read_bytes() == data
    finally:
        device.close()


def test_a_damaged_part_is_sent_anew(connect: Callable[..., Ssh], there: Path, tmp_path: Path) -> None:
    data = os.urandom(1 << 16)
    (tmp_path / "file").write_bytes(data)
    device = connect()
    try:
        (there / f"part-{sha256_bytes(data)[:32]}").write_bytes(bytes(1 << 12))
        device.push(tmp_path / "file", "file", sha256_bytes(data))
        assert (there / "file").read_bytes() == data
        with pytest.raises(DeviceError, match="does not keep what is sent"):
            device.push(tmp_path / "file", "other", sha256_bytes(b"of something else"))
    finally:
        device.close()


def test_programs_end_as_they_end(connect: Callable[..., Ssh], tmp_path: Path) -> None:
    (tmp_path / "program").write_text('#!/bin/sh\necho "$1"; [ "$1" = die ] && kill -9 $$; exit 3\n', encoding="utf-8")
    device = connect()
    try:
        device.push(tmp_path / "program", "bin/program", sha256_file(tmp_path / "program"), executable=True)
        assert device.run(["bin/program", "a 'b' $HOME"]) == Finished(code=3, stdout="a 'b' $HOME\n", stderr="")
        killed = device.run(["bin/program", "die"])
        assert (killed.code, killed.stdout) == (137, "die\n")
    finally:
        device.close()


def test_devices_that_cannot_be_reached(
    connect: Callable[..., Ssh], sshd: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(DeviceError, match=r"cannot be reached \(ssh: .*refused\); check that it is on"):
        connect(port)
    with pytest.raises(DeviceError, match="has a name that nothing knows"):
        Ssh(uri.parse("ssh://no-such-board.invalid"), FOLDER)
    text = sshd.config.read_text(encoding="utf-8")
    for name, changed, words in (
        ("key", text.replace("/user\n", "/host\n"), "refused us; put your public key there"),
        ("host", text.replace("HostKeyAlias device", "HostKeyAlias other"), "is not the machine that its host key"),
    ):
        (tmp_path / name).write_text(changed, encoding="utf-8")
        monkeypatch.setenv("CSPEDGE_SSH_CONFIG", str(tmp_path / name))
        with pytest.raises(DeviceError, match=words):
            connect()
    assert not list(sshd.home.iterdir())


def test_a_device_that_is_off_is_said_before_any_work(command: Command, address: Callable[[int], str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    said = command("bench", "--device", address(port), code=4)["stderr"]
    assert said.startswith(f"cspedge: device '{address(port)}' cannot be reached")
    assert "\n" not in said
