"""The note beside two int8 artifacts of one placement that give different answers: when, why, and what cures it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cspedge.config import common_placement, load_target, with_placement
from cspedge.lowering import placement_words
from cspedge.report.pairs import pair_notes
from cspedge.types import Artifact, ArtifactResult, Kept, Precision, Status

VNNI, AVX2 = ("avx2", "avx512_vnni"), ("avx2",)


def row(name: str, *, common: bool = False, kept: Kept | None = None) -> ArtifactResult:
    target = load_target(name)
    if common:
        target = with_placement(target, common_placement())
    artifact = Artifact(
        target=name,
        backend=target.backend,
        precision=Precision.INT8,
        path=Path("m"),
        bytes=1,
        sha256="0" * 64,
        placement=placement_words(target, Precision.INT8),
        audit=None,
        outputs=("logits",),
        check_sqnr_db=None,
        check_max_abs=0.0,
        lower_s=0.0,
    )
    return ArtifactResult(
        target=name, backend=target.backend, precision=Precision.INT8, status=Status.OK, artifact=artifact, kept=kept
    )


def notes(rows: list[ArtifactResult], agreement: float, isa: tuple[str, ...] = VNNI) -> list[str]:
    pair = {"a": rows[0].label, "b": rows[1].label, "top1_agreement": agreement, "max_abs_logit_diff": 1.0}
    return pair_notes(rows, [pair], isa)


def test_fp16_is_named_with_the_common_placement_as_its_cure() -> None:
    (note,) = notes([row("coreml"), row("openvino")], 0.969)
    assert note.startswith("coreml/int8 and openvino/int8 quantize the same tensors and agree on 96.90 % of the images")
    assert "fp16" in note
    assert "--placement common" in note


def test_saturation_is_named_with_seven_bits_as_its_cure() -> None:
    (note,) = notes([row("coreml"), row("openvino")], 0.969, AVX2)
    assert "AVX2 and no VNNI" in note
    assert "weight_bits = 7" in note


def test_what_is_left_is_the_order_of_rounding() -> None:
    (note,) = notes([row("executorch", common=True), row("onnxruntime", common=True)], 0.99)
    assert "another order" in note
    (note,) = notes([row("coreml", common=True), row("onnxruntime", common=True)], 0.99)
    assert "fp16" not in note


@pytest.mark.parametrize("agreement", [0.995, 1.0])
def test_pairs_that_agree_are_not_mentioned(agreement: float) -> None:
    assert notes([row("coreml"), row("openvino")], agreement) == []


def test_other_placements_may_differ() -> None:
    assert notes([row("coreml"), row("executorch")], 0.93) == []
