"""What it costs to keep tensors in float: the layers that go with them, their share of the work, the conversions."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from cspedge.errors import UsageError
from cspedge.quantize.graph import NAME
from cspedge.quantize.ops import Role, arg, role
from cspedge.quantize.placement import (
    Placement,
    QuantizedModel,
    chosen_tensors,
    fused_into_next,
    int8_needs,
)
from cspedge.quantize.ranges import tied
from cspedge.quantize.scaling import fitted, is_scaled

if TYPE_CHECKING:
    from torch import fx


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a runtime pays, in units of one int8 multiply-accumulate of a dense layer; a target's `[cost]` table.

    float_mac: a multiply-accumulate in float; value: reading or writing one value between layers, in either format,
    which is most of what a depthwise layer costs; convert: turning one value from float to int8 or back.
    `benchmarks/float_cost.py` measures them; the defaults are near what it gives on x86 with VNNI.
    """

    float_mac: float = 3.5
    value: float = 40.0
    convert: float = 16.0

    def __post_init__(self) -> None:
        for name in ("float_mac", "value", "convert"):
            if not 0.0 <= getattr(self, name) < float("inf"):
                raise UsageError(f"{name} is {getattr(self, name)!r}; it is a cost, 0 or more")


@dataclass(frozen=True, kw_only=True)
class Unit:
    """Tensors that stay in float together, because a runtime wants one encoding for all of them.

    layers: convolutions and linears that run in float when this unit alone is kept; mac_share: theirs of all
    multiply-accumulates; converts: values to convert at the edges of the island, more than without it; price: time
    that keeping it adds, as a share of the int8 model's.
    """

    name: str
    tensors: tuple[str, ...]
    layers: tuple[str, ...]
    mac_share: float
    converts: int
    price: float


