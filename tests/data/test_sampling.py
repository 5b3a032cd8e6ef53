"""Sampling and splitting: properties that hold for every list of images."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cspedge.data.images import ImageList
from cspedge.data.sampling import sample, split
from cspedge.digest import sha256_bytes
from cspedge.errors import InputError, UsageError


def listing(contents: list[tuple[str, int]]) -> ImageList:
    """Images of (class, content number); the same number is the same file content."""
    return ImageList(
        source="cal",
        names=tuple(f"{name}/{i}.png" for i, (name, _) in enumerate(contents)),
        digests=tuple(sha256_bytes(str(number).encode()) for _, number in contents),
        class_names=tuple(sorted({name for name, _ in contents})),
        class_of=tuple(name for name, _ in contents),
    )


lists = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 60)), min_size=1, max_size=80).map(listing)


@given(images=lists, seed=st.integers(0, 5), stratified=st.booleans(), data=st.data())
def test_sample(images: ImageList, seed: int, stratified: bool, data: st.DataObject) -> None:
    different = len(set(images.digests))
    count = data.draw(st.integers(1, different))
    chosen = sample(images, count, seed=seed, stratified=stratified)
    assert len(chosen) == count
    assert len({images.digests[i] for i in chosen}) == count
    assert chosen == sample(images, different, seed=seed, stratified=stratified)[:count]
    # content decides, not the order in which a file system lists it
    order = data.draw(st.permutations(range(len(images))))
    if different == len(images):
        other = images.subset(order)
        again = sample(other, count, seed=seed, stratified=stratified)
        assert [other.digests[i] for i in again] == [images.digests[i] for i in chosen]


@given(images=lists, seed=st.integers(0, 5), data=st.data())
def test_stratified_counts_differ_by_one_until_a_class_is_used_up(
    images: ImageList, seed: int, data: st.DataObject
) -> None:
    first = {digest: i for i, digest in reversed(list(enumerate(images.digests)))}
    available = Counter(images.class_of[i] for i in first.values())
    count = data.draw(st.integers(1, len(first)))
    taken = Counter(images.class_of[i] for i in sample(images, count, seed=seed))
    most = max(taken.values())
    assert all(taken[name] >= min(most - 1, available[name]) for name in available)


def test_sample_is_pinned() -> None:
    """Digests of results are keys of the store: another order on another platform would be another calibration."""
    images = listing([("ab"[i % 2], i) for i in range(12)])
    assert sample(images, 6, seed=0) == (9, 8, 5, 4, 11, 6)
    assert sample(images, 6, seed=1) != (9, 8, 5, 4, 11, 6)


def test_fewer_images_than_asked_for_says_so() -> None:
    images = listing([("a", 1), ("a", 2), ("b", 1)])
    with pytest.raises(InputError, match=r"3 images are asked for .* 2 different ones \(1 more.*--calib-images 2"):
        sample(images, 3, seed=0)
    with pytest.raises(UsageError, match="cannot take 0 images"):
        sample(images, 0, seed=0)


@given(images=lists, share=st.floats(0.01, 0.99), seed=st.integers(0, 3))
def test_split_parts_share_no_content(images: ImageList, share: float, seed: int) -> None:
    train, val = split(images, share, seed=seed)
    assert sorted((*train, *val)) == list(range(len(images)))
    assert not {images.digests[i] for i in train} & {images.digests[i] for i in val}
    assert train


def test_split_is_stratified() -> None:
    images = listing([("abcd"[i % 4], i) for i in range(400)])
    _, val = split(images, 0.25)
    assert Counter(images.class_of[i] for i in val) == dict.fromkeys("abcd", 25)
    with pytest.raises(UsageError, match="between 0 and 1"):
        split(images, 1.0)
