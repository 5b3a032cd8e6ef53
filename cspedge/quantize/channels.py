"""Which channels of a graph may be scaled together without changing what the network computes.

A channel that only passes through positively homogeneous operators (f(s x) = s f(x) for s > 0) between the layers that
make it and the layers that read it can be divided by any s > 0: its makers' rows by s, its readers' columns times s.
Nagel et al. 2019 (arXiv:1906.04721, section 4.1) do this for pairs of layers; here every channel is followed through
concatenations, splits, residual sums and gates as well, as structured pruning does (Fang et al. 2023,
arXiv:2301.12900), so that residual and cross-stage nets are covered too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cspedge.quantize.graph import weighted_nodes
from cspedge.quantize.ops import HOMOGENEOUS, arg, full_arguments, is_tensor, op_name
from cspedge.quantize.scaling import is_scale

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import fx

    Ids = NDArray[np.int64]

RESHAPING = frozenset({"flatten", "view", "reshape", "squeeze", "unsqueeze"})


class Channels:
    """The channels of every tensor as ids; channels that must be scaled alike have one id (union-find).

    outputs, inputs: for each weighted node, the ids of its output and input channels; scales: those of what a channel
    scale (`cspedge.quantize.scaling`) gives. `root(ids)` gives representatives; `free(ids)` says which may be scaled.
    """

    def __init__(self, graph: fx.GraphModule) -> None:
        self._parent: list[int] = []
        self._frozen: set[int] = set()
        self._lists: dict[fx.Node, list[Ids]] = {}
        self.ids: dict[fx.Node, Ids] = {}
        self.inputs: dict[fx.Node, Ids] = {}
        self.outputs: dict[fx.Node, Ids] = {}
        self.scales: dict[fx.Node, Ids] = {}
        targets = [str(n.target) for n in graph.graph.nodes if n.op == "get_attr"]
        self._own = {t for t in targets if targets.count(t) == 1}
        weighted = set(weighted_nodes(graph))
        for node in graph.graph.nodes:
            self._visit(node, node in weighted)

    @property
    def count(self) -> int:
        """How many ids there are."""
        return len(self._parent)

    @property
    def everything(self) -> Ids:
        """All ids."""
        import numpy as np

        return np.arange(self.count)

    def root(self, ids: Ids) -> Ids:
        """The representative of each id."""
        import numpy as np

        return np.array([self._find(int(i)) for i in ids], np.int64)

    def free(self, ids: Ids) -> NDArray[np.bool_]:
        """Whether each channel may be scaled."""
        import numpy as np

        frozen = {self._find(i) for i in self._frozen}
        return np.array([self._find(int(i)) not in frozen for i in ids], bool)

    def _find(self, i: int) -> int:
        while self._parent[i] != i:
            self._parent[i] = self._parent[self._parent[i]]
            i = self._parent[i]
        return i

    def _fresh(self, count: int) -> Ids:
        import numpy as np

        first = len(self._parent)
        self._parent.extend(range(first, first + count))
        return np.arange(first, first + count)

    def _freeze(self, ids: Ids | None) -> None:
        if ids is not None:
            self._frozen.update(int(i) for i in ids)

    def _tie(self, first: Ids, second: Ids) -> None:
        for a, b in zip(first, second, strict=True):
            low, high = sorted((self._find(int(a)), self._find(int(b))))
            self._parent[high] = low

    def _visit(self, node: fx.Node, weighted: bool) -> None:
        """Gives the node's channels their ids, or freezes what goes in and out where its operator is not known."""
        found = None
        if weighted:
            found = self._weighted(node)
        elif is_scale(node):
            found = self.scales[node] = self._fresh(int(node.meta["val"].shape[1]))
        elif node.op == "call_function" and "val" in node.meta:
            rule = RULES.get(op_name(node)) or (_same if op_name(node) in HOMOGENEOUS else None)
            found = None if rule is None else rule(self, node)
        if node in self._lists:
            return
        if found is None:
            for source in node.all_input_nodes:
                self._freeze(self.ids.get(source))
                for ids in self._lists.get(source, ()):
                    self._freeze(ids)
            value: Any = node.meta.get("val")
            shape = tuple(value.shape) if hasattr(value, "shape") and is_tensor(node) and node.op != "get_attr" else ()
            if len(shape) < 2 or not isinstance(shape[1], int):
                return
            found = self._fresh(shape[1])
            self._freeze(found)
        self.ids[node] = found

    def _weighted(self, node: fx.Node) -> Ids | None:
        """A convolution or linear takes its inputs' scales into its columns and gives its rows new ones."""
        source = self.ids.get(arg(node, 0))
        constants = [a for a in (arg(node, 1), arg(node, 2)) if a is not None]
        own = all(a.op == "get_attr" and str(a.target) in self._own and len(a.users) == 1 for a in constants)
        flat = op_name(node) == "linear" and node.meta["val"].dim() != 2  # channels are its last axis
        if source is None or flat or not own:
            return None
        self.inputs[node] = source
        self.outputs[node] = self._fresh(int(node.meta["val"].shape[1]))
        return self.outputs[node]


