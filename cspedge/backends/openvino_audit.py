"""What OpenVINO's CPU plugin runs in int8: its own runtime model, by our op names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cspedge.backends.onnx_export import compute_ops, multiply_accumulates
from cspedge.devices.host import describe, saturates_u8s8
from cspedge.quantize.graph import NAME, output_nodes
from cspedge.types import Audit

if TYPE_CHECKING:
    from cspedge.quantize.placement import PlacedModel

MOVES = frozenset({"Const", "Input", "Output", "Reorder", "Reshape", "Transpose", "Split", "StridedSlice", "Convert"})
SATURATES = (
    "this CPU has no VNNI: OpenVINO's int8 kernels add pairs of u8 x s8 products in 16 bits, which saturates; "
    "accuracy measured here does not hold for CPUs that have it"
)


def audit(compiled: Any, model: PlacedModel) -> Audit:
    """Shares by op name; an activation that the plugin fused into an int8 convolution counts as int8."""
    if not model.activations:
        return Audit(int8_op_share=0.0, int8_mac_share=0.0, fp32_islands=(), encodings_match=None)
    int8 = _int8_ops(compiled.get_runtime_model(), model)
    macs = multiply_accumulates(model)
    total = sum(macs.values())
    done = sum(count for name, count in macs.items() if int8.get(name, False))
    return Audit(
        int8_op_share=sum(int8.values()) / len(int8) if int8 else 0.0,
        int8_mac_share=done / total if total else 0.0,
        fp32_islands=tuple(name for name, quantized in int8.items() if not quantized),
        encodings_match=None,
        notes=(SATURATES,) if saturates_u8s8(describe().isa) else (),
    )


def _int8_ops(runtime: Any, model: PlacedModel) -> dict[str, bool]:
    """Name of each calculating op that is left, in the plugin's order, and whether it takes u8 or i8."""
    known = set(compute_ops(model))
    ends = {o: str(n.meta.get(NAME, "")) for o, n in zip(model.outputs, output_nodes(model.graph), strict=True)}
    found: dict[str, bool] = {}
    for op in runtime.get_ordered_ops():
        if _info(op, "layerType") in MOVES:
            continue
        names = [n for n in _info(op, "originalLayersNames").split(",") if n]
        calculating = [n for n in names if not re.search(r"\.dq(#\d+)?(_\d+)?$|/Dequantization", n)]
        if not calculating:
            continue  # quantizes, and nothing else
        bases = [_base(n, ends) for n in calculating]
        ops = [b for b in bases if b in known] or [b for n in names if (b := _base(n, {})) in known]
        for name in ops:
            found[name] = found.get(name, False) or _info(op, "runtimePrecision") in {"u8", "i8"}
    return found


def _base(name: str, ends: Mapping[str, str]) -> str:
    name = name.partition("/")[0]
    if name in ends:
        return ends[name]
    return re.sub(r"(\.(dq|product|bias|pool|sigmoid|log|mul|add|\d+)(#\d+)?)+(_\d+)?$", "", name)


def _info(op: Any, key: str) -> str:
    value = op.get_rt_info()[key]
    return str(getattr(value, "value", value))
