"""`python -m cspedge.bundle.child FOLDER INDEX`: one artifact of a checked bundle on its golden images.

A process of its own, because a damaged artifact may end the process that loads it. Prints one JSON document:
`worst`, the largest difference as a share of the tolerance (null: not a number), and `refused`, a reason or null.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

from cspedge.cli.console import quiet_stdout


def main(folder: Path, index: int) -> dict[str, Any]:
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    artifact = manifest["artifacts"][index]
    try:
        worst = _worst(folder, manifest, artifact)
    except Exception as error:  # runtimes raise every type there is
        return {"worst": None, "refused": f"fails: {' '.join(str(error).split())[:300] or type(error).__name__}"}
    return {"worst": worst if math.isfinite(worst) else None, "refused": None}


def _worst(folder: Path, manifest: dict[str, Any], artifact: dict[str, Any]) -> float:
    import numpy as np

    from cspedge.backends import get_backend

    shape = manifest["input"]["shape"]
    images = [np.fromfile(folder / i["tensor"], np.uint8).reshape(shape) for i in manifest["golden"]["images"]]
    session = get_backend(artifact["backend"]).load(
        folder / artifact["path"], threads=1, options=artifact["runtime"]["options"]
    )
    worst = 0.0
    for position, image in enumerate(images):
        found = session.run((image / np.float32(255)).astype(np.float32))
        for value, entry, output in zip(found, artifact["golden"], manifest["outputs"], strict=True):
            rows = np.fromfile(folder / entry["file"], "<f4").reshape(len(images), *output["shape"][1:])
            share = float(np.abs(value[0] - rows[position]).max()) / entry["max_abs"]
            worst = math.nan if math.isnan(share) else max(worst, share)
            if math.isnan(worst):
                return worst
    return worst


if __name__ == "__main__":
    with quiet_stdout():
        answer = main(Path(sys.argv[1]), int(sys.argv[2]))
    print(json.dumps(answer))
