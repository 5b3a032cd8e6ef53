"""SQNR layer by layer: what report.json keeps of the sensitivity tables of `--explain`, and how the page shows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cspedge.report import checks

if TYPE_CHECKING:
    from cspedge.quantize.explain import Explanation

_KEPT = ("tensor", "sqnr_db", "cumulative_db", "saved")
# Every quantized tensor of a target's placement in the graph's order, on n calibration images; SQNR null: nothing lost.
LAYERS = checks.list_of(
    checks.closed(
        {
            "target": checks.name,
            "n": checks.count,
            "tensors": checks.list_of(
                checks.closed(
                    {
                        "tensor": checks.name,
                        "sqnr_db": checks.or_null(checks.number()),
                        "cumulative_db": checks.or_null(checks.number()),
                        "saved": checks.number(-1, 1),
                    }
                ),
                at_least=1,
            ),
        }
    )
)


def layers_entry(explanations: Mapping[str, Explanation]) -> list[dict[str, Any]]:
    """report.json's "layers", by target; explain/TARGET.json has the whole table."""
    return [
        {
            "target": target,
            "n": found.sensitivity.n,
            "tensors": [{key: getattr(row, key) for key in _KEPT} for row in found.rows],
        }
        for target, found in sorted(explanations.items())
        if found.rows
    ]


def drawings(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """{targets, n, tensors, drawing}: a plot of SQNR by depth for targets that have the same figures."""
    from markupsafe import Markup

    from cspedge.report.sensitivity_plot import sensitivity_plot

    found: list[dict[str, Any]] = []
    for entry in report.get("layers", []):
        same = next((other for other in found if other["tensors"] == entry["tensors"]), None)
        if same is not None:
            same["targets"].append(entry["target"])
        else:
            found.append({**entry, "targets": [entry["target"]]})
    for index, shown in enumerate(found):
        # serialised by `svg.inline`, which escapes all text
        shown["drawing"] = Markup(sensitivity_plot(shown["tensors"], name=f"layers{index}"))
    return found
