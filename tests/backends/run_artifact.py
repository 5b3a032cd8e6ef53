"""Child process of the contract test: loads an artifact from its file and runs the images beside it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from cspedge.backends import get_backend
from cspedge.config import load_target
from cspedge.errors import TargetError


def main(target_name: str, path: str, folder: str) -> int:
    target = load_target(target_name)
    try:
        session = get_backend(target.backend).load(Path(path), threads=1, options=target.options)
        logits = session.run(np.load(Path(folder) / "images.npy"))[0]
    except TargetError as error:
        print(error, file=sys.stderr)
        return 7
    np.save(Path(folder) / "logits.npy", logits)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
