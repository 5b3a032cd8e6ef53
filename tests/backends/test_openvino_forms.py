"""The Clip that keeps a quantizer's rounding before an addition: where it stands, and that it changes no value."""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed; install cspedge[openvino]")
ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed; install cspedge[onnxruntime]")

from cspedge.backends.openvino_forms import round_before_sums  # noqa: E402

SCALE, ZERO = np.float32(0.5), np.uint8(100)


def residual() -> onnx.ModelProto:
    """image -> Conv -> Q -> DQ -> Add with the image -> Q -> DQ -> Add with the image."""
    from onnx import TensorProto, helper, numpy_helper

    def node(kind: str, inputs: list[str], output: str) -> onnx.NodeProto:
        return helper.make_node(kind, inputs, [output], name=output)

    nodes = [
        node("Conv", ["image", "weight"], "conv"),
        node("QuantizeLinear", ["conv", "scale", "zero"], "conv.q"),
        node("DequantizeLinear", ["conv.q", "scale", "zero"], "conv.dq"),
        node("Add", ["conv.dq", "image"], "sum"),
        node("QuantizeLinear", ["sum", "scale", "zero"], "sum.q"),
        node("DequantizeLinear", ["sum.q", "scale", "zero"], "sum.dq"),
        node("Add", ["sum.dq", "image"], "out"),
    ]
    weight = np.random.default_rng(0).normal(0, 9, (2, 2, 1, 1)).astype(np.float32)
    constants = {"weight": weight, "scale": np.asarray(SCALE), "zero": np.asarray(ZERO)}
    shape = [1, 2, 8, 8]
    graph = helper.make_graph(
        nodes,
        "residual",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, shape)],
        initializer=[numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_a_clip_to_the_quantizers_own_range_stands_before_the_sum() -> None:
    from onnx import numpy_helper

    proto = residual()
    round_before_sums(proto)
    onnx.checker.check_model(proto, full_check=True)
    (clip,) = [n for n in proto.graph.node if n.op_type == "Clip"]
    assert clip.input[0] == "conv.dq", "only what a convolution ends in"
    assert next(n for n in proto.graph.node if n.name == "sum").input[0] == clip.output[0]
    constants = {i.name: numpy_helper.to_array(i) for i in proto.graph.initializer}
    assert [float(constants[name]) for name in clip.input[1:]] == [-50.0, 77.5]


def test_it_changes_no_value() -> None:
    image = np.random.default_rng(1).normal(0, 9, (1, 2, 8, 8)).astype(np.float32)
    plain, clipped = residual(), residual()
    round_before_sums(clipped)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    found = [
        ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(
            None, {"image": image}
        )[0]
        for proto in (plain, clipped)
    ]
    assert np.array_equal(*found)
