"""Finds `targets/`, `calib/` and the bundles' schema: in the wheel (`cspedge/_data`) or the checkout."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from cspedge.errors import UsageError, unknown

_PACKAGE = Path(__file__).resolve().parent


def data_folder(name: str) -> Path:
    """The folder `targets` or `calib`. Raises UsageError where the installation lacks it."""
    for candidate in (_PACKAGE / "_data" / name, _PACKAGE.parent / name):
        if candidate.is_dir():
            return candidate
    raise UsageError(f"the folder {name!r} is missing from this installation of cspedge; reinstall it")


def target_names() -> list[str]:
    """Names of the folders in `targets/` that hold a target.toml."""
    return sorted(p.parent.name for p in data_folder("targets").glob("*/target.toml"))


def target_file(name: str) -> Path:
    """`targets/<name>/target.toml`; UsageError listing the known names."""
    if name not in target_names():
        raise unknown("target", name, target_names())
    return data_folder("targets") / name / "target.toml"


def recipe_names() -> list[str]:
    """Names of the recipes in `calib/`."""
    return sorted(p.stem for p in data_folder("calib").glob("*.toml"))


def recipe_file(name_or_path: str) -> Path:
    """A recipe by name, or by path when it ends in .toml; UsageError listing the known names."""
    if name_or_path.endswith(".toml"):
        path = Path(name_or_path)
        if not path.is_file():
            raise UsageError(f"recipe file {name_or_path!r} does not exist; known recipes: {', '.join(recipe_names())}")
        return path
    if name_or_path not in recipe_names():
        raise unknown("recipe", name_or_path, recipe_names())
    return data_folder("calib") / f"{name_or_path}.toml"


@cache
def bundle_schema() -> dict[str, Any]:
    """The JSON Schema of a bundle's manifest, docs/bundle.schema.json."""
    for candidate in (_PACKAGE / "_data" / "bundle.schema.json", _PACKAGE.parent / "docs" / "bundle.schema.json"):
        if candidate.is_file():
            schema: dict[str, Any] = json.loads(candidate.read_text(encoding="utf-8"))
            return schema
    raise UsageError("bundle.schema.json is missing from this installation of cspedge; reinstall it")
