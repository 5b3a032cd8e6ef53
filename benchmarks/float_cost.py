"""What a runtime pays for float layers inside an int8 model: the figures behind `[cost]` in target.toml.

    python benchmarks/float_cost.py [--target openvino ...] [--repeats 60]

Eight equal convolutions in a row are lowered all in int8, all in float, and (the depthwise ones) with some in float.
Dense layers give the unit, the time of an int8 multiply-accumulate, and float_mac. Depthwise ones hardly calculate:
they give value, the time to read or write one value, and convert, that of turning one from float to int8 or back. One
thread; of each artifact the fastest of many runs counts, because other processes can only slow it down.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from cspedge import api
from cspedge.config import Target, load_target
from cspedge.devices.host import describe
from cspedge.quantize.calibrate import QuantizeOptions, calibrate
from cspedge.quantize.graph import prepare
from cspedge.quantize.islands import Cost, Islands
from cspedge.quantize.partial import elements, multiply_accumulates
from cspedge.quantize.placement import QuantizedModel

LAYERS = 8
# channels, side, kernel, groups
DENSE = {
    "pointwise 128, 28 x 28": (128, 28, 1, 1),
    "pointwise 256, 14 x 14": (256, 14, 1, 1),
    "3 x 3, 64, 28 x 28": (64, 28, 3, 1),
}
DEPTHWISE = {"depthwise 3 x 3, 128, 28 x 28": (128, 28, 3, 128), "depthwise 3 x 3, 64, 56 x 56": (64, 56, 3, 64)}


def network(channels: int, kernel: int, groups: int) -> nn.Module:
    """A stem that gives `channels`, then the layers, then a mean: the stem and the mean cost little."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(3, channels, 1), nn.ReLU()]
    for _ in range(LAYERS):
        layers += [nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=groups), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()


def quantized(channels: int, side: int, kernel: int, groups: int) -> QuantizedModel:
    shape = (3, side, side)
    images = np.random.default_rng(0).integers(0, 256, (8, *shape), dtype=np.uint8)
    return calibrate(prepare(network(channels, kernel, groups), shape), shape, images, QuantizeOptions())


def fastest(model: QuantizedModel, target: Target, precision: str, keep: Sequence[str], repeats: int) -> float:
    """Seconds of one image."""
    with tempfile.TemporaryDirectory() as folder:
        session = api.open_session(api.lower(model, target.name, precision, out=folder, keep=keep))
        image = np.random.default_rng(1).random((1, *model.input_shape), dtype=np.float32)
        best = float("inf")
        for _ in range(repeats):
            start = time.perf_counter()
            session.run(image)
            best = min(best, time.perf_counter() - start)
    return best


def dense(model: QuantizedModel, target: Target, repeats: int) -> tuple[float, float, float, float]:
    """Milliseconds in int8 and in float, picoseconds of an int8 multiply-accumulate, float_mac."""
    total = sum(multiply_accumulates(model, elements(model)).values())
    in_int8, in_float = (fastest(model, target, precision, (), repeats) for precision in ("int8", "fp32"))
    return in_int8 * 1e3, in_float * 1e3, in_int8 / total * 1e12, in_float / in_int8


def depthwise(
    model: QuantizedModel, target: Target, repeats: int, unit_ps: float
) -> tuple[float, float, float, float, float]:
    """Milliseconds in int8, in float and with some layers in float, value and convert in units of `unit_ps`."""
    sizes = elements(model)
    macs = multiply_accumulates(model, sizes)
    islands = Islands(model, target.placement, Cost(), sizes, macs)
    between = [unit.tensors for unit in islands.units if "relu" in unit.name][1:-1]
    keep = [name for names in between[1::4] for name in names]
    in_int8, in_float = (fastest(model, target, precision, (), repeats) for precision in ("int8", "fp32"))
    mixed = fastest(model, target, "int8", keep, repeats)
    share = islands.float_share(keep)
    converts = islands.converts(keep) - islands.converts(())
    convert = (mixed - in_int8 * (1 - share) - in_float * share) / converts
    values = 2 * sum(sizes[layer] for layer in macs)
    value = (in_int8 - sum(macs.values()) * unit_ps * 1e-12) / values
    return in_int8 * 1e3, in_float * 1e3, mixed * 1e3, value / unit_ps * 1e12, convert / unit_ps * 1e12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", action="append", choices=("executorch", "onnxruntime", "openvino"))
    parser.add_argument("--repeats", type=int, default=200)
    options = parser.parse_args()
    host = describe()
    print(f"{host.cpu}; {', '.join(host.isa)}; one thread\n")
    print("| target | layers | int8 ms | float ms | some in float ms | int8 mac ps | float_mac | value | convert |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in options.target or ("executorch", "onnxruntime", "openvino"):
        units = []
        for kind, sizes in DENSE.items():
            int8_ms, float_ms, unit, float_mac = dense(quantized(*sizes), load_target(name), options.repeats)
            units.append(unit)
            cells = f"{int8_ms:.3f} | {float_ms:.3f} | | {unit:.1f} | {float_mac:.2f} | | |"
            print(f"| {name} | {kind} | {cells}", flush=True)
        for kind, sizes in DEPTHWISE.items():
            figures = depthwise(quantized(*sizes), load_target(name), options.repeats, min(units))
            int8_ms, float_ms, mixed_ms, value, convert = figures
            cells = f"{int8_ms:.3f} | {float_ms:.3f} | {mixed_ms:.3f} | | | {value:.0f} | {convert:.0f} |"
            print(f"| {name} | {kind} | {cells}", flush=True)


if __name__ == "__main__":
    main()
