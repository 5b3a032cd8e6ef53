"""Outputs beside the reference's: SQNR and cosine against their formulas, neighbours against scikit-learn's."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cspedge.errors import InputError, TargetError
from cspedge.evaluate import outputs
from cspedge.evaluate.outputs import Comparison, compare, neighbour_agreement, neighbours
from cspedge.types import Output

MAP = Output(name="features_s8_c4", shape=(4, 3, 3), stride=8)
VECTOR = Output(name="embedding", shape=(16,))


def maps(seed: int, count: int = 9) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, *MAP.shape)).astype(np.float32)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5))
@settings(max_examples=30)
def test_batches_of_any_size_give_the_formulas(sizes: list[int]) -> None:
    a, b = maps(0, sum(sizes)), maps(1, sum(sizes))
    comparison, start = Comparison([MAP]), 0
    for size in sizes:
        comparison.add([a[start : start + size]], [b[start : start + size]], "b")
        start += size
    (found,) = comparison.result()
    x, y = a.reshape(len(a), -1).astype(np.float64), b.reshape(len(b), -1).astype(np.float64)
    cosine = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
    assert found.n == len(a)
    assert found.sqnr_db == pytest.approx(10 * math.log10((x**2).sum() / ((x - y) ** 2).sum()))
    assert found.cosine_mean == pytest.approx(cosine.mean())
    assert found.cosine_min == pytest.approx(cosine.min())


def test_equal_outputs_have_no_noise() -> None:
    found = compare(MAP, maps(0), maps(0))
    assert found.sqnr_db is None
    assert found.cosine_min == pytest.approx(1.0)


def test_rows_of_zeros() -> None:
    a, b = np.zeros((3, 16), np.float32), np.zeros((3, 16), np.float32)
    a[1:], b[2] = 1.0, 1.0  # both zero; only the second zero; equal
    assert compare(VECTOR, a, b).cosine_min == 0.0
    assert compare(VECTOR, a, b).cosine_mean == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("expected", "found", "error", "message"),
    [
        (maps(0), maps(1) * np.nan, TargetError, "the artifact gives 324 NaN or infinite values in features_s8_c4"),
        (maps(0) * np.inf, maps(1), InputError, "the fp32 reference gives 324 NaN"),
        (maps(0), maps(1)[:, :2], TargetError, r"features_s8_c4 as \[2, 3, 3\], not \[4, 3, 3\]"),
        (maps(0) * 0, maps(1), InputError, "reference's features_s8_c4 is all zero"),
    ],
    ids=["nan", "reference", "shape", "zero"],
)
def test_what_cannot_be_compared_is_refused(
    expected: np.ndarray, found: np.ndarray, error: type[Exception], message: str
) -> None:
    with np.errstate(invalid="ignore"), pytest.raises(error, match=message):
        compare(MAP, expected, found)


def test_a_missing_output_is_refused() -> None:
    with pytest.raises(TargetError, match="it gives 1 outputs, not 2"):
        Comparison([MAP, MAP]).add([maps(0), maps(0)], [maps(0)], "it")


@pytest.mark.parametrize("chunk", [1, 100, 2**22])
def test_neighbours_are_scikit_learns(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.neighbors import NearestNeighbors

    monkeypatch.setattr(outputs, "CHUNK", chunk)
    vectors = np.random.default_rng(3).standard_normal((60, 16)).astype(np.float32)
    nearest = NearestNeighbors(n_neighbors=1, metric="cosine", algorithm="brute").fit(vectors.astype(np.float64))
    assert neighbours(vectors).tolist() == nearest.kneighbors(return_distance=False)[:, 0].tolist()


def test_neighbour_agreement_counts_images() -> None:
    a = np.array([[1, 0], [0.9, 0.1], [0, 1], [0.1, 0.9]], np.float32)
    b = a.copy()
    b[1] = [0.2, 1.0]  # now the first image's nearest is none of the near ones, and others' change
    assert neighbour_agreement(a, a) == 1.0
    assert neighbour_agreement(a, 3.0 * a) == 1.0  # cosine: lengths do not count
    assert neighbour_agreement(a, b) == np.mean(neighbours(a) == neighbours(b)) < 1.0


def test_one_image_has_no_neighbour() -> None:
    with pytest.raises(InputError, match="two images or more; there are 1"):
        neighbours(np.ones((1, 4), np.float32))
