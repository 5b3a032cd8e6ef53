"""Shared fixtures: the folders of real data and references (absent: the tests that need them skip), a tiny model."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

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
