"""The flows that `peers.py` compares: every runtime's own int8 tools (`peer_tools.py`) and cspedge."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import peer_tools as tools  # of this folder
from peer_tools import Source

from cspedge import api
from cspedge.config import load_target
from cspedge.devices.host import describe, saturates_u8s8
from cspedge.resources import target_names

OURS = "cspedge:"
NNCF = ("nncf", "openvino")
PT2E = ("torchao", "executorch", "onnxruntime", "onnxscript")

Quantize = Callable[[Source], Any]
Lower = Callable[[Source, Any], Path]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One artifact of a flow: `lower` writes what the flow quantized, and the backend loads it with these options."""

    backend: str
    lower: Lower
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Flow:
    """A way to int8, for one runtime or several.

    packages: whose versions a result depends on; needs: (target, precision) of the float artifact it starts from.
    """

    title: str
    quantize: Quantize
    runs: Mapping[str, Run]
    packages: tuple[str, ...] = ()
    needs: tuple[str, str] | None = None


def _as_it_is(_: Source, made: Path) -> Path:
    return made


def _onnxruntime(lower: Lower) -> dict[str, Run]:
    """Plain session options; where those saturate, the exact mode as well."""
    from cspedge.backends.onnxruntime import EXACT

    runs = {"onnxruntime": Run(backend="onnxruntime", lower=lower, options={EXACT: False})}
    if saturates_u8s8(describe().isa):
        runs[f"onnxruntime, {EXACT}"] = Run(backend="onnxruntime", lower=lower, options={EXACT: True})
    return runs


def peer_flows() -> dict[str, Flow]:
    """Every peer by the name that `--only` takes."""
    from onnxruntime.quantization import QuantType

    openvino = partial(Flow, runs={"openvino": Run(backend="openvino", lower=tools.to_ir)}, packages=NNCF)
    static = partial(
        Flow, runs=_onnxruntime(_as_it_is), packages=("onnxruntime", "onnx"), needs=("onnxruntime", "fp32")
    )
    # uint8 activations are what its documents advise on x86
    per_channel = {"per_channel": True, "activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    pte_and_onnx = {"executorch": Run(backend="executorch", lower=tools.to_pte)} | _onnxruntime(tools.to_onnx)
    linear = partial(Flow, runs={"coreml": Run(backend="coreml", lower=tools.to_mlpackage)}, packages=("coremltools",))
    return {
        "nncf": openvino(title="NNCF default", quantize=tools.nncf_openvino),
        "nncf-mixed": openvino(
            title="NNCF MIXED, fast bias correction", quantize=partial(tools.nncf_openvino, mixed=True)
        ),
        "nncf-mixed-full": openvino(
            title="NNCF MIXED, full bias correction", quantize=partial(tools.nncf_openvino, mixed=True, fast=False)
        ),
        "static": static(title="quantize_static default", quantize=tools.quantize_static),
        "static-per-channel": static(
            title="quantize_static per_channel", quantize=partial(tools.quantize_static, **per_channel)
        ),
        "static-reduce-range": static(
            title="quantize_static per_channel + reduce_range",
            quantize=partial(tools.quantize_static, **per_channel, reduce_range=True),
        ),
        "pt2e": Flow(title="XNNPACKQuantizer (PT2E)", quantize=tools.stock_pt2e, runs=pte_and_onnx, packages=PT2E),
        **{
            f"nncf-pt2e-{word}": Flow(
                title=f"NNCF quantize_pt2e, {word} bias correction",
                quantize=partial(tools.nncf_pt2e, fast=fast),
                runs=pte_and_onnx,
                packages=(*PT2E, *NNCF),
            )
            for word, fast in (("no", None), ("fast", True), ("full", False))
        },
        "linear-quantizer-symmetric": linear(
            title="LinearQuantizer, symmetric", quantize=partial(tools.linear_quantizer, scheme="symmetric")
        ),
        "linear-quantizer-affine": linear(
            title="LinearQuantizer, affine", quantize=partial(tools.linear_quantizer, scheme="affine")
        ),
        "linear-quantizer-affine-32": linear(
            title="LinearQuantizer, affine, batches of 32",
            quantize=partial(tools.linear_quantizer, scheme="affine", batch=32),
        ),
        "linear-quantize-activations": Flow(
            title="linear_quantize_activations",
            quantize=tools.linear_quantize_activations,
            runs={"coreml": Run(backend="coreml", lower=tools.save_mlpackage)},
            packages=("coremltools",),
            needs=("coreml", "fp16"),
        ),
    }


def our_flow(recipe: str) -> Flow:
    """cspedge with one recipe: quantized once, lowered to every target."""

    def quantize(source: Source) -> Any:
        return api.quantize(source.reference, source.calibration, recipe=recipe)

    def lower(source: Source, model: Any, target: str) -> Path:
        return api.lower(model, target, out=source.folder, check_images=source.calibration.images[:8]).path

    runs = {}
    for name in target_names():
        target = load_target(name)
        runs[name] = Run(backend=target.backend, lower=partial(lower, target=name), options=target.options)
    packages = tuple(dict.fromkeys((*PT2E, "openvino", "coremltools")))
    return Flow(title=f"cspedge {recipe}", quantize=quantize, runs=runs, packages=packages)


def flows(recipes: list[str]) -> dict[str, Flow]:
    """Peers first, then cspedge with each recipe."""
    return peer_flows() | {f"{OURS}{recipe}": our_flow(recipe) for recipe in recipes}
