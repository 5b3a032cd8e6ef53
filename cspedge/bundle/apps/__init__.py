"""What a bundle can be made for: one module each, imported on use."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from cspedge.errors import unknown

APPS: dict[str, str] = {
    "plain": "cspedge.bundle.apps.plain",
    "python": "cspedge.bundle.apps.python",
    "cpp": "cspedge.bundle.apps.cpp",
    "android": "cspedge.bundle.apps.android",
    "ios": "cspedge.bundle.apps.ios",
}


@dataclass(frozen=True, kw_only=True)
class Project:
    """What an app's project is made of.

    bundle: the finished folder `<name>-<version>`; out: where the project's folder appears; public_key: PEM, of the key
    that signed the bundle; delivery: one of the app's `DELIVERIES`, None for the models inside the app.
    """

    bundle: Path
    out: Path
    public_key: bytes | None = None
    delivery: str | None = None


class App(Protocol):
    """A module of `APPS`.

    BACKENDS: whose artifacts it can load, None for all; SIGNED: it takes signed bundles alone; DELIVERIES: other ways
    than inside the app by which the models can reach a device.
    """

    BACKENDS: frozenset[str] | None
    SIGNED: bool
    DELIVERIES: tuple[str, ...]

    def files(self, manifest: Mapping[str, Any]) -> Mapping[str, bytes]:
        """Files that go into the bundle itself, by path; manifest: without its `files`."""
        ...

    def project(self, project: Project) -> Path | None:
        """Makes a project around the finished bundle and returns its folder; None where the bundle is all."""
        ...


def get_app(name: str) -> App:
    """The module of an app; UsageError listing the known ones."""
    if name not in APPS:
        raise unknown("app", name, tuple(APPS))
    return cast("App", importlib.import_module(APPS[name]))
