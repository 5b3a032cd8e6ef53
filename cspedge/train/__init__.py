"""The fp32 reference: recipes, data and the training loop."""

from __future__ import annotations

from cspedge.train.batches import Augment
from cspedge.train.cache import Cache
from cspedge.train.dataset import TrainData, train_data
from cspedge.train.loop import Progress, TrainOptions, TrainResult, train
from cspedge.train.recipe import RECIPES, Optimizer, Recipe, Schedule, recipe

__all__ = [
    "RECIPES",
    "Augment",
    "Cache",
    "Optimizer",
    "Progress",
    "Recipe",
    "Schedule",
    "TrainData",
    "TrainOptions",
    "TrainResult",
    "recipe",
    "train",
    "train_data",
]
