"""What the apps carry is what cspedge publishes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "copy",
    ["apps/ios/Sources/CspEdgeCore/bundle.schema.json", "apps/android/core/src/main/resources/bundle.schema.json"],
)
def test_the_schema_is_the_published_one(copy: str) -> None:
    assert (ROOT / copy).read_bytes() == (ROOT / "docs" / "bundle.schema.json").read_bytes()


@pytest.mark.parametrize("core", ["swift"], indirect=True)
def test_the_package_s_own_tests_pass_on_a_real_bundle(core: Any, real_bundle: Any) -> None:
    environment = {**os.environ, "CSPEDGE_BUNDLE": str(real_bundle.path), "CSPEDGE_KEY": str(real_bundle.public)}
    command = ["swift", "test", "--skip-build"]
    done = subprocess.run(
        command, cwd=ROOT / "apps" / "ios", env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "0 failures" in done.stdout + done.stderr
    assert "skipped" not in done.stdout + done.stderr
