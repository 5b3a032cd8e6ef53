"""Reading a saved `.mlpackage`: manifest, MIL program and weight file, as plain values. Nothing is trusted.

A package is a folder: `Manifest.json` names its items, the root one is the spec (a protobuf whose `mlProgram` holds
the MIL program), and large constants lie in `weights/weight.bin`. coremltools follows manifest paths out of the
package; here every path is contained, and blob file names are reduced to their last part.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from cspedge.backends.coreml.blob import BITS, read_blob, unpack
from cspedge.backends.coreml.quiet import import_coremltools
from cspedge.errors import TargetError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_SPEC_BYTES = 512 * 2**20  # a spec holds structure and small constants; ours are below 2 MB

# MIL's names of element types, as `DataType` in MIL.proto, with numpy's
DTYPES = {
    "FLOAT16": ("fp16", "float16"),
    "FLOAT32": ("fp32", "float32"),
    "FLOAT64": ("fp64", "float64"),
    "BOOL": ("bool", "bool"),
    "STRING": ("string", "str"),
    "INT8": ("int8", "int8"),
    "INT16": ("int16", "int16"),
    "INT32": ("int32", "int32"),
    "INT64": ("int64", "int64"),
    "UINT8": ("uint8", "uint8"),
    "UINT16": ("uint16", "uint16"),
    "UINT32": ("uint32", "uint32"),
    "INT4": ("int4", "int8"),
    "UINT1": ("uint1", "uint8"),
    "UINT2": ("uint2", "uint8"),
    "UINT3": ("uint3", "uint8"),
    "UINT4": ("uint4", "uint8"),
    "UINT6": ("uint6", "uint8"),
}


@dataclass(frozen=True, kw_only=True)
class TensorType:
    """Element type (`fp16`, `fp32`, `int8`, `uint8`, `int32`, `bool`, `string`) and static shape; () is a scalar."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Constant:
    """A value the file carries: an array of the type's dtype and shape, or a string."""

    type: TensorType
    value: NDArray[Any] | str


@dataclass(frozen=True, kw_only=True)
class Value:
    """A named result or input and its declared type."""

    name: str
    type: TensorType


