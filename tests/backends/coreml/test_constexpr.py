"""Compressed constants: coremltools' own decompression and the examples of the MIL specification."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from cspedge.backends.coreml.blob import unpack
from cspedge.backends.coreml.engine import Engine
from cspedge.backends.coreml.ops_constexpr import CONSTEXPR
from cspedge.backends.coreml.package import Constant, Operation, SavedProgram, TensorType, Value
from cspedge.backends.coreml.quiet import converting, import_coremltools
from cspedge.backends.coreml.reference import Numerics, load
from cspedge.errors import TargetError

Make = Callable[..., Path]
SHAPE = (1, 3, 8, 8)
IMAGE = np.random.Generator(np.random.PCG64(0)).random(SHAPE, dtype=np.float32)


@pytest.fixture(scope="module")
def convert() -> Callable[[str], Any]:
    """convert("iOS16"): a small network as coremltools' own model in float16, the classifier's outputs float16."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.Flatten(), nn.Linear(64 * 16, 10))
    program = torch.export.export(nn.Sequential(*layers).eval(), (torch.rand(SHAPE),)).run_decompositions({})
    made: dict[str, Any] = {}

    def make(target: str) -> Any:
        ct = import_coremltools()
        if target not in made:
            with converting():
                inputs = [ct.TensorType(name="image", shape=SHAPE, dtype=np.float32)]
                made[target] = ct.convert(
                    program,
                    convert_to="mlprogram",
                    minimum_deployment_target=getattr(ct.target, target),
                    inputs=inputs,
                    skip_model_load=True,
                )
        return made[target]

    return make


def compress(model: Any, kind: str, options: dict[str, Any], *, joint: bool = False) -> Any:
    """coremltools.optimize on every weight."""
    ct = import_coremltools()
    tools = ct.optimize.coreml
    function, config = {
        "quantize": (tools.linear_quantize_weights, tools.OpLinearQuantizerConfig),
        "palettize": (tools.palettize_weights, tools.OpPalettizerConfig),
        "prune": (tools.prune_weights, tools.OpMagnitudePrunerConfig),
    }[kind]
    chosen = tools.OptimizationConfig(global_config=config(**options, weight_threshold=100))
    return function(model, chosen, joint_compression=True) if joint else function(model, chosen)


INT8 = {"mode": "linear_symmetric"}
UINT8 = {"mode": "linear", "dtype": "uint8"}
INT4 = {"mode": "linear_symmetric", "dtype": "int4", "granularity": "per_block", "block_size": 32}
UINT4 = {"mode": "linear", "dtype": "uint4"}
GROUPS = {"mode": "uniform", "nbits": 4, "granularity": "per_grouped_channel", "group_size": 16}
SCALED = {"mode": "uniform", "nbits": 4, "enable_per_channel_scale": True}
VECTORS = {"mode": "kmeans", "nbits": 4, "cluster_dim": 2}
PRUNED = {"target_sparsity": 0.6}


def palette(bits: int) -> dict[str, Any]:
    return {"mode": "uniform", "nbits": bits}


