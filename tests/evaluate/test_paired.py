"""Paired evidence against its definitions written out by hand, on logits of a real classifier of real digits."""

from __future__ import annotations

import math
from dataclasses import asdict
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cspedge.digest import canonical_json
from cspedge.errors import InputError, TargetError
from cspedge.evaluate.paired import _bootstrap, calibration_error, paired
from cspedge.evaluate.stats import mcnemar_p, tango_interval

Digits = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]


@pytest.fixture(scope="module")
def digits(digit_logits: tuple[NDArray[np.float32], NDArray[np.int64]]) -> Digits:
    """A real classifier's logits, the same rounded to 4 bits, and the labels."""
    logits, labels = digit_logits
    scale = np.float32(np.abs(logits).max() / 7)
    return logits, (np.round(logits / scale) * scale).astype(np.float32), labels


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_the_sum_of_the_coin_tosses_no_likelier(b: int, c: int) -> None:
    n = b + c
    likely = [math.comb(n, k) for k in range(n + 1)]
    tail = sum(ways for ways in likely if ways <= likely[b])
    assert mcnemar_p(b, c) == pytest.approx(tail / 2**n, abs=1e-12)


def right(logits: NDArray[np.float32], labels: NDArray[np.int64], k: int) -> NDArray[np.bool_]:
    """Whether the label is among the k largest, by a stable sort: of equal logits the lowest class comes first."""
    best = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    return np.array((best == labels[:, None]).any(axis=1))


def test_counts_drops_and_tests_on_digits(digits: Digits) -> None:
    reference, coarse, labels = digits
    found = paired(coarse, reference, labels)
    for k, drop, p in (
        (1, (found.only_reference - found.only_artifact) / len(labels), found.mcnemar_p),
        (5, found.top5_drop, found.top5_mcnemar_p),
    ):
        before, after = right(reference, labels, k), right(coarse, labels, k)
        b, c = int((before & ~after).sum()), int((~before & after).sum())
        assert b + c > 0
        assert drop == pytest.approx((b - c) / len(labels))
        assert p == mcnemar_p(b, c)
        if k == 5:
            assert found.top5_ci95 == tango_interval(b, c, len(labels))
    canonical_json(asdict(found))


def test_macro_and_classes_on_digits(digits: Digits) -> None:
    from sklearn.metrics import balanced_accuracy_score

    reference, coarse, labels = digits
    found = paired(coarse, reference, labels)
    macro = [balanced_accuracy_score(labels, v.argmax(axis=1)) for v in (reference, coarse)]
    assert found.macro_drop == pytest.approx(macro[0] - macro[1])
    assert found.classes == 10
    assert found.macro_bootstrap95 is not None
    assert found.macro_bootstrap95[0] <= found.macro_drop <= found.macro_bootstrap95[1]
    p = {}
    for label in range(10):
        before, after = (v.argmax(axis=1)[labels == label] == label for v in (reference, coarse))
        p[label] = mcnemar_p(int((before & ~after).sum()), int((~before & after).sum()))
    assert len(found.changed) > 3
    assert [row.p for row in found.changed] == sorted(row.p for row in found.changed)
    ranked = sorted(p.values())
    for row in found.changed:
        assert row.p == p[row.label]
        assert row.n == int((labels == row.label).sum())
        # Benjamini and Hochberg's adjusted p: the least of p_j m / j over the ranks from its own up
        steps = [value * 10 / (j + 1) for j, value in enumerate(ranked) if value >= row.p]
        assert row.q == pytest.approx(min(1.0, *steps))


def test_a_class_that_falls_is_named_and_the_others_are_not() -> None:
    labels = np.repeat(np.arange(20), 15)
    reference = np.eye(20, dtype=np.float32)[labels]
    other = reference.copy()
    other[labels == 7] = np.roll(other[labels == 7], 1, axis=1)
    other[np.flatnonzero(labels == 3)[0]] = 0.0  # says class 0
    found = paired(other, reference, labels)
    assert [(row.label, row.only_reference) for row in found.changed] == [(7, 15), (3, 1)]
    assert found.changed[0].q == pytest.approx(20 * 2 / 2**15)
    assert found.changed[1].q == 1.0
    assert found.macro_drop == pytest.approx((1 + 1 / 15) / 20)


