"""A folder that builds and runs from C++: the bundle with the sources of `apps/cpp`, on ExecuTorch or OpenVINO."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cspedge.bundle.apps.sources import app_sources, requirements

if TYPE_CHECKING:
    from cspedge.bundle.apps import Project

BACKENDS: frozenset[str] | None = frozenset({"executorch", "openvino"})
SIGNED = False
DELIVERIES: tuple[str, ...] = ()


def files(manifest: Mapping[str, Any]) -> Mapping[str, bytes]:
    """`cpp/`, and in it the runtimes' packages in the versions that the golden answers are of."""
    sources = {f"cpp/{path}": data for path, data in app_sources("cpp").items()}
    return {**sources, "cpp/requirements.txt": requirements(manifest)}


def project(project: Project) -> Path | None:
    del project
    return None
