"""What a model is trained on and evaluated on, and everything that can be wrong with it before any training."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from cspedge.data import archive as archives
from cspedge.data.digits import Split, digits
from cspedge.data.images import ImageList, check_disjoint, image_size, scan
from cspedge.data.listing import EXTENSIONS, scan_archive
from cspedge.data.sampling import split
from cspedge.errors import InputError, UsageError
from cspedge.train.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class TrainData:
    """What a model is trained on and what it is evaluated on; the two share no image."""

    name: str
    train: ImageList
    val: ImageList


def train_data(source: Path | str, *, val_share: float = 0.2, allow_overlap: bool = False) -> TrainData:
    """The data behind `--data`: the word `digits`, a folder or an archive with `train/` and `val/`, or one to split.

    What is not parted is split per class by content (`cspedge.data.split`). Raises InputError for flat folders, for
    fewer than two classes, class folders without images, `val` classes that `train` lacks, one content under two
    labels, and images that stand in both parts unless `allow_overlap`.
    """
    if str(source) == "digits":
        return TrainData(name="digits", train=digits(Split.TRAIN), val=digits(Split.VAL))
    folder = Path(source)
    parts = _two_parts(folder)
    if parts is not None:
        train, val = parts
        check_disjoint(train, val, allow=allow_overlap, what="training", remedy="take them out of one")
        name = folder.resolve().name if folder.is_dir() else archives.stem(folder)
    else:
        images = scan(folder)
        first, second = split(images, val_share) if images.class_names else ((), ())
        train, val, name = images.subset(first), images.subset(second), images.source
    if len(train.class_names) < 2:
        raise InputError(
            f"training on {str(folder)!r} needs two or more class folders; it has {len(train.class_names)}"
        )
    _refuse_labels(train, val)
    return TrainData(name=name, train=train, val=val)


def check_images(images: ImageList, workers: int) -> list[tuple[int, int]]:
    """Reads every image's header: (width, height) of each. Raises InputError counting and naming the unreadable."""

    def one(index: int) -> tuple[int, int] | str:
        try:
            return image_size(images, index)
        except InputError as error:
            return str(error)

    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        found = list(pool.map(one, range(len(images))))
    bad = [(images.names[index], reason) for index, reason in enumerate(found) if isinstance(reason, str)]
    if bad:
        (name, reason), more = bad[0], f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        raise InputError(f"the training image {name!r} {reason}{more}; repair or remove it")
    return [size for size in found if not isinstance(size, str)]


def check_counts(data: TrainData, recipe: Recipe) -> None:
    """Raises InputError or UsageError where there are too few images for one batch, or none to evaluate on."""
    if len(data.train) < 2 or not data.val:
        raise InputError(
            f"{data.name!r} has {len(data.train)} training and {len(data.val)} validation images; "
            "two and one at least are needed"
        )
    if recipe.batch_size > len(data.train):
        raise UsageError(
            f"batch_size is {recipe.batch_size} and {data.name!r} has {len(data.train)} training images; "
            f"give --batch-size {len(data.train) // 2 * 2} or less"
        )


def _two_parts(folder: Path) -> tuple[ImageList, ImageList] | None:
    """The lists of `train` and `val` where the source has both."""
    if folder.is_dir():
        if not ((folder / "train").is_dir() and (folder / "val").is_dir()):
            return None
        return scan(folder / "train"), scan(folder / "val")
    found = archives.find(folder)
    if found is None or found[1]:
        return None
    archive = archives.open_archive(found[0], EXTENSIONS)
    if any(archives.folder_in(archive, part) is None for part in ("train", "val")):
        return None
    return scan_archive(archive, "train"), scan_archive(archive, "val")


def _refuse_labels(train: ImageList, val: ImageList) -> None:
    counts = Counter(train.class_of)
    hollow = [*train.empty, *(name for name in train.class_names if not counts[name])]
    if hollow:
        raise InputError(
            f"{_some(hollow)} of {train.source!r} {'has' if len(hollow) == 1 else 'have'} no training image; "
            "add images, or remove the folder"
        )
    unknown = sorted(set(val.class_names) - set(train.class_names))
    if unknown:
        raise InputError(
            f"{_some(unknown)} of {val.source!r} {'is' if len(unknown) == 1 else 'are'} not in {train.source!r}; "
            "every class that is validated must be trained"
        )
    labels: dict[str, tuple[str | None, str]] = {}
    for images in (train, val):
        for digest, label, name in zip(images.digests, images.class_of, images.names, strict=True):
            first = labels.setdefault(digest, (label, name))
            if first[0] != label:
                raise InputError(
                    f"the images {first[1]!r} and {name!r} are the same, and their labels differ; remove one of them"
                )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"the class folder{'s' if len(names) > 1 else ''} {', '.join(map(repr, names[:3]))}{more}"
