"""Child process of test_lower: lowers the small model in one precision and prints the package's digest."""

from __future__ import annotations

import sys
from pathlib import Path


def main(precision: str, path: str) -> None:
    sys.path.insert(0, str(Path(__file__).parent))
    from conftest import PLACEMENT, SHAPE, small_model

    from cspedge.backends.coreml import BACKEND
    from cspedge.digest import sha256_path
    from cspedge.quantize.placement import place, place_float
    from cspedge.types import Precision

    model, wanted = small_model(), Precision(precision)
    placed = place_float(model.graph, SHAPE) if wanted.is_float else place(model, PLACEMENT)
    BACKEND.lower(placed, wanted, Path(path), {})
    print(sha256_path(Path(path)))


if __name__ == "__main__":
    main(*sys.argv[1:])