class Islands:
    """One placement of a quantized model, and what any set of kept tensors costs there.

    sizes: values of each tensor, macs: multiply-accumulates of each layer, both by name and for one image.
    """

    def __init__(
        self,
        model: QuantizedModel,
        placement: Placement,
        cost: Cost,
        sizes: Mapping[str, int],
        macs: Mapping[str, int],
    ) -> None:
        self.model = model = fitted(model, placement)
        self.placement = placement
        self.cost = cost
        self.sizes = sizes
        self.macs = macs
        self.chosen = chosen_tensors(model.graph, placement) & set(model.encodings.activations)
        self._total = max(sum(macs.values()), 1)
        needs = int8_needs(model.graph, placement)
        self._needs = {layer: needs[layer] for layer in needs if layer in model.encodings.weights}
        nodes = [n for n in model.graph.graph.nodes if NAME in n.meta and n.op != "output"]
        self._fused = {n.meta[NAME] for n in nodes if fused_into_next(n, placement)}
        self._ops = [_op(n) for n in nodes]
        # what is scaled per channel without being fused into a layer is float arithmetic, no table of codes
        scaled = [n for n in nodes if is_scaled(n) and not fused_into_next(arg(n, 0), placement)]
        self._arithmetic = {m.meta[NAME] for n in scaled for m in (n, *n.users)}
        inside = self._fused  # never leaves the op that makes it
        self._values = sum(
            sizes[n] for op in self._ops for n in (op.name, *op.inputs) if n in sizes and n not in inside
        )

    @cached_property
    def units(self) -> tuple[Unit, ...]:
        """Everything that can be kept, in the order of the graph."""
        groups: dict[str, list[str]] = {}
        for name, group in tied(self.model.graph).items():
            if name in self.chosen:
                groups.setdefault(group, []).append(name)
        all_int8, before = self.layers(()), self.converts(())
        found = []
        for names in groups.values():
            layers = sorted(all_int8 - self.layers(names), key=list(self.macs).index)
            found.append(
                Unit(
                    name=names[0],
                    tensors=tuple(names),
                    layers=tuple(layers),
                    mac_share=sum(self.macs[layer] for layer in layers) / self._total,
                    converts=self.converts(names) - before,
                    price=self.price(names),
                )
            )
        return tuple(found)

    def tensors(self, keep: Collection[str]) -> frozenset[str]:
        """Tensors that are quantized where `keep` stay in float."""
        return self.chosen - frozenset(keep)

    def layers(self, keep: Collection[str]) -> frozenset[str]:
        """Layers that then run in int8."""
        tensors = self.tensors(keep)
        return frozenset(layer for layer, needs in self._needs.items() if needs <= tensors)

    def float_share(self, keep: Collection[str]) -> float:
        """Share of all multiply-accumulates outside int8."""
        return 1.0 - sum(self.macs[layer] for layer in self.layers(keep)) / self._total

    def converts(self, keep: Collection[str]) -> int:
        """Values of one image that go from float to int8 or back."""
        tensors, in_int8 = self.tensors(keep), self._in_int8(keep)
        count = 0
        for op in self._ops:
            if op.name in tensors:
                read = not all(in_int8[reader] for reader in op.readers)
                count += self.sizes[op.name] * ((not in_int8[op.name]) + read)
        return count

    def _in_int8(self, keep: Collection[str]) -> dict[str, bool]:
        """Of each op, by the name of what it gives, whether it runs on integers; the user (`""`) never does."""
        tensors, layers = self.tensors(keep), self.layers(keep)
        found = {"": False}
        for op in self._ops:
            if op.role is Role.WEIGHTED:
                found[op.name] = op.name in layers
            elif op.role is Role.FLOAT or op.name in self._arithmetic:
                found[op.name] = False
            elif len(op.inputs) == 1 and op.inputs[0] in self._fused:
                found[op.name] = found[op.inputs[0]] and (op.name in tensors or op.name in self._fused)
            else:
                given = op.name in tensors or op.name in self._fused
                found[op.name] = given and all(i in tensors or i in self._fused for i in op.inputs)
        return found

    def price(self, keep: Collection[str]) -> float:
        """Time that keeping these tensors adds, as a share of the int8 model's."""
        least = self._time(())
        return (self._time(keep) - least) / max(least, 1.0)

    def _time(self, keep: Collection[str]) -> float:
        in_float = self.float_share(keep) * self._total
        arithmetic = self._total + in_float * (self.cost.float_mac - 1.0)
        return arithmetic + self._values * self.cost.value + self.converts(keep) * self.cost.convert


def check_keep(model: QuantizedModel, placement: Placement, keep: Collection[str]) -> None:
    """UsageError where `keep` names a tensor that does not exist, or a part of those that share one encoding."""
    unknown = sorted(set(keep) - set(model.encodings.activations))
    if unknown:
        raise UsageError(
            f"cannot keep {unknown[0]!r} in float: this model has no such tensor; encodings.json lists them"
        )
    groups: dict[str, set[str]] = {}
    model = fitted(model, placement)
    chosen = chosen_tensors(model.graph, placement)
    for name, group in tied(model.graph).items():
        if name in chosen:
            groups.setdefault(group, set()).add(name)
    for names in groups.values():
        kept, others = sorted(names & set(keep)), sorted(names - set(keep))
        if kept and others:
            raise UsageError(
                f"cannot keep {kept[0]!r} in float without {others[0]!r}: the two share one encoding; keep all of "
                f"{', '.join(map(repr, sorted(names)))}"
            )


@dataclass(frozen=True, kw_only=True)
class _Op:
    """A node: its named inputs, and the names of what reads it (`""`: the user)."""

    name: str
    role: Role
    inputs: tuple[str, ...]
    readers: tuple[str, ...]


def _op(node: fx.Node) -> _Op:
    return _Op(
        name=node.meta[NAME],
        role=Role.FLOAT if node.op == "placeholder" else role(node),
        inputs=tuple(str(source.meta[NAME]) for source in node.all_input_nodes if NAME in source.meta),
        readers=tuple("" if user.op == "output" else str(user.meta.get(NAME, "")) for user in node.users),
    )
