"""Names of devices: `SCHEME://...`, as `--device` takes them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cspedge.errors import UsageError

LOCAL, SSH, ADB, QEMU = "local-process", "ssh", "adb", "qemu-aarch64"
MAC, IOS = "mac", "ios"
FORMS = {
    LOCAL: "local-process://",
    SSH: "ssh://user@host[:port]",
    ADB: "adb://[SERIAL]",
    QEMU: "qemu-aarch64://CPU",
    MAC: "mac://[?units=UNITS]",
    IOS: "ios://UDID[?units=UNITS]",
}
_SERIAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}|\[[0-9A-Fa-f:.]+\]:[0-9]{1,5}")
# What Core ML may run on, in its own words (MLComputeUnits); its default first.
UNITS = ("all", "cpuOnly", "cpuAndGPU", "cpuAndNeuralEngine")
# Apple's identifiers of devices: since 2018, and before.
_UDID = re.compile(r"[0-9A-F]{8}-[0-9A-F]{16}|[0-9a-f]{40}")
_SSH = re.compile(
    r"(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9_.-]*)@)?(?P<host>[A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?"
)


@dataclass(frozen=True, kw_only=True)
class DeviceUri:
    """A device's name, taken apart; text: as it was given; user, host, port: of ssh, None where ssh's own hold;
    serial: of adb, None for the only device that there is; cpu: of qemu-aarch64; udid: of ios; units: what
    Core ML may run on, of Apple's devices."""

    text: str
    scheme: str
    user: str | None = None
    host: str | None = None
    port: int | None = None
    serial: str | None = None
    cpu: str | None = None
    udid: str | None = None
    units: str | None = None


def parse(text: str) -> DeviceUri:
    """Raises UsageError for another scheme, or for what does not follow its scheme's form."""
    scheme, separator, rest = text.partition("://")
    if not separator or scheme not in FORMS:
        raise UsageError(f"unknown device {text!r}; known: {', '.join(sorted(FORMS.values()))}")
    if scheme == SSH:
        return _ssh(text, rest)
    if scheme == ADB:
        return _adb(text, rest)
    if scheme == QEMU:
        return _qemu(text, rest)
    if scheme in {MAC, IOS}:
        return _apple(text, scheme, rest)
    if rest:
        raise UsageError(f"device {text!r} has {rest!r} too much; write {FORMS[scheme]}")
    return DeviceUri(text=text, scheme=scheme)


def _adb(text: str, rest: str) -> DeviceUri:
    if rest and not _SERIAL.fullmatch(rest):
        raise UsageError(
            f"device {text!r} is no {FORMS[ADB]}: a serial, or HOST:PORT, as `adb devices` shows it, of letters, "
            "digits, dots, colons, dashes and underscores; none for the only device"
        )
    return DeviceUri(text=text, scheme=ADB, serial=rest or None)


def _qemu(text: str, rest: str) -> DeviceUri:
    from cspedge.devices.qemu import CPUS

    if rest not in CPUS:
        raise UsageError(f"device {text!r} names no processor that is known; known: {', '.join(sorted(CPUS))}")
    return DeviceUri(text=text, scheme=QEMU, cpu=rest)


def _apple(text: str, scheme: str, rest: str) -> DeviceUri:
    name, _, query = rest.partition("?")
    key, _, units = query.partition("=")
    if query and (key != "units" or units not in UNITS):
        raise UsageError(f"device {text!r} has {query!r}; allowed after '?' is units= with one of {', '.join(UNITS)}")
    if scheme == MAC and name:
        raise UsageError(f"device {text!r} has {name!r} too much; write {FORMS[MAC]}")
    if scheme == IOS and not _UDID.fullmatch(name):
        raise UsageError(
            f"device {text!r} is no {FORMS[IOS]}: a UDID is 8 and 16 hexadecimal digits in capitals with a dash "
            "between them, or 40 small ones (`xcrun devicectl list devices` or Finder shows it)"
        )
    return DeviceUri(text=text, scheme=scheme, udid=name or None, units=units or UNITS[0])


def _ssh(text: str, rest: str) -> DeviceUri:
    found = _SSH.fullmatch(rest)
    port = int(found["port"]) if found and found["port"] else None
    if found is None or (port is not None and not 1 <= port <= 65535):
        raise UsageError(
            f"device {text!r} is no {FORMS[SSH]}: a user and a host of letters, digits, dots and dashes, a port from 1 "
            "to 65535, and no password or path"
        )
    return DeviceUri(text=text, scheme=SSH, user=found["user"], host=found["host"].strip("[]"), port=port)
