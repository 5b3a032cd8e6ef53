"""ONNX Runtime: a QDQ model in one `.onnx` file, run by the CPU execution provider."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cspedge.backends.base import Availability, Readback
from cspedge.errors import TargetError, UsageError
from cspedge.types import Evidence, Precision

if TYPE_CHECKING:
    import numpy as np
    import onnx
    import onnxruntime
    from numpy.typing import NDArray

    from cspedge.quantize.placement import PlacedModel
    from cspedge.types import Audit

EXACT = "x64quantprecision"
# ONNX Runtime keeps a convolution's bias as int32 in units of input scale times weight scale.
LARGEST_BIAS = 2.0**30


class OnnxRuntimeSession:
    """A loaded model; its graph holds one image, so a batch is run image by image."""

    evidence = Evidence.MEASURED

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session

    def run(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """images: float32 [n, 3, H, W] in [0, 1] -> each output float32 [n, ...]."""
        import numpy as np

        from cspedge.backends.onnx_writer import INPUT

        batch = np.ascontiguousarray(images, np.float32)
        rows = [self._session.run(None, {INPUT: batch[i : i + 1]}) for i in range(len(batch))]
        return tuple(np.concatenate(column) for column in zip(*rows, strict=True))


class OnnxRuntimeBackend:
    """ONNX Runtime on the CPU.

    Options: `x64quantprecision` (bool, default true). On x86 CPUs without VNNI the fast kernels add pairs of
    u8 x s8 products in 16 bits, which saturate; with this option ONNX Runtime takes exact ones there (measured on
    fbnetv3_b, AVX2: agreement with fp32 65 % without, 90 % with, PT2E 88 %). Elsewhere it changes nothing.
    """

    name = "onnxruntime"
    suffix = ".onnx"
    code_version = 2

    def availability(self) -> Availability:
        """Whether onnxruntime and onnx are installed."""
        from cspedge.backends.sdk import installed

        return installed("onnxruntime", "onnxruntime", "onnx")

    def lower(self, model: PlacedModel, precision: Precision, path: Path, options: Mapping[str, object]) -> None:
        """Writes the QDQ model (int8) or the float model (fp32)."""
        from cspedge.backends.onnx_export import export_onnx, serialize

        _exact(options)
        if precision is Precision.FP16:
            raise TargetError(
                "onnxruntime has no fp16 artifact: its CPU kernels are fp32 and int8; ask for one of those"
            )
        proto = export_onnx(model, self.name)
        _spare_large_biases(proto)
        path.write_bytes(serialize(proto))

    def load(self, path: Path, *, threads: int, options: Mapping[str, object]) -> OnnxRuntimeSession:
        """Loads the file with `threads` intra-op threads."""
        from cspedge.backends.onnx_writer import INPUT

        session = _open(path, threads, _exact(options))
        if [i.name for i in session.get_inputs()] != [INPUT]:
            raise TargetError(
                f"{path.name!r} is not one of cspedge's models: its input is not {INPUT!r}; lower it again"
            )
        return OnnxRuntimeSession(session)

    def readback(self, path: Path) -> Readback:
        """Every QuantizeLinear and DequantizeLinear of the file."""
        from cspedge.backends.onnx_audit import readback

        return readback(_parse(path))

    def audit(self, path: Path, model: PlacedModel) -> Audit:
        """Counts the nodes of the graph that ONNX Runtime makes of the file here."""
        import tempfile

        from cspedge.backends.onnx_audit import audit

        with tempfile.TemporaryDirectory() as folder:
            optimized = Path(folder) / "optimized.onnx"
            _open(path, 1, exact=True, optimized=optimized)
            return audit(_parse(optimized), model)


def _exact(options: Mapping[str, object]) -> bool:
    unknown = sorted(set(options) - {EXACT})
    value = options.get(EXACT, True)
    if unknown:
        raise UsageError(f"onnxruntime has no option {unknown[0]!r}; valid options: {EXACT}")
    if not isinstance(value, bool):
        raise UsageError(f"onnxruntime's option {EXACT} is {value!r}; allowed: true, false")
    return value


def _open(path: Path, threads: int, exact: bool, optimized: Path | None = None) -> onnxruntime.InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what is wrong comes as an exception
    options.add_session_config_entry("session.x64quantprecision", "1" if exact else "0")
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    if not path.is_file():
        raise TargetError(f"the ONNX model {path.name!r} does not exist; lower it again")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exception types have no common base but this
        raise TargetError(f"ONNX Runtime refuses {path.name!r}: {_short(error, path)}; lower it again") from error


def _parse(path: Path) -> onnx.ModelProto:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        return onnx.load(str(path))
    except (DecodeError, OSError) as error:
        raise TargetError(
            f"{path.name!r} is not a readable ONNX model ({_short(error, path)}); lower it again"
        ) from error


def _short(error: Exception, path: Path) -> str:
    text = " ".join(str(error).split()).replace(str(path), path.name)
    return text[:200] or type(error).__name__


def _spare_large_biases(proto: onnx.ModelProto) -> None:
    """Moves a bias that would not fit int32 out of its convolution, which then stays in float.

    A channel whose weights are nearly zero has a tiny scale beside a bias of ordinary size: in units of input scale
    times weight scale the bias passes 2^31 and ONNX Runtime's conversion wraps around.
    """
    import numpy as np
    from onnx import helper, numpy_helper

    constants = {i.name: i for i in proto.graph.initializer}
    makers = {output: node for node in proto.graph.node for output in node.output}

    def scale_behind(name: str) -> NDArray[Any] | None:
        maker = makers.get(name)
        if maker is None or maker.op_type != "DequantizeLinear":
            return None
        scale: NDArray[Any] = numpy_helper.to_array(constants[maker.input[1]]).astype(np.float64)
        return scale

    for index, node in reversed(list(enumerate(proto.graph.node))):
        if node.op_type != "Conv" or len(node.input) < 3:
            continue
        scales = [scale_behind(name) for name in node.input[:2]]
        if scales[0] is None or scales[1] is None:
            continue
        bias = numpy_helper.to_array(constants[node.input[2]])
        if np.abs(bias / (scales[0] * scales[1])).max() < LARGEST_BIAS:
            continue
        output, name = node.output[0], node.input[2]
        constants[name].CopyFrom(numpy_helper.from_array(bias.reshape(1, -1, 1, 1), name))
        del node.input[2]
        node.output[0] = f"{output}.product"
        proto.graph.node.insert(
            index + 1, helper.make_node("Add", [node.output[0], name], [output], name=f"{output}.bias")
        )


BACKEND = OnnxRuntimeBackend()
