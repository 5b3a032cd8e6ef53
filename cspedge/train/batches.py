"""Training batches: an augmented image is a function of seed, epoch and index, whatever prepares it and resumes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from cspedge.errors import InputError
from cspedge.train.cache import Pixels
from cspedge.train.recipe import Recipe
from cspedge.train.seeds import image_seed, seeded

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from PIL import Image

    from cspedge.train.on_device import OnDevice


class Augment(StrEnum):
    """What augments: timm's transforms on the CPU, or tensor operations on the training device."""

    CPU = "cpu"
    DEVICE = "device"


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where batches come from. labels: int64 [n]; cfg: `mean` and `std` of the model; workers: loader processes."""

    pixels: Pixels
    labels: NDArray[np.int64]
    recipe: Recipe
    cfg: Mapping[str, Any]
    workers: int
    place: torch.device
    augment: Augment

    @property
    def steps(self) -> int:
        """Batches in an epoch; its last, smaller one is left out."""
        return len(self.labels) // self.recipe.batch_size


def batches(source: Source, start: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The batches from step `start` to the last epoch's end, on the training device.

    float32 [batch, 3, H, W] normalised (channels last), and int64 [batch]. Raises InputError for an image that cannot
    be decoded (only where nothing is cached).
    """
    import torch
    from torch.utils.data import DataLoader

    cuda = source.place.type == "cuda"
    finish: OnDevice | None = None
    dataset: Any
    collate: Any
    if source.augment is Augment.DEVICE:
        from cspedge.train.on_device import OnDevice, Padded

        finish = OnDevice(source.recipe, source.cfg)
        dataset, collate = Padded(source.pixels, source.labels, source.recipe, source.cfg), Padded.collate
    else:
        dataset, collate = _Augmented(source), _collate
    loader: Any = DataLoader(
        dataset,
        batch_sampler=_Order(source, start),
        num_workers=source.workers,
        collate_fn=collate,
        pin_memory=cuda,
        generator=torch.Generator(),  # else a loader draws from the generator of the network, once for every resume
    )
    for item in loader:
        if isinstance(item, str):
            raise InputError(item)
        inputs, labels = (tensor.to(source.place, non_blocking=cuda) for tensor in item[:2])
        if finish is not None:
            inputs = finish(inputs, item[2])
        yield inputs.contiguous(memory_format=torch.channels_last), labels


class _Order:
    """Batches of (epoch, index), made one by one: all of them at once would be gigabytes for a long training."""

    def __init__(self, source: Source, start: int) -> None:
        self.source, self.start = source, start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        import numpy as np

        recipe, steps = self.source.recipe, self.source.steps
        for epoch in range(self.start // steps, recipe.epochs):
            order = np.random.default_rng([recipe.seed, epoch]).permutation(len(self.source.labels)).tolist()
            first = self.start % steps if epoch == self.start // steps else 0
            for step in range(first, steps):
                at = step * recipe.batch_size
                yield [(epoch, i) for i in order[at : at + recipe.batch_size]]


class _Augmented:
    """A map-style dataset keyed by (epoch, index): timm's training transform on one image."""

    def __init__(self, source: Source) -> None:
        from timm.data import create_transform

        recipe = source.recipe
        self.pixels, self.labels, self.seed = source.pixels, source.labels, recipe.seed
        self.transform = create_transform(
            (3, recipe.img_size, recipe.img_size),
            is_training=True,
            scale=recipe.scale,
            hflip=recipe.hflip,
            color_jitter=recipe.color_jitter or None,
            auto_augment=recipe.auto_augment,
            interpolation=recipe.interpolation,
            mean=source.cfg["mean"],
            std=source.cfg["std"],
            re_prob=recipe.erase,
            re_mode="pixel",
        )
        for step in self.transform.transforms:
            for op in getattr(step, "ops", ()):
                if op.name.startswith("Posterize"):
                    op.aug_fn = posterize

    def __getitem__(self, key: tuple[int, int]) -> tuple[Any, int] | str:
        epoch, index = key
        try:
            image = self.pixels.image(index)
        except InputError as error:
            return str(error)
        with seeded(image_seed(self.seed, epoch, index), cuda=False):
            return self.transform(image), int(self.labels[index])


def posterize(image: Image.Image, bits: int, **_: Any) -> Image.Image:
    """Keeps the highest `bits` (0 to 8) of each channel.

    In timm's place: its RandAugment draws 0 bits at the highest magnitude (a black image, once), and Pillow 13 raises
    ValueError for it in the middle of a training.
    """
    mask = 256 - (1 << (8 - min(bits, 8)))
    return image.point([value & mask for value in range(256)] * len(image.getbands()))


def _collate(items: list[tuple[Any, int] | str]) -> tuple[torch.Tensor, torch.Tensor] | str:
    """A batch, or why one of its images cannot be read (raised in a worker, an error would carry a traceback)."""
    import torch

    good = [item for item in items if not isinstance(item, str)]
    if len(good) < len(items):
        return next(item for item in items if isinstance(item, str))
    return torch.stack([pixels for pixels, _ in good]), torch.tensor([label for _, label in good])
