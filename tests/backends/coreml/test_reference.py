"""The reference executor as a piece by itself: loading, running, tracing, and the numerics that can be chosen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cspedge.backends.coreml.reference import Accumulate, Numerics, Rounding, Ties, load
from cspedge.errors import InputError

Make = Callable[..., Path]
RNG = np.random.Generator(np.random.PCG64(5))
X = (RNG.standard_normal((1, 4, 5, 6)) * 2).astype(np.float16).astype(np.float32)
WEIGHT = RNG.standard_normal((6, 2, 3, 2)).astype(np.float16)
BIAS = RNG.standard_normal(6).astype(np.float16)
MATRIX = RNG.standard_normal((5, 6)).astype(np.float16)


def two_inputs(mb: Any, x: Any) -> Any:
    return mb.add(x=mb.relu(x=x, name="positive"), y=np.float32(1), name="sum")


def test_a_program_says_what_it_takes_and_gives(mil: Make) -> None:
    program = load(str(mil(two_inputs, (2, 3))))
    assert [(v.name, v.type.dtype, v.type.shape) for v in program.inputs] == [("x", "fp32", (2, 3))]
    assert [(v.name, v.type.dtype, v.type.shape) for v in program.outputs] == [("sum", "fp32", (2, 3))]
    assert program.opset == "CoreML7"
    given = np.array([[-1, 0, 1], [2, 3, 4]])
    found = program.run({"x": given})  # integers become the declared float32
    assert found["sum"].dtype == np.float32
    assert found["sum"].tolist() == (np.maximum(given, 0) + 1).tolist()
    trace = program.trace({"x": given})
    assert list(trace) == ["positive", "sum"]
    assert trace["positive"].tolist() == np.maximum(given, 0).tolist()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "the input 'x' is missing; it takes 'x'"),
        ({"x": np.zeros((2, 3)), "y": 1}, "the input 'y' is not one of the program's; it takes 'x'"),
        ({"x": np.zeros((3, 2))}, r"the input 'x' got float64 \[3, 2\]; it takes fp32 \[2, 3\]"),
        ({"x": [["a"] * 3] * 2}, "the input 'x' got <U1"),
    ],
    ids=["missing", "unknown", "shape", "text"],
)
def test_inputs_that_do_not_fit_are_refused(mil: Make, inputs: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(mil(two_inputs, (2, 3))).run(inputs)


def summed(mb: Any, kind: str, x: Any) -> Any:
    if kind == "conv":
        return mb.conv(
            x=x,
            weight=WEIGHT,
            bias=BIAS,
            groups=2,
            strides=[2, 1],
            pad_type="custom",
            pad=[1, 1, 0, 0],
            dilations=[1, 2],
        )
    if kind == "conv_1d":
        row = mb.reduce_max(x=x, axes=[2], keep_dims=False)
        return mb.conv(x=row, weight=WEIGHT[:, :, 0], groups=2, pad_type="custom", pad=[1, 1])
    if kind == "linear":
        return mb.linear(x=x, weight=MATRIX, bias=BIAS[:5])
    if kind == "matmul":
        return mb.matmul(x=x, y=MATRIX.T.copy())
    reduce = mb.reduce_sum if kind == "reduce_sum" else mb.reduce_mean
    return reduce(x=x, axes=[1, 3], keep_dims=kind == "reduce_sum")


def terms(kind: str) -> tuple[Any, Any, Any]:
    """float64 products along the first axis in their order, what is added last, and what the sum is divided by."""
    x = X.astype(np.float64)
    if kind.startswith("conv"):
        flat = kind == "conv_1d"
        x, weight = (x.max(2)[:, :, None], WEIGHT[:, :, :1]) if flat else (x, WEIGHT)
        pads, step, apart = ((0, 1), (1, 1), (1, 1)) if flat else ((1, 0), (2, 1), (1, 2))
        x = np.pad(x, ((0, 0), (0, 0), (pads[0],) * 2, (pads[1],) * 2))
        out, part, height, width = weight.shape
        rows = (x.shape[2] - (height - 1) * apart[0] - 1) // step[0] + 1
        columns = (x.shape[3] - (width - 1) * apart[1] - 1) // step[1] + 1
        found = np.zeros((part * height * width, 1, out, rows, columns))
        for k, (c, i, j) in enumerate(np.ndindex(part, height, width)):
            cut = x[:, :, i * apart[0] :: step[0], j * apart[1] :: step[1]][:, :, :rows, :columns]
            for o in range(out):
                found[k, :, o] = cut[:, o // (out // 2) * part + c] * float(weight[o, c, i, j])
        return (found[:, :, :, 0], 0.0, 1) if flat else (found, BIAS.astype(np.float64).reshape(1, 6, 1, 1), 1)
    if kind in {"linear", "matmul"}:
        products = np.stack([x[..., k : k + 1] * MATRIX[:, k].astype(np.float64) for k in range(6)])
        return products, BIAS[:5].astype(np.float64) if kind == "linear" else 0.0, 1
    flat = np.moveaxis(x, (1, 3), (0, 1)).reshape(24, 1, 5)
    return (flat[:, :, None, :, None], 0.0, 1) if kind == "reduce_sum" else (flat, 0.0, 24)


KINDS = ["conv", "conv_1d", "linear", "matmul", "reduce_sum", "reduce_mean"]


def half(value: Any) -> Any:
    """As the executor's: float32, then float16."""
    return np.asarray(value, np.float32).astype(np.float16).astype(np.float64)


