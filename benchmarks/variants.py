"""One choice of calibration changed at a time: what each is worth before any correction.

    python benchmarks/variants.py ../shared local-dir:../shared/references/lcnet_050.caltech101 [--only mse minmax ...]

512 calibration images, and the next 512 of the same folder (`train`) to compare on: the graph placed for OpenVINO
(after the activation) and ExecuTorch (around it) in eager torch, against fp32. KL: mean divergence of the answers'
distributions, the steadiest of the figures on few images.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

IMAGES = 512
TARGETS = ("openvino", "executorch")
# name: options that differ from the default
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "not equalized": {"equalize": False},
    "no channel scales": {"channel_scales": "none"},
    "channel scales everywhere": {"channel_scales": "everywhere"},
    "minmax": {"observer": "minmax"},
    "percentile 99.99": {"observer": "percentile"},
    "percentile 99.9": {"observer": "percentile", "percentile": 99.9},
    "entropy": {"observer": "entropy"},
    "no lossless clip": {"lossless_clip": False},
    "all images in range": {"outlier_images": 0.0},
    "largest weights": {"weight_search": False},
    "7-bit weights": {"weight_bits": 7},
    "7-bit, largest": {"weight_bits": 7, "weight_search": False},
}


def logits(model: Any, images: Any) -> Any:
    """float32 [n, classes]; model: from float32 [n, 3, H, W] in [0, 1] to a tensor or a tuple of one."""
    import torch

    from cspedge.quantize.graph import as_tuple

    found = []
    with torch.no_grad():
        for start in range(0, len(images), 64):
            batch = torch.from_numpy(images[start : start + 64].astype(np.float32) / np.float32(255))
            found.append(as_tuple(model(batch))[0].numpy())
    return np.concatenate(found)


def divergence(expected: Any, found: Any) -> float:
    """Mean over images of KL(softmax(expected) || softmax(found))."""
    from scipy.special import log_softmax

    p, q = log_softmax(expected.astype(np.float64), 1), log_softmax(found.astype(np.float64), 1)
    return float((np.exp(p) * (p - q)).sum(1).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path, help="folder with data/caltech101")
    parser.add_argument("model")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    arguments = parser.parse_args()

    from cspedge import api
    from cspedge.config import load_target
    from cspedge.evaluate.metrics import sqnr_db
    from cspedge.quantize.calibrate import QuantizeOptions, calibrate
    from cspedge.quantize.graph import prepare
    from cspedge.quantize.observers import Observer
    from cspedge.quantize.placement import place
    from cspedge.threads import torch_threads

    reference = api.load_reference(arguments.model)
    shape = reference.info.preprocess.input_size
    drawn = api.collect_calibration(reference, arguments.shared / "data" / "caltech101" / "train", count=2 * IMAGES)
    calibration, held = drawn.images[:IMAGES], drawn.images[IMAGES:]
    with torch_threads(1):
        graph = prepare(reference.module, shape)
        expected = logits(graph, held)
        print("| variant |" + "".join(f" {t}: agrees | SQNR dB | KL |" for t in TARGETS))
        print("|---|" + "--:|--:|--:|" * len(TARGETS))
        for name in arguments.only:
            changes = {k: Observer(v) if k == "observer" else v for k, v in VARIANTS[name].items()}
            model = calibrate(graph, shape, calibration, replace(QuantizeOptions(), **changes))
            cells = []
            for target in TARGETS:
                found = logits(place(model, load_target(target).placement), held)
                agrees = float(np.mean(expected.argmax(1) == found.argmax(1)))
                cells += [f"{agrees:.1%}", f"{sqnr_db(expected, found):.2f}", f"{divergence(expected, found):.5f}"]
            print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
