"""Seeds: one for every image of every epoch, and a block that leaves the generators as it found them."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager


def image_seed(seed: int, epoch: int, index: int) -> int:
    """The seed of one image's augmentation in one epoch, 32 bits."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{epoch}:{index}".encode()).digest()[:4])


@contextmanager
def seeded(seed: int, *, cuda: bool = True) -> Iterator[None]:
    """Seeds Python's, NumPy's and torch's generators, and puts their states back afterwards."""
    import numpy as np
    import torch

    states = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    random.seed(seed)
    np.random.seed(seed)
    if cuda:
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.default_generator.set_state(states[2])
