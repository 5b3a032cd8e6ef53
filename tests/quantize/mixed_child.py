"""A search on a small network, in a process of its own for the test that kills it: `mixed_child.py JOURNAL [slow]`.

Prints a line after each real evaluation and a JSON object at the end. slow: waits after each evaluation, so that the
test can kill it between two.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from cspedge.config import load_target
from cspedge.data import digits, load
from cspedge.quantize.calibrate import QuantizeOptions, calibrate
from cspedge.quantize.graph import prepare
from cspedge.quantize.journal import Journal
from cspedge.quantize.measure import Measured
from cspedge.quantize.mixed import Mixed, MixedOptions, search
from cspedge.quantize.sensitivity import Study, study
from cspedge.types import Preprocess

SHAPE = (3, 32, 32)
BAD = ("1:relu", "5:relu")
GOAL = MixedOptions(min_agreement=0.75, max_float_macs=0.9, images=128)


class Telling(Journal):
    """A journal that says what it keeps, once it is kept."""

    def __init__(self, path: Path, wait: float = 0.0) -> None:
        super().__init__(path)
        self.wait = wait
        self.told = 0

    def put(self, tensors: Collection[str], measured: Measured, seconds: float) -> None:
        super().put(tensors, measured, seconds)
        self.told += 1
        print(f"evaluated {len(tensors)}", flush=True)
        time.sleep(self.wait)


def broken() -> Study:
    """Random convolutions on 128 digits, two of the tensors between them in far too coarse encodings."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before, after, stride in ((3, 8, 2), (8, 16, 2), (16, 16, 1), (16, 32, 2), (32, 32, 1)):
        layers += [nn.Conv2d(before, after, 3, stride, 1), nn.ReLU()]
    module = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)).eval()
    seen = Preprocess(
        input_size=SHAPE, crop_pct=1.0, crop_mode="center", interpolation="bilinear", mean=(0, 0, 0), std=(1, 1, 1)
    )
    images = load(digits("train"), tuple(range(160)), seen).images
    with torch.no_grad():  # else one class wins on every image
        module[-1].bias -= module(torch.from_numpy(images).float() / 255).mean(0)
    model = calibrate(prepare(module, SHAPE), SHAPE, images[128:], QuantizeOptions(weight_search=False))
    activations = dict(model.encodings.activations)
    for name in BAD:
        activations[name] = replace(activations[name], scale=activations[name].scale * 20)
    model = replace(model, encodings=replace(model.encodings, activations=activations))
    return study(model, load_target("openvino").placement, images[:128])


def run(journal: Journal) -> Mixed:
    return search(broken(), GOAL, journal)


if __name__ == "__main__":
    told = Telling(Path(sys.argv[1]), 0.3 if "slow" in sys.argv[2:] else 0.0)
    known, found = len(told), run(told)
    print(json.dumps({"known": known, "measured": told.told, "result": found.to_dict()}))
