"""Lowers a placed graph to a `.pte` on XNNPACK.

The stock way (`to_edge_transform_and_lower`, then XNNPACK's seventeen passes) re-traces the graph some thirty times
and deep-copies stack traces on the way. Here the traces are dropped first, each operator is decomposed once, and of
XNNPACK's passes those run that can change an image classifier; the bytes are the same (tested), in half the time.
"""

from __future__ import annotations

import gc
import importlib
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cspedge.backends.executorch.forms import xnnpack_forms
from cspedge.backends.executorch.limits import check_limits
from cspedge.errors import TargetError
from cspedge.quantize.ops import module_path, op_name
from cspedge.types import Precision

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from cspedge.quantize.placement import PlacedModel

SHORT = "CspedgeXnnpack"  # the name under which the short list of passes is registered, for the time of a lowering
# Operators for which the short list of passes is known to give XNNPACK's own bytes. Any other operator (a padding, an
# upsampling, attention, a batch norm, PReLU, 1-d convolutions) may need one of the passes left out.
# fmt: off
KNOWN = frozenset(
    {
        "conv2d", "linear", "relu", "relu6", "hardtanh", "clamp", "hardswish", "leaky_relu", "silu", "sigmoid", "add",
        "sub", "mul", "div", "mean", "adaptive_avg_pool2d", "avg_pool2d", "max_pool2d", "view", "reshape", "flatten",
        "slice", "split", "split_with_sizes", "chunk", "getitem", "cat", "quantize_per_tensor",
        "dequantize_per_tensor", "dequantize_per_channel",
    }
)
# fmt: on


def lower(model: PlacedModel, precision: Precision, path: Path, *, stock: bool = False) -> None:
    """Writes `model` to `path`. stock: with every pass of XNNPACK's, as without this module.

    Raises TargetError for fp16, for scales out of XNNPACK's range (op, module path and range named) and where
    executorch refuses the graph.
    """
    if precision is Precision.FP16:
        raise TargetError("executorch lowers fp32 and int8, not 'fp16'; leave fp16 out of this target's precisions")
    sliced = replace(model, graph=xnnpack_forms(model.graph))
    check_limits(sliced.graph)
    short = not stock and all(op_name(n) in KNOWN for n in sliced.graph.graph.nodes if n.op == "call_function")
    with _quiet(), _no_garbage_collection():
        program = sliced.exported()
        for node in program.graph.nodes:
            node.meta = {k: node.meta[k] for k in ("val", "nn_module_stack") if k in node.meta}
        try:
            data = _lower(program, short)
        except Exception as error:  # executorch raises many types, asserts among them
            raise TargetError(_explain(error, model)) from error
    path.write_bytes(data)


def _lower(program: ExportedProgram, short: bool) -> bytes:
    import executorch.kernels.quantized  # noqa: F401  out variants of the q/dq that stay outside a delegate
    from executorch.exir import EdgeCompileConfig, ExecutorchBackendConfig, to_edge_transform_and_lower
    from executorch.exir.backend.backend_api import validation_disabled

    partitioner, backend_id = _partitioner(short)
    with validation_disabled():
        edge = to_edge_transform_and_lower(
            program,
            partitioner=[partitioner],
            compile_config=EdgeCompileConfig(_check_ir_validity=False, _skip_dim_order=True),
        )
    if short:
        for module in edge.exported_program().graph_module.children():
            if getattr(module, "backend_id", None) == SHORT:
                module._backend_id = backend_id
    data = bytes(edge.to_executorch(ExecutorchBackendConfig()).buffer)
    if SHORT.encode() in data:
        raise RuntimeError(f"the delegate kept the name {SHORT!r}, which no runtime knows")
    return data


def _partitioner(short: bool) -> tuple[Any, str]:
    """XNNPACK's partitioner; without a filter on what is not decomposed, one decomposition is enough of three."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.backends.xnnpack.xnnpack_preprocess import XnnpackBackend
    from executorch.exir.backend.partitioner import DelegationSpec

    if not short:
        return XnnpackPartitioner(), XnnpackBackend.__name__

    class Partitioner(XnnpackPartitioner):  # type: ignore[misc]
        def ops_to_not_decompose(self, ep: ExportedProgram) -> tuple[list[Any], None]:
            operators, _ = super().ops_to_not_decompose(ep)
            return operators, None

    partitioner = Partitioner()
    partitioner.delegation_spec = DelegationSpec(_short_backend().__name__, [])
    return partitioner, XnnpackBackend.__name__


@cache
def _short_backend() -> type:
    """XNNPACK's ahead-of-time half with the passes that matter here; executorch finds it by its class name."""
    from executorch.backends.xnnpack import _passes as passes
    from executorch.backends.xnnpack.xnnpack_preprocess import XnnpackBackend
    from executorch.exir.backend.backend_details import BackendDetails
    from executorch.exir.backend.compile_spec_schema import CompileSpec

    chosen = [
        passes.XNNPACKRemoveCloneOpsTransform,
        passes.ConvertToLinearPass,
        passes.FuseActivationPass,
        passes.DecomposeConcatenate,
        passes.RemoveGetItemPass,
        passes.ChannelsLastTaggedReshapePass,
        passes.RemoveRedundantCopyPass,
    ]

    def preprocess(edge_program: ExportedProgram, compile_specs: list[Any]) -> Any:
        program = passes.XNNPACKPassManager(edge_program, passes=chosen).transform()
        # with this spec XNNPACK's own preprocessing runs one pass, which finds nothing left to do, and serializes
        return XnnpackBackend.preprocess(program, [CompileSpec("dqlinear_partitioner", b"")])

    return type(SHORT, (BackendDetails,), {"preprocess": staticmethod(preprocess)})


def _explain(error: Exception, model: PlacedModel) -> str:
    """One sentence; with op and module path where the message, or that of its cause, names a node of the graph.

    Where none does, the first operator that is not among the common ones is named: one of those is usually to blame.
    """
    reason = _first_line(error)
    calls = [node for node in model.graph.graph.nodes if node.op == "call_function"]
    said: BaseException | None = error
    while said is not None:
        words = set(re.split(r"[^\w]+", _first_line(said)))
        for node in calls:
            if node.name in words:
                return f"executorch cannot lower {op_name(node)} at {module_path(node) or 'model'!r}: {reason}"
        said = said.__cause__
    for node in calls:
        if op_name(node) not in KNOWN:
            kind, path = op_name(node) or str(node.target), module_path(node) or "model"
            return f"executorch cannot lower this graph, most likely for {kind} at {path!r}: {reason}"
    return f"executorch cannot lower this graph: {reason}"


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Tracing makes millions of small objects that live to the end; collecting among them costs a sixth of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without executorch's log lines (`Disabled validating the partitioner.`) and torchao's warnings at import."""
    names = ("", "torch.utils._pytree")
    levels = {name: logging.getLogger(name).level for name in names}
    handlers = list(logging.getLogger().handlers)
    try:
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # first of all: at import it calls logging.basicConfig, which adds a handler and sets the root's level
            importlib.import_module("executorch.backends.xnnpack.partition.xnnpack_partitioner")
            logging.getLogger().setLevel(logging.ERROR)
            yield
    finally:
        for handler in [h for h in logging.getLogger().handlers if h not in handlers]:
            logging.getLogger().removeHandler(handler)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
