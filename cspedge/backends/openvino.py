"""OpenVINO: IR (`model.xml` and `model.bin` in one folder), run by the CPU plugin.

The IR is converted from a QDQ ONNX made from OpenVINO's own placement: straight from the ExportedProgram the
frontend drops the dequantize nodes of folded weights.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cspedge.backends.base import Availability, Readback
from cspedge.errors import TargetError, UsageError
from cspedge.types import Evidence, Precision

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from numpy.typing import NDArray

    from cspedge.quantize.placement import PlacedModel
    from cspedge.types import Audit

XML = "model.xml"
SIMULATE = "simulate_int8"


def import_openvino() -> Any:
    """The openvino package, without its telemetry.

    Importing it writes an identifier into the home folder and sends an event over the network unless the user opted
    out; with `openvino_telemetry` absent it takes its own stub. A package that is imported already stays as it is.
    """
    if "openvino" not in sys.modules:
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


class OpenVinoSession:
    """A compiled model; its graph holds one image, so a batch is run image by image."""

    evidence = Evidence.MEASURED

    def __init__(self, compiled: Any) -> None:
        self._request = compiled.create_infer_request()
        self._count = len(compiled.outputs)

    def run(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """images: float32 [n, 3, H, W] in [0, 1] -> each output float32 [n, ...]."""
        import numpy as np

        batch = np.ascontiguousarray(images, np.float32)
        rows = []
        for i in range(len(batch)):
            found = self._request.infer([batch[i : i + 1]], share_inputs=True)
            rows.append([found[index] for index in range(self._count)])
        return tuple(np.concatenate(column) for column in zip(*rows, strict=True))


class OpenVinoBackend:
    """OpenVINO on the CPU; the artifact is a folder.

    On x86 CPUs without VNNI its int8 kernels add pairs of u8 x s8 products in 16 bits, which saturate (measured on
    fbnetv3_b, AVX2: agreement with fp32 70 %, where PT2E has 91 %). There is no exact int8 kernel to ask for. Option
    `simulate_int8` (bool, default false): calculate in float between the quantizers, exact but not faster than fp32.
    """

    name = "openvino"
    suffix = ".ir"
    code_version = 3

    def availability(self) -> Availability:
        """Whether openvino and onnx are installed."""
        from cspedge.backends.sdk import installed

        return installed("openvino", "openvino", "onnx")

    def lower(self, model: PlacedModel, precision: Precision, path: Path, options: Mapping[str, object]) -> None:
        """Makes the folder `path` with model.xml and model.bin; fp16 stores float weights in 16 bits."""
        import tempfile

        from cspedge.backends.onnx_export import export_onnx, serialize
        from cspedge.backends.openvino_forms import round_before_sums, share_dequantize
        from cspedge.backends.openvino_ir import save

        _simulate(options)
        proto = export_onnx(model, self.name)
        share_dequantize(proto)
        round_before_sums(proto)
        names = {n.name for n in proto.graph.node} | {o for n in proto.graph.node for o in n.output}
        names |= {i.name for i in proto.graph.initializer} | {i.name for i in proto.graph.input}
        openvino = import_openvino()
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "model.onnx"
            source.write_bytes(serialize(proto))
            try:
                converted = openvino.convert_model(str(source))
            except Exception as error:  # the frontend raises RuntimeError and its own types
                raise TargetError(_refusal(error, proto)) from error
            save(converted, path, half=precision is Precision.FP16, keep=names)

    def load(self, path: Path, *, threads: int, options: Mapping[str, object]) -> OpenVinoSession:
        """Reads and compiles the IR for `threads` threads of the CPU."""
        return OpenVinoSession(compile_ir(path, threads, simulate=_simulate(options)))

    def readback(self, path: Path) -> Readback:
        """FakeQuantize ranges as scale and zero point, and the int8 constants."""
        from cspedge.backends.openvino_ir import readback

        return readback(read_ir(path))

    def audit(self, path: Path, model: PlacedModel) -> Audit:
        """Execution precisions of the plugin's own graph, compiled here."""
        from cspedge.backends.openvino_audit import audit

        return audit(compile_ir(path, 1), model)


def read_ir(path: Path) -> Any:
    """The `openvino.Model` in the folder `path`. Raises TargetError where it is missing or damaged."""
    openvino = import_openvino()
    if not (path / XML).is_file():
        raise TargetError(f"the OpenVINO folder {path.name!r} has no {XML}; lower it again")
    with (path / XML).open("rb") as file:
        # else OpenVINO tries every frontend it has (TensorFlow, Paddle, ...) on the file
        if file.read(5) != b"<?xml":
            raise TargetError(f"{XML} in {path.name!r} is not an OpenVINO IR; lower it again")
    try:
        return openvino.Core().read_model(str(path / XML))
    except Exception as error:  # OpenVINO raises RuntimeError and its own types
        raise TargetError(f"OpenVINO refuses {path.name!r}: {_short(error)}; lower it again") from error


def compile_ir(path: Path, threads: int, *, simulate: bool = False) -> Any:
    """The IR compiled for one stream; bf16 and fp16 execution are off, so that a figure means its precision."""
    openvino = import_openvino()
    settings: dict[str, object] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "f32",
        "ENABLE_CPU_PINNING": False,  # several processes may share the cores
    }
    if simulate:
        settings["LP_TRANSFORMS_MODE"] = "NO"
    model = read_ir(path)
    try:
        return openvino.Core().compile_model(model, "CPU", settings)
    except Exception as error:  # OpenVINO raises RuntimeError and its own types
        raise TargetError(f"OpenVINO cannot compile {path.name!r}: {_short(error)}; lower it again") from error


def _simulate(options: Mapping[str, object]) -> bool:
    unknown = sorted(set(options) - {SIMULATE})
    value = options.get(SIMULATE, False)
    if unknown:
        raise UsageError(f"openvino has no option {unknown[0]!r}; valid options: {SIMULATE}")
    if not isinstance(value, bool):
        raise UsageError(f"openvino's option {SIMULATE} is {value!r}; allowed: true, false")
    return value


def _refusal(error: Exception, proto: onnx.ModelProto) -> str:
    """One sentence with the first operator refused and its place in the model; what it feeds is refused as well."""
    order = {name: (i, n) for i, n in enumerate(proto.graph.node) for name in (n.name, *n.output)}
    found = []
    for block in str(error).split("\n-- ")[1:]:
        named = re.search(r"Node\(\w+\): ([^>]+)>", block)
        if named and named[1] in order:
            lines = [line.strip() for line in block.partition("\nSummary:")[0].splitlines() if line.strip()]
            found.append((*order[named[1]], lines[-1]))
    if not found:
        return f"openvino cannot convert the model: {_short(error)}"
    _, node, reason = min(found, key=lambda entry: entry[0])
    path, _, op = node.name.partition(":")
    return f"openvino cannot convert {op} at {path!r}: {reason}"


def _short(error: Exception) -> str:
    """The last informative line: OpenVINO puts its own source places before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("Exception from")] or [type(error).__name__]
    return lines[0][:200]


BACKEND = OpenVinoBackend()
