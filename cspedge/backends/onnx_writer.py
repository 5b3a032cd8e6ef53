"""Writes a placed fx graph as ONNX, operator by operator.

torch.onnx.export decomposes and retraces the whole program: 6 s (lcnet_050) to 30 s (fbnetv3_b) a model, four times
in one run. These graphs hold about thirty kinds of operators, so they are written directly, in milliseconds, with
the model's own names. A graph with any other operator raises `Unwritable`; `onnx_export` then uses the exporter.
Operators follow the ONNX specification, opset 20.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cspedge.quantize.graph import NAME, output_nodes, tensor_of
from cspedge.quantize.ops import full_arguments, module_path, op_name

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray
    from torch import fx

    from cspedge.quantize.placement import PlacedModel

INPUT = "image"
OPSET, IR_VERSION = 20, 10


class Unwritable(Exception):
    """The graph holds an operator, or an overload of one, that this writer does not know."""

    def __init__(self, node: fx.Node) -> None:
        super().__init__(f"{node.target} at {module_path(node) or 'the top level'!r}")


def write(model: PlacedModel) -> onnx.ModelProto:
    """The placed graph as a ModelProto of static batch 1. Raises Unwritable."""
    return Writer(model).model()


def record_values(model: PlacedModel) -> dict[fx.Node, Any]:
    """What each node gives for one image: a tensor's shape as a tuple, other values (sizes) as they are."""
    import torch
    from torch import fx

    found: dict[fx.Node, Any] = {}

    class Recording(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            result = super().run_node(n)
            found[n] = tuple(result.shape) if isinstance(result, torch.Tensor) else result
            return result

    with torch.no_grad():
        Recording(model.graph).run(model.example())
    return found


class Writer:
    """State of one conversion: nodes, initializers, and the ONNX name (or names) of each fx node."""

    def __init__(self, model: PlacedModel) -> None:
        self.graph = model.graph
        self.outputs = model.outputs
        self.quantized = model.encodings is not None
        self.values = record_values(model)
        self.names: dict[fx.Node, Any] = {}
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []
        self._taken: set[str] = {INPUT, *model.outputs}
        self._current: fx.Node = next(iter(self.graph.graph.nodes))

    def model(self) -> onnx.ModelProto:
        """Converts every node in order."""
        from onnx import TensorProto, helper

        for node in self.graph.graph.nodes:
            self._convert(node)
        ends = dict(zip(self.outputs, output_nodes(self.graph), strict=True))
        start = next(n for n in self.graph.graph.nodes if n.op == "placeholder")
        for name, end in ends.items():
            self._nodes = _named(self._nodes, self.names[end], name)
        graph = helper.make_graph(
            self._nodes,
            "cspedge",
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, self.values[start])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, self.values[end]) for name, end in ends.items()],
            initializer=self._initializers,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)

    def _convert(self, node: fx.Node) -> None:
        from cspedge.backends.onnx_ops import CONVERTERS

        if node.op in {"get_attr", "output"}:
            return
        if node.op == "placeholder":
            self.names[node] = INPUT
            return
        if not isinstance(self.values[node], (tuple, list)):
            return  # a size: its number is read from `values` where it is used
        self._current = node
        converter = CONVERTERS.get(op_name(node))
        result = converter(self, node, full_arguments(node)) if converter is not None else None
        if result is None:
            raise Unwritable(node)
        self.names[node] = result

    def emit(self, kind: str, inputs: Sequence[str], suffix: str = "", **attributes: Any) -> str:
        """Adds a node named after the current fx node (plus `suffix`) and returns its output's name, the same."""
        from onnx import helper

        name = self.unique(self.base_name(self._current) + suffix)
        self._nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def emit_many(self, kind: str, inputs: Sequence[str], outputs: int, **attributes: Any) -> list[str]:
        """`emit` for an operator of several outputs."""
        from onnx import helper

        name = self.unique(self.base_name(self._current))
        made = [self.unique(f"{name}.{index}") for index in range(outputs)]
        self._nodes.append(helper.make_node(kind, list(inputs), made, name=name, **attributes))
        return made

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """Adds an initializer under a fresh name made of `name`, and returns it."""
        import numpy as np
        from onnx import numpy_helper

        unique = self.unique(name)
        # not ascontiguousarray, which makes a scalar one-dimensional
        self._initializers.append(numpy_helper.from_array(np.array(value, order="C"), unique))
        return unique

    def unique(self, name: str) -> str:
        candidate, count = name, 1
        while candidate in self._taken:
            count += 1
            candidate = f"{name}#{count}"
        self._taken.add(candidate)
        return candidate

    def tensor(self, value: Any) -> str:
        """ONNX name of an argument: an earlier result, a parameter (a new initializer each time) or a number."""
        import numpy as np
        from torch import fx

        if not isinstance(value, fx.Node) or not isinstance(self.values[value], (tuple, list)):
            return self.constant(f"{self.base_name(self._current)}.value", np.asarray(self.number(value), np.float32))
        if value.op == "get_attr":
            return self.constant(str(value.target), self.array(value))
        return str(self.names[value])

    def array(self, node: fx.Node) -> NDArray[Any]:
        """The parameter or buffer behind a get_attr node."""
        if node.op != "get_attr":
            raise Unwritable(node)
        found = tensor_of(self.graph, node)
        assert found is not None
        return found.numpy()

    def number(self, value: Any) -> Any:
        """The number behind an argument that may be a size computed in the graph; tensors stay nodes."""
        from torch import fx

        if isinstance(value, fx.Node) and not isinstance(self.values[value], (tuple, list)):
            return self.values[value]
        return value

    def base_name(self, node: fx.Node) -> str:
        return base_name(node)


def base_name(node: Any) -> str:
    """`module.path:op`, the tensor's name in encodings.json; q and dq nodes are named after what they quantize."""
    if NAME in node.meta:
        return str(node.meta[NAME])
    name = op_name(node)
    if name == "quantize_per_tensor":
        return f"{base_name(node.args[0])}.q"
    if name == "dequantize_per_tensor":
        return f"{base_name(node.args[0].args[0])}.dq"
    if name == "dequantize_per_channel":
        return f"{node.args[0].target}.dq"
    return f"{module_path(node) or 'model'}:{name or node.name}"


def _named(nodes: list[onnx.NodeProto], source: str, output: str) -> list[onnx.NodeProto]:
    """Gives the value `source` the name of an output: by its maker where nothing else reads it, else by an Identity."""
    from onnx import helper

    makers = [n for n in nodes if source in n.output]
    if len(makers) != 1 or any(source in n.input for n in nodes):
        return [*nodes, helper.make_node("Identity", [source], [output], name=output)]
    makers[0].output[list(makers[0].output).index(source)] = output
    return nodes