def run(mil: Make, build: Callable[[Any, Any], Any], x: Any, **numerics: Any) -> Any:
    def program(mb: Any, given: Any) -> Any:
        return mb.cast(x=build(mb, mb.cast(x=given, dtype="fp16")), dtype="fp32")

    (found,) = load(mil(program, x.shape), numerics=Numerics(**numerics)).run({"x": x}).values()
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("accumulate", list(Accumulate))
def test_sums_are_kept_as_asked(mil: Make, kind: str, accumulate: Accumulate) -> None:
    found = run(mil, lambda mb, x: summed(mb, kind, x), X, accumulate=accumulate)
    products, last, count = terms(kind)
    if accumulate is Accumulate.FP16:
        total = np.zeros(products.shape[1:])
        for product in products:
            total = half(total + product.astype(np.float32))
        expected = half((total + last) / count) if np.ndim(last) or count > 1 else total
        assert np.array_equal(found, expected.reshape(found.shape))
        exact = half((products.sum(0) + last) / count).reshape(found.shape)
        assert not np.array_equal(found, exact)  # what the choice is about
        return
    expected = half((products.sum(0) + last) / count).reshape(found.shape)
    if accumulate is Accumulate.FP64:
        assert np.array_equal(found, expected)
    else:
        np.testing.assert_allclose(found, expected, rtol=2**-10, atol=2**-14)


def test_results_are_rounded_as_asked(mil: Make) -> None:
    """float16 neighbours come from numpy; what is truncated is the one nearer to zero."""
    x = (RNG.standard_normal((1, 3000)) * 50).astype(np.float16).astype(np.float32)
    y = np.float16(0.3)
    exact = x.astype(np.float64) * float(y)

    def build(mb: Any, given: Any) -> Any:
        return mb.mul(x=given, y=y)

    near = exact.astype(np.float16)
    inside = np.where(np.abs(near.astype(np.float64)) > np.abs(exact), np.nextafter(near, np.float16(0)), near)
    assert np.array_equal(run(mil, build, x, rounding=Rounding.NEAREST), near.astype(np.float32))
    assert np.array_equal(run(mil, build, x, rounding=Rounding.TOWARD_ZERO), inside.astype(np.float32))
    assert np.array_equal(run(mil, build, x, rounding=Rounding.NONE), exact.astype(np.float32))
    assert not np.array_equal(near, inside)


@pytest.mark.parametrize(
    ("rounding", "largest"), [(Rounding.NEAREST, np.inf), (Rounding.TOWARD_ZERO, 65504.0), (Rounding.NONE, 120000.0)]
)
def test_what_leaves_the_range_of_float16(mil: Make, rounding: Rounding, largest: float) -> None:
    x = np.array([[60000.0, -60000.0]], np.float32)
    found = run(mil, lambda mb, given: mb.add(x=given, y=given), x, rounding=rounding)
    assert found.tolist() == [[largest, -largest]]


@pytest.mark.parametrize(
    ("ties", "expected"), [(Ties.EVEN, [0, 2, 2, 0, -2, 0, 1, 127]), (Ties.AWAY, [1, 2, 3, -1, -2, 0, 1, 127])]
)
def test_codes_half_way_between_two_go_where_asked(mil: Make, ties: Ties, expected: list[int]) -> None:
    just_below = np.nextafter(np.float32(0.5), np.float32(0))  # adding 0.5 to it gives 1
    x = np.array([[0.5, 1.5, 2.5, -0.5, -1.5, just_below, 0.75, 1e4]], np.float32)

    def build(mb: Any, given: Any) -> Any:
        codes = mb.quantize(input=given, scale=np.float32(1), output_dtype="int8")
        return mb.dequantize(input=codes, scale=np.float32(1))

    program = load(mil(build, x.shape), numerics=Numerics(ties=ties))
    (found,) = program.run({"x": x}).values()
    assert found.tolist() == [expected]


def test_an_output_in_float16_stays_float16(small_packages: dict[str, Path]) -> None:
    program = load(small_packages["fp16"])
    image = np.zeros(program.inputs[0].type.shape, np.float32)
    values = program.trace({"image": image})
    assert {str(v.dtype) for v in values.values()} >= {"float16", "float32"}
    unrounded = load(small_packages["fp16"], numerics=Numerics(rounding=Rounding.NONE)).trace({"image": image})
    assert {str(v.dtype) for v in unrounded.values()} == {"float32"}
    assert torch.equal(torch.from_numpy(program.run({"image": image})["logits"]), torch.from_numpy(values["logits"]))
