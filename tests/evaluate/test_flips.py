"""Flips against their definition, image by image, on a real classifier's logits of real digits."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from cspedge.errors import InputError
from cspedge.evaluate.flips import flips


def test_every_flip_with_its_margins(digit_logits: tuple[NDArray[np.float32], NDArray[np.int64]]) -> None:
    logits, labels = digit_logits
    artifacts = {}
    for steps in (5, 9):
        scale = np.float32(np.abs(logits).max() / steps)
        artifacts[f"{steps} steps"] = (np.round(logits / scale) * scale).astype(np.float32)
    found = {flip.index: flip for flip in flips(logits, artifacts, labels)}
    for index, row in enumerate(logits.tolist()):
        answer = row.index(max(row))
        turned = {}
        for name, other in artifacts.items():
            values = other[index].tolist()
            if values.index(max(values)) != answer:
                turned[name] = (values.index(max(values)), values[answer] - max(values[:answer] + values[answer + 1 :]))
        assert (index in found) == bool(turned)
        if turned:
            flip = found[index]
            assert (flip.answer, flip.label, flip.lost) == (answer, labels[index], answer == labels[index])
            assert flip.margin == pytest.approx(row[answer] - sorted(row)[-2])
            assert {t.artifact: (t.answer, pytest.approx(t.margin)) for t in flip.artifacts} == turned
            assert all(t.margin <= 0 <= flip.margin for t in flip.artifacts)
    assert len(found) > 5


def test_lost_and_sure_ones_come_first(digit_logits: tuple[NDArray[np.float32], NDArray[np.int64]]) -> None:
    logits, labels = digit_logits
    found = flips(logits, {"coarse": np.sign(logits)}, labels)
    lost = [flip.margin for flip in found if flip.lost]
    wrong = [flip.margin for flip in found if not flip.lost]
    assert lost
    assert wrong
    assert [flip.margin for flip in found] == sorted(lost, reverse=True) + sorted(wrong, reverse=True)


def test_none_and_bad_shapes(digit_logits: tuple[NDArray[np.float32], NDArray[np.int64]]) -> None:
    logits, labels = digit_logits
    assert flips(logits, {"same": logits * np.float32(3)}, labels) == []
    assert flips(logits[:, :1], {"one class": logits[:, :1]}, labels * 0) == []
    with pytest.raises(InputError, match=r"\[897, 10\] and \[897, 9\]"):
        flips(logits, {"other": logits[:, :9]}, labels)
