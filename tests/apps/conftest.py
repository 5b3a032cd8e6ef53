"""Both cores and the C++ example, compiled once, and a real bundle that they must take."""

from __future__ import annotations

import importlib.util
import plistlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def _load(name: str) -> ModuleType:
    """A module of this folder: pytest's importlib mode puts no test folder on the path."""
    full = f"apps_{name}"
    if full not in sys.modules:
        spec = importlib.util.spec_from_file_location(full, Path(__file__).with_name(f"{name}.py"))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[full] = module
        spec.loader.exec_module(module)
    return sys.modules[full]


@pytest.fixture(scope="session")
def toolchains() -> ModuleType:
    return _load("toolchains")


@pytest.fixture(scope="session")
def kotlin_syntax() -> ModuleType:
    return _load("kotlin_syntax")


@pytest.fixture(scope="session", params=["kotlin", "swift"])
def core(request: pytest.FixtureRequest, toolchains: ModuleType) -> Any:
    return getattr(toolchains, request.param)()


@pytest.fixture(scope="session", params=["kotlin", "swift", "cpp"])
def resizer(request: pytest.FixtureRequest) -> Any:
    """What makes tensors of images: both cores and the C++ example."""
    return getattr(_load("toolchains"), request.param)()


@pytest.fixture(scope="session")
def real_bundle(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A signed bundle of the built-in model for ONNX Runtime, with its keys."""
    return _load("make_bundle").make(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="session")
def swift_syntax() -> ModuleType:
    return _load("swift_syntax")


@pytest.fixture(scope="session")
def plist() -> Callable[[str], Any]:
    """Reads a property list of apps/ios by its path there."""
    return lambda path: plistlib.loads((_load("swift_syntax").IOS / path).read_bytes())


@pytest.fixture(scope="session")
def make_bundle() -> ModuleType:
    return _load("make_bundle")


@pytest.fixture(scope="session")
def few_scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scans of every class: the reference executor for Core ML takes its time."""
    from cspedge.data.digits import digits

    scans, root = digits("val"), tmp_path_factory.mktemp("few")
    for index, name in enumerate(scans.names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if len(list(path.parent.iterdir())) < 2:
            path.write_bytes(scans.read(index))
    return root
