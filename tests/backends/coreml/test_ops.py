"""Each op of the reference executor against an independent definition in float64."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cspedge.backends.coreml.ops_constexpr import CONSTEXPR
from cspedge.backends.coreml.package import read_program
from cspedge.backends.coreml.reference import KNOWN, Executor
from cspedge.errors import TargetError

Make = Callable[..., Path]
SHAPE = (1, 4, 7, 6)
RNG = np.random.Generator(np.random.PCG64(3))
WEIGHT = RNG.standard_normal((6, 4, 3, 3)).astype(np.float32)
DEPTHWISE = RNG.standard_normal((8, 2, 3, 2)).astype(np.float32)
BIAS = RNG.standard_normal(6).astype(np.float32)
MATRIX = RNG.standard_normal((5, 6)).astype(np.float32)
OTHER = (RNG.standard_normal((1, 4, 1, 6)) + 3).astype(np.float32)
POSITIVE = (RNG.random(4) + 0.5).astype(np.float32)


def convolve(
    x: Any, weight: Any, stride: Any = (1, 1), pads: Any = (0, 0, 0, 0), dilation: Any = (1, 1), groups: int = 1
) -> Any:
    """The sum of products, written out. pads: top, bottom, left, right."""
    x = np.pad(x, ((0, 0), (0, 0), (pads[0], pads[1]), (pads[2], pads[3])))
    n, _, height, width = x.shape
    out, part, kh, kw = weight.shape
    rows = (height - (kh - 1) * dilation[0] - 1) // stride[0] + 1
    columns = (width - (kw - 1) * dilation[1] - 1) // stride[1] + 1
    result = np.zeros((n, out, rows, columns))
    for o, r, c in itertools.product(range(out), range(rows), range(columns)):
        base = (o // (out // groups)) * part
        window = x[
            :,
            base : base + part,
            r * stride[0] : r * stride[0] + (kh - 1) * dilation[0] + 1 : dilation[0],
            c * stride[1] : c * stride[1] + (kw - 1) * dilation[1] + 1 : dilation[1],
        ]
        result[:, o, r, c] = (window * weight[o]).sum((1, 2, 3))
    return result


def pooled(
    x: Any, kernel: Any, stride: Any, pads: Any, function: Callable[..., Any], fill: float, out: Any = None
) -> Any:
    """A window function; NaN fill marks padding that is not counted."""
    height, width = x.shape[2:]
    rows = out[0] if out else (height + pads[0] + pads[1] - kernel[0]) // stride[0] + 1
    columns = out[1] if out else (width + pads[2] + pads[3] - kernel[1]) // stride[1] + 1
    more = ((rows - 1) * stride[0] + kernel[0], (columns - 1) * stride[1] + kernel[1])
    full = np.full((*x.shape[:2], *more), np.nan)
    full[:, :, : height + pads[0] + pads[1], : width + pads[2] + pads[3]] = fill
    full[:, :, pads[0] : pads[0] + height, pads[2] : pads[2] + width] = x[
        :, :, : more[0] - pads[0], : more[1] - pads[2]
    ]
    result = np.zeros((*x.shape[:2], rows, columns))
    for r, c in itertools.product(range(rows), range(columns)):
        window = full[:, :, r * stride[0] : r * stride[0] + kernel[0], c * stride[1] : c * stride[1] + kernel[1]]
        result[:, :, r, c] = function(window, axis=(2, 3))
    return result


def hard(x: Any, alpha: float, beta: float) -> Any:
    return np.clip(alpha * x + beta, 0, 1)


def erf(x: Any) -> Any:
    return np.vectorize(math.erf)(x)


def softmax(x: Any, axis: int) -> Any:
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def norm(x: Any) -> Any:
    shape = (1, 4, 1, 1)
    mean, variance = BIAS[:4].reshape(shape), POSITIVE.reshape(shape)
    return (x - mean) / np.sqrt(variance + 1e-3) * OTHER[0, :, 0, 0].reshape(shape) + mean


def layer_norm(x: Any) -> Any:
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-3) * BIAS + BIAS[::-1]


def bilinear(x: Any, size: tuple[int, int], aligned: bool) -> Any:
    """Rows, then columns, each a mean of two neighbours weighted by their distance to the grid point."""
    for axis, new in zip((2, 3), size, strict=True):
        old = x.shape[axis]
        spacing = (old - 1) / (new - 1) if aligned else old / new
        point = np.arange(new) * spacing + (0 if aligned else 0.5 * spacing - 0.5)
        point = np.clip(point, 0, old - 1)
        low = np.floor(point).astype(int)
        high = np.minimum(low + 1, old - 1)
        part = (point - low).reshape([-1 if a == axis else 1 for a in range(4)])
        x = np.take(x, low, axis) * (1 - part) + np.take(x, high, axis) * part
    return x


# name: (what the program does, what it means in float64); K(array) gives a constant in the program's type
CASES: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "add": (lambda mb, x, K: mb.add(x=x, y=K(OTHER)), lambda x: x + OTHER),
    "sub": (lambda mb, x, K: mb.sub(x=x, y=K(OTHER)), lambda x: x - OTHER),
    "mul": (lambda mb, x, K: mb.mul(x=x, y=x), lambda x: x * x),
    "real_div": (lambda mb, x, K: mb.real_div(x=x, y=K(OTHER)), lambda x: x / OTHER),
    "maximum": (lambda mb, x, K: mb.maximum(x=x, y=K(OTHER - 3)), lambda x: np.maximum(x, OTHER - 3)),
    "minimum": (lambda mb, x, K: mb.minimum(x=x, y=K(OTHER - 3)), lambda x: np.minimum(x, OTHER - 3)),
    "relu": (lambda mb, x, K: mb.relu(x=x), lambda x: np.maximum(x, 0)),
    "relu6": (lambda mb, x, K: mb.relu6(x=x), lambda x: np.clip(x, 0, 6)),
    "clip": (lambda mb, x, K: mb.clip(x=x, alpha=K(-0.5), beta=K(0.75)), lambda x: np.clip(x, -0.5, 0.75)),
    "leaky_relu": (lambda mb, x, K: mb.leaky_relu(x=x, alpha=K(0.125)), lambda x: np.where(x > 0, x, 0.125 * x)),
    "elu": (lambda mb, x, K: mb.elu(x=x, alpha=K(0.5)), lambda x: np.where(x > 0, x, 0.5 * np.expm1(x))),
    "sigmoid": (lambda mb, x, K: mb.sigmoid(x=x), lambda x: 1 / (1 + np.exp(-x))),
    "sigmoid_hard": (lambda mb, x, K: mb.sigmoid_hard(x=x, alpha=K(0.25), beta=K(0.5)), lambda x: hard(x, 0.25, 0.5)),
    "thresholded_relu": (
        lambda mb, x, K: mb.thresholded_relu(x=x, alpha=K(-1.0)),
        lambda x: np.where(x >= -1.0, x, 0),
    ),
    "silu": (lambda mb, x, K: mb.silu(x=x), lambda x: x / (1 + np.exp(-x))),
    "gelu": (lambda mb, x, K: mb.gelu(x=x, mode="EXACT"), lambda x: 0.5 * x * (1 + erf(x / math.sqrt(2)))),
    "gelu_tanh": (
        lambda mb, x, K: mb.gelu(x=x, mode="TANH_APPROXIMATION"),
        lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    ),
    "tanh": (lambda mb, x, K: mb.tanh(x=x), np.tanh),
    "abs": (lambda mb, x, K: mb.abs(x=x), np.abs),
    "exp": (lambda mb, x, K: mb.exp(x=x), np.exp),
    "square": (lambda mb, x, K: mb.square(x=x), np.square),
    "pow": (lambda mb, x, K: mb.pow(x=x, y=K(3.0)), lambda x: x**3),
    "sqrt": (lambda mb, x, K: mb.sqrt(x=mb.abs(x=x)), lambda x: np.sqrt(np.abs(x))),
    "rsqrt": (lambda mb, x, K: mb.rsqrt(x=mb.abs(x=x), epsilon=K(0.5)), lambda x: 1 / np.sqrt(np.abs(x) + 0.5)),
    "softplus": (lambda mb, x, K: mb.softplus(x=x), lambda x: np.log1p(np.exp(x))),
    "prelu": (
        lambda mb, x, K: mb.prelu(x=x, alpha=K(POSITIVE)),
        lambda x: np.where(x > 0, x, POSITIVE.reshape(1, 4, 1, 1) * x),
    ),
    "layer_norm": (
        lambda mb, x, K: mb.layer_norm(x=x, axes=[3], gamma=K(BIAS), beta=K(BIAS[::-1].copy()), epsilon=K(1e-3)),
        layer_norm,
    ),
    "softmax": (lambda mb, x, K: mb.softmax(x=x, axis=1), lambda x: softmax(x, 1)),
    "reduce_mean": (
        lambda mb, x, K: mb.reduce_mean(x=x, axes=[2, 3], keep_dims=True),
        lambda x: x.mean((2, 3), keepdims=True),
    ),
    "reduce_sum": (lambda mb, x, K: mb.reduce_sum(x=x, axes=[-1], keep_dims=False), lambda x: x.sum(-1)),
    "reduce_l2_norm": (
        lambda mb, x, K: mb.reduce_l2_norm(x=x, axes=[-1], keep_dims=True),
        lambda x: np.sqrt((x * x).sum(-1, keepdims=True)),
    ),
    "sin": (lambda mb, x, K: mb.sin(x=x), np.sin),
    "cos": (lambda mb, x, K: mb.cos(x=x), np.cos),
    "reduce_max": (lambda mb, x, K: mb.reduce_max(x=x, axes=[1], keep_dims=True), lambda x: x.max(1, keepdims=True)),
    "reduce_min": (lambda mb, x, K: mb.reduce_min(x=x, axes=[2], keep_dims=False), lambda x: x.min(2)),
    "batch_norm": (
        lambda mb, x, K: mb.batch_norm(
            x=x, mean=K(BIAS[:4]), variance=K(POSITIVE), gamma=K(OTHER[0, :, 0, 0]), beta=K(BIAS[:4]), epsilon=K(1e-3)
        ),
        norm,
    ),
    "conv": (
        lambda mb, x, K: mb.conv(x=x, weight=K(WEIGHT), bias=K(BIAS), pad_type="valid"),
        lambda x: convolve(x, WEIGHT) + BIAS.reshape(1, -1, 1, 1),
    ),
    "conv_groups_strides": (
        lambda mb, x, K: mb.conv(
            x=x, weight=K(DEPTHWISE), groups=2, strides=[2, 1], pad_type="custom", pad=[1, 1, 0, 0], dilations=[1, 2]
        ),
        lambda x: convolve(x, DEPTHWISE, (2, 1), (1, 1, 0, 0), (1, 2), 2),
    ),
    "conv_uneven_padding": (
        lambda mb, x, K: mb.conv(x=x, weight=K(WEIGHT), pad_type="custom", pad=[0, 1, 2, 1], strides=[2, 2]),
        lambda x: convolve(x, WEIGHT, (2, 2), (0, 1, 2, 1)),
    ),
    # 7 rows, stride 2, kernel 3: two rows of padding, one on each side; 6 columns: one, after (same) or before (lower)
    "conv_same": (
        lambda mb, x, K: mb.conv(x=x, weight=K(WEIGHT), pad_type="same", strides=[2, 2]),
        lambda x: convolve(x, WEIGHT, (2, 2), (1, 1, 0, 1)),
    ),
    "conv_same_lower": (
        lambda mb, x, K: mb.conv(x=x, weight=K(WEIGHT), pad_type="same_lower", strides=[2, 2]),
        lambda x: convolve(x, WEIGHT, (2, 2), (1, 1, 1, 0)),
    ),
    "conv_1d": (
        lambda mb, x, K: mb.conv(
            x=mb.reduce_max(x=x, axes=[2], keep_dims=False), weight=K(WEIGHT[:, :, 0]), pad_type="custom", pad=[1, 1]
        ),
        lambda x: convolve(x.max(2)[:, :, None], WEIGHT[:, :, :1], pads=(0, 0, 1, 1))[:, :, 0],
    ),
    "linear": (lambda mb, x, K: mb.linear(x=x, weight=K(MATRIX), bias=K(BIAS[:5])), lambda x: x @ MATRIX.T + BIAS[:5]),
    "matmul": (lambda mb, x, K: mb.matmul(x=x, y=K(MATRIX.T.copy())), lambda x: x @ MATRIX.T),
    "matmul_transposed": (
        lambda mb, x, K: mb.matmul(x=x, y=x, transpose_y=True),
        lambda x: x @ np.swapaxes(x, -1, -2),
    ),
    "max_pool": (
        lambda mb, x, K: mb.max_pool(x=x, kernel_sizes=[3, 3], strides=[2, 2], pad_type="custom", pad=[1, 1, 1, 1]),
        lambda x: pooled(x, (3, 3), (2, 2), (1, 1, 1, 1), np.nanmax, np.nan),
    ),
    "max_pool_uneven": (
        lambda mb, x, K: mb.max_pool(x=x, kernel_sizes=[2, 3], strides=[2, 2], pad_type="same"),
        lambda x: pooled(x, (2, 3), (2, 2), (0, 1, 0, 1), np.nanmax, np.nan),
    ),
    "max_pool_ceil": (
        lambda mb, x, K: mb.max_pool(x=x, kernel_sizes=[3, 3], strides=[2, 2], pad_type="valid", ceil_mode=True),
        lambda x: pooled(x, (3, 3), (2, 2), (0, 0, 0, 0), np.nanmax, np.nan, (3, 3)),
    ),
    "avg_pool": (
        lambda mb, x, K: mb.avg_pool(x=x, kernel_sizes=[3, 3], strides=[2, 2], pad_type="custom", pad=[1, 1, 1, 1]),
        lambda x: pooled(x, (3, 3), (2, 2), (1, 1, 1, 1), np.mean, 0.0),
    ),
    "avg_pool_excluding": (
        lambda mb, x, K: mb.avg_pool(
            x=x,
            kernel_sizes=[3, 3],
            strides=[2, 2],
            pad_type="custom",
            pad=[1, 1, 1, 1],
            exclude_padding_from_average=True,
        ),
        lambda x: pooled(x, (3, 3), (2, 2), (1, 1, 1, 1), np.nanmean, np.nan),
    ),
    "concat": (
        lambda mb, x, K: mb.concat(values=[x, mb.relu(x=x)], axis=1),
        lambda x: np.concatenate([x, np.maximum(x, 0)], 1),
    ),
    "split": (
        lambda mb, x, K: mb.sub(x=(p := mb.split(x=x, split_sizes=[2, 2], axis=1))[0], y=p[1]),
        lambda x: x[:, :2] - x[:, 2:],
    ),
    "split_equal": (
        lambda mb, x, K: mb.add(x=(p := mb.split(x=x, num_splits=3, axis=-1))[2], y=p[1]),
        lambda x: x[..., 4:] + x[..., 2:4],
    ),
    "slice_by_index": (
        lambda mb, x, K: mb.slice_by_index(
            x=x,
            begin=[0, 1, -3, 0],
            end=[1, 4, 0, 6],
            stride=[1, 2, 1, 1],
            begin_mask=[True, False, False, False],
            end_mask=[True, False, True, False],
        ),
        lambda x: x[:, 1:4:2, -3:],
    ),
    "slice_by_size": (
        lambda mb, x, K: mb.slice_by_size(x=x, begin=[0, 1, 2, 0], size=[1, 2, -1, 3]),
        lambda x: x[:, 1:3, 2:, :3],
    ),
    "reshape": (lambda mb, x, K: mb.reshape(x=x, shape=[1, -1, 3]), lambda x: x.reshape(len(x), -1, 3)),
    "squeeze": (
        lambda mb, x, K: mb.squeeze(x=mb.reduce_max(x=x, axes=[2], keep_dims=True), axes=[2]),
        lambda x: x.max(2),
    ),
    "expand_dims": (lambda mb, x, K: mb.expand_dims(x=x, axes=[2]), lambda x: x[:, :, None]),
    "transpose": (lambda mb, x, K: mb.transpose(x=x, perm=[0, 2, 3, 1]), lambda x: x.transpose(0, 2, 3, 1)),
    "pad": (
        lambda mb, x, K: mb.pad(x=x, pad=[1, 0, 2, 1], constant_val=K(0.5)),
        lambda x: np.pad(x, ((0, 0), (0, 0), (1, 0), (2, 1)), constant_values=0.5),
    ),
    "pad_reflect": (
        lambda mb, x, K: mb.pad(x=x, pad=[0, 0, 0, 0, 1, 2, 2, 1], mode="reflect"),
        lambda x: np.pad(x, ((0, 0), (0, 0), (1, 2), (2, 1)), mode="reflect"),
    ),
    "upsample_nearest_neighbor": (
        lambda mb, x, K: mb.upsample_nearest_neighbor(x=x, scale_factor_height=2, scale_factor_width=3),
        lambda x: x.repeat(2, 2).repeat(3, 3),
    ),
    "upsample_bilinear": (
        lambda mb, x, K: mb.upsample_bilinear(
            x=x, scale_factor_height=2.0, scale_factor_width=1.5, align_corners=False
        ),
        lambda x: bilinear(x, (14, 9), False),
    ),
    "upsample_bilinear_aligned": (
        lambda mb, x, K: mb.upsample_bilinear(x=x, scale_factor_height=2, scale_factor_width=3, align_corners=True),
        lambda x: bilinear(x, (14, 18), True),
    ),
    "pixel_shuffle": (
        lambda mb, x, K: mb.pixel_shuffle(x=x, upscale_factor=2),
        lambda x: x.reshape(len(x), 1, 2, 2, 7, 6).transpose(0, 1, 4, 2, 5, 3).reshape(len(x), 1, 14, 12),
    ),
    "identity": (lambda mb, x, K: mb.identity(x=x), lambda x: x),
}


def build(case: str, half: bool) -> Callable[[Any, Any], Any]:
    """The program of a case: fp32 throughout, or fp16 between two casts."""

    def program(mb: Any, x: Any) -> Any:
        def constant(value: Any) -> Any:
            kind = np.float16 if half else np.float32
            return kind(value) if np.isscalar(value) else np.asarray(value, kind)

        inside = mb.cast(x=x, dtype="fp16") if half else x
        result = CASES[case][0](mb, inside, constant)
        return mb.cast(x=result, dtype="fp32") if half else result

    return program


def halved(value: Any) -> Any:
    return np.asarray(value, np.float16).astype(np.float64)


@pytest.mark.parametrize("half", [False, True], ids=["fp32", "fp16"])
@pytest.mark.parametrize("case", CASES)
def test_meaning(mil: Make, case: str, half: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if half:  # the definitions read these module constants
        for name in ("WEIGHT", "DEPTHWISE", "BIAS", "MATRIX", "OTHER", "POSITIVE"):
            monkeypatch.setitem(globals(), name, globals()[name].astype(np.float16).astype(np.float32))
    executor = Executor(read_program(mil(build(case, half), SHAPE)))
    x = np.random.Generator(np.random.PCG64(7)).standard_normal((3, *SHAPE[1:])).astype(np.float32) * 2
    x[0, 0, 0, 0] = -1.0  # the threshold of thresholded_relu
    inside = halved(x) if half else x.astype(np.float64)
    expected = CASES[case][1](inside).reshape(3, -1)
    found = executor(torch.from_numpy(x))[0].flatten(1).numpy()
    assert found.shape == expected.shape
    # fp16: within one unit in the last place of the correctly rounded result, as sums are accumulated in float32
    np.testing.assert_allclose(
        found,
        halved(expected) if half else expected,
        rtol=1.1e-3 if half else 3e-6,
        atol=1e-3 if half and "gelu" in case else 3e-6,
    )
    singly = np.concatenate([executor(torch.from_numpy(x[i : i + 1]))[0].flatten(1).numpy() for i in range(3)])
    assert np.array_equal(found, singly)
    if half:
        assert np.array_equal(found, halved(found))


@pytest.mark.parametrize("number", [15, 16, 18])
def test_meaning_is_the_same_in_every_opset(mil: Make, number: int) -> None:
    """iOS 15, 16 and 18 save some ops with other parameters; iOS 17 is above, op by op. One program with every case."""
    cases = [case for case in CASES if (case, number) != ("conv_same_lower", 15)]  # not in iOS 15

    def every(mb: Any, x: Any) -> Any:
        return tuple(build(case, False)(mb, x) for case in cases)

    program = read_program(mil(every, SHAPE, target=f"iOS{number}"))
    assert program.opset == f"CoreML{number - 10}"
    x = np.random.Generator(np.random.PCG64(7)).standard_normal(SHAPE).astype(np.float32) * 2
    found = Executor(program)(torch.from_numpy(x))
    for case, value in zip(cases, found, strict=True):
        expected = CASES[case][1](x.astype(np.float64))
        np.testing.assert_allclose(
            value.flatten().numpy(), expected.reshape(-1), rtol=3e-6, atol=3e-6, err_msg=f"{case}, iOS {number}"
        )


@pytest.mark.parametrize("case", ["add", "sub", "mul", "real_div", "sigmoid_hard", "leaky_relu"])
def test_elementwise_fp16_is_correctly_rounded(mil: Make, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "OTHER", OTHER.astype(np.float16).astype(np.float32))
    executor = Executor(read_program(mil(build(case, True), SHAPE)))
    x = np.random.Generator(np.random.PCG64(8)).standard_normal((64, *SHAPE[1:])).astype(np.float32) * 3
    expected = halved(CASES[case][1](halved(x))).reshape(64, -1)
    assert np.array_equal(executor(torch.from_numpy(x))[0].flatten(1).numpy(), expected)


def test_every_known_op_is_tested() -> None:
    elsewhere = {"cast", "quantize", "dequantize", *CONSTEXPR}  # test_constexpr.py
    assert {c if c in KNOWN else c.split("_")[0] for c in CASES} - {"max", "avg", "upsample"} <= KNOWN
    assert set(CASES) | elsewhere >= KNOWN


def test_the_page_lists_every_known_op() -> None:
    page = (Path(__file__).parents[3] / "docs" / "coreml.md").read_text(encoding="utf-8")
    table = page.partition("## Ops")[2]
    rows = [line for line in table.splitlines() if line.startswith("| ")]
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == KNOWN


@pytest.mark.parametrize("half", [False, True], ids=["fp32", "fp16"])
@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_quantize_rounds_half_to_even_and_saturates(mil: Make, kind: str, half: bool) -> None:
    scale, zero = 0.25, np.int8(-3) if kind == "int8" else np.uint8(7)
    real = np.float16 if half else np.float32

    def program(mb: Any, x: Any) -> Any:
        inside = mb.cast(x=x, dtype="fp16") if half else x
        q = mb.quantize(input=inside, scale=real(scale), zero_point=zero, output_dtype=kind)
        result = mb.dequantize(input=q, scale=real(scale), zero_point=zero)
        return mb.cast(x=result, dtype="fp32") if half else result

    executor = Executor(read_program(mil(program, (1, 1, 1, 8))))
    codes = np.array([0.5, 1.5, 2.5, -0.5, -1.5, 1e4, -1e4, 3.0], np.float32)
    trace = executor.trace(torch.from_numpy(codes * np.float32(scale)).reshape(1, 1, 1, 8))
    stored = next(v for v in trace.values() if v.dtype == getattr(torch, kind))
    low, high = (-128, 127) if kind == "int8" else (0, 255)
    expected = np.clip(
        [0 + int(zero), 2 + int(zero), 2 + int(zero), int(zero), int(zero) - 2, 10**4, -(10**4), 3 + int(zero)],
        low,
        high,
    )
    assert stored.reshape(-1).tolist() == expected.tolist()
    back = executor(torch.from_numpy(codes * np.float32(scale)).reshape(1, 1, 1, 8))[0].reshape(-1)
    assert back.tolist() == ((expected - int(zero)) * scale).tolist()


def test_quantize_along_an_axis_and_weights_per_channel(mil: Make) -> None:
    scales = np.array([0.1, 0.2, 0.5, 1.0], np.float32)
    data = np.arange(-12, 12, dtype=np.int8).reshape(6, 4, 1, 1)
    weight_scales = np.linspace(0.1, 0.6, 6).astype(np.float32)

    def program(mb: Any, x: Any) -> Any:
        q = mb.quantize(input=x, scale=scales, axis=1, output_dtype="int8")
        weight = mb.constexpr_affine_dequantize(
            quantized_data=data, zero_point=np.int8(1), scale=weight_scales, axis=np.int32(0)
        )
        return mb.conv(x=mb.dequantize(input=q, scale=scales, axis=1), weight=weight, pad_type="valid")

    executor = Executor(read_program(mil(program, SHAPE)))
    x = np.random.Generator(np.random.PCG64(9)).standard_normal((2, *SHAPE[1:])).astype(np.float32)
    real = np.rint(x / scales.reshape(1, 4, 1, 1)) * scales.reshape(1, 4, 1, 1)
    expected = convolve(real.astype(np.float64), (data.astype(np.float64) - 1) * weight_scales.reshape(-1, 1, 1, 1))
    np.testing.assert_allclose(executor(torch.from_numpy(x))[0].numpy(), expected, rtol=1e-5, atol=1e-6)


def test_fp16_overflow_is_named(mil: Make) -> None:
    def program(mb: Any, x: Any) -> Any:
        half = mb.cast(x=x, dtype="fp16")
        large = mb.mul(x=half, y=np.float16(60000))
        q = mb.quantize(input=mb.sub(x=large, y=large), scale=np.float16(1), output_dtype="int8", name="here")
        return mb.cast(x=mb.dequantize(input=q, scale=np.float16(1)), dtype="fp32")

    executor = Executor(read_program(mil(program, SHAPE)))
    assert executor(torch.ones(SHAPE))[0].abs().max() == 0
    with pytest.raises(TargetError, match=r"NaN reaches op 'here' .*leave the range of float16"):
        executor(torch.full(SHAPE, 2.0))


def test_ops_that_mix_the_batch_run_one_by_one(mil: Make) -> None:
    def program(mb: Any, x: Any) -> Any:
        turned = mb.transpose(x=x, perm=[1, 0, 2, 3])
        return mb.reshape(x=mb.relu(x=turned), shape=[1, 4 * 42])

    executor = Executor(read_program(mil(program, SHAPE)))
    assert "transpose of the first axis" in executor.one_by_one
    x = torch.randn(3, *SHAPE[1:])
    assert torch.equal(executor(x)[0].flatten(1), x.relu().reshape(3, -1))
    assert all(len(v) == 3 * 4 or len(v) == 3 for v in executor.trace(x).values())


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (
            lambda mb, x: mb.floor(x=x, name="odd_one"),
            r"does not know the op 'floor': op 'odd_one' .*, opset CoreML7 \(iOS 17, macOS 14\); "
            r"MIL has it since CoreML5 \(iOS 15, macOS 12\); \d+ ops are known",
        ),
        (lambda mb, x: mb.gelu(x=x, mode="SIGMOID_APPROXIMATION"), "mode='SIGMOID_APPROXIMATION'"),
        (
            lambda mb, x: mb.slice_by_index(
                x=x, begin=[0, 0, 0, 5], end=[1, 4, 7, 0], stride=[1, 1, 1, -1], name="backwards"
            ),
            "negative stride: op 'backwards'",
        ),
        (lambda mb, x: mb.concat(values=[x, x], axis=1, interleave=True), "interleave=True"),
        (lambda mb, x: mb.cast(x=mb.cast(x=x, dtype="int32"), dtype="bool"), "dtype='bool'"),
    ],
    ids=["op", "mode", "stride", "interleave", "dtype"],
)
def test_what_is_not_implemented_is_refused(mil: Make, program: Callable[..., Any], message: str) -> None:
    with pytest.raises(TargetError, match=message):
        Executor(read_program(mil(program, SHAPE)))
