"""How a reference is trained: one frozen value, the named recipes, and the data it is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

from cspedge.data.digits import Split, digits
from cspedge.data.images import ImageList, check_disjoint, scan
from cspedge.data.sampling import split
from cspedge.errors import InputError, UsageError, unknown
from cspedge.models.preprocess import INTERPOLATIONS


class Optimizer(StrEnum):
    """Optimizers by timm's names: AdamW, and RMSprop as TensorFlow does it (the lcnet and fbnet recipes)."""

    ADAMW = "adamw"
    RMSPROPTF = "rmsproptf"


class Schedule(StrEnum):
    """How the learning rate falls after the warm-up."""

    COSINE = "cosine"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides the weights besides the architecture and the images.

    Augmentation is timm's `create_transform(is_training=True)`: a random crop of a share of the area in `scale`,
    resized with `interpolation`; `auto_augment` is timm's string (`rand-m7-mstd0.5`) or None. `crop_pct`,
    `interpolation` and `img_size` also become the model's preprocessing contract. `ema_decay` 0 keeps the last
    weights, not an average.
    """

    img_size: int = 224
    epochs: int = 100
    batch_size: int = 128
    optimizer: Optimizer = Optimizer.ADAMW
    lr: float = 2e-3
    weight_decay: float = 0.05
    warmup_epochs: int = 5
    schedule: Schedule = Schedule.COSINE
    label_smoothing: float = 0.1
    mixup: float = 0.2
    ema_decay: float = 0.999
    auto_augment: str | None = "rand-m7-mstd0.5-inc1"
    color_jitter: float = 0.4  # timm leaves it out where auto_augment is given
    hflip: float = 0.5
    scale: tuple[float, float] = (0.2, 1.0)
    interpolation: str = "bicubic"
    crop_pct: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if self.interpolation not in INTERPOLATIONS:
            raise unknown("interpolation", self.interpolation, INTERPOLATIONS)
        above_zero = ("img_size", "epochs", "batch_size", "lr", "crop_pct")
        shares = ("label_smoothing", "ema_decay", "hflip")
        for name in above_zero:
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} is {getattr(self, name)!r} in the training recipe; it is above 0")
        for name in shares:
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(
                    f"{name} is {getattr(self, name)!r} in the training recipe; it is a share, from 0 to 1"
                )
        if min(self.weight_decay, self.warmup_epochs, self.mixup, self.color_jitter) < 0:
            raise UsageError("weight_decay, warmup_epochs, mixup and color_jitter of a training recipe are 0 or more")
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise UsageError(f"scale is {self.scale!r} in the training recipe; it is a range of shares inside (0, 1]")

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values, for provenance."""
        return {**asdict(self), "scale": list(self.scale)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, where: str) -> Recipe:
        """A recipe from JSON or TOML values; UsageError naming `where` for an unknown key or a bad value."""
        known = [item.name for item in fields(cls)]
        for key in values:
            if key not in known:
                raise UsageError(f"unknown key {key!r} in {where}; known: {', '.join(known)}")
        changes = dict(values)
        try:
            if "optimizer" in changes:
                changes["optimizer"] = Optimizer(changes["optimizer"])
            if "schedule" in changes:
                changes["schedule"] = Schedule(changes["schedule"])
            if "scale" in changes:
                low, high = changes["scale"]
                changes["scale"] = (float(low), float(high))
            return cls(**changes)
        except (TypeError, ValueError) as error:
            raise UsageError(f"a value in {where} does not fit: {error}") from error


RECIPES: Mapping[str, Recipe] = {
    "default": Recipe(),
    # A mirrored digit is another sign, and colour or shear transforms of 8 x 8 pixels leave nothing to read.
    "digits": Recipe(
        img_size=64,
        epochs=45,
        batch_size=32,
        lr=8e-3,  # after three epochs the loss is 0.37 at 1e-2, 0.62 at 3e-3, 1.37 at 1e-3
        warmup_epochs=3,
        label_smoothing=0.05,
        mixup=0.1,
        ema_decay=0.995,
        auto_augment=None,
        color_jitter=0.2,
        hflip=0.0,
        scale=(0.7, 1.0),
        interpolation="bilinear",
        crop_pct=1.0,
    ),
}


def recipe(name: str) -> Recipe:
    """A named recipe; UsageError listing the known ones."""
    if name not in RECIPES:
        raise unknown("training recipe", name, tuple(RECIPES))
    return RECIPES[name]


@dataclass(frozen=True, kw_only=True)
class TrainData:
    """What a model is trained on and what it is evaluated on; the two share no image."""

    name: str
    train: ImageList
    val: ImageList


def train_data(source: Path | str, *, val_share: float = 0.2, allow_overlap: bool = False) -> TrainData:
    """The data behind `--data`: the word `digits`, a folder with `train/` and `val/`, or one folder, which is split.

    A single folder is split per class by content (`cspedge.data.split`). Raises InputError for flat folders, for `val`
    classes that `train` does not have, and for images that stand in both unless `allow_overlap`.
    """
    if str(source) == "digits":
        return TrainData(name="digits", train=digits(Split.TRAIN), val=digits(Split.VAL))
    folder = Path(source)
    if (folder / "train").is_dir() and (folder / "val").is_dir():
        train, val = scan(folder / "train"), scan(folder / "val")
        check_disjoint(train, val, allow=allow_overlap)
    else:
        images = scan(folder)
        first, second = split(images, val_share) if images.class_names else ((), ())
        train, val = images.subset(first), images.subset(second)
    if len(train.class_names) < 2:
        raise InputError(
            f"training on {str(folder)!r} needs two or more class folders; it has {len(train.class_names)}"
        )
    return TrainData(name=folder.resolve().name, train=train, val=val)
