"""Pairs of int8 artifacts that should give the same answers, and why they do not where they do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cspedge.report.words import percent
from cspedge.types import Precision

if TYPE_CHECKING:
    from cspedge.types import ArtifactResult

EXPECTED = 0.995


def pair_notes(results: Sequence[ArtifactResult], pairs: Sequence[Mapping[str, Any]], isa: Sequence[str]) -> list[str]:
    """A sentence for each pair of int8 artifacts of one placement that agrees on less than `EXPECTED` of the images.

    pairs: the report's "agreement"; only logits have a class to agree on.
    """
    rows = {r.label: r for r in results if r.precision is Precision.INT8 and r.artifact is not None}
    notes = []
    for pair in pairs:
        first, second = rows.get(pair["a"]), rows.get(pair["b"])
        if first is None or second is None or pair.get("top1_agreement", 1.0) >= EXPECTED:
            continue
        if _places(first) == _places(second):
            notes.append(
                f"{pair['a']} and {pair['b']} quantize the same tensors and agree on "
                f"{percent(pair['top1_agreement'], 2)} of the images, not on {percent(EXPECTED)}: "
                f"{_reason((first, second), isa)}."
            )
    return notes


def _places(row: ArtifactResult) -> tuple[str, tuple[str, ...]]:
    """Which tensors are quantized: the placement without the type of its codes, and what is kept in float."""
    assert row.artifact is not None
    return row.artifact.placement.partition(", ")[2], row.kept.tensors if row.kept else ()


def _reason(rows: Sequence[ArtifactResult], isa: Sequence[str]) -> str:
    """Why the two differ, and what cures it."""
    from cspedge.config import common_placement, load_target, with_placement
    from cspedge.devices.host import saturates_u8s8
    from cspedge.lowering import placement_words

    targets = [(row, load_target(row.target)) for row in rows]
    saturating = [t.name for _, t in targets if t.saturated_check]
    if saturating and saturates_u8s8(tuple(isa)):
        return (
            f"this CPU has AVX2 and no VNNI, so 8-bit products saturate in {saturating[0]}; take weight_bits = 7 in "
            "the recipe's [quantize] table, or validate on a CPU with VNNI or on Arm"
        )
    common = common_placement()
    for row, target in targets:
        words = placement_words(with_placement(target, common), Precision.INT8)
        if target.common and row.artifact is not None and row.artifact.placement != words:
            return (
                f"{target.name} rounds to fp16 between its int8 tensors, and the network amplifies what that changes; "
                "with --placement common it computes in fp32 there (not on the Neural Engine)"
            )
    return (
        "their kernels round in another order and the network amplifies what that changes; a recipe that comes closer "
        "to fp32 (accurate) leaves less to amplify"
    )