def test_nothing_changed(digits: Digits) -> None:
    reference, _, labels = digits
    found = paired(reference * np.float32(2), reference, labels)  # the same ranks, other confidence
    assert (found.only_reference, found.only_artifact, found.mcnemar_p, found.changed) == (0, 0, 1.0, ())
    assert found.drop_bootstrap95 is None
    assert found.macro_bootstrap95 is None
    assert found.top5_ci95[0] < 0 < found.top5_ci95[1]
    assert found.ece != found.ece_reference


def test_bootstrap_is_what_drawing_images_gives() -> None:
    """Drawn image by image within each class, 20,000 times: the ends differ by no more than two resamplings do."""
    rng = np.random.default_rng(11)
    images, worse, better = np.array([40, 25, 0, 60]), np.array([6, 0, 0, 3]), np.array([1, 2, 0, 0])
    top1, macro = np.zeros(20_000), np.zeros(20_000)
    for n, b, c in zip(images, worse, better, strict=True):
        if n:
            turned = np.concatenate([np.ones(b), -np.ones(c), np.zeros(n - b - c)])
            net = turned[rng.integers(0, n, size=(20_000, n))].sum(axis=1)
            top1 += net / images.sum()
            macro += net / n / 3
    found = _bootstrap(images, worse, better)
    for drops, interval in zip((top1, macro), found, strict=True):
        assert interval is not None
        assert interval == pytest.approx(np.percentile(drops, [2.5, 97.5]), abs=0.009)
    assert found == _bootstrap(images, worse, better)


def swept(confidence: list[float], hit: list[bool]) -> tuple[int, float]:
    """ECE-sweep from its definition: bins of equally many images, ten or more, until accuracy falls."""
    pairs = sorted(zip(confidence, hit, range(len(hit)), strict=True), key=lambda row: (row[0], row[2]))
    n, best = len(pairs), (1, abs(sum(hit) - sum(confidence)) / len(hit))
    for bins in range(2, n // 10 + 1):
        parts = [pairs[i * n // bins : (i + 1) * n // bins] for i in range(bins)]
        shares = [sum(row[1] for row in part) / len(part) for part in parts]
        if any(later < earlier for earlier, later in pairwise(shares)):
            break
        gaps = [abs(sum(row[1] for row in part) - sum(row[0] for row in part)) for part in parts]
        best = (bins, sum(gaps) / n)
    return best


@pytest.mark.parametrize("which", [0, 1])
def test_calibration_error_is_the_sweep(digits: Digits, which: int) -> None:
    from scipy.special import softmax

    logits, labels = digits[which], digits[2]
    sure = softmax(logits.astype(np.float64), axis=1).max(axis=1)
    bins, error = calibration_error(logits, labels)
    assert (bins, error) == pytest.approx(swept(sure.tolist(), (logits.argmax(axis=1) == labels).tolist()))
    assert bins > 1
    assert 0 < error < 0.2


def test_calibration_error_sees_false_confidence() -> None:
    """Two classes, a coin's answers: sure of each it is off by a half, unsure of each by next to nothing."""
    labels = np.random.default_rng(3).integers(0, 2, 4000)
    says = np.random.default_rng(4).integers(0, 2, 4000)
    sure, unsure = (np.eye(2, dtype=np.float32)[says] * np.float32(size) for size in (30.0, 0.01))
    assert calibration_error(sure, labels)[1] == pytest.approx(0.5, abs=0.03)
    assert calibration_error(unsure, labels)[1] < 0.03


def test_calibration_error_where_every_answer_is_right() -> None:
    """Accuracy never falls there: bins of one image would tell sure from unsure images, not wrong confidence."""
    labels = np.arange(100) % 2
    logits = np.eye(2, dtype=np.float32)[labels] * np.linspace(0.1, 5.0, 100, dtype=np.float32)[:, None]
    logits[0] = logits[0, ::-1]  # the least sure answer is wrong
    bins, error = calibration_error(logits, labels)
    assert bins == 10
    sure = 1.0 / (1.0 + np.exp(-np.linspace(0.1, 5.0, 100)))
    assert error == pytest.approx(0.99 - sure.mean(), abs=1e-6)


def test_unusable_input_is_named() -> None:
    logits, labels = np.zeros((3, 2), np.float32), np.array([0, 1, 1])
    with pytest.raises(InputError, match=r"\[3, 2\] and \[2, 2\]"):
        paired(logits, logits[:2], labels)
    with pytest.raises(InputError, match="1 labels do not fit the model's 2 classes"):
        paired(logits, logits, np.array([0, 1, 2]))
    with pytest.raises(TargetError, match="6 NaN"):
        paired(logits * np.nan, logits, labels)
