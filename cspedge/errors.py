"""The errors a user can meet, each with its exit code.

One sentence per error: what failed (the value quoted), where, what is allowed, what to do next.
`cspedge.cli` is the only place that turns them into output.
"""

from __future__ import annotations


class CspedgeError(Exception):
    """Base of every error cspedge raises on purpose; `exit_code` is what the command line returns."""

    exit_code = 1


class TargetError(CspedgeError):
    """One target could not be lowered, loaded or run; the others go on."""

    exit_code = 1


class UsageError(CspedgeError):
    """An unknown name, an option that cannot be honoured, a configuration that does not parse."""

    exit_code = 2


class WorkspaceError(CspedgeError):
    """The workspace or the output folder cannot be written: full disk, read-only, not a folder."""

    exit_code = 2


class InputError(CspedgeError):
    """Images, labels or weights that cannot be used."""

    exit_code = 3


class RuntimeMissingError(CspedgeError):
    """A runtime that is needed is not installed here."""

    exit_code = 4


class DeviceError(RuntimeMissingError):
    """A device that is absent, offline, refuses us, has no room, or is too old for the runner."""


def unknown(kind: str, value: str, known: list[str] | tuple[str, ...]) -> UsageError:
    """The error for a name nobody knows: quotes it and lists the known ones."""
    return UsageError(f"unknown {kind} {value!r}; known: {', '.join(sorted(known))}")
