"""A saved `.pte`, read from its bytes: the execution plan, the XNNPACK graphs in it, their constants.

Layouts: the extended header and `program.fbs` of executorch/exir/_serialize, the XNNPACK header and `schema.fbs` of
executorch/backends/xnnpack/serialization. Only the schema files are used; nothing of executorch is imported.
"""

from __future__ import annotations

import importlib.util
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cspedge.backends.executorch.flat import DamagedError, Reader, Schema, parse_schema
from cspedge.errors import RuntimeMissingError, TargetError

XNNPACK = "XnnpackBackend"
_NONE = 0xFFFFFFFF  # "no value", "no buffer"
# fields of a node that hold ids of values it reads, in this order
_INPUTS = (
    *(f"input{n}_id" for n in ("", 1, 2, 3, 4, 5)),
    *(f"{n}_id" for n in ("filter", "bias", "query", "key", "value", "scale", "mask")),
)
_BY_NAME = 0xFFFFFFFFFFFFFFFF  # a constant that is found by its name and not by an offset


@dataclass(frozen=True, kw_only=True)
class Value:
    """One tensor of an XNNPACK graph; dims as the file has them (NHWC for images, permuted for weights).

    scales: one for a tensor, one for each channel along `axis` of a weight, none for float.
    """

    datatype: str  # fp32, qint8, qcint8, ...
    dims: tuple[int, ...]
    constant: bytes | None
    scales: tuple[float, ...] = ()
    zero_point: int = 0
    axis: int | None = None

    @property
    def is_int8(self) -> bool:
        return self.datatype in {"qint8", "qcint8"}


@dataclass(frozen=True, kw_only=True)
class Node:
    """One XNNPACK node: kind without the prefix (`Conv2d`), ids of the values it reads and of the one it writes."""

    kind: str
    index: int
    inputs: tuple[int, ...]
    output: int
    fields: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Graph:
    """One XNNPACK delegate."""

    nodes: tuple[Node, ...]
    values: Mapping[int, Value]


@dataclass(frozen=True, kw_only=True)
class OutsideOp:
    """An operator that runs outside every delegate: `aten::add.out` and its arguments as `program.fbs` has them."""

    name: str
    args: tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class SavedProgram:
    """What a `.pte` holds. foreign: ids of delegates other than XNNPACK."""

    graphs: tuple[Graph, ...]
    outside: tuple[OutsideOp, ...]
    foreign: tuple[str, ...]


@cache
def _schema(kind: str) -> Schema:
    spec = importlib.util.find_spec("executorch")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeMissingError("executorch is not installed; install cspedge[executorch]")
    root = Path(next(iter(spec.submodule_search_locations)))
    folder = root / "exir/_serialize" if kind == "program" else root / "backends/xnnpack/serialization"
    names = ("program.fbs", "scalar_type.fbs") if kind == "program" else ("schema.fbs",)
    return parse_schema("\n".join((folder / n).read_text() for n in names))


def read_program(path: Path) -> SavedProgram:
    """Reads the first execution plan of a `.pte`; TargetError where the file is missing or damaged."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TargetError(f"executorch: {path.name!r} cannot be read: {error.strerror}") from error
    try:
        return _read(data)
    except (DamagedError, struct.error, KeyError, IndexError, TypeError) as error:
        raise TargetError(
            f"executorch: {path.name!r} is not a whole .pte file: {error}; make the artifact again"
        ) from error


def whole_problem(path: Path) -> str:
    """What the first bytes say is wrong with the file, or the empty string; the runtime aborts on foreign bytes."""
    try:
        with path.open("rb") as file:
            _base(file.read(40), path.stat().st_size)
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    except (DamagedError, struct.error) as error:
        return str(error)
    return ""


def _base(head: bytes, size: int) -> int:
    """Where the segments start. Extended header: magic, length, program size, segment base, segment bytes."""
    if head[4:6] != b"ET" or not head[6:8].isdigit():
        raise DamagedError("it does not start as an ExecuTorch program")
    if head[8:12] != b"eh00":
        return 0
    length, program, base = struct.unpack_from("<IQQ", head, 12)
    segments = struct.unpack_from("<Q", head, 32)[0] if length >= 32 else 0
    if max(program, base + segments) > size:
        raise DamagedError(f"{max(program, base + segments)} bytes are needed and {size} are there")
    return int(base)


def _read(data: bytes) -> SavedProgram:
    base = _base(data[:40], len(data))
    program = Reader(_schema("program"), data).root("Program")
    segments = [_slice(data, base + s["offset"], s["size"]) for s in program["segments"]]
    named = {entry["key"]: segments[entry["segment_index"]] for entry in program["named_data"]}
    plan = program["execution_plan"][0]
    graphs, foreign = [], []
    for delegate in plan["delegates"]:
        if delegate["id"] != XNNPACK:
            foreign.append(str(delegate["id"]))
            continue
        where = delegate["processed"]
        inline = where["location"] == "INLINE"
        payload = program["backend_delegate_data"][where["index"]]["data"] if inline else segments[where["index"]]
        graphs.append(_graph(payload, named))
    constants = _constants(program, segments)
    outside = tuple(
        _outside(plan, instruction["instr_args"], constants)
        for chain in plan["chains"]
        for instruction in chain["instructions"]
        if instruction["instr_args"]["kind"] == "KernelCall"
    )
    return SavedProgram(graphs=tuple(graphs), outside=outside, foreign=tuple(foreign))


def _slice(data: bytes, start: int, size: int) -> bytes:
    if start + size > len(data):
        raise DamagedError(f"{start + size} bytes are needed and {len(data)} are there")
    return data[start : start + size]


def _constants(program: dict[str, Any], segments: list[bytes]) -> list[bytes]:
    """Constant tensors of the plan, by buffer index; each runs to the next one's offset."""
    where = program["constant_segment"]
    if where is None or not where["offsets"]:
        return [b["storage"] for b in program["constant_buffer"]]
    segment, starts = segments[where["segment_index"]], where["offsets"]
    return [segment[start : (starts[i + 1] if i + 1 < len(starts) else None)] for i, start in enumerate(starts)]


