"""The bundle and nothing else: for an app that has its own loader."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

BACKENDS: frozenset[str] | None = None


def files(manifest: Mapping[str, Any]) -> Mapping[str, bytes]:
    del manifest
    return {}


def project(bundle: Path, out: Path) -> Path | None:
    del bundle, out
    return None
