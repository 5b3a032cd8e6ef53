"""Which MIL ops the first-class models become, in every head and precision, and whether the executor knows each.

    python benchmarks/mil_ops.py [--only lcnet_035 ...] [--size 64]

Networks are whole, with timm's random initialisation, calibrated on four images of noise: the ops do not depend on
weights, nor on the size. Each program is converted, saved, read back and made ready by the reference executor, which
refuses an op or a parameter without a definition. One line for each artifact, then the ops of all of them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import nn

from cspedge.backends import get_backend
from cspedge.backends.coreml.reference import load
from cspedge.config import load_target
from cspedge.models.catalog import FIRST_CLASS
from cspedge.models.heads import with_head
from cspedge.quantize.calibrate import QuantizeOptions, calibrate
from cspedge.quantize.graph import prepare
from cspedge.quantize.observers import Observer
from cspedge.quantize.placement import PlacedModel, place, place_float
from cspedge.types import Head, Precision


class Normalised(nn.Module):
    """The network behind its preprocessing's mean and standard deviation, as cspedge exports it."""

    def __init__(self, network: nn.Module, compute: Any) -> None:
        super().__init__()
        self.network, self.compute = network, compute
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

    def forward(self, images: torch.Tensor) -> Any:
        return self.compute(self.network, (images - self.mean) / self.std)


def placed(name: str, head: Head, size: tuple[int, int, int]) -> tuple[PlacedModel, PlacedModel]:
    """The float graph and the int8 one as Core ML's target places it."""
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False).eval()

    def build(more: dict[str, Any]) -> nn.Module:
        found: nn.Module = timm.create_model(name, **{"pretrained": False, **more}).eval()
        return found

    network, compute, outputs = with_head(model, head, build, size)
    graph = prepare(Normalised(network, compute).eval(), size, tuple(o.name for o in outputs))
    images = np.random.default_rng(0).integers(0, 256, (4, *size), dtype=np.uint8)
    quantized = calibrate(graph, size, images, QuantizeOptions(observer=Observer.MINMAX, weight_search=False))
    return place_float(quantized.float_graph, size), place(quantized, load_target("coreml").placement)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[name.partition(".")[0] for name in FIRST_CLASS])
    parser.add_argument("--size", type=int, default=64)
    options = parser.parse_args()
    backend, seen = get_backend("coreml"), Counter[str]()
    for name in options.only:
        for head in Head:
            real, whole = placed(name, head, (3, options.size, options.size))
            for precision in Precision:
                start = time.perf_counter()
                with tempfile.TemporaryDirectory() as folder:
                    path = Path(folder) / "model.mlpackage"
                    backend.lower(real if precision.is_float else whole, precision, path, {})
                    program = load(path)
                kinds = Counter(op.type for op in program.source.operations)
                seen += kinds
                took = time.perf_counter() - start
                print(f"{name} {head} {precision}: {kinds.total()} ops, {len(kinds)} kinds, {took:.1f} s", flush=True)
    print(f"{len(seen)} kinds: {', '.join(sorted(seen))}")


if __name__ == "__main__":
    main()
