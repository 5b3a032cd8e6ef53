"""cspedge: one calibrated int8 image classifier, lowered to every edge runtime, with proof.

The stages are functions; each is imported when it is first used, so that `import cspedge` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from cspedge.api import (
        audit,
        bench,
        collect_calibration,
        collect_validation,
        evaluate,
        load_reference,
        lower,
        quantize,
        reference_logits,
        write_report,
    )
    from cspedge.errors import CspedgeError
    from cspedge.types import Artifact, Precision

_API = (
    "audit",
    "bench",
    "collect_calibration",
    "collect_validation",
    "evaluate",
    "load_reference",
    "lower",
    "quantize",
    "reference_logits",
    "write_report",
)

__all__ = [
    "Artifact",
    "CspedgeError",
    "Precision",
    "__version__",
    "audit",
    "bench",
    "collect_calibration",
    "collect_validation",
    "evaluate",
    "load_reference",
    "lower",
    "quantize",
    "reference_logits",
    "write_report",
]


def __getattr__(name: str) -> Any:
    """Imports the API on first use (PEP 562)."""
    if name in {"evaluate", "quantize"}:  # packages and stages at once: see cspedge.callable_module
        import importlib

        return importlib.import_module(f"cspedge.{name}")
    if name in _API:
        from cspedge import api

        return getattr(api, name)
    if name in {"Artifact", "Precision"}:
        from cspedge import types

        return getattr(types, name)
    if name == "CspedgeError":
        from cspedge.errors import CspedgeError

        return CspedgeError
    raise AttributeError(f"module 'cspedge' has no attribute {name!r}")
