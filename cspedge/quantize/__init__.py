"""The quantizer: graph preparation, observers, encodings, placement, structural parity."""

from __future__ import annotations

from cspedge.callable_module import make_callable

make_callable(__name__)
