"""Metrics against hand-made cases, scikit-learn, and a real classifier of real handwritten digits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from cspedge.digest import canonical_json
from cspedge.errors import InputError, TargetError
from cspedge.evaluate import metrics

Digits = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]
# Few distinct values, so that ties are common, as in int8 outputs.
LOGITS = hnp.arrays(np.float32, st.tuples(st.integers(1, 12), st.integers(1, 8)), elements=st.integers(-3, 3))


@pytest.fixture(scope="module")
def digits(digit_logits: tuple[NDArray[np.float32], NDArray[np.int64]]) -> Digits:
    """A real classifier's logits, the same rounded to 6 bits, and the labels."""
    logits, labels = digit_logits
    scale = np.float32(np.abs(logits).max() / 31)
    return logits, (np.round(logits / scale) * scale).astype(np.float32), labels


def test_ties_go_to_the_lowest_class() -> None:
    logits = np.array([[2.0, 2.0, 1.0, 2.0]], dtype=np.float32)
    shares = [[metrics.top_k(logits, np.array([label]), k) for label in range(4)] for k in (1, 2, 3, 4)]
    assert shares == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 1], [1, 1, 1, 1]]


@given(LOGITS, st.data())
def test_top1_is_argmax_and_top_k_grows_to_one(logits: NDArray[np.float32], data: st.DataObject) -> None:
    n, classes = logits.shape
    labels = data.draw(hnp.arrays(np.int64, n, elements=st.integers(0, classes - 1)))
    assert metrics.top_k(logits, labels, 1) == np.mean(logits.argmax(axis=1) == labels)
    shares = [metrics.top_k(logits, labels, k) for k in range(1, classes + 1)]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


@given(LOGITS)
def test_each_k_holds_exactly_k_classes(logits: NDArray[np.float32]) -> None:
    n, classes = logits.shape
    for k in range(1, classes + 1):
        held = sum(metrics.top_k(logits, np.full(n, label), k) for label in range(classes))
        assert held == pytest.approx(k)


def test_against_scikit_learn_on_digits(digits: Digits) -> None:
    from sklearn.metrics import accuracy_score, balanced_accuracy_score, top_k_accuracy_score

    logits, _, labels = digits
    assert metrics.top_k(logits, labels, 1) == pytest.approx(accuracy_score(labels, logits.argmax(axis=1)))
    assert metrics.top_k(logits, labels, 3) == pytest.approx(top_k_accuracy_score(labels, logits, k=3))
    assert metrics.macro_top1(logits, labels) == pytest.approx(
        balanced_accuracy_score(labels, logits.argmax(axis=1)), abs=1e-12
    )
    assert 0.85 < metrics.top_k(logits, labels, 1) < 1.0  # a real classifier: neither noise nor perfect


def test_macro_counts_classes_not_images() -> None:
    logits = np.eye(3, dtype=np.float32)[[0, 0, 0, 0, 0]]  # says 0 always
    labels = np.array([0, 0, 0, 0, 2])
    assert metrics.top_k(logits, labels, 1) == 0.8
    assert metrics.macro_top1(logits, labels) == 0.5  # class 1 does not occur and does not count


def test_sqnr_of_a_known_ratio_and_of_equals() -> None:
    reference = np.array([[3.0, 4.0]], dtype=np.float32)
    assert metrics.sqnr_db(reference, reference.copy()) is None
    other = np.array([[3.0, 4.5]], dtype=np.float32)
    assert metrics.sqnr_db(reference, other) == pytest.approx(20.0)  # 25 / 0.25
    assert metrics.sqnr_db(reference, np.zeros_like(reference)) == 0.0


def test_sqnr_sees_a_difference_float32_would_lose() -> None:
    reference = np.array([[1.0, 1e-30]], dtype=np.float32)
    assert metrics.sqnr_db(reference, np.array([[1.0, 0.0]], dtype=np.float32)) == pytest.approx(600.0, abs=1e-3)


def test_sqnr_of_an_all_zero_reference_is_refused() -> None:
    zero = np.zeros((1, 2), dtype=np.float32)
    assert metrics.sqnr_db(zero, zero) is None
    with pytest.raises(InputError, match="all zero"):
        metrics.sqnr_db(zero, zero + 1)


def test_max_abs_diff_and_agreement() -> None:
    a = np.array([[1.0, 0.0], [0.0, 1.0]], dtype=np.float32)
    b = np.array([[1.0, 0.25], [0.5, 0.0]], dtype=np.float32)
    assert metrics.max_abs_diff(a, b) == 1.0
    assert metrics.agreement(a, b) == 0.5


def test_accuracy_on_digits(digits: Digits) -> None:
    logits, rounded, labels = digits
    result = metrics.accuracy(rounded, logits, labels)
    assert result.n == len(labels) == 897
    assert result.top1 == metrics.top_k(rounded, labels, 1)
    assert result.drop_top1 == pytest.approx(metrics.top_k(logits, labels, 1) - result.top1, abs=1e-12)
    low, high = result.drop_ci95
    assert low <= result.drop_top1 <= high
    assert high - low < 0.05
    assert 0.9 < result.agreement < 1.0
    assert result.sqnr_db is not None
    assert 20.0 < result.sqnr_db < 40.0
    assert result.top1 < result.top5 <= 1.0


