"""Training on a few real digits with the smallest lcnet."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cspedge.data import digits
from cspedge.train import RECIPES, Recipe, TrainData, TrainOptions, TrainResult, train


@pytest.fixture(scope="session")
def few() -> TrainData:
    """The first digits of every class: 60 to train on, 20 to evaluate on."""
    part = {}
    for split, count in (("train", 60), ("val", 20)):
        images = digits(split)
        by_class = [[i for i, c in enumerate(images.class_of) if c == name] for name in images.class_names]
        part[split] = images.subset([i for turn in zip(*by_class, strict=False) for i in turn][:count])
    return TrainData(name="few", train=part["train"], val=part["val"])


@pytest.fixture(scope="session")
def short() -> Recipe:
    return dataclasses.replace(RECIPES["digits"], img_size=32, epochs=1, batch_size=20)


@pytest.fixture(scope="session")
def run(few: TrainData, short: Recipe) -> Callable[..., TrainResult]:
    """Trains lcnet_035 on one thread: `run(out, change=recipe, data=..., weights=..., and any of TrainOptions)`."""

    def call(
        out: Path, *, change: Recipe | None = None, data: TrainData | None = None, model: str = "lcnet_035", **more: Any
    ) -> TrainResult:
        names = {item.name for item in dataclasses.fields(TrainOptions)}
        options = TrainOptions(threads=1, device="cpu", **{k: v for k, v in more.items() if k in names})
        rest = {k: v for k, v in more.items() if k not in names}
        return train(model, data or few, recipe=change or short, out=out, options=options, **rest)

    return call
