"""What a saved program lets Core ML run in int8, by its structure.

Core ML does not tell which kernels it chose. An op can run in int8 only if its data come from dequantize ops, its
weights (where it has some) are int8, and its result goes into a quantize op, alone or behind what is fused into it: an
activation, and a constant factor per channel; the classifier may leave its logits in float. That is what is counted.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cspedge.backends.coreml.lower import artifact_name
from cspedge.backends.coreml.package import Operation, SavedProgram
from cspedge.quantize.ops import module_path
from cspedge.types import Audit

if TYPE_CHECKING:
    from cspedge.quantize.placement import PlacedModel

WEIGHTED = frozenset({"conv", "linear", "matmul"})
COMBINING = frozenset({"add", "sub", "mul", "real_div", "maximum", "minimum", "concat"})
POOLING = frozenset({"avg_pool", "max_pool", "reduce_mean", "reduce_sum", "reduce_max", "reduce_min"})
ACTIVATIONS = frozenset(
    {"relu", "relu6", "clip", "leaky_relu", "elu", "silu", "gelu", "tanh", "sigmoid", "sigmoid_hard"}
    | {"thresholded_relu", "softmax", "hardswish"}
)
OTHER = frozenset({"batch_norm"})
COMPUTE = WEIGHTED | COMBINING | POOLING | ACTIVATIONS | OTHER
MOVES = frozenset(
    {"reshape", "squeeze", "expand_dims", "transpose", "split", "slice_by_index", "slice_by_size"}
    | {"identity", "pad", "cast"}
)
NOTE = "counted in the saved program: Core ML does not report the kernels it chooses"


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One compute op; a hard-swish, three MIL ops, is one."""

    kind: str
    operation: Operation
    inputs: tuple[str, ...]  # activations it reads
    constant: bool  # reads a float constant beside its activations (not weights)
    quantized_weight: bool
    macs: int

    @property
    def output(self) -> str:
        return self.operation.outputs[0].name


def audit(program: SavedProgram, model: PlacedModel) -> Audit:
    """Shares of compute ops and multiply-accumulates that can run in int8, and the float islands by module path."""
    units = compute_units(program)
    if not any(op.type == "quantize" for op in program.operations):
        return Audit(int8_op_share=0.0, int8_mac_share=0.0, fp32_islands=(), encodings_match=None)
    quantized = _quantized(program, units)
    macs = sum(u.macs for u in units)
    names = {artifact_name(module_path(n), ""): module_path(n) for n in model.graph.graph.nodes if module_path(n)}
    islands = tuple(_label(u, names) for u in units if u.output not in quantized)
    return Audit(
        int8_op_share=len(quantized) / len(units) if units else 0.0,
        int8_mac_share=sum(u.macs for u in units if u.output in quantized) / macs if macs else 0.0,
        fp32_islands=islands,
        encodings_match=None,
        notes=(NOTE,),
    )


def compute_units(program: SavedProgram) -> list[Unit]:
    """The program's compute ops, hard-swish (thresholded_relu, sigmoid_hard, mul) taken together."""
    producers = program.producers()
    inner: set[str] = set()
    swish: dict[str, Operation] = {}
    for op in program.operations:
        if op.type != "mul":
            continue
        x, y = (producers.get(str(op.arguments[k][0])) for k in ("x", "y"))
        if x is None or y is None or y.type != "sigmoid_hard" or y.arguments["x"] != op.arguments["x"]:
            continue
        if x.type == "thresholded_relu":
            inner |= {x.outputs[0].name, y.outputs[0].name}
            swish[op.outputs[0].name] = x
    units = []
    for op in program.operations:
        name = op.outputs[0].name
        if op.type not in COMPUTE or name in inner:
            continue
        kind, source = ("hardswish", swish[name]) if name in swish else (op.type, op)
        units.append(_unit(program, kind, op, source, producers))
    return units


def _unit(program: SavedProgram, kind: str, op: Operation, source: Operation, producers: dict[str, Operation]) -> Unit:
    inputs, constant, quantized_weight = [], False, False
    for parameter in ("x", "y", "values"):
        for argument in source.arguments.get(parameter, ()):
            producer = producers.get(argument) if isinstance(argument, str) else None
            if producer is not None and producer.type.startswith("constexpr_"):
                quantized_weight = quantized_weight or kind == "matmul"
                constant = constant or kind != "matmul"
            elif producer is not None or argument == program.input.name:
                inputs.append(str(argument))
            else:
                constant = True
    weight = producers.get(str(op.arguments.get("weight", ("",))[0]))
    if weight is not None and weight.type == "constexpr_affine_dequantize":
        quantized_weight = True
    return Unit(
        kind=kind,
        operation=op,
        inputs=tuple(inputs),
        constant=constant,
        quantized_weight=quantized_weight,
        macs=_macs(program, op, producers),
    )


def _macs(program: SavedProgram, op: Operation, producers: dict[str, Operation]) -> int:
    if op.type not in {"conv", "linear"}:
        return 0
    argument = op.arguments["weight"][0]
    producer = producers.get(argument) if isinstance(argument, str) else None
    constant = program.constant(op, "weight")
    if producer is not None:
        shape = producer.outputs[0].type.shape
    elif constant is not None:
        shape = constant.type.shape
    else:
        return 0
    return math.prod(op.outputs[0].type.shape) * math.prod(shape[1:])


def _quantized(program: SavedProgram, units: list[Unit]) -> set[str]:
    """Outputs of the units that can run in int8: a head and the activations fused behind it."""
    producers, readers = program.producers(), program.readers()
    by_input: dict[str, list[Unit]] = {}
    for unit in units:
        for name in unit.inputs:
            by_input.setdefault(name, []).append(unit)
    done: set[str] = set()
    for head in units:
        if head.output in done:
            continue
        group, tail = [head], head
        while len(by_input.get(tail.output, ())) == 1 and _fuses(by_input[tail.output][0]):
            tail = by_input[tail.output][0]
            group.append(tail)
        fed = head.inputs and all(_from_dequantize(name, producers) for name in head.inputs)
        weights = head.quantized_weight or (head.kind not in WEIGHTED and not head.constant)
        if fed and weights and _into_quantize(tail.output, program, readers, head.kind in WEIGHTED):
            done |= {u.output for u in group}
    return done


def _fuses(unit: Unit) -> bool:
    """Whether the op may be part of the one before it: an activation, or a multiplication by a constant."""
    return unit.kind in ACTIVATIONS or (unit.kind == "mul" and unit.constant and len(unit.inputs) == 1)


def _from_dequantize(name: str, producers: dict[str, Operation]) -> bool:
    op = producers.get(name)
    while op is not None and op.type in MOVES:
        op = producers.get(str(op.arguments["x"][0]))
    return op is not None and op.type == "dequantize"


def _into_quantize(name: str, program: SavedProgram, readers: dict[str, list[Operation]], may_be_output: bool) -> bool:
    found = readers.get(name, [])
    if name in program.outputs and not found:
        return may_be_output
    return bool(found) and all(
        op.type == "quantize"
        or (op.type in MOVES and all(_into_quantize(o.name, program, readers, may_be_output) for o in op.outputs))
        for op in found
    )


def _label(unit: Unit, names: dict[str, str]) -> str:
    """`module.path:op` where the op's name holds a module of the model, else the op's own name."""
    name = re.sub(r"_cast_fp16$", "", unit.operation.name).removeprefix("_inversed_")
    module, mark, op = name.rpartition("__")
    if not mark:
        return f"{name}:{unit.kind}"
    return f"{names.get(f'{module}__', module)}:{op}"