def test_accuracy_of_the_reference_itself() -> None:
    logits = np.eye(3, dtype=np.float32)
    result = metrics.accuracy(logits, logits.copy(), np.array([0, 1, 0]))
    assert result.drop_top1 == 0.0
    assert result.agreement == 1.0
    assert result.sqnr_db is None
    assert result.top5 == 1.0  # three classes: top-3
    assert result.drop_ci95[0] < 0.0 < result.drop_ci95[1]


def test_accuracy_drop_is_signed() -> None:
    reference = np.array([[1, 0], [1, 0], [1, 0], [0, 1]], dtype=np.float32)
    worse = np.array([[0, 1], [0, 1], [1, 0], [0, 1]], dtype=np.float32)
    labels = np.array([0, 0, 0, 0])
    assert metrics.accuracy(worse, reference, labels).drop_top1 == 0.5
    assert metrics.accuracy(reference, worse, labels).drop_top1 == -0.5


@settings(deadline=None)
@given(LOGITS, st.data())
def test_accuracy_is_always_json(logits: NDArray[np.float32], data: st.DataObject) -> None:
    """NaN never appears in a report, and every share is one."""
    n, classes = logits.shape
    labels = data.draw(hnp.arrays(np.int64, n, elements=st.integers(0, classes - 1)))
    reference = logits + np.float32(1.0) * data.draw(hnp.arrays(np.float32, logits.shape, elements=st.integers(4, 5)))
    result = metrics.accuracy(logits, reference, labels)
    canonical_json([result.top1, result.top5, result.macro_top1, result.drop_top1, result.drop_ci95, result.sqnr_db])
    assert all(0.0 <= v <= 1.0 for v in (result.top1, result.top5, result.macro_top1, result.agreement))
    assert result.sqnr_db is not None
    assert math.isfinite(result.sqnr_db)


def test_non_finite_logits_name_count_and_first_image() -> None:
    logits = np.zeros((5, 3), dtype=np.float32)
    logits[2, 1] = np.nan
    logits[4] = np.inf
    with pytest.raises(TargetError, match=r"4 NaN or infinite values in 2 of 5 images, the first in image 2 "):
        metrics.top_k(logits, np.zeros(5, dtype=np.int64), 1)
    with pytest.raises(TargetError, match="the artifact's logits hold 4"):
        metrics.accuracy(logits, np.zeros_like(logits), np.zeros(5, dtype=np.int64))
    with pytest.raises(TargetError, match="the reference's logits hold 4"):
        metrics.accuracy(np.zeros_like(logits), logits, np.zeros(5, dtype=np.int64))


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (np.zeros(3, np.float32), np.zeros(3, np.int64), r"shape \[3\]"),
        (np.zeros((0, 3), np.float32), np.zeros(0, np.int64), r"shape \[0, 3\]"),
        (np.zeros((2, 3), np.float32), np.zeros(3, np.int64), r"labels have shape \[3\]"),
        (np.zeros((2, 3), np.float32), np.zeros(2, np.float32), "labels are float32"),
        (
            np.zeros((2, 3), np.float32),
            np.array([0, 3]),
            "1 labels do not fit the model's 3 classes, the first is 3 at",
        ),
        (np.zeros((2, 3), np.float32), np.array([-1, 0]), "the first is -1 at image 0"),
    ],
)
def test_bad_shapes_and_labels(logits: NDArray[np.float32], labels: NDArray[np.int64], message: str) -> None:
    with pytest.raises(InputError, match=message):
        metrics.top_k(logits, labels, 1)
    with pytest.raises(InputError, match=message):
        metrics.macro_top1(logits, labels)


def test_k_below_one_and_unequal_pairs() -> None:
    with pytest.raises(InputError, match="k = 0"):
        metrics.top_k(np.zeros((1, 2), np.float32), np.array([0]), 0)
    a, b = np.zeros((2, 3), np.float32), np.zeros((2, 4), np.float32)
    for compare in (metrics.agreement, metrics.max_abs_diff, metrics.sqnr_db):
        with pytest.raises(InputError, match=r"\[2, 3\] and \[2, 4\]"):
            compare(a, b)


def test_agreement_matrix_lists_every_pair_once_sorted() -> None:
    base = np.eye(4, dtype=np.float32)
    other = base.copy()
    other[0] = [0, 2, 0, 0]
    rows = metrics.agreement_matrix({"openvino/int8": base, "coreml/int8": other, "executorch/int8": base})
    assert rows == [
        {"a": "coreml/int8", "b": "executorch/int8", "top1_agreement": 0.75, "max_abs_logit_diff": 2.0},
        {"a": "coreml/int8", "b": "openvino/int8", "top1_agreement": 0.75, "max_abs_logit_diff": 2.0},
        {"a": "executorch/int8", "b": "openvino/int8", "top1_agreement": 1.0, "max_abs_logit_diff": 0.0},
    ]
    canonical_json(rows)
    assert metrics.agreement_matrix({"only": base}) == []


def test_agreement_matrix_names_the_artifact_at_fault() -> None:
    good, bad = np.zeros((1, 2), np.float32), np.full((1, 2), np.nan, np.float32)
    with pytest.raises(TargetError, match="the logits of 'coreml/int8' hold 2"):
        metrics.agreement_matrix({"a": good, "coreml/int8": bad})
    with pytest.raises(InputError, match=r"'a' have shape .* 'b'"):
        metrics.agreement_matrix({"a": good, "b": np.zeros((2, 2), np.float32)})
