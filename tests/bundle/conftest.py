"""One real bundle of the built-in model, made once: two runtimes, signed, with the Python loader and a zip."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from cspedge.bundle.signature import make_keys
from cspedge.bundle.write import Bundled, BundleOptions, bundle
from cspedge.options import RunOptions, Silent

SMALL = {"recipe": "fast", "calib_images": 32, "targets": ("onnxruntime", "openvino")}


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A private and its public key."""
    return make_keys(tmp_path_factory.mktemp("keys") / "pair")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, keys: tuple[Path, Path]) -> Bundled:
    root = tmp_path_factory.mktemp("bundle")
    run: Any = RunOptions(workspace=root / "store", out=root / "out", **SMALL)  # type: ignore[arg-type]
    options = BundleOptions(
        app="python", version="1.2.3", minimum_version="1.0.0", key=keys[0], latency=False, zip=True
    )
    return bundle(run, options, Silent())


def load_vectors() -> ModuleType:
    """tests/bundle/vectors/make.py, which is also a program."""
    path = Path(__file__).parent / "vectors" / "make.py"
    spec = importlib.util.spec_from_file_location("bundle_vectors", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bundle_vectors"] = module
    spec.loader.exec_module(module)
    return module


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`vector`: every one of them."""
    if "vector" in metafunc.fixturenames:
        vectors = load_vectors().VECTORS
        metafunc.parametrize("vector", vectors, ids=[vector.name for vector in vectors])
