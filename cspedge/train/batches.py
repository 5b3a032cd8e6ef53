"""Training batches: augmented by timm, the same whatever the number of loader processes."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cspedge.data.images import ImageList, decode_listed
from cspedge.errors import InputError
from cspedge.train.recipe import Recipe

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from PIL import Image


class _Augmented:
    """A map-style dataset keyed by (epoch, index): an augmented image is a function of seed, epoch and index alone."""

    def __init__(self, images: ImageList, labels: NDArray[np.int64], recipe: Recipe, cfg: Any) -> None:
        from timm.data import create_transform

        self.images, self.labels, self.seed = images, labels, recipe.seed
        self.decoded: dict[int, Image.Image] = {}
        self.transform = create_transform(
            (3, recipe.img_size, recipe.img_size),
            is_training=True,
            scale=recipe.scale,
            hflip=recipe.hflip,
            color_jitter=recipe.color_jitter or None,
            auto_augment=recipe.auto_augment,
            interpolation=recipe.interpolation,
            mean=cfg["mean"],
            std=cfg["std"],
        )

    def __getitem__(self, key: tuple[int, int]) -> tuple[Any, int] | str:
        epoch, index = key
        try:
            image = self.decoded.get(index) or decode_listed(self.images, index).image
        except InputError as error:
            return f"{self.images.names[index]!r} {error}"
        if self.images.blobs is not None:  # small, as it is in memory already
            self.decoded[index] = image
        digest = hashlib.sha256(f"{self.seed}:{epoch}:{index}".encode()).digest()
        with seeded(int.from_bytes(digest[:4]), cuda=False):
            return self.transform(image), int(self.labels[index])


def batches(
    images: ImageList, labels: NDArray[np.int64], recipe: Recipe, cfg: Any, batch: int, workers: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """All batches of all epochs: float32 [batch, 3, H, W] normalised, and int64 [batch].

    An epoch's last, smaller batch is left out.
    """
    import numpy as np
    from torch.utils.data import DataLoader

    keys: list[list[tuple[int, int]]] = []
    for epoch in range(recipe.epochs):
        order = np.random.default_rng([recipe.seed, epoch]).permutation(len(images)).tolist()
        keys += [[(epoch, i) for i in order[at : at + batch]] for at in range(0, len(order) - batch + 1, batch)]
    loader: Any = DataLoader(
        _Augmented(images, labels, recipe, cfg),  # type: ignore[arg-type]
        batch_sampler=keys,
        num_workers=workers,
        collate_fn=_collate,
    )
    for item in loader:
        if isinstance(item, str):
            raise InputError(f"the training image {item}; repair or remove it")
        yield item


def _collate(items: list[tuple[Any, int] | str]) -> tuple[torch.Tensor, torch.Tensor] | str:
    """A batch, or why one of its images cannot be read (raised in a worker, an error would carry a traceback)."""
    import torch

    good = [item for item in items if not isinstance(item, str)]
    if len(good) < len(items):
        return next(item for item in items if isinstance(item, str))
    return torch.stack([pixels for pixels, _ in good]), torch.tensor([label for _, label in good])


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