Argument = str | Constant  # the name of an earlier value, or a constant


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One MIL operation. arguments: by parameter; several where the parameter is a list (`values` of concat).

    index: position among the program's operations, for error messages.
    """

    type: str
    name: str
    index: int
    arguments: Mapping[str, tuple[Argument, ...]]
    outputs: tuple[Value, ...]

    @property
    def place(self) -> str:
        return f"op {self.name!r} ({self.type}, number {self.index} in block 'main')"


@dataclass(frozen=True, kw_only=True)
class SavedProgram:
    """The `main` function of a saved package: tensors in, outputs by name; constants are resolved by name."""

    inputs: tuple[Value, ...]
    outputs: tuple[str, ...]
    operations: tuple[Operation, ...]  # without `const`
    constants: Mapping[str, Constant]
    opset: str

    @property
    def input(self) -> Value:
        """The one input; TargetError where there are several."""
        if len(self.inputs) != 1:
            raise TargetError(f"the program takes {len(self.inputs)} inputs; an image classifier takes one")
        return self.inputs[0]

    def constant(self, operation: Operation, parameter: str) -> Constant | None:
        """The constant given to a parameter; None where it is absent, a list, or computed."""
        found = operation.arguments.get(parameter, ())
        if len(found) != 1:
            return None
        return self.constants.get(found[0]) if isinstance(found[0], str) else found[0]

    def producers(self) -> dict[str, Operation]:
        """The operation behind each value."""
        return {o.name: op for op in self.operations for o in op.outputs}

    def readers(self) -> dict[str, list[Operation]]:
        """The operations that read each value, in program order."""
        found: dict[str, list[Operation]] = {}
        for op in self.operations:
            for name in {a for group in op.arguments.values() for a in group if isinstance(a, str)}:
                found.setdefault(name, []).append(op)
        return found


def item_paths(package: Path) -> dict[str, Path]:
    """Every item of `Manifest.json` by its id, each inside the package's Data folder; the root under the key "".

    Raises TargetError where the manifest is missing, does not parse, or names a path outside the package.
    """
    manifest = package / "Manifest.json"
    try:
        data = json.loads(manifest.read_text(encoding="utf-8"))
        entries = {str(k): str(v["path"]) for k, v in data["itemInfoEntries"].items()}
        root = str(data["rootModelIdentifier"])
    except OSError as error:
        raise TargetError(f"{package.name!r} is not an .mlpackage: Manifest.json cannot be read") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TargetError(f"Manifest.json of {package.name!r} is damaged: {type(error).__name__}: {error}") from error
    base = (package / "Data").resolve()
    paths = {}
    for key, text in entries.items():
        pure = PurePosixPath(text)
        path = (base / text).resolve()
        if "\\" in text or "\0" in text or pure.is_absolute() or ".." in pure.parts or not path.is_relative_to(base):
            raise TargetError(
                f"Manifest.json of {package.name!r} names {text!r}, a path outside the package; "
                "do not use this file, export the model again"
            )
        paths[key] = path
    if root not in paths:
        raise TargetError(f"Manifest.json of {package.name!r} has no item for its root model {root!r}")
    return {"": paths[root], **paths}


def read_program(package: Path) -> SavedProgram:
    """The MIL program of a saved package, read from its files alone.

    Raises TargetError where the package is damaged, names paths outside itself, or is not an ML program with one
    function from tensors to tensors.
    """
    paths = item_paths(package)
    spec = _parse_spec(package, paths[""])
    weights = _find_weights(paths)
    if spec.WhichOneof("Type") != "mlProgram":
        raise TargetError(f"{package.name!r} holds a {spec.WhichOneof('Type')!r} model; only mlProgram can be run")
    functions = spec.mlProgram.functions
    if set(functions) != {"main"}:
        raise TargetError(f"{package.name!r} has the functions {sorted(functions)}; only a single 'main' can be run")
    main = functions["main"]
    if main.opset not in main.block_specializations:
        raise TargetError(f"{package.name!r} has no block for its opset {main.opset!r}")
    block = main.block_specializations[main.opset]
    if not main.inputs or not block.outputs:
        raise TargetError(
            f"{package.name!r} has {len(main.inputs)} inputs and {len(block.outputs)} outputs; "
            "allowed: one or more of each"
        )
    constants: dict[str, Constant] = {}
    operations: list[Operation] = []
    for index, proto in enumerate(block.operations):
        operation = _operation(proto, index, weights)
        if operation.type == "const":
            constants[operation.outputs[0].name] = _only_constant(operation)
        else:
            operations.append(operation)
    return SavedProgram(
        inputs=tuple(Value(name=i.name, type=_tensor_type(i.type, f"the input {i.name!r}")) for i in main.inputs),
        outputs=tuple(str(name) for name in block.outputs),
        operations=tuple(operations),
        constants=constants,
        opset=main.opset,
    )


def _parse_spec(package: Path, path: Path) -> Any:
    import_coremltools()
    from coremltools.proto import Model_pb2
    from google.protobuf.message import DecodeError

    try:
        size = path.stat().st_size
        if size > MAX_SPEC_BYTES:
            raise TargetError(f"{path.name!r} of {package.name!r} has {size} bytes; allowed: {MAX_SPEC_BYTES}")
        content = path.read_bytes()
    except OSError as error:
        raise TargetError(f"the model file of {package.name!r} cannot be read: {error.strerror}") from error
    spec = Model_pb2.Model()
    try:
        spec.ParseFromString(content)
    except DecodeError as error:
        raise TargetError(f"{path.name!r} of {package.name!r} is damaged: {error}; export the model again") from error
    return spec


def _find_weights(paths: Mapping[str, Path]) -> dict[str, Path]:
    """Blob files by their last name, from the folders that the manifest lists."""
    found: dict[str, Path] = {}
    for path in paths.values():
        if path.is_dir():
            base = path.resolve()
            found |= {p.name: p for p in sorted(path.iterdir()) if p.is_file() and p.resolve().parent == base}
    return found


def _operation(proto: Any, index: int, weights: Mapping[str, Path]) -> Operation:
    where = f"op {proto.outputs[0].name if proto.outputs else '?'!r} ({proto.type}, number {index})"
    if proto.blocks:
        raise TargetError(f"{where} has nested blocks; control flow is not implemented by the reference executor")
    arguments: dict[str, tuple[Argument, ...]] = {}
    name = ""
    for key in proto.attributes:
        constant = _constant(proto.attributes[key], weights, f"attribute {key!r} of {where}")
        if key == "name":
            name = str(constant.value)
        else:
            arguments[key] = (constant,)
    for key in proto.inputs:
        arguments[key] = tuple(
            binding.name
            if binding.WhichOneof("binding") == "name"
            else _constant(binding.value, weights, f"input {key!r} of {where}")
            for binding in proto.inputs[key].arguments
        )
    outputs = tuple(Value(name=o.name, type=_tensor_type(o.type, where)) for o in proto.outputs)
    if not outputs:
        raise TargetError(f"{where} has no outputs")
    return Operation(type=proto.type, name=name or outputs[0].name, index=index, arguments=arguments, outputs=outputs)


def _only_constant(operation: Operation) -> Constant:
    value = operation.arguments.get("val", ())
    if set(operation.arguments) != {"val"} or len(value) != 1 or not isinstance(value[0], Constant):
        raise TargetError(f"{operation.place} does not carry exactly one value")
    return value[0]


def _tensor_type(proto: Any, where: str) -> TensorType:
    from coremltools.proto import MIL_pb2

    if proto.WhichOneof("type") != "tensorType":
        raise TargetError(f"{where} has the type {proto.WhichOneof('type')!r}; only tensors are implemented")
    tensor = proto.tensorType
    names = {value: key for key, value in MIL_pb2.DataType.items()}
    name = names.get(tensor.dataType, str(tensor.dataType))
    if name not in DTYPES:
        raise TargetError(f"{where} has elements of type {name}; implemented: {', '.join(sorted(DTYPES))}")
    shape = []
    for dimension in tensor.dimensions:
        if dimension.WhichOneof("dimension") != "constant":
            raise TargetError(f"{where} has a dynamic shape; only static shapes are implemented")
        shape.append(int(dimension.constant.size))
    return TensorType(dtype=DTYPES[name][0], shape=tuple(shape))


def _constant(proto: Any, weights: Mapping[str, Path], where: str) -> Constant:
    kind = _tensor_type(proto.type, where)
    if proto.WhichOneof("value") == "blobFileValue":
        name = PurePosixPath(proto.blobFileValue.fileName.replace("\\", "/")).name
        if name not in weights:
            raise TargetError(f"{where} lies in the weight file {name!r}, which the package does not have")
        values = read_blob(weights[name], proto.blobFileValue.offset, kind.dtype, kind.shape, where)
        return Constant(type=kind, value=values)
    if proto.WhichOneof("value") != "immediateValue" or proto.immediateValue.WhichOneof("value") != "tensor":
        raise TargetError(f"{where} has a value that is neither a tensor nor in the weight file")
    tensor = proto.immediateValue.tensor
    field = tensor.WhichOneof("value")
    if field is None:
        raise TargetError(f"{where} has no value")
    raw = getattr(tensor, field).values
    if kind.dtype == "string":
        if len(raw) != 1 or kind.shape != ():
            raise TargetError(f"{where} is a list of strings; only single strings are implemented")
        return Constant(type=kind, value=str(raw[0]))
    try:
        return Constant(type=kind, value=_decode(raw, kind, packed=field == "bytes").reshape(kind.shape))
    except ValueError as error:
        raise TargetError(f"{where} does not hold the values of its shape {kind.shape}: {error}") from error


def _decode(raw: Any, kind: TensorType, *, packed: bool) -> NDArray[Any]:
    """The elements of an immediate tensor, flat: bytes in memory order, or a list of numbers."""
    import numpy as np

    dtype = next(numpy for name, numpy in DTYPES.values() if name == kind.dtype)
    if not packed:
        return np.array(list(raw)).astype(dtype)
    if kind.dtype in BITS:
        return unpack(raw, BITS[kind.dtype], math.prod(kind.shape), signed=kind.dtype.startswith("int"))
    return np.frombuffer(raw, dtype)
