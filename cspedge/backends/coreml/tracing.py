"""A saved package beside PT2E, layer by layer, so that the first layer that differs has a name.

`lower` names every op after its module, and the names stay in the saved program. Each value of the program that has
such a name is compared with the same value of the placed graph in eager torch. What coremltools adds or merges (the
parts of a hard-swish, quantizers under new names) has no counterpart and is left out; it shows in the next layer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cspedge.backends.coreml.lower import rename
from cspedge.backends.coreml.package import read_program
from cspedge.backends.coreml.reference import Executor, Numerics

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch.export import ExportedProgram

    from cspedge.quantize.placement import PlacedModel


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One value that both sides have.

    name: as in the package; module: the model's module path; kind: the MIL op. sqnr_db: against PT2E over all images
    and values, infinite where both are equal; max_abs: the largest absolute difference; both where the package reads
    PT2E's values before it, so that the difference is this layer's own. carried_db: SQNR where each side reads its own.
    """

    name: str
    module: str
    kind: str
    sqnr_db: float
    max_abs: float
    carried_db: float


def compare(
    package: Path, placed: PlacedModel, images: NDArray[np.float32], *, numerics: Numerics | None = None
) -> tuple[Layer, ...]:
    """Every value of the package that has a counterpart in the placed graph, in the program's order.

    images: float32 [n, 3, H, W] in [0, 1], n at least 1. Raises TargetError where the package cannot be run or was not
    lowered from this graph's shapes.
    """
    import torch

    program = placed.exported().run_decompositions({})
    modules = rename(program)
    batch = torch.from_numpy(images)
    expected = _eager(program, batch)
    executor = Executor(read_program(package), numerics)
    kinds = {o.name: op.type for op in executor.program.operations for o in op.outputs}
    carried = executor.trace(batch)
    names = {value: re.sub(r"_cast_fp(16|32)$", "", value).removeprefix("_inversed_") for value in carried}
    given = {
        value: expected[name]
        for value, name in names.items()
        if name in expected and carried[value].is_floating_point() and carried[value].shape == expected[name].shape
    }
    own = executor.trace(batch, given)
    return tuple(
        Layer(
            name=names[value],
            module=modules.get(names[value], ""),
            kind=kinds[value],
            sqnr_db=_sqnr_db(other, own[value]),
            max_abs=float((own[value].double() - other.double()).abs().max()),
            carried_db=_sqnr_db(other, carried[value]),
        )
        for value, other in given.items()
    )


def first_below(layers: Sequence[Layer], limit_db: float) -> Layer | None:
    """The first layer whose SQNR is below the limit (or not a number), None where there is none."""
    return next((layer for layer in layers if not layer.sqnr_db >= limit_db), None)


def _sqnr_db(expected: torch.Tensor, found: torch.Tensor) -> float:
    noise = float((found.double() - expected.double()).square().sum())
    signal = float(expected.double().square().sum())
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal and math.isfinite(noise) else -math.inf


def _eager(program: ExportedProgram, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Every floating-point value of the exported graph (batch 1) on the images, joined along the first axis."""
    import torch

    class Recorder(torch.fx.Interpreter):
        def run_node(self, node: torch.fx.Node) -> Any:
            found = super().run_node(node)
            if node.op == "call_function" and isinstance(found, torch.Tensor):
                parts.setdefault(node.name, []).append(found)
            return found

    parts: dict[str, list[torch.Tensor]] = {}
    held = {**program.state_dict, **program.constants}
    with torch.inference_mode():
        for image in torch.split(images, 1):
            arguments = [image if s.target is None else held[s.target] for s in program.graph_signature.input_specs]
            Recorder(program.graph_module).run(*arguments, enable_io_processing=False)
    return {name: torch.cat(values) for name, values in parts.items() if values[0].dim() > 0}