def _same(channels: Channels, node: fx.Node) -> Ids | None:
    return channels.ids.get(arg(node, 0))


def _mean(channels: Channels, node: fx.Node) -> Ids | None:
    axes = {int(d) % arg(node, 0).meta["val"].dim() for d in arg(node, 1) or ()}
    return _same(channels, node) if axes and min(axes) > 1 and arg(node, 2) else None


def _pad(channels: Channels, node: fx.Node) -> Ids | None:
    _, amounts, mode, value = full_arguments(node)
    spatial = len(amounts) <= 2 * (arg(node, 0).meta["val"].dim() - 2)
    return _same(channels, node) if spatial and (mode != "constant" or not value) else None


def _reshape(channels: Channels, node: fx.Node) -> Ids | None:
    """Places that move within their channels; [n, C, H, W] -> [n, C H W] repeats each channel's id."""
    import numpy as np

    ids, before, after = channels.ids.get(arg(node, 0)), arg(node, 0).meta["val"].shape, node.meta["val"].shape
    rest = [*before[1:], *after[1:]]
    if ids is None or str(before[0]) != str(after[0]) or not all(isinstance(n, int) for n in rest) or len(after) < 2:
        return None
    if after[1] == before[1]:
        return ids
    each = int(np.prod(before[2:]))
    return np.repeat(ids, each) if len(after) == 2 and after[1] == before[1] * each else None


def _cat(channels: Channels, node: fx.Node) -> Ids | None:
    import numpy as np

    parts = [channels.ids.get(part) for part in arg(node, 0)]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    axis = int(arg(node, 1) or 0) % node.meta["val"].dim()
    if axis == 1:
        return np.concatenate(known)
    for part in known[1:]:
        channels._tie(known[0], part)
    return known[0] if axis > 1 else None


def _axis(node: fx.Node, index: int) -> int:
    return int(full_arguments(node)[index] or 0) % int(arg(node, 0).meta["val"].dim())


def _slice(channels: Channels, node: fx.Node) -> Ids | None:
    ids, (_, _, start, end, step) = _same(channels, node), full_arguments(node)
    if ids is None or _axis(node, 1) == 0:
        return None
    return ids[start:end:step] if _axis(node, 1) == 1 else ids


def _split(channels: Channels, node: fx.Node) -> Ids | None:
    """split, split_with_sizes and chunk: the node's value is a list, and `getitem` takes from it."""
    import numpy as np

    ids = _same(channels, node)
    parts = node.meta["val"]
    if ids is None or _axis(node, 2) == 0:
        return None
    ends = np.cumsum([int(part.shape[1]) for part in parts])
    sliced = [ids[e - int(p.shape[1]) : e] for e, p in zip(ends, parts, strict=True)]
    channels._lists[node] = sliced if _axis(node, 2) == 1 else [ids] * len(parts)
    return None


def _getitem(channels: Channels, node: fx.Node) -> Ids | None:
    parts = channels._lists.get(arg(node, 0))
    return None if parts is None else parts[arg(node, 1)]


def _sum(channels: Channels, node: fx.Node) -> Ids | None:
    """x + y scales when both scale alike; x + constant does not."""
    first, second = (channels.ids.get(a) if hasattr(a, "meta") else None for a in (arg(node, 0), arg(node, 1)))
    if first is None or second is None or len(first) != len(second) or not _same_rank(node):
        return None
    channels._tie(first, second)
    return first


def _same_rank(node: fx.Node) -> bool:
    return len({n.meta["val"].dim() for n in node.all_input_nodes}) == 1


def _product(channels: Channels, node: fx.Node) -> Ids | None:
    """x times a number, a constant or a gate scales with x; the gate stays as it is."""
    first, second = arg(node, 0), arg(node, 1)
    if op_name(node) == "mul" and channels.ids.get(second) is not None and _places(second) > _places(first):
        first, second = second, first
    ids, gate = channels.ids.get(first), channels.ids.get(second) if hasattr(second, "meta") else None
    if ids is None or len(ids) != node.meta["val"].shape[1] or second is first:
        return None
    if gate is not None and _places(first) == _places(second):
        return None
    channels._freeze(gate)
    return ids


def _places(node: Any) -> int:
    """Values in one channel of one image; 0 for numbers and constants."""
    import math

    if not hasattr(node, "meta") or node.op == "get_attr":
        return 0
    return math.prod(int(n) for n in node.meta["val"].shape[2:])


RULES: dict[str, Callable[[Channels, fx.Node], Ids | None]] = {
    "mean": _mean,
    "pad": _pad,
    **dict.fromkeys(RESHAPING, _reshape),
    "cat": _cat,
    "slice": _slice,
    **dict.fromkeys(("split", "split_with_sizes", "chunk"), _split),
    "getitem": _getitem,
    "add": _sum,
    "sub": _sum,
    "mul": _product,
    "div": _product,
}
