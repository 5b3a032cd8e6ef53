"""Measuring artifacts: accuracy against the fp32 reference, paired statistics, agreement, latency."""

from __future__ import annotations

from cspedge.callable_module import make_callable

make_callable(__name__)
