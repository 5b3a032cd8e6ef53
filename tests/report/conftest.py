"""Real runs of `cspedge run` on the built-in model, one per head, for the tests of what people read afterwards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cspedge.cli.app import app, call
from cspedge.types import Head

RealRun = Callable[[Head], Path]


@pytest.fixture(scope="session")
def real_run(tmp_path_factory: pytest.TempPathFactory) -> RealRun:
    """A function from a head to the folder of results, run when first asked for; few images, one fast runtime."""
    root = tmp_path_factory.mktemp("real")
    done: dict[Head, Path] = {}

    def run(head: Head) -> Path:
        if head not in done:
            out = root / head
            where = ["--workspace", str(root / "store"), "--out", str(out)]
            small = ["--target", "onnxruntime", "--recipe", "fast", "--calib-images", "32"]
            assert call(app, ["run", "--head", head, *small, *where]) == 0
            done[head] = out
        return done[head]

    return run
