"""The report: `report.json` (schema 1), its checks, the verdict rules, and `report.html`."""

from __future__ import annotations

from cspedge.report.html import render
from cspedge.report.schema import SCHEMA, artifact_label, load, validate
from cspedge.report.verdict import DEFAULT_BUDGET, judge, recommend

__all__ = ["DEFAULT_BUDGET", "SCHEMA", "artifact_label", "judge", "load", "recommend", "render", "validate"]
