"""The fp32 reference: recipes, data and the training loop."""

from __future__ import annotations

from cspedge.train.loop import TrainResult, train
from cspedge.train.recipe import RECIPES, Optimizer, Recipe, Schedule, TrainData, recipe, train_data

__all__ = [
    "RECIPES",
    "Optimizer",
    "Recipe",
    "Schedule",
    "TrainData",
    "TrainResult",
    "recipe",
    "train",
    "train_data",
]
