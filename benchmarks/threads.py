"""What the number of torch threads changes: the numbers of a quantization, its answers, and its time.

    python benchmarks/threads.py ../shared local-dir:../shared/references/lcnet_050.caltech101 [--recipe default]

Sums of other lengths differ in their last bit, and learning carries that further. Quantizes with 1 and 2 threads and
with another seed of the learning beside them, which is the measure of what does not matter; compares each with the
first on 512 photographs of the same folder (`train`) that calibration does not use.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

IMAGES = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path, help="folder with data/caltech101")
    parser.add_argument("model")
    parser.add_argument("--recipe", default="default")
    arguments = parser.parse_args()

    import numpy as np
    import torch

    from cspedge import api
    from cspedge.config import known_placements, load_recipe, load_target
    from cspedge.evaluate.metrics import sqnr_db
    from cspedge.quantize.graph import prepare
    from cspedge.quantize.placement import place
    from cspedge.quantize.quantizer import quantize
    from cspedge.threads import torch_threads

    reference = api.load_reference(arguments.model)
    shape = reference.info.preprocess.input_size
    drawn = api.collect_calibration(reference, arguments.shared / "data" / "caltech101" / "train", count=2 * IMAGES)
    calibration = drawn.images[:IMAGES]
    held = torch.from_numpy(drawn.images[IMAGES:].astype(np.float32) / np.float32(255))
    options = load_recipe(arguments.recipe).quantizer
    first: dict[str, Any] = {}
    columns = (
        "threads",
        "seed",
        "seconds",
        "scales differ",
        "integers differ",
        "same answers",
        "agrees with fp32",
        "SQNR",
    )
    print("| " + " | ".join(columns) + " |")
    print("|---" * len(columns) + "|")
    for threads, seed in ((1, 0), (2, 0), (1, 1)):
        with torch_threads(threads):
            start = time.perf_counter()
            graph = prepare(reference.module, shape)
            model = quantize(graph, shape, calibration, options, known_placements(), seed=seed)
            seconds = time.perf_counter() - start
        with torch_threads(1), torch.no_grad():
            exact = graph(held).numpy()
            placed = place(model, load_target("openvino").placement)
            found = np.concatenate([placed(batch)[0].numpy() for batch in held.split(64)])
        answers = found.argmax(1)
        scales = [e.scale for e in model.encodings.activations.values()]
        integers = torch.cat([v.flatten() for v in model.integer_weights.values()])
        first = first or {"scales": scales, "integers": integers, "answers": answers}
        moved = np.mean([a != b for a, b in zip(scales, first["scales"], strict=True)])
        changed = float((integers != first["integers"]).float().mean())
        same, agrees = (float(np.mean(answers == other)) for other in (first["answers"], exact.argmax(1)))
        print(
            f"| {threads} | {seed} | {seconds:.0f} | {moved:.1%} | {changed:.2%} | {same:.2%} | {agrees:.2%} | "
            f"{sqnr_db(exact, found):.1f} dB |",
            flush=True,
        )


if __name__ == "__main__":
    main()
