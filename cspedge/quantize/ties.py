"""Scales for which every runtime rounds to the same code.

Runtimes compute a code in float32 (XNNPACK's addition: in fixed point with 20 bits), each in its own order, so their
results differ in the last bit; where the exact value lies that close to the middle between two codes, one of them gives
the neighbour. Such a code is rare, but deep networks amplify it: on lcnet_050 a relative difference of 1e-7 in the
convolutions' outputs leaves 99.4 % of the answers, one of 1e-5 leaves 97.7 %. So scales are moved, mostly by less than
half a percent, until no value that can occur lies near a middle:

* Around additions: all scales become whole multiples of one power of two, those of sums odd ones. With whole numbers
  a, b and s below 1024 and s odd, (a * p + b * q) / s is never a middle, and none is nearer than 1 / (2 * s).
* Behind activations, products and averages, whose inputs are codes: all of the up to 65,536 results are looked at, and
  of the next few scales that fp16 can hold the first is taken that has none near a middle.
* Behind convolutions: `cspedge.quantize.tie_weights`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cspedge.quantize.encodings import QMAX, QMIN, Encodings
from cspedge.quantize.graph import NAME, tensor_of
from cspedge.quantize.ops import CLAMPS, Role, op_name, role
from cspedge.quantize.placement import Placement, QuantizedModel, chosen_tensors
from cspedge.quantize.ranges import tied
from cspedge.quantize.regions import Region, regions
from cspedge.quantize.scaling import fitted, unfitted

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import fx

NEAR = 1e-4  # codes from a middle; float32 errs by 3e-5 at most
LARGEST_SUM = 1000  # units in the largest scale around additions: XNNPACK's fixed point errs by 2e-4 codes
SMALLEST_UNIT = 2.0**-24  # fp16's own
STEPS = 32
MOST_CELLS = 4096  # of an average
ADDITIONS = frozenset({"add", "sub"})
NOT_ELEMENTWISE = frozenset({"layer_norm", "group_norm", "prelu"})


@dataclass
class _Scales:
    """Scale and zero point of each group of tied tensors; `unit`: what a scale must be a multiple of; `odd`: oddly."""

    scale: dict[str, float]
    zero: dict[str, int]
    fixed: set[str]
    unit: dict[str, float]
    odd: set[str]

    def real(self, group: str) -> NDArray[np.float64]:
        """The 256 values that the group's codes stand for, float64."""
        import numpy as np

        codes: NDArray[np.float64] = np.arange(QMIN, QMAX + 1, dtype=np.float64)
        return (codes - self.zero[group]) * self.scale[group]

    def candidates(self, group: str) -> list[float]:
        """The scale itself, then the next larger ones that keep the group's multiples and that fp16 holds."""
        import numpy as np

        if group in self.unit:
            unit, stride = self.unit[group], 2 if group in self.odd else 1
            count = round(self.scale[group] / unit)
            return [(count + i * stride) * unit for i in range(1 + min(STEPS, max(4, count // 32)))]
        found = [self.scale[group]]
        for _ in range(STEPS):
            found.append(float(np.nextafter(np.float16(found[-1]), np.float16(np.inf))))
        return [scale for scale in found if scale < float("inf")]


def avoid_ties(model: QuantizedModel, placements: Sequence[Placement]) -> QuantizedModel:
    """Moves scales of `model`, and nothing else, so that runtimes agree on their codes.

    placements: of all targets; the tensors that any of them quantizes count. Scales of activations only grow, so no
    range shrinks; fixed ones (images, gates) stay. Deterministic, without images.
    """
    from cspedge.quantize.tie_weights import avoid_weight_ties

    least = next((p for p in placements if not p.channel_scales), None)
    scaled, model = model, model if least is None else fitted(model, least)
    groups = tied(model.graph)
    activations = model.encodings.activations
    scales = _Scales(scale={}, zero={}, fixed=set(), unit={}, odd=set())
    for name in groups.keys() & activations.keys():
        encoding = activations[name]
        scales.scale[groups[name]], scales.zero[groups[name]] = encoding.scale, encoding.zero_point
        if encoding.observer == "fixed":
            scales.fixed.add(groups[name])
    names = frozenset().union(*(chosen_tensors(model.graph, p) for p in placements)) & set(activations)
    found = regions(model.graph, names)
    _around_additions([r for r in found if _is_addition(r)], groups, scales)
    producers: dict[str, list[Region]] = {}
    for region in found:
        producers.setdefault(groups[region.name], []).append(region)
    for group, made_by in producers.items():
        if group not in scales.fixed:
            _behind_codes(model.graph, group, made_by, groups, scales)
    moved = {
        name: replace(e, scale=scales.scale[groups[name]]) if name in groups else e for name, e in activations.items()
    }
    model = replace(model, encodings=Encodings(activations=moved, weights=model.encodings.weights))
    return unfitted(scaled, avoid_weight_ties(model, found))


def _is_addition(region: Region) -> bool:
    """Two quantized tensors added or subtracted, and clamped at most."""
    first, *rest = region.nodes
    return (
        op_name(first) in ADDITIONS
        and len(region.sources) == 2
        and len(first.args) == 2
        and all(op_name(node) in CLAMPS for node in rest)
    )


def _around_additions(sums: Sequence[Region], groups: Mapping[str, str], scales: _Scales) -> None:
    """Whole multiples of one power of two for all tensors that additions link (a stage's residual stream)."""
    parent: dict[str, str] = {}

    def root(group: str) -> str:
        parent.setdefault(group, group)
        while parent[group] != group:
            group = parent[group]
        return group

    for region in sums:
        own = root(groups[region.name])
        for source in region.sources:
            parent[root(groups[source.meta[NAME]])] = own
    odd = {groups[region.name] for region in sums}
    linked: dict[str, list[str]] = {}
    for group in parent:
        linked.setdefault(root(group), []).append(group)
    for members in linked.values():
        if scales.fixed & set(members):
            continue
        largest = max(scales.scale[group] for group in members)
        unit = max(2.0 ** math.ceil(math.log2(largest / LARGEST_SUM)), SMALLEST_UNIT)
        for group in members:
            count = math.ceil(scales.scale[group] / unit)
            if group in odd:
                count += 1 - count % 2
                scales.odd.add(group)
            scales.scale[group], scales.unit[group] = count * unit, unit


def _behind_codes(
    graph: fx.GraphModule, group: str, made_by: Sequence[Region], groups: Mapping[str, str], scales: _Scales
) -> None:
    """The first scale with no result near a middle, else the one with the fewest."""
    import numpy as np

    results = [values for region in made_by if (values := _results(graph, region, groups, scales)) is not None]
    if not results:
        return
    values = np.concatenate(results)
    best = None
    for scale in scales.candidates(group):
        steps = values / scale
        inside = (steps > QMIN - 1 - scales.zero[group]) & (steps < QMAX + 1 - scales.zero[group])
        near = int((np.abs(steps - np.floor(steps) - 0.5)[inside] < NEAR).sum())
        if best is None or near < best:
            best, scales.scale[group] = near, scale
        if near == 0:
            return


def _results(
    graph: fx.GraphModule, region: Region, groups: Mapping[str, str], scales: _Scales
) -> NDArray[np.float64] | None:
    """Every value that `region` can give, float64 in any order; None where it is not made of codes one by one."""
    import numpy as np

    sources = [scales.real(groups[source.meta[NAME]]) for source in region.sources]
    first = region.nodes[0]
    if role(first) is Role.POOL and len(region.nodes) == 1 and op_name(first) != "sum":
        cells = _cells(first)
        if cells is None:
            return None
        step, low, high = sources[0][1] - sources[0][0], sources[0][0], sources[0][-1]
        found: NDArray[np.float64] = np.arange(round(low / step) * cells, round(high / step) * cells + 1) * (
            step / cells
        )
        return found
    if not 1 <= len(sources) <= 2 or not all(_elementwise(node) for node in region.nodes):
        return None
    constants = [a for node in region.nodes for a in node.all_input_nodes if a.op == "get_attr"]
    if len(sources) == 2 and constants:
        return None
    return _computed(graph, region, sources).ravel()


def _elementwise(node: fx.Node) -> bool:
    return role(node) in {Role.ACTIVATION, Role.COMBINE} and op_name(node) not in NOT_ELEMENTWISE


def _cells(node: fx.Node) -> int | None:
    """How many values one result of an average is made of; None where that differs or is too many."""
    source: Any = node.all_input_nodes[0].meta["val"]
    result: Any = node.meta["val"]
    count, rest = divmod(math.prod(source.shape[1:]), math.prod(result.shape[1:]))
    padded = op_name(node) == "avg_pool2d" and len(node.args) > 3 and node.args[3] not in (0, [0, 0])
    return count if rest == 0 and count <= MOST_CELLS and not padded else None


def _computed(graph: fx.GraphModule, region: Region, sources: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The region's nodes in float64: one source along the first axis, a second along the second (no channels)."""
    import torch
    from torch import fx

    shapes = [(-1, 1, 1, 1), (1, -1, 1, 1)]
    values: dict[fx.Node, torch.Tensor] = {
        node: torch.from_numpy(codes).reshape(shape)
        for node, codes, shape in zip(region.sources, sources, shapes, strict=False)
    }

    def given(node: fx.Node) -> Any:
        if node.op == "get_attr":
            found = tensor_of(graph, node)
            assert found is not None
            return found.double()
        return values[node]

    for node in region.nodes:
        target: Callable[..., torch.Tensor] = node.target  # type: ignore[assignment]
        values[node] = target(*fx.node.map_arg(node.args, given), **fx.node.map_arg(node.kwargs, given))
    result: NDArray[np.float64] = values[region.nodes[-1]].numpy()
    return result
