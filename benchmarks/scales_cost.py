"""What channel scales cost at run time: int8 artifacts with none, where they are cheap, and everywhere.

    python benchmarks/scales_cost.py local-dir:../shared/references/lcnet_050.caltech101 [--calib DIR] [--rounds 40]

All artifacts of one runtime run interleaved in one process, one thread; ratios of medians to the artifact without
scales, with 95 % intervals. Nothing is learned and nothing kept in float: only the graphs differ.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace

import numpy as np

TARGETS = ("openvino", "onnxruntime", "executorch")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--calib", default=None, help="folder of images; the built-in digits without it")
    parser.add_argument("--rounds", type=int, default=40)
    arguments = parser.parse_args()

    from cspedge import api
    from cspedge.evaluate.latency import bench
    from cspedge.evaluate.stats import bootstrap_ratio
    from cspedge.quantize.calibrate import QuantizeOptions, calibrate
    from cspedge.quantize.graph import prepare
    from cspedge.quantize.scaling import ChannelScales, is_scale
    from cspedge.threads import torch_threads

    reference = api.load_reference(arguments.model)
    shape = reference.info.preprocess.input_size
    images = api.collect_calibration(reference, arguments.calib, count=64).images
    image = images[:1].astype(np.float32) / np.float32(255)
    with torch_threads(1), tempfile.TemporaryDirectory() as folder:
        graph = prepare(reference.module, shape)
        models = {
            mode: calibrate(graph, shape, images, replace(QuantizeOptions(), channel_scales=mode))
            for mode in ChannelScales
        }
        print("| runtime | " + " | ".join(f"{mode}" for mode in models) + " |\n|---|" + "---|" * len(models))
        placed = [str(sum(is_scale(n) for n in model.graph.graph.nodes)) for model in models.values()]
        print("| scales in the graph | " + " | ".join(placed) + " |")
        for target in TARGETS:
            artifacts = {m: api.lower(model, target, out=folder, name=f"{target}-{m}") for m, model in models.items()}
            sessions = {str(mode): api.open_session(artifact) for mode, artifact in artifacts.items()}
            samples = bench(sessions, image, rounds=arguments.rounds).samples
            cells = [f"{np.median(samples['none']):.3f} ms"]
            for mode in list(samples)[1:]:
                ratio, interval = bootstrap_ratio(samples[mode], samples["none"], seed=0)
                cells.append(f"{ratio:.2f} [{interval[0]:.2f}, {interval[1]:.2f}]")
            print(f"| {target} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
