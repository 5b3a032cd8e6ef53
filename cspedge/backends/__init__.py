"""The runtimes, one module each, imported when used."""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from cspedge.errors import unknown

if TYPE_CHECKING:
    from cspedge.backends.base import Backend

BACKENDS = {
    "coreml": "cspedge.backends.coreml",
    "executorch": "cspedge.backends.executorch",
    "onnxruntime": "cspedge.backends.onnxruntime",
    "openvino": "cspedge.backends.openvino",
}


def get_backend(name: str) -> Backend:
    """The backend of that name: ours, or one another package offers as entry point `cspedge.backends`.

    Raises UsageError listing the known names.
    """
    if name in BACKENDS:
        return importlib.import_module(BACKENDS[name]).BACKEND  # type: ignore[no-any-return]
    others = {e.name: e for e in entry_points(group="cspedge.backends")}
    if name in others:
        return others[name].load()  # type: ignore[no-any-return]
    raise unknown("backend", name, [*BACKENDS, *others])
