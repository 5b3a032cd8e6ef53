"""A training in a process of its own, to be killed: `python train_child.py DATA OUT RECIPE`.

Prints "EPOCH STEP" after every step, right before the state of that step is written.
"""

from __future__ import annotations

import sys
from pathlib import Path

from cspedge.train import Progress, TrainOptions, recipe, train, train_data


def show(at: Progress) -> None:
    print(at.epoch, at.step, flush=True)


if __name__ == "__main__":
    data, out, toml = sys.argv[1:]
    options = TrainOptions(threads=1, device="cpu", save_every_s=0.0)
    train("lcnet_035", train_data(data), recipe=recipe(toml), out=Path(out), options=options, progress=show)
