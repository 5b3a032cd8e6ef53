"""Choosing images: the same ones on every platform, because the order is a hash of their content, not a generator's."""

from __future__ import annotations

from collections.abc import Iterable

from cspedge.data.images import ImageList
from cspedge.digest import sha256_bytes
from cspedge.errors import InputError, UsageError


def sample(images: ImageList, count: int, *, seed: int, stratified: bool = True) -> tuple[int, ...]:
    """Indices of `count` different images, ordered by SHA-256 of `"{seed}:{digest}"`.

    Stratified: the classes take turns, so that their counts differ by at most one until a class is used up; a smaller
    sample is always the beginning of a larger one. Exact duplicates (by digest) are taken once, under the first name.
    Raises InputError where there are fewer different images than asked for.
    """
    if count < 1:
        raise UsageError(f"cannot take {count} images; --calib-images is 1 or more")
    first: dict[str, int] = {}
    for index, digest in enumerate(images.digests):
        first.setdefault(digest, index)
    if len(first) < count:
        twice = len(images) - len(first)
        duplicates = f" ({twice} more are exact duplicates)" if twice else ""
        raise InputError(
            f"{count} images are asked for and {images.source!r} has {len(first)} different ones{duplicates}; "
            f"add images, or ask for fewer with --calib-images {len(first)}"
        )
    classes: dict[str, list[int]] = {}
    for index in first.values():
        classes.setdefault(str(images.class_of[index]) if stratified else "", []).append(index)
    # The classes' order is hashed too: in name order a sample smaller than a round would favour the first of them.
    order = sorted(classes, key=lambda name: _rank(seed, f"class:{name}"))
    queues = [sorted(classes[name], key=lambda i: _rank(seed, images.digests[i])) for name in order]
    turns = ((turn, place, index) for place, queue in enumerate(queues) for turn, index in enumerate(queue))
    return tuple(index for _, _, index in sorted(turns)[:count])


def split(images: ImageList, val_share: float, *, seed: int = 0) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Indices (train, val), each in list order: per class the `val_share` lowest hashes go to val.

    The side follows from the content alone, so exact duplicates, of whatever class, always fall on one side. Each
    class keeps at least one image in train. Raises UsageError for a share outside (0, 1).
    """
    if not 0 < val_share < 1:
        raise UsageError(f"the validation share is {val_share!r}; it lies between 0 and 1")
    owner: dict[str, str | None] = {}
    for digest, name in zip(images.digests, images.class_of, strict=True):
        owner.setdefault(digest, name)
    by_class: dict[str | None, list[str]] = {}
    for digest, name in owner.items():
        by_class.setdefault(name, []).append(digest)
    held: set[str] = set()
    for digests in by_class.values():
        ranked = sorted(digests, key=lambda digest: _rank(seed, digest))
        held.update(ranked[: min(round(len(ranked) * val_share), len(ranked) - 1)])
    return _where(images.digests, held, inside=False), _where(images.digests, held, inside=True)


def _rank(seed: int, key: str) -> str:
    return sha256_bytes(f"{seed}:{key}".encode())


def _where(digests: Iterable[str], held: set[str], *, inside: bool) -> tuple[int, ...]:
    return tuple(i for i, digest in enumerate(digests) if (digest in held) is inside)
