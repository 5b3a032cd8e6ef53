"""A folder that runs by itself on a desktop or server: the bundle with `run.py`, on ONNX Runtime or OpenVINO."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cspedge.bundle.apps.sources import requirements

if TYPE_CHECKING:
    from cspedge.bundle.apps import Project

BACKENDS: frozenset[str] | None = frozenset({"onnxruntime", "openvino"})
SIGNED = False
DELIVERIES: tuple[str, ...] = ()


def files(manifest: Mapping[str, Any]) -> Mapping[str, bytes]:
    """`run.py`, which is `loader.py` beside this file, and what it needs, in the versions the golden answers are of."""
    loader = (Path(__file__).parent / "loader.py").read_bytes()
    needed = requirements(manifest, numpy=version("numpy"), pillow=version("pillow"))
    return {"run.py": loader, "requirements.txt": needed}


def project(project: Project) -> Path | None:
    del project
    return None
