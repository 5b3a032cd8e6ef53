"""One real runtime for the cores' check programs: float32 images on stdin, its outputs on stdout.

`python runtime_child.py BACKEND 3,H,W ARTIFACT`. A core checks a bundle before it accepts it, and on this machine no
runtime of the apps runs; the artifact runs in cspedge's own instead.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

from cspedge.backends import get_backend


def main() -> None:
    backend, shape, path = sys.argv[1:]
    size = tuple(int(side) for side in shape.split(","))
    answers = os.dup(1)
    os.dup2(2, 1)  # whatever a runtime prints does not get between the answers
    session = get_backend(backend).load(Path(path), threads=1, options={})
    with open(answers, "wb") as out:
        while image := sys.stdin.buffer.read(4 * int(np.prod(size))):
            for values in session.run(np.frombuffer(image, "<f4").reshape(1, *size)):
                out.write(values.astype("<f4").tobytes())
            out.flush()


if __name__ == "__main__":
    main()
