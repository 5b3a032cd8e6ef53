"""MIL's opsets, and what is said about an op that the reference executor does not know."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import TYPE_CHECKING

from cspedge.backends.coreml.quiet import import_coremltools
from cspedge.errors import TargetError

if TYPE_CHECKING:
    from cspedge.backends.coreml.package import Operation

# the name in a saved program: the systems that first ran it
OPSETS = {
    "CoreML5": "iOS 15, macOS 12",
    "CoreML6": "iOS 16, macOS 13",
    "CoreML7": "iOS 17, macOS 14",
    "CoreML8": "iOS 18, macOS 15",
}


def described(opset: str) -> str:
    """`CoreML7 (iOS 17, macOS 14)`; a newer opset by its name alone."""
    return f"{opset} ({OPSETS[opset]})" if opset in OPSETS else opset


def unknown(operation: Operation, opset: str, known: Collection[str]) -> TargetError:
    """The error for an op without a definition here: its opset, whether MIL has it, and what comes closest."""
    near = difflib.get_close_matches(operation.type, sorted(known), n=1)
    nearest = f", the nearest name {near[0]!r}" if near else ""
    return TargetError(
        f"coreml: the reference executor does not know the op {operation.type!r}: {operation.place}, opset "
        f"{described(opset)}; {_in_mil(operation.type)}; {len(known)} ops are known{nearest} (docs/coreml.md lists "
        "them); run this package on a Mac, or use a model without this op"
    )


def _in_mil(name: str) -> str:
    """Whether coremltools' registry has the op, and since which opset."""
    import_coremltools()
    from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

    versions = SSAOpRegistry.core_ops.get(name)
    if not versions:
        return "the installed coremltools does not know it either"
    first = min(int(version.name.removeprefix("iOS")) for version in versions)
    # ML programs begin with iOS 15; what coremltools lists for older systems came with them
    return f"MIL has it since {described(f'CoreML{max(first, 15) - 10}')}"
