"""What the quantizer knows about each ATen operator, in one table.

Roles decide where observers stand and which encodings must be equal:

* ``weighted``: convolution and linear; int8 weights, output observed.
* ``activation``: one tensor in, one out; may be fused into the op before it, output observed. Normalisations count
  as such: they compute in float, and the convolution after them in int8.
* ``combine``: several tensors in, one out (add, mul); output observed.
* ``pool``: averages and sums; output observed.
* ``share``: moves or selects values; input and output carry one encoding.
* ``concat``: all inputs and the output carry one encoding (XNNPACK's rule, FACTS).

An operator that is not listed stays in float and shows up as an fp32 island.
"""

from __future__ import annotations

import operator
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import fx


class Role(StrEnum):
    """How the quantizer treats an operator."""

    WEIGHTED = "weighted"
    ACTIVATION = "activation"
    COMBINE = "combine"
    POOL = "pool"
    SHARE = "share"
    CONCAT = "concat"
    FLOAT = "float"


ROLES: dict[str, Role] = {
    "conv2d": Role.WEIGHTED,
    "linear": Role.WEIGHTED,
    "relu": Role.ACTIVATION,
    "hardtanh": Role.ACTIVATION,
    "relu6": Role.ACTIVATION,
    "clamp": Role.ACTIVATION,
    "hardswish": Role.ACTIVATION,
    "hardsigmoid": Role.ACTIVATION,
    "leaky_relu": Role.ACTIVATION,
    "silu": Role.ACTIVATION,
    "sigmoid": Role.ACTIVATION,
    "gelu": Role.ACTIVATION,
    "tanh": Role.ACTIVATION,
    "elu": Role.ACTIVATION,
    "selu": Role.ACTIVATION,
    "celu": Role.ACTIVATION,
    "prelu": Role.ACTIVATION,
    "mish": Role.ACTIVATION,
    "softplus": Role.ACTIVATION,
    "layer_norm": Role.ACTIVATION,
    "group_norm": Role.ACTIVATION,
    "add": Role.COMBINE,
    "sub": Role.COMBINE,
    "mul": Role.COMBINE,
    "div": Role.COMBINE,
    "mean": Role.POOL,
    "adaptive_avg_pool2d": Role.POOL,
    "avg_pool2d": Role.POOL,
    "sum": Role.POOL,
    "max_pool2d": Role.SHARE,
    "amax": Role.SHARE,
    "pad": Role.SHARE,
    "upsample_nearest2d": Role.SHARE,
    "upsample_bilinear2d": Role.SHARE,
    "pixel_shuffle": Role.SHARE,
    "pixel_unshuffle": Role.SHARE,
    "expand": Role.SHARE,
    "select": Role.SHARE,
    "view": Role.SHARE,
    "reshape": Role.SHARE,
    "flatten": Role.SHARE,
    "squeeze": Role.SHARE,
    "unsqueeze": Role.SHARE,
    "permute": Role.SHARE,
    "transpose": Role.SHARE,
    "slice": Role.SHARE,
    "split": Role.SHARE,
    "split_with_sizes": Role.SHARE,
    "chunk": Role.SHARE,
    "getitem": Role.SHARE,
    "contiguous": Role.SHARE,
    "cat": Role.CONCAT,
}

# Activations that only cut a range off.
CLAMPS = frozenset({"relu", "relu6", "hardtanh", "clamp"})

# f(s x) = s f(x) for each channel and s > 0, and no mixing of channels. A padded zero stays a zero.
HOMOGENEOUS = frozenset(
    {
        *("relu", "leaky_relu", "prelu", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d"),
        *("upsample_nearest2d", "upsample_bilinear2d"),
    }
)

# The exact output range of an activation, where its formula fixes one.
FIXED_RANGE: dict[str, tuple[float, float]] = {
    "hardsigmoid": (0.0, 1.0),
    "sigmoid": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
}

# Outside the bounds an activation is constant (h-swish(x) = 0 for x <= -3, relu(x) = 0 for x <= 0), so clipping what
# it reads there loses nothing. hardtanh and clamp carry their bounds as arguments.
LOSSLESS: dict[str, tuple[float, float]] = {
    "hardswish": (-3.0, float("inf")),
    "hardsigmoid": (-3.0, 3.0),
    "relu": (0.0, float("inf")),
    "relu6": (0.0, 6.0),
}


def op_name(node: fx.Node) -> str:
    """`aten.conv2d.default` -> `conv2d`; the empty string for what is not a call of an ATen operator."""
    if node.op != "call_function":
        return ""
    if node.target is operator.getitem:
        return "getitem"
    schema = getattr(node.target, "_schema", None)
    return str(schema.name).rpartition("::")[2] if schema is not None else ""


def role(node: fx.Node) -> Role:
    """The operator's role; `Role.FLOAT` for everything the table does not list."""
    if not is_tensor(node):
        return Role.FLOAT
    if op_name(node) == "pad" and arg(
        node, 3
    ):  # only zero has a code in every encoding; TensorFlow's pools pad with -inf
        return Role.FLOAT
    return ROLES.get(op_name(node), Role.FLOAT)


def arg(node: fx.Node, index: int) -> Any:
    """A positional argument, None where there are fewer (fx types them too widely to be useful)."""
    return node.args[index] if len(node.args) > index else None


def full_arguments(node: fx.Node) -> list[Any]:
    """The node's arguments in the order of its ATen schema, defaults filled in."""
    schema = getattr(node.target, "_schema", None)
    arguments: list[Any] = list(node.args)
    if schema is not None:
        arguments += [node.kwargs.get(a.name, a.default_value) for a in schema.arguments[len(arguments) :]]
    return arguments


def is_tensor(node: fx.Node) -> bool:
    """Whether the node's value is a floating-point tensor (or a list of them, as split gives)."""
    import torch

    value: Any = node.meta.get("val")
    if isinstance(value, (list, tuple)):
        value = value[0] if value else None
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def module_path(node: fx.Node) -> str:
    """The module the node came from, as the user's model names it (`blocks.2.0.conv_dw`)."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [entry[0] for entry in stack.values() if isinstance(entry, tuple) and isinstance(entry[0], str)]
    paths = [p for p in paths if not p.startswith("_empty")]
    path = str(paths[-1]) if paths else ""
    return path.removeprefix("model.") if path != "model" else ""
