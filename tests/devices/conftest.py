"""A workspace in which the built-in model was lowered once for ExecuTorch, and what its devices' tests need."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from cspedge.cli.app import app, call

Command = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def lowered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Skips where the native runner cannot be built."""
    for header, package in (("openssl/evp.h", "libssl-dev"), ("nlohmann/json.hpp", "nlohmann-json3-dev")):
        if not (Path("/usr/include") / header).exists():
            pytest.skip(f"the native runner needs {header} (apt-get install {package})")
    if shutil.which("g++") is None:
        pytest.skip("the native runner needs a compiler (apt-get install g++)")
    return tmp_path_factory.mktemp("devices")


@pytest.fixture
def command(lowered: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command on the workspace: its report, or what it said on stderr where it printed none."""

    def run(name: str, *args: str, code: int | None = 0) -> dict[str, Any]:
        small = ["--target", "executorch", "--recipe", "fast", "--calib-images", "32"]
        where = ["--workspace", str(lowered / "store"), "--out", str(lowered / "out")]
        found = call(app, [name, *small, *where, "--json", *args])
        out, err = capsys.readouterr()
        assert code is None or found == code, err
        return json.loads(out) if out else {"stderr": err.strip()}

    return run


def _beside(name: str) -> ModuleType:
    """The module beside this one: pytest's importlib mode puts no test folder on the path."""
    spec = importlib.util.spec_from_file_location(f"devices_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[f"devices_{name}"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A real sshd (`sshd.Server`); skips where there is none."""
    with _beside("sshd").running(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture(scope="session")
def adb_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The real adb with a server of its own (`adbd.Host`); skips where there is none."""
    with _beside("adbd").running(tmp_path_factory.mktemp("adb")) as host:
        yield host
