"""The arithmetic every runtime is held to."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cspedge.errors import InputError
from cspedge.quantize.encodings import (
    QMAX,
    QMIN,
    Encoding,
    Encodings,
    WeightEncoding,
    dequantize_array,
    encoding_from_range,
    from_dict,
    loads,
    quantize_array,
)

ranges = st.tuples(st.floats(-1e4, 1e4, width=32), st.floats(-1e4, 1e4, width=32)).map(sorted)


@given(ranges)
def test_zero_is_exact_in_every_encoding(bounds: list[float]) -> None:
    encoding = encoding_from_range(*bounds, observer="minmax")
    zero = np.zeros(1, np.float32)
    assert dequantize_array(quantize_array(zero, encoding), encoding)[0] == 0.0


@given(ranges, st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_error_inside_the_range_is_at_most_one_step(bounds: list[float], places: list[float]) -> None:
    encoding = encoding_from_range(*bounds, observer="minmax")
    lo, hi = min(bounds[0], 0.0), max(bounds[1], 0.0)
    values = np.array([lo + p * (hi - lo) for p in places], np.float32)
    back = dequantize_array(quantize_array(values, encoding), encoding)
    # the zero point is rounded, so the ends may be off by half a step more than the half step of rounding
    assert np.all(np.abs(back - values) <= encoding.scale * 1.01 + 1e-6 * np.abs(values))


@given(ranges, st.lists(st.integers(QMIN, QMAX), min_size=1, max_size=20))
def test_codes_survive_a_round_trip(bounds: list[float], codes: list[int]) -> None:
    encoding = encoding_from_range(*bounds, observer="minmax")
    stored = np.array(codes, np.int8)
    assert np.array_equal(quantize_array(dequantize_array(stored, encoding), encoding), stored)


@given(ranges, st.floats(-1e5, 1e5, width=32), st.floats(-1e5, 1e5, width=32))
def test_quantization_is_monotonic_and_saturates(bounds: list[float], a: float, b: float) -> None:
    encoding = encoding_from_range(*bounds, observer="minmax")
    low, high = quantize_array(np.array(sorted([a, b]), np.float32), encoding)
    assert QMIN <= low <= high <= QMAX


def test_eight_bit_images_are_exact() -> None:
    encoding = encoding_from_range(0.0, 1.0, observer="fixed")
    assert encoding.zero_point == QMIN
    assert encoding.scale == np.float32(1 / 255)
    pixels = np.arange(256, dtype=np.float32) / np.float32(255)
    codes = quantize_array(pixels, encoding)
    assert np.array_equal(codes.astype(np.int32) + 128, np.arange(256))
    assert np.max(np.abs(dequantize_array(codes, encoding) - pixels)) <= 1e-7


def test_arithmetic_is_pytorchs() -> None:
    import torch
    import torch.ao.quantization.fx._decomposed

    encoding = encoding_from_range(-0.375, 5.2, observer="mse")
    values = np.random.default_rng(0).normal(1, 3, 10_000).astype(np.float32)
    theirs = torch.ops.quantized_decomposed.quantize_per_tensor(
        torch.from_numpy(values), encoding.scale, encoding.zero_point, QMIN, QMAX, torch.int8
    )
    ours = quantize_array(values, encoding)
    # torch multiplies by the reciprocal: ties at half a step may fall the other way, nothing else may differ
    assert np.max(np.abs(theirs.numpy().astype(int) - ours.astype(int))) <= 1
    assert np.mean(theirs.numpy() != ours) < 1e-3


@given(
    st.dictionaries(st.text(min_size=1, max_size=30), ranges, max_size=5),
    st.dictionaries(
        st.text(min_size=1, max_size=30), st.lists(st.floats(2**-30, 1e3, width=32), min_size=1), max_size=3
    ),
)
def test_json_round_trip_keeps_every_bit(activations: dict[str, list[float]], weights: dict[str, list[float]]) -> None:
    from cspedge.digest import pretty_json

    encodings = Encodings(
        activations={k: encoding_from_range(*v, observer="mse", group="g") for k, v in activations.items()},
        weights={k: WeightEncoding(scales=tuple(v), sha256="0" * 64, shape=(len(v), 1)) for k, v in weights.items()},
    )
    assert loads(pretty_json(encodings.to_dict())) == encodings


@pytest.mark.parametrize("scale", [0.0, -1.0, float("inf"), float("nan")])
def test_impossible_scales_are_refused(scale: float) -> None:
    with pytest.raises(InputError, match="scales are positive"):
        Encoding(scale=scale, zero_point=0, lo=0, hi=1, observer="mse")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "does not parse"),
        ('{"schema": 2}', "schema 2"),
        ('{"schema": 1, "activations": {"x": {"scale": 1.0}}, "weights": {}}', "not one of cspedge"),
        ('{"schema": 1, "activations": {"x": {"scael": 1.0}}, "weights": {}}', "not one of cspedge"),
    ],
)
def test_damaged_files_are_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        loads(text)


def test_missing_weights_are_refused() -> None:
    with pytest.raises(InputError, match="not one of cspedge"):
        from_dict({"schema": 1, "activations": {}})
