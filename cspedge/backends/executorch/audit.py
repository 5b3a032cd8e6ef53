"""What runs in int8, counted in the XNNPACK graphs that the `.pte` carries."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cspedge.backends.executorch.program import Graph, Node, OutsideOp, read_program
from cspedge.errors import TargetError
from cspedge.quantize.graph import tensor_of
from cspedge.quantize.ops import module_path, op_name
from cspedge.types import Audit

if TYPE_CHECKING:
    from torch import fx

    from cspedge.quantize.placement import PlacedModel

MOVES = frozenset({"Convert", "Copy", "StaticTranspose", "StaticReshape", "StaticSlice", "StaticConstantPad"})
WEIGHTED = frozenset({"Conv2d", "DepthwiseConv2d", "ConvTranspose2d", "FullyConnected"})
# one input, no weights: XNNPACK turns convert -> op -> convert into one 256-entry int8 table when it loads the graph,
# where each tensor between has one reader (seen as "Invalid Unary Op" in its profile: all of these)
UNARY = frozenset({"Hardswish", "Sigmoid", "LeakyReLU", "Tanh", "ELU", "Gelu", "Exp", "Abs", "Clamp", "Square", "Log"})
# what each placed operator becomes, for the names of islands
KINDS: dict[str, tuple[str, ...]] = {
    "hardswish": ("Hardswish",),
    "sigmoid": ("Sigmoid",),
    "silu": ("Sigmoid", "Multiply"),
    "leaky_relu": ("LeakyReLU",),
    "tanh": ("Tanh",),
    "gelu": ("Gelu",),
    "elu": ("ELU",),
    "mul": ("Multiply",),
    "add": ("Add",),
    "sub": ("Subtract",),
    "div": ("Div",),
    "mean": ("GlobalAvgPooling2d",),
    "adaptive_avg_pool2d": ("GlobalAvgPooling2d",),
    "avg_pool2d": ("AvgPooling2d",),
    "max_pool2d": ("MaxPooling2d",),
    "linear": ("FullyConnected",),
}
# outside a delegate: operators that move or convert and do not compute
OUTSIDE_MOVES = ("quantize", "copy", "clone", "view", "reshape", "permute", "slice", "split", "squeeze", "select")


def audit(path: Path, model: PlacedModel) -> Audit:
    """Shares by XNNPACK nodes (converts and reshapes aside) and by multiply-accumulates of convolutions and GEMMs.

    Whether XNNPACK makes its int8 tables is decided by the graph's structure alone, so that counts as int8. Operators
    that stay outside every delegate run in float and are named. Raises TargetError for a damaged file.
    """
    try:
        return _audit(path, model)
    except (KeyError, IndexError, StopIteration) as error:
        raise TargetError(
            f"{path.name!r} is damaged: its XNNPACK graph names values that it does not hold; export it again"
        ) from error


def _audit(path: Path, model: PlacedModel) -> Audit:
    program = read_program(path)
    int8_ops = all_ops = tables = 0
    int8_macs = all_macs = 0
    islands: list[str] = []
    labels = _labels(model)
    counts = Counter(n.kind for g in program.graphs for n in g.nodes)
    seen: Counter[str] = Counter()
    for graph in program.graphs:
        readers = Counter(i for n in graph.nodes for i in n.inputs)
        for node in graph.nodes:
            if node.kind in MOVES:
                continue
            table = _is_table(graph, node, readers)
            int8 = table or _is_int8(graph, node)
            macs = _macs(graph, node)
            all_ops, all_macs = all_ops + 1, all_macs + macs
            int8_ops, int8_macs, tables = int8_ops + int8, int8_macs + macs * int8, tables + table
            named = labels[node.kind]
            if not int8:
                islands.append(named[seen[node.kind]] if len(named) == counts[node.kind] else f"xnnpack:{node.kind}")
            seen[node.kind] += 1
    outside = [op for op in program.outside if _computes(op)]
    all_ops += len(outside)
    islands.extend(f"outside XNNPACK:{op.name}" for op in outside)
    return Audit(
        int8_op_share=int8_ops / all_ops if all_ops else 0.0,
        int8_mac_share=int8_macs / all_macs if all_macs else 0.0,
        fp32_islands=tuple(dict.fromkeys(islands)) if model.encodings is not None else (),
        encodings_match=None,
        notes=_notes(tables, tuple(op.name for op in program.outside), len(program.graphs), program.foreign),
    )


def _notes(tables: int, outside: tuple[str, ...], graphs: int, foreign: tuple[str, ...]) -> tuple[str, ...]:
    notes = []
    if tables:
        notes.append(f"{tables} activations counted as int8: XNNPACK makes int8 tables of them at load")
    if graphs != 1:
        notes.append(f"{graphs} XNNPACK delegates; one is best")
    if outside:
        kinds = ", ".join(f"{count} x {name}" for name, count in sorted(Counter(outside).items()))
        notes.append(f"outside XNNPACK: {kinds}")
    if foreign:
        notes.append(f"other delegates: {', '.join(sorted(foreign))}")
    return tuple(notes)


def _is_int8(graph: Graph, node: Node) -> bool:
    data = [graph.values[i] for i in (*node.inputs, node.output)]
    return all(v.is_int8 or (v.constant is not None and v.datatype in {"qcint32", "qint32"}) for v in data)


def _is_table(graph: Graph, node: Node, readers: Counter[int]) -> bool:
    """Whether int8 -> float, the activation, float -> int8 stand alone in a row."""
    if node.kind not in UNARY or readers[node.inputs[0]] != 1 or readers[node.output] != 1:
        return False
    before = next((n for n in graph.nodes if n.output == node.inputs[0]), None)
    after = next(n for n in graph.nodes if node.output in n.inputs)
    if before is None or before.kind != "Convert" or after.kind != "Convert":
        return False
    return graph.values[before.inputs[0]].is_int8 and graph.values[after.output].is_int8


def _macs(graph: Graph, node: Node) -> int:
    """Multiply-accumulates for one image: output elements times the products that go into each."""
    if node.kind not in WEIGHTED:
        return 0
    weight, output = graph.values[node.fields["filter_id"]], graph.values[node.output]
    if node.kind == "ConvTranspose2d":  # each input element meets every filter tap
        return math.prod(graph.values[node.inputs[0]].dims) * math.prod(weight.dims[:-1])
    taps = math.prod(weight.dims[:-1]) if node.kind == "DepthwiseConv2d" else math.prod(weight.dims[1:])
    return math.prod(output.dims) * taps


def _computes(op: OutsideOp) -> bool:
    return not any(word in op.name for word in OUTSIDE_MOVES)


def _labels(model: PlacedModel) -> dict[str, list[str]]:
    """XNNPACK kind -> names of the placed nodes that become it, in graph order."""
    labels: dict[str, list[str]] = defaultdict(list)
    for node in model.graph.graph.nodes:
        for kind in _kinds(model, node):
            labels[kind].append(f"{module_path(node) or 'model'}:{op_name(node)}")
    return labels


def _kinds(model: PlacedModel, node: fx.Node) -> tuple[str, ...]:
    name = op_name(node)
    if name == "cat":  # XNNPACK's largest takes five; more become a tree
        return (f"Concatenate{len(node.all_input_nodes)}",)
    if name != "conv2d":
        return KINDS.get(name, ())
    weight: Any = node.args[1]
    tensor = tensor_of(model.graph, weight.args[0] if op_name(weight) == "dequantize_per_channel" else weight)
    return ("DepthwiseConv2d",) if tensor is not None and tensor.shape[1] == 1 else ("Conv2d",)
