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
    """One value that both sides have. Differences carry on from layer to layer: each side reads its own inputs.

    name: as in the package; module: the model's module path; kind: the MIL op. sqnr_db: against PT2E over all images
    and values, infinite where both are equal. max_abs: the largest absolute difference.
    """

    name: str
    module: str
    kind: str
    sqnr_db: float
    max_abs: float


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
    layers = []
    for value_name, value in executor.trace(batch).items():
        name = re.sub(r"_cast_fp(16|32)$", "", value_name).removeprefix("_inversed_")
        other = expected.get(name)
        if other is None or not value.is_floating_point() or value.shape != other.shape:
            continue
        noise = float((value.double() - other.double()).square().sum())
        signal = float(other.double().square().sum())
        layers.append(
            Layer(
                name=name,
                module=modules.get(name, ""),
                kind=kinds[value_name],
                sqnr_db=_decibels(signal, noise),
                max_abs=float((value.double() - other.double()).abs().max()),
            )
        )
    return tuple(layers)


def first_below(layers: Sequence[Layer], limit_db: float) -> Layer | None:
    """The first layer whose SQNR is below the limit (or not a number), None where there is none."""
    return next((layer for layer in layers if not layer.sqnr_db >= limit_db), None)


def _decibels(signal: float, noise: float) -> float:
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
