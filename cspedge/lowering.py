"""Lowering one target: place, write, load back from the file, run, compare, read back, audit."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Collection, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cspedge.backends import get_backend
from cspedge.config import Target, load_target
from cspedge.digest import sha256_path, size_of
from cspedge.errors import CspedgeError, RuntimeMissingError, TargetError, UsageError
from cspedge.types import Artifact, Audit, Output, Precision

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cspedge.backends.base import Backend, Session
    from cspedge.models.reference import ReferenceInfo
    from cspedge.quantize.placement import PlacedModel, QuantizedModel

CODE_VERSION = 2  # of this module; raised by hand when the artifacts or their checks change
CHECK_IMAGES = 8
NO_WORSE_DB = 1.0  # measured on lcnet_050 and fbnetv3_b, every level, Core ML and OpenVINO: at most 0.2 dB


def placement_words(target: Target, precision: Precision) -> str:
    """The placement as the report states it."""
    if precision.is_float:
        return "float"
    where = "after fused " + ", ".join(target.placement.fuse) if target.placement.fuse else "after every op"
    output = ", outputs quantized" if target.placement.quantize_output else ""
    return f"{target.placement.activation_dtype}, one quantizer {where}{output}"


def require(target: Target) -> Backend:
    """The target's backend; RuntimeMissingError where its SDK is not installed here."""
    backend = get_backend(target.backend)
    available = backend.availability()
    if not available.ok:
        raise RuntimeMissingError(f"target {target.name!r} is unavailable: {available.reason}")
    return backend


def check_precision(target: Target, precision: Precision) -> None:
    """UsageError naming what is allowed where the target does not offer the precision."""
    if precision not in target.precision.supported:
        allowed = ", ".join(target.precision.supported)
        raise UsageError(f"target {target.name!r} cannot be lowered to {str(precision)!r}; it offers {allowed}")


def lower(
    model: QuantizedModel,
    target: str | Target,
    precision: Precision | str,
    out: Path,
    *,
    name: str = "model",
    check_images: NDArray[np.uint8] | None = None,
    keep: Collection[str] = (),
) -> Artifact:
    """Writes `out/<name>.<precision><suffix>` and returns it as an Artifact once it ran from its file.

    model: what `quantize` gave (or `float_model`, for float precisions). check_images: uint8 [n, 3, H, W], some real
    images for the comparison with PT2E; without them, fixed random ones. keep: tensors of an int8 artifact that stay in
    float, by their names in encodings.json. Raises UsageError (precision, keep), RuntimeMissingError (SDK), TargetError
    (the runtime refuses the graph, or its answers are outside the tolerance).
    """
    spec = load_target(target) if isinstance(target, str) else target
    precision = Precision(precision)
    check_precision(spec, precision)
    backend = require(spec)
    placed = placed_for(model, spec, precision, keep)
    path = out / f"{name}.{precision}{backend.suffix}"
    start = time.perf_counter()
    with sdk_errors(spec, precision, "lower"):
        backend.lower(placed, precision, path, spec.options)
    lower_s = time.perf_counter() - start
    with sdk_errors(spec, precision, "run"):
        session = backend.load(path, threads=1, options=_check_options(spec))
        sqnr, largest = compare(session, model, placed, precision, spec, check_images)
    with sdk_errors(spec, precision, "audit"):
        audit = _audit(backend, path, placed)
    return Artifact(
        target=spec.name,
        backend=spec.backend,
        precision=precision,
        path=path,
        bytes=size_of(path),
        sha256=sha256_path(path),
        placement=placement_words(spec, precision),
        audit=audit,
        outputs=placed.outputs,
        check_sqnr_db=sqnr,
        check_max_abs=largest,
        lower_s=round(lower_s, 3),
        float_tensors=() if precision.is_float else tuple(sorted(keep)),
    )


def _check_options(target: Target) -> dict[str, object]:
    from cspedge.devices.host import describe, saturates_u8s8

    extra = target.saturated_check if saturates_u8s8(describe().isa) else {}
    return {**target.options, **extra}


@contextlib.contextmanager
def sdk_errors(target: Target, precision: Precision, what: str) -> Any:
    """Anything an SDK raises becomes a TargetError of that target, so that the others go on."""
    try:
        yield
    except CspedgeError:
        raise
    except (KeyboardInterrupt, MemoryError):
        raise
    except Exception as error:  # SDKs raise every type there is; the cause is chained and shown with --debug
        first = str(error).strip().splitlines()[0][:300] if str(error).strip() else ""
        raise TargetError(
            f"target {target.name!r} failed to {what} its {precision} artifact: {type(error).__name__}: {first}"
        ) from error


def placed_for(model: QuantizedModel, target: Target, precision: Precision, keep: Collection[str]) -> PlacedModel:
    """The graph that a target's artifact is lowered from; keep: tensors that stay in float. Raises UsageError."""
    from cspedge.quantize.islands import check_keep
    from cspedge.quantize.placement import place, place_float

    if precision.is_float:
        return place_float(model.float_graph, model.input_shape)
    check_keep(model, target.placement, keep)
    return place(model, target.placement, keep)


