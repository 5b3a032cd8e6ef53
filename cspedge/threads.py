"""How many threads torch's own kernels use.

Sums come out differently with another number of threads, so the number belongs to a result and is never left to the
machine. One is the default: on two shared cores, calibrating lcnet_050 with two threads took 19 s against 3.4 s with
one, since OpenMP's threads wait for each other after every operator.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Runs the block with `count` threads in torch (None: as they are set), then puts the old number back."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
