"""The bundle and nothing else: for an app that has its own loader."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cspedge.bundle.apps import Project

BACKENDS: frozenset[str] | None = None
SIGNED = False
DELIVERIES: tuple[str, ...] = ()


def files(manifest: Mapping[str, Any]) -> Mapping[str, bytes]:
    del manifest
    return {}


def project(project: Project) -> Path | None:
    del project
    return None