def compare(
    session: Session,
    model: QuantizedModel,
    placed: PlacedModel,
    precision: Precision,
    target: Target,
    images: NDArray[np.uint8] | None,
) -> tuple[float | None, float]:
    """The loaded artifact against the same graph in eager torch (PT2E); TargetError outside the tolerance.

    A runtime that rounds otherwise (Core ML computes in fp16 between its int8 tensors) takes a neighbouring code here
    and there, and after forty layers the two differ as much as either differs from fp32. So an int8 output passes as
    well where it is as close to fp32 as PT2E's, within `NO_WORSE_DB`; a graph that computes something else is not.
    Returns the SQNR in dB against PT2E of the output that is furthest off, and the largest absolute difference.
    """
    import numpy as np
    import torch

    from cspedge.quantize.graph import as_tuple

    if images is None:
        generator = np.random.Generator(np.random.PCG64(0))
        images = generator.integers(0, 256, (CHECK_IMAGES, *placed.input_shape), dtype=np.uint8)
    tensor = images[:CHECK_IMAGES].astype(np.float32) / np.float32(255)
    expected = [v.numpy() for v in placed(torch.from_numpy(tensor))]
    found = session.run(tensor)
    whose = f"target {target.name!r}: the {precision} artifact"
    against_pt2e = _sqnr(placed.outputs, expected, found, whose)
    limit = target.tolerance.float_sqnr_db if precision.is_float else target.tolerance.int8_sqnr_db
    bad = [index for index, sqnr in enumerate(against_pt2e) if sqnr < limit]
    if bad and not precision.is_float:
        with torch.no_grad():
            exact = [v.numpy() for v in as_tuple(model.float_graph(torch.from_numpy(tensor)))]
        pt2e = _sqnr(placed.outputs, exact, expected, "PT2E")
        mine = _sqnr(placed.outputs, exact, found, whose)
        bad = [index for index in bad if mine[index] < pt2e[index] - NO_WORSE_DB]
    if bad:
        raise TargetError(
            f"target {target.name!r}: its {precision} {placed.outputs[bad[0]]} has {against_pt2e[bad[0]]:.1f} dB SQNR "
            f"against PT2E's, below the tolerance of {limit:g} dB in its target.toml; its kernels do not compute this "
            f"graph, or the network is too sensitive for {precision}"
        )
    worst = min(against_pt2e)
    largest = max(float(np.abs(a - b).max()) for a, b in zip(expected, found, strict=True))
    return None if math.isinf(worst) else round(worst, 2), largest


def _sqnr(
    names: Sequence[str], expected: Sequence[NDArray[np.float32]], found: Sequence[NDArray[np.float32]], whose: str
) -> list[float]:
    """SQNR in dB of each output, infinite where both are equal."""
    from cspedge.evaluate.outputs import Comparison

    outputs = [Output(name=name, shape=v.shape[1:]) for name, v in zip(names, expected, strict=True)]
    comparison = Comparison(outputs)
    comparison.add(expected, found, whose)
    return [math.inf if row.sqnr_db is None else row.sqnr_db for row in comparison.result()]


def _audit(backend: Backend, path: Path, placed: PlacedModel) -> Audit:
    from cspedge.quantize.parity import differences

    audit = backend.audit(path, placed)
    if placed.encodings is None:
        return audit
    problems = differences(placed, backend.readback(path))
    shown = (*problems[:20], *([f"and {len(problems) - 20} more"] if len(problems) > 20 else []))
    return replace(audit, encodings_match=not problems, notes=(*audit.notes, *shown))


def manifest(
    artifact: Artifact,
    info: ReferenceInfo,
    target: Target,
    *,
    encodings_sha256: str | None,
    calibration: dict[str, Any] | None,
    versions: dict[str, str],
) -> dict[str, Any]:
    """What travels with an artifact: input, preprocessing, labels, digests. No path, no time."""
    from cspedge.models.preprocess import manifest as preprocess_manifest

    channels, height, width = info.preprocess.input_size
    return {
        "schema": 1,
        "model": {
            "name": info.name,
            "architecture": info.architecture,
            "head": info.head,
            "weights_sha256": info.weights_sha256,
            "num_classes": info.num_classes,
        },
        "target": target.name,
        "backend": target.backend,
        "precision": str(artifact.precision),
        "placement": artifact.placement,
        "float_tensors": list(artifact.float_tensors),
        "file": {"name": artifact.path.name, "bytes": artifact.bytes, "sha256": artifact.sha256},
        "input": {
            "name": "image",
            "shape": [1, channels, height, width],
            "dtype": "float32",
            "layout": "NCHW",
            "color": "RGB",
            "range": [0.0, 1.0],
            "normalisation": "in the graph",
        },
        "outputs": [
            {"name": o.name, "shape": [1, *o.shape], "dtype": "float32", "layout": _layout(o), "stride": o.stride}
            for o in info.outputs
        ],
        "preprocess": preprocess_manifest(info.preprocess),
        "labels": list(info.labels),
        "encodings_sha256": encodings_sha256 if artifact.precision is Precision.INT8 else None,
        "calibration": calibration if artifact.precision is Precision.INT8 else None,
        "floor": {"os": list(target.floor.os), "isa": list(target.floor.isa)},
        "runtime_options": dict(target.options),
        "versions": versions,
    }


def _layout(output: Output) -> str:
    return "NCHW" if len(output.shape) == 3 else "NC"


def target_inputs(target: Target) -> dict[str, Any]:
    """The part of a target file that an artifact depends on, for its key (not the summary, not the budget)."""
    return {
        "name": target.name,
        "backend": target.backend,
        "placement": asdict(target.placement),
        "tolerance": asdict(target.tolerance),
        "floor": asdict(target.floor),
        "options": dict(target.options),
        "saturated_check": dict(target.saturated_check),
    }