# name: opset, what is done to the weights in turn, the ops that must be in the program afterwards
FORMS: dict[str, tuple[str, list[tuple[str, dict[str, Any]]], set[str]]] = {
    "iOS15": ("iOS15", [], set()),
    "iOS16 int8": ("iOS16", [("quantize", INT8)], {"affine_dequantize"}),
    "iOS17 uint8": ("iOS17", [("quantize", UINT8)], {"affine_dequantize"}),
    "iOS16 palette 1": ("iOS16", [("palettize", palette(1))], {"lut_to_dense"}),
    "iOS17 palette 6": ("iOS17", [("palettize", palette(6))], {"lut_to_dense"}),
    "iOS16 pruned": ("iOS16", [("prune", PRUNED)], {"sparse_to_dense"}),
    "iOS18 int8": ("iOS18", [("quantize", INT8)], {"blockwise_shift_scale"}),
    "iOS18 int4 blocks": ("iOS18", [("quantize", INT4)], {"blockwise_shift_scale"}),
    "iOS18 uint4": ("iOS18", [("quantize", UINT4)], {"blockwise_shift_scale"}),
    **{f"iOS18 palette {n}": ("iOS18", [("palettize", palette(n))], {"lut_to_dense"}) for n in (1, 2, 3, 4, 6, 8)},
    "iOS18 groups": ("iOS18", [("palettize", GROUPS)], {"lut_to_dense"}),
    "iOS18 scaled": ("iOS18", [("palettize", SCALED)], {"lut_to_dense", "blockwise_shift_scale"}),
    "iOS18 vectors": ("iOS18", [("palettize", VECTORS)], {"lut_to_dense"}),
    "iOS18 pruned": ("iOS18", [("prune", PRUNED)], {"sparse_to_dense"}),
    "iOS18 pruned int8": (
        "iOS18",
        [("prune", PRUNED), ("quantize", INT8)],
        {"sparse_blockwise_shift_scale", "sparse_to_dense"},
    ),
    "iOS18 pruned palette": (
        "iOS18",
        [("prune", PRUNED), ("palettize", palette(4))],
        {"lut_to_sparse", "sparse_to_dense"},
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_coremltools_decompresses_to_the_same_answers(convert: Callable[[str], Any], form: str, tmp_path: Path) -> None:
    target, steps, expected = FORMS[form]
    model = convert(target)
    with converting():
        for index, (kind, options) in enumerate(steps):
            model = compress(model, kind, options, joint=index > 0)
        model.save(str(tmp_path / "small.mlpackage"))
        import_coremltools().optimize.coreml.decompress_weights(model).save(str(tmp_path / "plain.mlpackage"))
    small, plain = load(tmp_path / "small.mlpackage"), load(tmp_path / "plain.mlpackage")
    kinds = {op.type for op in small.source.operations}
    assert {k.removeprefix("constexpr_") for k in kinds if k in CONSTEXPR} == expected
    assert not {op.type for op in plain.source.operations} & set(CONSTEXPR)
    assert small.opset == f"CoreML{int(target[3:]) - 10}"
    found, wanted = small.run({"image": IMAGE}), plain.run({"image": IMAGE})
    assert [v.shape for v in found.values()] == [(1, 10)]
    for one, other in zip(found.values(), wanted.values(), strict=True):
        np.testing.assert_array_equal(one, other)  # to the bit
    if not steps:
        return
    with converting():
        convert(target).save(str(tmp_path / "float.mlpackage"))
    original = load(tmp_path / "float.mlpackage").run({"image": IMAGE})
    assert any(not np.array_equal(a, b) for a, b in zip(found.values(), original.values(), strict=True))


def uint(values: Any, bits: int) -> Any:
    """Values in one of MIL's types of less than a byte."""
    import_coremltools()
    from coremltools.converters.mil.mil import types

    return np.asarray(values).astype(types.nptype_from_builtin(types.string_to_builtin(f"uint{bits}")))


GROUP_LUT = np.array([1, 5, 9, 13, 2, 10, 18, 26], np.float32).reshape(2, 1, 4, 1)
VECTOR_LUT = np.array([1, 2, 3, 11, 12, 13], np.float32).reshape(1, 1, 1, 2, 3)
VECTOR_INDICES = [[[0, 0], [1, 0]], [[1, 1], [0, 0]]]
MASK = [[1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 1], [0, 1, 1, 0, 1, 0], [0, 0, 0, 1, 0, 0]]
SPREAD = [[2, 3, 0, 0, 0, 0], [3, 2, 0, 0, 0, 3], [0, 3, 2, 0, 2, 0], [0, 0, 0, 3, 0, 0]]


def pruned_palette(mb: Any, lut: Any, axis: Any = None) -> Any:
    data = {"indices_mask": uint(MASK, 1), "indices_nonzero_data": uint([0, 1, 1, 0, 1, 1, 0, 0, 1], 1)}
    where = {} if axis is None else {"vector_axis": np.int32(axis)}
    mask, values = mb.constexpr_lut_to_sparse(**data, lut=np.asarray(lut, np.float32), **where)
    return mb.constexpr_sparse_to_dense(nonzero_data=values, mask=mask)


def pruned_scaled(mb: Any) -> Any:
    mask, values = mb.constexpr_sparse_blockwise_shift_scale(
        data_mask=uint([[1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 1, 1], [1, 1, 0, 0]], 1),
        nonzero_data=np.array([10, 11, 3, 4, 5, 6, 7, 8, 9], np.int8),
        scale=np.array([[0.1, 0.2, 0.3, 0.4]], np.float32),
        offset=np.array([[1, 2, 3, 4]], np.int8),
    )
    return mb.constexpr_sparse_to_dense(nonzero_data=values, mask=mask)


# the examples that stand in coremltools' reference (iOS 18), with what it says comes out; vectors 1 2 3 and 11 12 13
EXAMPLES: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "tables of groups": (
        lambda mb: mb.constexpr_lut_to_dense(
            indices=uint([[2, 3], [3, 0], [1, 0], [3, 0], [2, 1], [0, 3]], 2), lut=GROUP_LUT
        ),
        [[9, 13], [13, 1], [5, 1], [26, 2], [18, 10], [2, 26]],
    ),
    "vectors along axis 1": (
        lambda mb: mb.constexpr_lut_to_dense(indices=uint(VECTOR_INDICES, 1), lut=VECTOR_LUT, vector_axis=np.int32(1)),
        [[[1, 1], [2, 2], [3, 3], [11, 1], [12, 2], [13, 3]], [[11, 11], [12, 12], [13, 13], [1, 1], [2, 2], [3, 3]]],
    ),
    "vectors along axis 2": (
        lambda mb: mb.constexpr_lut_to_dense(indices=uint(VECTOR_INDICES, 1), lut=VECTOR_LUT, vector_axis=np.int32(2)),
        [[[1, 2, 3, 1, 2, 3], [11, 12, 13, 1, 2, 3]], [[11, 12, 13, 11, 12, 13], [1, 2, 3, 1, 2, 3]]],
    ),
    "sparse palette": (lambda mb: pruned_palette(mb, [[[[2], [3]]]]), SPREAD),
    "sparse palette of vectors": (
        lambda mb: pruned_palette(mb, [[[[2, 2], [3, 3]]]], 0),
        np.repeat(SPREAD, 2, axis=0).tolist(),
    ),
    # the reference prints (10-1)*0.1 in the second row where the data give (3-1)*0.1; the formula is followed
    "sparse scales": (pruned_scaled, [[0.9, 1.8, 0, 0], [0.2, 0.4, 0.6, 0], [0, 0, 0.9, 1.2], [0.7, 1.4, 0, 0]]),
    "blocks": (
        lambda mb: mb.constexpr_blockwise_shift_scale(
            data=np.arange(8, dtype=np.int8).reshape(2, 4),
            scale=np.array([[0.5, 2.0]], np.float32),
            offset=np.array([[1, -1]], np.int8),
        ),
        [
            [0.5 * (0 - 1), 0.5 * (1 - 1), 2 * (2 + 1), 2 * (3 + 1)],
            [0.5 * (4 - 1), 0.5 * (5 - 1), 2 * (6 + 1), 2 * (7 + 1)],
        ],
    ),
}


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_of_the_specification(mil: Make, example: str) -> None:
    make, expected = EXAMPLES[example]
    wanted = np.asarray(expected, np.float64)
    program = load(mil(lambda mb, x: mb.add(x=x, y=make(mb)), wanted.shape, target="iOS18"))
    (found,) = program.run({"x": np.zeros(wanted.shape, np.float32)}).values()
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_a_constant_of_float16_is_used_as_float32(mil: Make) -> None:
    values = np.array([[0.1, np.inf]], np.float16)  # infinity stays infinity
    kept = load(mil(lambda mb, x: mb.add(x=x, y=mb.constexpr_cast(source_val=values, output_dtype="fp32")), (1, 2)))
    (found,) = kept.run({"x": np.zeros((1, 2), np.float32)}).values()
    assert found.tolist() == values.astype(np.float32).tolist()


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("signed", [False, True])
def test_unpacking_is_by_the_lowest_bit(bits: int, signed: bool) -> None:
    """By arithmetic on one big number, and what comes short is refused."""
    generator = np.random.Generator(np.random.PCG64(bits))
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1)) if signed else (0, 2**bits)
    values = generator.integers(low, high, 37)
    number = sum((int(v) % 2**bits) << (bits * i) for i, v in enumerate(values))
    packed = number.to_bytes(-(-bits * 37 // 8), "little")
    assert unpack(packed, bits, 37, signed=signed).tolist() == values.tolist()
    with pytest.raises(ValueError, match=f"37 numbers of {bits} bits"):
        unpack(packed[:-1], bits, 37, signed=signed)


def constant(dtype: str, value: Any) -> Constant:
    array = np.asarray(value)
    return Constant(type=TensorType(dtype=dtype, shape=array.shape), value=array)


ONES = np.ones(4, np.uint8)
REAL = np.ones((1, 1, 2, 1), np.float32)
BROKEN: dict[str, tuple[str, dict[str, Constant], str]] = {
    "entries": (
        "lut_to_dense",
        {"indices": constant("uint2", ONES.reshape(2, 2)), "lut": constant("fp32", REAL)},
        r"a table of shape \(1, 1, 2, 1\) for uint2 indices of shape \(2, 2\)",
    ),
    "vector axis": (
        "lut_to_dense",
        {"indices": constant("uint1", ONES.reshape(2, 2)), "lut": constant("fp32", REAL.repeat(2, 3))},
        "a table of vectors without vector_axis",
    ),
    "grid": (
        "lut_to_dense",
        {"indices": constant("uint1", ONES.reshape(2, 2)), "lut": constant("fp32", REAL.repeat(3, 0))},
        r"\(3, 1\) blocks over data of shape \(2, 2\)",
    ),
    "packed indices": (
        "lut_to_dense",
        {
            "indices": constant("uint8", ONES),
            "lut": constant("fp32", [1.0, 2.0]),
            "shape": constant("uint32", np.array([2, 2], np.uint32)),
        },
        r"indices of \(4,\) bytes for 1 bits of the shape \[2, 2\]",
    ),
    "packed table": (
        "lut_to_dense",
        {
            "indices": constant("uint8", ONES[:1]),
            "lut": constant("fp32", [1.0, 2.0, 3.0]),
            "shape": constant("uint32", np.array([2, 2], np.uint32)),
        },
        r"a table of shape \(3,\)",
    ),
    "mask": (
        "sparse_to_dense",
        {"mask": constant("uint1", ONES.reshape(2, 2)), "nonzero_data": constant("fp32", [1.0, 2.0])},
        r"elements of shape \(2,\) for a mask of 4",
    ),
    "packed mask": (
        "sparse_to_dense",
        {
            "mask": constant("uint8", ONES[:1] * 3),
            "nonzero_data": constant("fp32", [1.0]),
            "shape": constant("uint32", np.array([2, 2], np.uint32)),
        },
        "1 elements for a mask of 2",
    ),
    "scales": (
        "blockwise_shift_scale",
        {"data": constant("int8", ONES.reshape(2, 2)), "scale": constant("fp32", [1.0])},
        r"scales of shape \(1,\) for data of shape \(2, 2\)",
    ),
    "offsets": (
        "blockwise_shift_scale",
        {
            "data": constant("int8", ONES.reshape(2, 2)),
            "scale": constant("fp32", [[1.0]]),
            "offset": constant("int8", ONES.reshape(2, 2)),
        },
        r"offsets of shape \(2, 2\) beside scales of shape \(1, 1\)",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_constants_that_do_not_fit_are_refused(case: str) -> None:
    kind, arguments, message = BROKEN[case]
    result = Value(name="weight", type=TensorType(dtype="fp32", shape=(2, 2)))
    operation = Operation(
        type=f"constexpr_{kind}",
        name="packed_weight",
        index=3,
        arguments={k: (v,) for k, v in arguments.items()},
        outputs=(result,),
    )
    image = Value(name="x", type=TensorType(dtype="fp32", shape=(1, 2)))
    program = SavedProgram(inputs=(image,), outputs=("weight",), operations=(operation,), constants={}, opset="CoreML8")
    with pytest.raises(TargetError, match=rf"{message}: op 'packed_weight' \(constexpr_{kind}, number 3"):
        Engine(program, Numerics())
