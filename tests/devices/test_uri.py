"""Names of devices."""

from __future__ import annotations

import pytest

from cspedge.devices import uri
from cspedge.errors import UsageError


def test_this_machine() -> None:
    found = uri.parse("local-process://")
    assert (found.text, found.scheme) == ("local-process://", "local-process")


@pytest.mark.parametrize(
    ("text", "user", "host", "port"),
    [
        ("ssh://pi@raspberrypi.local:2222", "pi", "raspberrypi.local", 2222),
        ("ssh://board", None, "board", None),
        ("ssh://me@[fe80::1]:22", "me", "fe80::1", 22),
        ("ssh://10.0.0.7", None, "10.0.0.7", None),
    ],
)
def test_a_machine_behind_ssh(text: str, user: str | None, host: str, port: int | None) -> None:
    found = uri.parse(text)
    assert (found.scheme, found.user, found.host, found.port) == ("ssh", user, host, port)


@pytest.mark.parametrize("serial", ["R58M123ABC", "emulator-5554", "192.168.1.20:5555", "[fe80::1]:5555", None])
def test_an_android_device(serial: str | None) -> None:
    found = uri.parse(f"adb://{serial or ''}")
    assert (found.scheme, found.serial) == ("adb", serial)


@pytest.mark.parametrize(
    ("text", "scheme", "udid", "units"),
    [
        ("mac://", "mac", None, "all"),
        ("mac://?units=cpuOnly", "mac", None, "cpuOnly"),
        ("ios://00008110-0012345A3E61801E", "ios", "00008110-0012345A3E61801E", "all"),
        ("ios://" + "0123456789" * 4 + "?units=cpuAndNeuralEngine", "ios", "0123456789" * 4, "cpuAndNeuralEngine"),
    ],
)
def test_one_of_apple_s(text: str, scheme: str, udid: str | None, units: str) -> None:
    found = uri.parse(text)
    assert (found.scheme, found.udid, found.units) == (scheme, udid, units)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "phone",
            "unknown device 'phone'; known: adb://[SERIAL], ios://UDID[?units=UNITS], local-process://, mac://[?units=",
        ),
        ("", "unknown device ''; known: "),
        ("local-process:", "unknown device 'local-process:'"),
        ("telnet://board", "unknown device 'telnet://board'"),
        ("qemu-aarch64://", "known: cortex-a53, cortex-a57, cortex-a72, cortex-a76, neoverse-n1"),
        ("qemu-aarch64://max", "device 'qemu-aarch64://max' names no processor that is known"),
        ("ssh://", "device 'ssh://' is no ssh://user@host[:port]"),
        ("ssh://-oProxyCommand=x", "is no ssh://user@host[:port]"),
        ("ssh://me:secret@board", "no password or path"),
        ("ssh://board/folder", "no password or path"),
        ("ssh://board:0", "a port from 1 to 65535"),
        ("ssh://board:65536", "a port from 1 to 65535"),
        ("ssh://a b", "a user and a host of letters"),
        ("adb://-s", "device 'adb://-s' is no adb://[SERIAL]: a serial, or HOST:PORT, as `adb devices` shows it"),
        ("adb://R58M;reboot", "of letters, digits"),
        ("adb://R58M 123", "of letters, digits"),
        ("mac://mini", "device 'mac://mini' has 'mini' too much; write mac://[?units=UNITS]"),
        ("mac://?units=gpu", "'units=gpu'; allowed after '?' is units= with one of all, cpuOnly, cpuAndGPU, cpuAndN"),
        ("mac://?threads=2", "device 'mac://?threads=2' has 'threads=2'; allowed after '?' is units="),
        ("ios://", "device 'ios://' is no ios://UDID[?units=UNITS]: a UDID is 8 and 16 hexadecimal digits"),
        ("ios://my phone", "is no ios://UDID[?units=UNITS]"),
        ("ios://00008110-0012345A3E61801E;ls", "is no ios://UDID[?units=UNITS]"),
        ("ios://00008110-0012345A3E61801E,name=x", "is no ios://UDID[?units=UNITS]"),
        ("local-process://here", "device 'local-process://here' has 'here' too much; write local-process://"),
    ],
)
def test_what_is_no_device(text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        uri.parse(text)
    assert words in str(caught.value)
