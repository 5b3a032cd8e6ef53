"""The shared vectors of tests/bundle/vectors, which Python is tested with too."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

MAKE = Path(__file__).resolve().parents[1] / "bundle" / "vectors" / "make.py"
# The cores take folders; the store holds versions (test_store.py); image files are decoded by the platform.
DECODED = {"image-empty-file", "other-pixels"}


def test_shared_vectors_are_refused_by_their_word(core: Any, real_bundle: Any, tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("apps_vectors", MAKE)
    assert spec is not None
    assert spec.loader is not None
    vectors = importlib.util.module_from_spec(spec)
    sys.modules["apps_vectors"] = vectors
    spec.loader.exec_module(vectors)
    good = vectors.Good(bundle=real_bundle.path, key=real_bundle.private)
    jobs, expected = [], {}
    for vector in vectors.VECTORS:
        path = vectors.make(vector, good, tmp_path)
        if path.suffix == ".zip" or vector.min_version is not None or vector.name in DECODED:
            continue
        key = str(real_bundle.public) if vector.key else None
        jobs.append({"do": "verify", "bundle": str(path), "key": key, **(real_bundle.runtime() if vector.run else {})})
        expected[vector.name] = vector.kind
    assert len(jobs) > 35
    assert {name: a.get("kind") for name, a in zip(expected, core.run(jobs), strict=True)} == expected
