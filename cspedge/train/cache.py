"""Images decoded once: uint8 pixels, no larger than a recipe's crops need, in memory or in a file that is mapped.

Decoding a photograph costs more than augmenting a small crop of it, and is the same in every epoch.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from cspedge.atomic import translate_errors
from cspedge.data.images import ImageList, decode_listed
from cspedge.errors import InputError
from cspedge.train.recipe import Recipe

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

RAM_BYTES = 2 << 30
_WORTH = 0.5  # share of an image's pixels from which on it is not made smaller
_FREE_SHARE = 0.5  # of the disk's free space that a cache file may take


class Cache(StrEnum):
    """Where decoded images are kept between epochs; it changes the speed and never the result."""

    AUTO = "auto"
    RAM = "ram"
    DISK = "disk"
    NONE = "none"


def target_size(size: tuple[int, int], recipe: Recipe) -> tuple[int, int]:
    """(width, height) in the cache: a shorter edge of `img_size / sqrt(scale[0])` where that halves the pixels.

    At that edge the smallest crop that a recipe draws from a square image has `img_size` pixels on a side. Less is not
    worth a second resampling.
    """
    edge = math.ceil(recipe.img_size / math.sqrt(recipe.scale[0]))
    factor = edge / min(size)
    if factor**2 > _WORTH:
        return size
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def shrunk(images: ImageList, index: int, recipe: Recipe) -> Image.Image:
    """One RGB image at its `target_size`, resized with Pillow's antialiased bicubic. Raises InputError (the reason)."""
    from PIL.Image import Resampling

    image = decode_listed(images, index).image
    size = target_size(image.size, recipe)
    return image if size == image.size else image.resize(size, Resampling.BICUBIC)


class Pixels:
    """Every image of a list at its `target_size`: from the cache, or decoded anew where there is none.

    sizes: (width, height) of each image as its header says. `place` says where the cache is. `image(i)` may be called
    from forked processes.
    """

    def __init__(self, images: ImageList, sizes: Sequence[tuple[int, int]], recipe: Recipe) -> None:
        self.images, self.recipe = images, recipe
        self.sizes = [target_size(size, recipe) for size in sizes]
        self.place = Cache.NONE
        self._data: NDArray[np.uint8] | None = None
        self._starts: list[int] = [0]
        for width, height in self.sizes:
            self._starts.append(self._starts[-1] + 3 * width * height)

    @property
    def nbytes(self) -> int:
        return self._starts[-1]

    def fill(self, kind: Cache, folder: Path, *, workers: int = 1, ram_bytes: int = RAM_BYTES) -> None:
        """Decodes every image into the cache; nothing for `Cache.NONE`.

        AUTO takes memory up to `ram_bytes`, else a file in `folder` where that leaves half of the free space, else
        nothing. Raises InputError for an image that cannot be decoded, WorkspaceError where the file cannot be written.
        """
        import numpy as np

        if kind is Cache.AUTO:
            room = _FREE_SHARE * shutil.disk_usage(folder).free
            kind = Cache.RAM if self.nbytes <= ram_bytes else Cache.DISK if self.nbytes <= room else Cache.NONE
        self.place = kind
        if kind is Cache.NONE:
            return
        if kind is Cache.RAM:
            self._data = np.empty(self.nbytes, np.uint8)
        else:
            path = folder / "pixels.u8"
            with translate_errors(path):
                self._data = np.memmap(path, np.uint8, mode="w+", shape=(self.nbytes,))
        with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
            for error in pool.map(self._store, range(len(self.images))):
                if error is not None:
                    pool.shutdown(cancel_futures=True)
                    raise error

    def _store(self, index: int) -> InputError | None:
        import numpy as np

        assert self._data is not None
        try:
            image = shrunk(self.images, index, self.recipe)
        except InputError as error:
            return unreadable(self.images, index, error)
        self._data[self._starts[index] : self._starts[index + 1]] = np.asarray(image).reshape(-1)
        return None

    def array(self, index: int) -> NDArray[np.uint8]:
        """One image, uint8 [H, W, 3]. Raises InputError where it is decoded anew and cannot be."""
        import numpy as np

        if self._data is None:
            try:
                return np.asarray(shrunk(self.images, index, self.recipe))
            except InputError as error:
                raise unreadable(self.images, index, error) from error
        width, height = self.sizes[index]
        return self._data[self._starts[index] : self._starts[index + 1]].reshape(height, width, 3)

    def image(self, index: int) -> Image.Image:
        """One image as Pillow's, for timm's transforms."""
        from PIL import Image

        return Image.fromarray(self.array(index))


def unreadable(images: ImageList, index: int, error: InputError) -> InputError:
    """The sentence for a training image, from the reason alone."""
    return InputError(f"the training image {images.names[index]!r} {error}; repair or remove it")