def _outside(plan: dict[str, Any], call: dict[str, Any], constants: list[bytes]) -> OutsideOp:
    operator = plan["operators"][call["op_index"]]
    args = []
    for index in call["args"]:
        value = dict(plan["values"][index]["val"] or {"kind": "Null"})
        if value["kind"] == "Tensor" and value["data_buffer_idx"] and value["allocation_info"] is None:
            value["bytes"] = constants[value["data_buffer_idx"]]
        args.append(value)
    return OutsideOp(name=f"{operator['name']}.{operator['overload']}", args=tuple(args))


def _graph(payload: bytes, named: Mapping[str, bytes]) -> Graph:
    """XNNPACK's payload: a header (`XH00`), the FlatBuffer, the constants that have no name."""
    base, table = 0, payload
    if payload[4:8] == b"XH00":
        offset, size, base = struct.unpack_from("<III", payload, 10)
        table = _slice(payload, offset, size)
    raw = Reader(_schema("xnnpack"), table).root("XNNGraph")
    constants = []
    for entry in raw["constant_data"]:
        found = named[entry["named_key"]] if entry["offset"] == _BY_NAME else payload[base + entry["offset"] :]
        constants.append(_slice(found, 0, entry["size"]))
    values = dict(_value(v["xvalue_union"], constants) for v in raw["xvalues"])
    nodes = tuple(_node(i, n["xnode_union"]) for i, n in enumerate(raw["xnodes"]))
    return Graph(nodes=nodes, values=values)


def _value(raw: dict[str, Any], constants: list[bytes]) -> tuple[int, Value]:
    tensor = raw["tensor_value"] if raw["kind"] == "XNNQuantizedTensorValue" else raw
    quant = raw["quant_params"] if tensor is not raw else None
    scales: tuple[float, ...] = ()
    zero_point, axis = 0, None
    if quant is not None and quant["kind"] == "PerTensorQuant":
        scales, zero_point = (quant["scale"],), quant["zero_point"]
    elif quant is not None and quant["kind"] == "PerChannelQuant":
        scales, axis = tuple(quant["scale"]), quant["channel_dim"]
        if not scales and quant["scale_buffer_idx"] != _NONE:
            count = quant["num_scales"]
            scales = struct.unpack_from(f"<{count}f", constants[quant["scale_buffer_idx"]])
    index = tensor["constant_buffer_idx"]
    return tensor["id_out"], Value(
        datatype=tensor["datatype"].removeprefix("xnn_datatype_"),
        dims=tuple(tensor["dims"]),
        constant=constants[index] if index else None,
        scales=scales,
        zero_point=zero_point,
        axis=axis,
    )


def _node(index: int, raw: dict[str, Any]) -> Node:
    kind = raw["kind"].removeprefix("XNN")
    count = int(kind[-1]) if kind.startswith("Concatenate") else len(_INPUTS)
    ids = [raw[n] for n in _INPUTS if n in raw and raw[n] != _NONE]
    output = raw["output_id"] if "output_id" in raw else raw["output_value_id"]
    return Node(kind=kind, index=index, inputs=tuple(ids[:count]), output=output, fields=raw)
