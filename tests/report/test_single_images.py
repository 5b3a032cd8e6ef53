"""Bits of single images: packed, unpacked, and held against the shares beside them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cspedge.errors import UsageError
from cspedge.report import load, validate
from cspedge.report.single_images import pack, unpack
from cspedge.types import Head


@pytest.mark.parametrize("n", [1, 7, 8, 9, 450])
def test_packed_and_back(n: int) -> None:
    mask = np.random.default_rng(n).random(n) < 0.7
    assert (unpack(pack(mask), n) == mask).all()


@pytest.fixture
def real(real_run: Callable[[Head], Path]) -> dict[str, Any]:
    return load(real_run(Head.LOGITS) / "report.json")


def test_a_real_report_says_which_images_are_right(real: dict[str, Any]) -> None:
    n, reference = real["reference"]["n"], unpack(real["reference"]["right"], real["reference"]["n"])
    assert reference.sum() == round(real["reference"]["top1"] * n)
    for artifact in real["artifacts"]:
        right, same = (unpack(artifact["images"][key], n) for key in ("right", "same"))
        assert (reference & ~right).sum() == artifact["paired"]["only_reference"]
        assert (~reference & right).sum() == artifact["paired"]["only_artifact"]
        assert same.mean() == pytest.approx(artifact["accuracy"]["agreement"])
        assert (reference[same] == right[same]).all()


def test_heads_without_classes_have_none(real_run: Callable[[Head], Path]) -> None:
    report = load(real_run(Head.EMBEDDING) / "report.json")
    assert "right" not in report["reference"]
    assert all(artifact["images"] is None for artifact in report["artifacts"])


@pytest.mark.parametrize("value", ["", "no base64!", 7, pack(np.ones(16, np.bool_)), pack(np.ones(450, np.bool_))])
def test_bits_that_contradict_the_shares_are_refused(real: dict[str, Any], value: Any) -> None:
    real["artifacts"][0]["images"]["right"] = value
    with pytest.raises(UsageError, match=r"artifacts\[0\]\.images\.right"):
        validate(real)
