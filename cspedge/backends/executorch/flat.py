"""A reader of FlatBuffers driven by the schema text the runtime ships.

`flatc --json` prints floats in six digits, which loses scales, and `executorch.exir` takes seconds to import; a saved
program is read here from its bytes alone. Format: https://flatbuffers.dev/internals.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_SCALARS = {
    "bool": "?", "byte": "b", "int8": "b", "ubyte": "B", "uint8": "B", "short": "h", "int16": "h", "ushort": "H",
    "uint16": "H", "int": "i", "int32": "i", "uint": "I", "uint32": "I", "float": "f", "float32": "f", "long": "q",
    "int64": "q", "ulong": "Q", "uint64": "Q", "double": "d", "float64": "d",
}  # fmt: skip
_BLOCK = re.compile(r"\b(table|union|enum)\s+(\w+)\s*(?::\s*(\w+)\s*)?\{([^}]*)\}")
_FIELD = re.compile(r"(\w+)\s*:\s*(\[?)\s*(\w+)\s*\]?\s*(?:\([^)]*\)\s*)?(?:=\s*([\w.+-]+)\s*)?(?:\([^)]*\)\s*)?;")
MAX_TABLES = 1_000_000  # a damaged file must not read for ever
MAX_DEPTH = 32


class DamagedError(ValueError):
    """The bytes are not a FlatBuffer of this schema."""


@dataclass(frozen=True, kw_only=True)
class Field:
    """One field of a table: its type's name, whether it is a vector, its slot in the vtable, its default."""

    name: str
    type: str
    vector: bool
    slot: int
    default: str | None


@dataclass(frozen=True, kw_only=True)
class Schema:
    """Tables by name, unions as (member, table) pairs, enums as (base type, names by value)."""

    tables: Mapping[str, tuple[Field, ...]]
    unions: Mapping[str, tuple[tuple[str, str], ...]]
    enums: Mapping[str, tuple[str, Mapping[int, str]]]


def parse_schema(text: str) -> Schema:
    """Reads `.fbs` text (included files appended): tables, unions and enums; structs do not occur."""
    text = re.sub(r"//[^\n]*", "", text)
    bodies: dict[str, str] = {}
    unions: dict[str, tuple[tuple[str, str], ...]] = {}
    enums: dict[str, tuple[str, Mapping[int, str]]] = {}
    for kind, name, base, body in _BLOCK.findall(text):
        if kind == "table":
            bodies[name] = body
        elif kind == "union":
            pairs = [[w.strip() for w in m.split(":")] for m in body.split(",") if m.strip()]
            unions[name] = tuple((p[0], p[-1]) for p in pairs)
        else:
            enums[name] = (base, _enum_names(body))
    return Schema(tables={n: _fields(b, unions) for n, b in bodies.items()}, unions=unions, enums=enums)


def _enum_names(body: str) -> dict[int, str]:
    names, value = {}, 0
    for member in (m.strip() for m in body.split(",") if m.strip()):
        name, _, number = (w.strip() for w in member.partition("="))
        value = int(number) if number else value
        names[value] = name
        value += 1
    return names


def _fields(body: str, unions: Mapping[str, object]) -> tuple[Field, ...]:
    fields, slot = [], 0
    for name, bracket, kind, default in _FIELD.findall(body):
        slot += kind in unions  # a union takes two slots, its type first
        fields.append(Field(name=name, type=kind, vector=bool(bracket), slot=slot, default=default or None))
        slot += 1
    return tuple(fields)


