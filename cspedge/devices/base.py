"""What a device is to cspedge: a folder that takes files, and runs a program in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from cspedge.devices.climate import Climate


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a device says of itself; machine: in uname's words (`x86_64`, `aarch64`); isa: of `host.ISA_FLAGS`."""

    cpu: str
    machine: str
    isa: tuple[str, ...]
    os: str


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A program that ran to its end, however it ended."""

    code: int
    stdout: str
    stderr: str


class Device(Protocol):
    """A folder on some machine. Names in it are relative POSIX paths of cspedge's own making (digests, file names)."""

    uri: str
    timed: bool  # whether times taken there say anything about the processor that it names
    glibc: bool  # whether it has the C library that runners are built with
    facts: Facts

    @property
    def climate(self) -> Climate | None:
        """Its clocks and warmth; None for a device that is not asked for them."""
        ...

    def push(self, source: Path, name: str, sha256: str, *, executable: bool = False) -> None:
        """Puts a file there, unless one with that name and SHA-256 is there already.

        Raises DeviceError where the device is gone, refuses or has no room.
        """
        ...

    def run(self, command: Sequence[str]) -> Finished:
        """Runs a program of the folder, in the folder; names in `command` are relative to it. Raises DeviceError."""
        ...

    def fetch(self, name: str, target: Path) -> None:
        """Copies a file from there to `target`, and removes it there. Raises DeviceError."""
        ...

    def close(self) -> None:
        """Removes the folder with all that is in it."""
        ...
