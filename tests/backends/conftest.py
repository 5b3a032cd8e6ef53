"""What the tests of all targets share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from cspedge import api
from cspedge.backends import get_backend
from cspedge.config import load_target
from cspedge.quantize.placement import QuantizedModel
from cspedge.types import Artifact


@pytest.fixture(scope="session")
def lowered(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Artifact]:
    """Lowers a model to a target's own float or int8 precision; skips where the runtime is not installed.

    Arguments: model, target, `float` or `int8`, images for the check, keep.
    """

    def lower(model: QuantizedModel, name: str, kind: str, images: Any, keep: Sequence[str] = ()) -> Artifact:
        target = load_target(name)
        available = get_backend(target.backend).availability()
        if not available.ok:
            pytest.skip(available.reason)
        precision = next(p for p in target.precision.default if p.is_float == (kind == "float"))
        out = tmp_path_factory.mktemp(f"{name}-{kind}")
        return api.lower(model, name, precision, out=out, name="digits", check_images=images[:8], keep=keep)

    return lower