class Reader:
    """Decodes tables into dictionaries: scalars, bytes for [ubyte], lists, {"kind": member, **fields} for unions."""

    def __init__(self, schema: Schema, data: bytes) -> None:
        self.schema = schema
        self.data = data
        self.tables_read = 0

    def root(self, table: str) -> dict[str, Any]:
        """The root table. Raises DamagedError where an offset leaves the data or an enum or union is unknown."""
        try:
            return self._table(table, self._u32(0), 0)
        except (struct.error, IndexError, UnicodeDecodeError, RecursionError) as error:
            raise DamagedError(f"not a {table} FlatBuffer: {error}") from error

    def _unpack(self, code: str, at: int) -> Any:
        if at < 0:
            raise DamagedError(f"offset {at} lies before the data")
        return struct.unpack_from("<" + code, self.data, at)[0]

    def _u32(self, at: int) -> int:
        return int(self._unpack("I", at))

    def _vector(self, at: int, size: int) -> tuple[int, int]:
        start = at + self._u32(at)
        count = self._u32(start)
        if start + 4 + count * size > len(self.data):
            raise DamagedError(f"a vector of {count} elements at {start} leaves the data")
        return start + 4, count

    def _bytes(self, at: int) -> bytes:
        start, count = self._vector(at, 1)
        return self.data[start : start + count]

    def _table(self, name: str, at: int, depth: int) -> dict[str, Any]:
        self.tables_read += 1
        if depth > MAX_DEPTH or self.tables_read > MAX_TABLES:
            raise DamagedError(f"more than {MAX_TABLES} tables or {MAX_DEPTH} levels")
        vtable = at - int(self._unpack("i", at))
        size = int(self._unpack("H", vtable))
        result: dict[str, Any] = {}
        for field in self.schema.tables[name]:
            entry = 4 + 2 * field.slot
            offset = int(self._unpack("H", vtable + entry)) if entry + 2 <= size else 0
            if field.type in self.schema.unions:
                before = int(self._unpack("H", vtable + entry - 2)) if entry <= size else 0
                kind = int(self._unpack("B", at + before)) if before else 0
                result[field.name] = self._union(field.type, kind, at + offset, depth) if kind and offset else None
            else:
                result[field.name] = self._value(field, at + offset, depth) if offset else self._default(field)
        return result

    def _union(self, name: str, kind: int, at: int, depth: int) -> dict[str, Any]:
        members = self.schema.unions[name]
        if kind > len(members):
            raise DamagedError(f"member {kind} of union {name}, which has {len(members)}")
        member, table = members[kind - 1]
        return {"kind": member, **self._table(table, at + self._u32(at), depth + 1)}

    def _value(self, field: Field, at: int, depth: int) -> Any:
        kind = field.type
        if kind == "string":
            if field.vector:
                start, count = self._vector(at, 4)
                return [self._bytes(start + 4 * i).decode() for i in range(count)]
            return self._bytes(at).decode()
        if kind in self.schema.tables:
            if field.vector:
                start, count = self._vector(at, 4)
                places = [start + 4 * i for i in range(count)]
                return [self._table(kind, p + self._u32(p), depth + 1) for p in places]
            return self._table(kind, at + self._u32(at), depth + 1)
        code = self._code(kind)
        if field.vector:
            if code == "B":
                return self._bytes(at)
            start, count = self._vector(at, struct.calcsize(code))
            return list(struct.unpack_from(f"<{count}{code}", self.data, start))
        value = self._unpack(code, at)
        return self._enum(kind, value) if kind in self.schema.enums else value

    def _code(self, kind: str) -> str:
        return _SCALARS[self.schema.enums[kind][0] if kind in self.schema.enums else kind]

    def _enum(self, kind: str, value: int) -> str:
        names = self.schema.enums[kind][1]
        if value not in names:
            raise DamagedError(f"value {value} of enum {kind}")
        return names[value]

    def _default(self, field: Field) -> Any:
        if field.vector or field.type == "string" or field.type in self.schema.tables:
            return [] if field.vector else None
        if field.type in self.schema.enums:
            return field.default or self.schema.enums[field.type][1].get(0, "0")
        if field.default is not None:
            return float(field.default) if self._code(field.type) in "fd" else int(field.default)
        return False if field.type == "bool" else 0
