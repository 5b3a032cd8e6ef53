"""OpenVINO IR as a file: the same bytes every time, and its quantizers read back."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cspedge.backends.base import Readback, ReadbackActivation, ReadbackWeight
from cspedge.errors import TargetError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LEVELS = 256


def save(model: Any, folder: Path, *, half: bool, keep: set[str]) -> None:
    """Writes model.xml and model.bin into the new folder `folder`.

    keep: names given by us; OpenVINO numbers all other ops from a counter of the process, and notes its version
    and the input file in `rt_info`: both differ between runs and are replaced or removed.
    """
    from cspedge.backends.openvino import XML, import_openvino

    openvino = import_openvino()
    _rename(model, keep)
    folder.mkdir()
    xml = folder / XML
    openvino.save_model(model, str(xml), compress_to_fp16=half)
    text = xml.read_text(encoding="utf-8")
    # the net's own rt_info stands one level deep; those of layers, deeper, mean something
    stripped, count = re.subn(r"\n\t<rt_info>.*?\n\t</rt_info>", "", text, flags=re.DOTALL)
    if count > 1 or "Runtime_version" in stripped:
        raise TargetError("the IR that OpenVINO wrote has an unknown form; cspedge knows that of OpenVINO 2026.4")
    xml.write_text(stripped, encoding="utf-8")


def _rename(model: Any, keep: set[str]) -> None:
    counts: dict[str, int] = {}
    for op in model.get_ordered_ops():
        name = op.get_friendly_name()
        if name in keep or not re.search(r"_\d+$", name):
            continue
        kind = op.get_type_name()
        counts[kind] = counts.get(kind, 0) + 1
        op.set_friendly_name(f"{kind}#{counts[kind]}")


def readback(model: Any) -> Readback:
    """Every FakeQuantize as scale and zero point, and every int8 constant with its scales."""
    activations, weights = [], []
    for op in model.get_ordered_ops():
        kind = op.get_type_name()
        if kind == "FakeQuantize":
            activations.append(_activation(op))
        elif kind == "Constant" and op.get_element_type().get_type_name() in {"i8", "u8"}:
            weights.append(_weight(op))
    return Readback(activations=tuple(activations), weights=tuple(weights))


def _source(op: Any, position: int) -> Any:
    return op.input_value(position).get_node()


def _activation(op: Any) -> ReadbackActivation:
    """The encoding of a FakeQuantize, which OpenVINO may have merged with a multiplication or addition.

    One before it goes into the input range; the output range then says what the codes mean. One behind it goes into the
    output range, and the merged op has that operator's name instead of our dequantize node's.
    """
    where = op.get_friendly_name()
    low_in, high_in, low_out, high_out = (_source(op, position).get_data().ravel() for position in range(1, 5))
    ours = re.search(r"\.dq(#\d+)?$", where) is not None
    low, high = (low_out, high_out) if ours else (low_in, high_in)
    if op.get_attributes()["levels"] != LEVELS or low.size != 1 or high.size != 1:
        raise TargetError(
            f"FakeQuantize {where!r} is not one int8 encoding for the whole tensor; lower the model again"
        )
    scale, zero_point = encoding_of_range(float(low[0]), float(high[0]))
    return ReadbackActivation(where=where, scale=scale, zero_point=zero_point)


def encoding_of_range(low: float, high: float) -> tuple[float, int]:
    """(scale, zero point in int8 terms) behind the float32 range [low, high] of 256 levels.

    OpenVINO stores low = -zero_point * scale and high = (255 - zero_point) * scale, each rounded to float32. The
    float32 scale that gives both back exactly is searched among the neighbours of (high - low) / 255; two may do, so
    the result is exact to 1 unit in the last place.
    """
    import numpy as np

    guess = np.float32((high - low) / (LEVELS - 1))
    zero = int(np.rint(-low / float(guess)))
    candidates = [guess]
    for direction in (np.float32(0), np.float32(np.inf)):
        step = guess
        for _ in range(3):
            step = np.nextafter(step, direction, dtype=np.float32)
            candidates.append(step)
    for scale in candidates:
        if np.float32(-zero) * scale == np.float32(low) and np.float32(LEVELS - 1 - zero) * scale == np.float32(high):
            return float(scale), zero - 128
    return float(guess), zero - 128


def _weight(constant: Any) -> ReadbackWeight:
    """Constant -> Convert -> Multiply by the scales; the values stand in torch's layout, output channel first."""
    import numpy as np

    where = constant.get_friendly_name()
    convert = _reader(constant, "Convert", where)
    multiply = _reader(convert, "Multiply", where)
    values: NDArray[np.int8] = constant.get_data()
    scales = next(_source(multiply, p) for p in (1, 0) if _source(multiply, p).get_type_name() == "Constant").get_data()
    axis = int(np.argmax(scales.shape))
    return ReadbackWeight(
        where=where,
        values=np.ascontiguousarray(np.moveaxis(values, axis, 0)),
        scales=np.broadcast_to(scales.ravel(), (values.shape[axis],)).astype(np.float32),
    )


def _reader(op: Any, kind: str, where: str) -> Any:
    readers = [t.get_node() for t in op.output(0).get_target_inputs()]
    if len(readers) != 1 or readers[0].get_type_name() != kind:
        found = ", ".join(sorted(r.get_type_name() for r in readers)) or "nothing"
        raise TargetError(f"the int8 constant {where!r} is read by {found}, not by one {kind}; lower the model again")
    return readers[0]
