"""MIL's weight file: a 64-byte header, then per constant a 64-byte record and its bytes.

Layout (coremltools `MILBlob/Blob/StorageFormat.hpp`, version 2), little-endian: header = count u32, version u32;
record = sentinel u32 0xDEADBEEF, element type u32, size in bytes u64, offset of the bytes u64.
Read here in Python with every bound checked, because the file may be damaged or hostile.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cspedge.errors import TargetError

if TYPE_CHECKING:
    from numpy.typing import NDArray

SENTINEL = 0xDEADBEEF
VERSION = 2
RECORD = struct.Struct("<IIQQ")
# element type code in a record -> our name; `BlobDataType` in MILBlob
CODES = {1: "fp16", 2: "fp32", 3: "uint8", 4: "int8", 6: "int16", 7: "uint16", 14: "int32", 15: "uint32"} | {
    8: "int4",
    9: "uint1",
    10: "uint2",
    11: "uint4",
    12: "uint3",
    13: "uint6",
}
NUMPY = {
    "fp16": "<f2",
    "fp32": "<f4",
    "uint8": "u1",
    "int8": "i1",
    "int16": "<i2",
    "uint16": "<u2",
    "int32": "<i4",
    "uint32": "<u4",
}
# types of less than a byte: element after element from the lowest bit up, across bytes
BITS = {"int4": 4, "uint1": 1, "uint2": 2, "uint3": 3, "uint4": 4, "uint6": 6}


def read_blob(path: Path, offset: int, dtype: str, shape: tuple[int, ...], where: str) -> NDArray[Any]:
    """The constant whose record stands at `offset`, as an array of `dtype` and `shape`; int4 as int8, uintN as uint8.

    Raises TargetError naming `where` if the record is missing, out of bounds, or of another type or size.
    """
    import numpy as np

    try:
        total = path.stat().st_size
        with path.open("rb") as file:
            version = struct.unpack("<II", _exactly(file, 0, 8, total))[1]
            sentinel, code, size, start = RECORD.unpack(_exactly(file, offset, RECORD.size, total))
            if version != VERSION or sentinel != SENTINEL:
                raise _damaged(path, where, "no weight record where the model file points")
            if CODES.get(code) != dtype:
                raise _damaged(path, where, f"element type {CODES.get(code, code)} where the model says {dtype}")
            bits = BITS.get(dtype)
            wanted = -(-(bits or 8 * np.dtype(NUMPY[dtype]).itemsize) * math.prod(shape) // 8)
            if size != wanted:
                raise _damaged(path, where, f"{size} bytes where the shape {shape} takes {wanted}")
            content = _exactly(file, start, size, total)
    except OSError as error:
        raise TargetError(f"the weight file {path.name!r} cannot be read: {error.strerror}") from error
    except _OutOfBoundsError as error:
        raise _damaged(path, where, f"bytes {error.args[0]} to {error.args[1]} of a file of {total}") from error
    if bits is not None:
        return unpack(content, bits, math.prod(shape), signed=dtype.startswith("int")).reshape(shape)
    return np.frombuffer(content, NUMPY[dtype]).reshape(shape)


def unpack(content: bytes, bits: int, count: int, *, signed: bool) -> NDArray[Any]:
    """`count` numbers of `bits` bits (1 to 8) each, packed from the lowest bit up, as uint8 or int8 [count].

    Raises ValueError where the content is longer or shorter than that.
    """
    import numpy as np

    if len(content) != -(-bits * count // 8):
        raise ValueError(f"{len(content)} bytes for {count} numbers of {bits} bits")
    single = np.unpackbits(np.frombuffer(content, np.uint8), bitorder="little")[: bits * count].reshape(count, bits)
    values = np.packbits(single, axis=1, bitorder="little").reshape(count)
    if not signed:
        return values
    return (values << (8 - bits)).astype(np.int8) >> (8 - bits)


class _OutOfBoundsError(Exception):
    pass


def _exactly(file: Any, start: int, size: int, total: int) -> bytes:
    if start + size > total:
        raise _OutOfBoundsError(start, start + size)
    file.seek(start)
    return bytes(file.read(size))


def _damaged(path: Path, where: str, what: str) -> TargetError:
    return TargetError(f"the weight file {path.name!r} is damaged at {where}: {what}; export the model again")
