"""How a reference is trained: one frozen value, and the named recipes."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

from cspedge.errors import UsageError, unknown
from cspedge.models.preprocess import INTERPOLATIONS

_AUTO_AUGMENT = r"rand(-(m\d+|n\d+|p[\d.]+|mstd[\d.]+|mmax\d+|inc[01]))*"


class Optimizer(StrEnum):
    """Optimizers by timm's names: AdamW, and RMSprop as TensorFlow does it (the lcnet and fbnet recipes)."""

    ADAMW = "adamw"
    RMSPROPTF = "rmsproptf"


class Schedule(StrEnum):
    """How the learning rate falls after the warm-up."""

    COSINE = "cosine"
    STEP = "step"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides the weights besides the architecture and the images.

    Augmentation is timm's `create_transform(is_training=True)`: a random crop of a share of the area in `scale`,
    resized with `interpolation`; `auto_augment` is timm's string (`rand-m7-mstd0.5`) or None. `crop_pct`,
    `interpolation` and `img_size` also become the model's preprocessing contract. `lr` is for `batch_size` as it
    stands (timm's figures are often for 1,024 images); it starts at `warmup_lr` (None: lr / 100). `decay_epochs` and
    `decay_rate` belong to the step schedule, `opt_eps` and `momentum` to the optimizer (None: timm's default).
    `erase` is the probability of random erasing. `ema_decay` 0 keeps the last weights, not an average.
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
    warmup_lr: float | None = None
    decay_epochs: float = 30.0
    decay_rate: float = 0.1
    opt_eps: float | None = None
    momentum: float = 0.9
    erase: float = 0.0
    drop_rate: float = 0.0
    drop_path_rate: float = 0.0

    def __post_init__(self) -> None:
        self._check_types()
        if self.interpolation not in INTERPOLATIONS:
            raise unknown("interpolation", self.interpolation, INTERPOLATIONS)
        self._check_augment()
        above_zero = ("img_size", "epochs", "batch_size", "lr", "crop_pct", "decay_epochs", "decay_rate")
        shares = ("label_smoothing", "ema_decay", "hflip", "momentum", "erase", "drop_rate", "drop_path_rate")
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
        if self.mixup and self.batch_size % 2:
            raise UsageError(
                f"batch_size is {self.batch_size} in the training recipe; mixup pairs images, so give an even number"
            )

    def _check_augment(self) -> None:
        """timm asserts what it does not know, and passes over a section without a number."""
        if self.auto_augment is not None and not re.fullmatch(_AUTO_AUGMENT, self.auto_augment):
            raise UsageError(
                f"auto_augment is {self.auto_augment!r} in the training recipe; allowed are timm's RandAugment "
                "strings, such as 'rand-m7-n2-mstd0.5-inc1'"
            )

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

    def _check_types(self) -> None:
        """TOML and JSON carry any type: 64.0 pixels or `true` epochs would fail late or pass for something else."""
        for item in fields(self):
            value, kind = getattr(self, item.name), str(item.type)
            allowed = {"int": (int,), "float": (int, float), "float | None": (int, float, type(None))}.get(kind)
            if allowed is not None and (isinstance(value, bool) or not isinstance(value, allowed)):
                raise TypeError(f"{item.name} is {value!r}, which is no {kind}")
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{item.name} is {value!r}; a finite number is needed")


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
    # For weights that see already: a small rate, light augmentation, a quick average.
    "finetune": Recipe(
        epochs=10,
        lr=5e-4,
        warmup_epochs=1,
        mixup=0.0,
        ema_decay=0.99,
        auto_augment="rand-m5-mstd0.5-inc1",
        scale=(0.5, 1.0),
    ),
    # timm's published command for MobileNetV3-Large 100 (hfdocs/source/training_script.mdx), of the family that its
    # lcnet and fbnetv3 `ra2` weights come from: rmsproptf, opt-eps .001, step 2.4 epochs at .973, warm-up from 1e-6,
    # rand-m9-mstd0.5, random erasing .2, dropout and drop-path .2, EMA .9999, weight decay 1e-5. Its rate of .064 is
    # for 2 x 512 images, and so an eighth of it here; its noise on the rate is left out.
    "rmsproptf": Recipe(
        epochs=600,
        optimizer=Optimizer.RMSPROPTF,
        opt_eps=1e-3,
        lr=8e-3,
        weight_decay=1e-5,
        schedule=Schedule.STEP,
        decay_epochs=2.4,
        decay_rate=0.973,
        warmup_epochs=5,
        warmup_lr=1e-6,
        mixup=0.0,
        ema_decay=0.9999,
        auto_augment="rand-m9-mstd0.5",
        hflip=0.5,
        scale=(0.08, 1.0),
        crop_pct=0.875,
        erase=0.2,
        drop_rate=0.2,
        drop_path_rate=0.2,
    ),
}


def recipe(name: str) -> Recipe:
    """A named recipe, or one from a file that ends in `.toml` (the keys of `Recipe`, at its top level).

    What a file leaves out is as in `default`. Raises UsageError for an unknown name, key or value, and a file that
    cannot be read.
    """
    if not name.endswith(".toml"):
        if name not in RECIPES:
            raise unknown("training recipe", name, tuple(RECIPES))
        return RECIPES[name]
    try:
        values = tomllib.loads(Path(name).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            f"the training recipe {name!r} cannot be read ({error.strerror}); give a .toml file"
        ) from error
    except ValueError as error:  # of TOML or of UTF-8
        raise UsageError(f"the training recipe {name!r} is not TOML ({error}); mend it") from error
    return Recipe.from_dict(values, where=repr(name))
