"""Shared fixtures: the folders of real data and references (absent: the tests that need them skip), a tiny model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from numpy.typing import NDArray

# On a loaded machine drawing examples is slow too, which says nothing about the code.
settings.register_profile("cspedge", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("cspedge")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def caltech() -> Path:
    """Real photographs, `train` and `val`."""
    folder = SHARED / "data" / "caltech101"
    if not folder.is_dir():
        pytest.skip("the Caltech-101 photographs are not beside this checkout (../shared/data/caltech101)")
    return folder


@pytest.fixture(scope="session")
def references() -> Path:
    """Trained fp32 references in timm's hub layout."""
    folder = SHARED / "references"
    if not folder.is_dir():
        pytest.skip("the trained references are not beside this checkout (../shared/references)")
    return folder


@pytest.fixture(scope="session")
def digit_logits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Logits of a logistic regression on scikit-learn's digits, [897, 10], and the labels."""
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    images, labels = load_digits(return_X_y=True)
    images = images / 16.0
    model = LogisticRegression(max_iter=300).fit(images[:900], labels[:900])
    return model.decision_function(images[900:]).astype(np.float32), labels[900:].astype(np.int64)
