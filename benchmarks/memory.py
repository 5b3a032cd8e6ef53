"""Peak memory of quantizing beside that of evaluating the fp32 reference, each in a process of its own.

    python benchmarks/memory.py [MODEL ...] [--images 64] [--recipe default] [--steps 4]

Weights are random and images noise: memory depends on shapes alone. Learning stops after a few steps, since every step
takes the same; the loop for mixed precision is not part of it (`[mixed] max_memory_mb` bounds it).
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from dataclasses import replace


def child(name: str, count: int, recipe: str, steps: int) -> None:
    """Prints this process's peak in MB. recipe: what to quantize with, or `fp32` for the evaluation."""
    import numpy as np
    import timm
    import torch
    from timm.data import resolve_data_config

    from cspedge.config import known_placements, load_recipe
    from cspedge.quantize.graph import prepare
    from cspedge.quantize.quantizer import quantize

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False).eval()
    shape = tuple(resolve_data_config({}, model=model)["input_size"])
    images = np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)
    if recipe == "fp32":
        with torch.no_grad():
            for start in range(0, count, 64):
                model(torch.from_numpy(images[start : start + 64].astype(np.float32) / np.float32(255)))
    else:
        options = load_recipe(recipe).quantizer
        graph = prepare(model, shape)
        learn = replace(options.learn, epochs=min(options.learn.epochs, 1), settle=min(options.learn.settle, 1))
        few = images[: steps * learn.batch_size]
        quantize(graph, shape, images, replace(options, learn=learn), known_placements(), more_images=few)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["cspdarknet53"])
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--recipe", default="default")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.models[0], options.images, options.child, options.steps)
        return
    print("| model | fp32 evaluation, 64 images a batch, MB | quantize, MB | ratio |\n|---|---|---|---|")
    for name in options.models:
        peaks = []
        for what in ("fp32", options.recipe):
            command = [sys.executable, __file__, name, "--images", str(options.images), "--steps", str(options.steps)]
            done = subprocess.run([*command, "--child", what], capture_output=True, text=True, check=True)
            peaks.append(float(done.stdout.strip().splitlines()[-1]))
        print(f"| {name} | {peaks[0]:.0f} | {peaks[1]:.0f} | {peaks[1] / peaks[0]:.2f} |", flush=True)


if __name__ == "__main__":
    main()
