"""What a bundle can be made for: one module each, imported on use."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast

from cspedge.errors import unknown

APPS: dict[str, str] = {
    "plain": "cspedge.bundle.apps.plain",
    "python": "cspedge.bundle.apps.python",
}


class App(Protocol):
    """A module of `APPS`. BACKENDS: whose artifacts it can load, None for all."""

    BACKENDS: frozenset[str] | None

    def files(self, manifest: Mapping[str, Any]) -> Mapping[str, bytes]:
        """Files that go into the bundle itself, by path; manifest: without its `files`."""
        ...

    def project(self, bundle: Path, out: Path) -> Path | None:
        """Makes a project around the finished bundle in `out` and returns it; None where the bundle is all."""
        ...


def get_app(name: str) -> App:
    """The module of an app; UsageError listing the known ones."""
    if name not in APPS:
        raise unknown("app", name, tuple(APPS))
    return cast("App", importlib.import_module(APPS[name]))
