"""Which packages of a runtime are installed, without importing them."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version

from cspedge.backends.base import Availability


def installed(extra: str, *packages: str) -> Availability:
    """Available where every package (its import name is its distribution's) is here; else the extra to install."""
    found: dict[str, str] = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            return _missing(package, extra, found)
        if sys.modules.get(package, "") is None:  # blocked: Python's own way to say that an import must fail
            return _missing(package, extra, found)
    return Availability(ok=True, versions=found)


def _missing(package: str, extra: str, found: dict[str, str]) -> Availability:
    reason = f"{package} is not installed: pip install cspedge[{extra}]"
    return Availability(ok=False, reason=reason, versions=found)
