"""Files become tensors: decoded exactly as timm decodes them, preprocessed, unreadable ones counted and named."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cspedge.data.listing import ImageList, check_disjoint, labels_for, overlap, scan
from cspedge.digest import sha256_bytes
from cspedge.errors import InputError, UsageError
from cspedge.models.preprocess import MAX_PIXELS, too_oblong, transform
from cspedge.types import ImageSet, Preprocess, Skipped

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

__all__ = [
    "Decoded",
    "ImageList",
    "check_disjoint",
    "decode",
    "decode_listed",
    "image_size",
    "labels_for",
    "load",
    "overlap",
    "scan",
]

# Pillow opens 43 formats by default; a file named .jpg that holds an EPS or a FITS is not an image here.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
_WIDE_MODES = frozenset({"I", "F", "I;16", "I;16L", "I;16B", "I;16N"})


class Decoded(NamedTuple):
    """An RGB image, and remarks the caller should pass on (`converted: I;16`)."""

    image: Image.Image
    notes: tuple[str, ...]


def decode(data: Path | bytes) -> Decoded:
    """Decodes an image file or its bytes to RGB as timm's datasets do: `Image.open(f).convert("RGB")`, nothing more.

    That is: the first frame of an animation; alpha dropped, not blended; CMYK, palette and grey converted by Pillow;
    16- and 32-bit grey *clipped* to 255 (a note says so); EXIF orientation NOT applied. Raises InputError, with the
    reason alone as its message, for what is no image of `FORMATS`, truncated, damaged, empty or above `MAX_PIXELS`.
    """
    try:
        raw = data if isinstance(data, bytes) else data.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})") from error
    with _opened(raw) as image:
        mode = image.mode
        return Decoded(image.convert("RGB"), (f"converted: {mode}",) if mode in _WIDE_MODES else ())


@contextmanager
def _opened(raw: bytes) -> Iterator[Image.Image]:
    """An image whose header was read; what goes wrong with it here or in the block becomes an InputError."""
    from PIL import Image, UnidentifiedImageError

    if not raw:
        raise InputError("is empty (0 bytes)")
    try:
        with Image.open(io.BytesIO(raw), formats=FORMATS) as image:
            # Before any pixel is decoded, and without the process-wide warning filters, which other threads share.
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"is larger than the limit of {MAX_PIXELS:,} pixels (a decompression bomb?)") from error
    except UnidentifiedImageError as error:
        raise InputError(f"is not a readable {', '.join(FORMATS[:-1])} or {FORMATS[-1]} image") from error
    except Exception as error:  # Pillow's decoders raise anything from SyntaxError to struct.error on damaged data
        raise InputError(f"cannot be decoded ({error or type(error).__name__})") from error


def decode_listed(images: ImageList, index: int) -> Decoded:
    """Decodes one image of a list; InputError (the reason alone) also where its bytes are not those scanned."""
    return decode(_listed_bytes(images, index))


def image_size(images: ImageList, index: int) -> tuple[int, int]:
    """(width, height) of one image of a list, from its header; InputError (the reason alone) as `decode_listed`."""
    with _opened(_listed_bytes(images, index)) as image:
        return image.size


def _listed_bytes(images: ImageList, index: int) -> bytes:
    try:
        raw = images.read(index)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})") from error
    # Results are stored under the digests of the scan, so other bytes must not pass for these.
    if sha256_bytes(raw) != images.digests[index]:
        raise InputError("has changed since the folder was scanned")
    return raw


def load(
    images: ImageList,
    indices: Sequence[int] | None,
    preprocess: Preprocess,
    *,
    labels: NDArray[np.int64] | None = None,
    max_unreadable: float = 0.01,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
    on_note: Callable[[str, str], None] | None = None,
    change: Callable[[Image.Image], Image.Image] | None = None,
) -> ImageSet:
    """Decodes and preprocesses images, in the order of `indices` (None: all), whatever the number of `workers`.

    labels: int64 [len(images)], indexed like `images`. `progress(done, total)` is called after each image, and
    `on_note(name, note)` for each remark of `decode`. change: what is done to a decoded image before its preprocessing
    (`cspedge.data.corrupt`); where it raises InputError, the image counts as unreadable. An image that cannot be
    read, or is no longer what was scanned, stands in the result's `skipped`; InputError where their share is above
    `max_unreadable` or none is left.
    """
    import numpy as np

    if not 0 <= max_unreadable <= 1:
        raise UsageError(f"max_unreadable is {max_unreadable!r}; it is a share, from 0 to 1")
    chosen = range(len(images)) if indices is None else indices
    apply = transform(preprocess)

    def one(index: int) -> tuple[NDArray[np.uint8] | str, tuple[str, ...]]:
        try:
            decoded = decode_listed(images, index)
        except InputError as error:
            return str(error), ()
        if too_oblong(decoded.image.size, preprocess):
            return f"is too narrow ({decoded.image.width} x {decoded.image.height} pixels) to be resized", ()
        try:
            image = decoded.image if change is None else change(decoded.image)
        except InputError as error:
            return str(error), ()
        return apply(image), decoded.notes

    pixels = np.empty((len(chosen), *preprocess.input_size), dtype=np.uint8)
    kept: list[int] = []
    skipped: list[Skipped] = []
    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        for done, (index, (result, notes)) in enumerate(zip(chosen, pool.map(one, chosen), strict=True), 1):
            if isinstance(result, str):
                skipped.append(Skipped(name=images.names[index], reason=result))
            else:
                pixels[len(kept)] = result
                kept.append(index)
            for note in notes:
                if on_note is not None:
                    on_note(images.names[index], note)
            if progress is not None:
                progress(done, len(chosen))
    _refuse_unreadable(images.source, skipped, len(chosen), max_unreadable)
    return ImageSet(
        images=pixels[: len(kept)],
        labels=None if labels is None else labels[kept],
        names=tuple(images.names[i] for i in kept),
        digests=tuple(images.digests[i] for i in kept),
        source=images.source,
        skipped=tuple(skipped),
    )


def _refuse_unreadable(source: str, skipped: Sequence[Skipped], total: int, allowed: float) -> None:
    if not skipped or (len(skipped) / total <= allowed and len(skipped) < total):
        return
    shown = "; ".join(f"{item.name!r} {item.reason}" for item in skipped[:3])
    more = f"; and {len(skipped) - 3} more" if len(skipped) > 3 else ""
    raise InputError(
        f"{len(skipped)} of {total} images of {source!r} ({len(skipped) / total:.1%}) cannot be used, and "
        f"{allowed:.1%} may be: {shown}{more}; repair or remove them, or raise the allowed share"
    )
