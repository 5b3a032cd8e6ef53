"""Other people's int8 tools, as their documents say to use them: a function each, from a `Source` to what they make.

A tool gets what cspedge quantizes, the fp32 reference with its normalisation inside: as a torch module, or where it
reads a file, as cspedge's own float artifact. It sees every calibration image, one at a time unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from cspedge.models.reference import Reference
    from cspedge.types import ImageSet


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a flow starts from. folder: to write into; float_artifact: cspedge's own in the format the flow reads."""

    reference: Reference
    calibration: ImageSet
    folder: Path
    float_artifact: Path | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return (1, *self.reference.info.preprocess.input_size)

    def images(self, batch: int = 1) -> Iterator[NDArray[np.float32]]:
        """The calibration images as the model takes them: float32 [batch, 3, H, W], RGB in [0, 1]."""
        import numpy as np

        for start in range(0, len(self.calibration), batch):
            yield self.calibration.images[start : start + batch].astype(np.float32) / np.float32(255)

    def tensors(self, batch: int = 1) -> Iterator[Any]:
        """The same as torch tensors."""
        import torch

        yield from map(torch.from_numpy, self.images(batch))

    def example(self) -> tuple[Any]:
        """One input, for tracing."""
        return (next(self.tensors()),)


# ---- OpenVINO: NNCF ------------------------------------------------------------------------------------------------


def nncf_openvino(source: Source, *, mixed: bool = False, fast: bool = True) -> Any:
    """https://docs.openvino.ai, "Basic Quantization Flow"; of itself it would take 300 of the images.

    The model is converted from torch: NNCF knows squeeze-excite by its operators there and leaves it in float, which in
    an IR made from ONNX it does not find (measured on lcnet_050: 17.8 dB SQNR against 15.9).
    """
    from cspedge.backends.openvino import import_openvino

    nncf = _nncf()
    model = import_openvino().convert_model(
        source.reference.module, example_input=source.example()[0], input=list(source.shape)
    )
    options: dict[str, Any] = {"preset": nncf.QuantizationPreset.MIXED} if mixed else {}
    images = nncf.Dataset(list(source.images()))
    return nncf.quantize(model, images, subset_size=len(source.calibration), fast_bias_correction=fast, **options)


def to_ir(source: Source, model: Any) -> Path:
    """Floats stay fp32: OpenVINO's own default would round what is not int8 to fp16."""
    from cspedge.backends.openvino import XML, import_openvino

    path = source.folder / "openvino.ir"
    path.mkdir()
    import_openvino().save_model(model, str(path / XML), compress_to_fp16=False)
    return path


def _nncf() -> Any:
    from cspedge.backends.openvino import import_openvino

    import_openvino()  # which keeps the telemetry out, NNCF's too
    import nncf

    return nncf


# ---- ONNX Runtime: quantize_static ---------------------------------------------------------------------------------


def quantize_static(source: Source, **options: Any) -> Path:
    """https://onnxruntime.ai, "Quantize ONNX Models": pre-processing (shapes, optimisation), then QDQ.

    From `torch.onnx.export` of the reference instead, agreement is the same within 0.6 points (lcnet_050).
    """
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    from cspedge.backends.onnx_writer import INPUT

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.images = source.images()

        def get_next(self) -> dict[str, Any] | None:
            image = next(self.images, None)
            return None if image is None else {INPUT: image}

    prepared, path = source.folder / "prepared.onnx", source.folder / "quantized.onnx"
    quant_pre_process(str(source.float_artifact), str(prepared))
    quantization.quantize_static(prepared, path, Reader(), **options)
    return path


# ---- PyTorch 2 export, for ExecuTorch and ONNX Runtime -------------------------------------------------------------


def _exported(source: Source) -> Any:
    import torch

    return torch.export.export(source.reference.module, source.example()).module()


def _xnnpack_quantizer() -> Any:
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )

    return XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))


def stock_pt2e(source: Source) -> Any:
    """https://docs.pytorch.org/executorch, "XNNPACK quantization"."""
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    prepared = prepare_pt2e(_exported(source), _xnnpack_quantizer())
    for image in source.tensors():
        prepared(image)
    return convert_pt2e(prepared)


def nncf_pt2e(source: Source, *, fast: bool | None) -> Any:
    """NNCF's calibration and bias correction (None: without, else fast or full) under the same quantizer."""
    nncf = _nncf()
    from nncf.experimental.torch.fx import quantize_pt2e

    images = nncf.Dataset(list(source.tensors()))
    return quantize_pt2e(
        _exported(source),
        _xnnpack_quantizer(),
        images,
        subset_size=len(source.calibration),
        fast_bias_correction=fast,
    )


def to_pte(source: Source, model: Any) -> Path:
    """ExecuTorch's stock lowering, every pass of it."""
    import executorch.kernels.quantized  # noqa: F401  kernels for what stays outside the delegate
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    program = torch.export.export(model, source.example())
    edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    path = source.folder / "model.pte"
    path.write_bytes(bytes(edge.to_executorch().buffer))
    return path


def to_onnx(source: Source, model: Any) -> Path:
    import torch

    from cspedge.backends.onnx_writer import INPUT

    path = source.folder / "pt2e.onnx"
    program = torch.export.export(model, source.example())
    torch.onnx.export(program, f=path, dynamo=True, input_names=[INPUT], external_data=False, verbose=False)
    return path


# ---- Core ML -------------------------------------------------------------------------------------------------------


def linear_quantizer(source: Source, *, scheme: str, batch: int = 1) -> Any:
    """https://apple.github.io/coremltools, "Quantization API Overview", calibration without training.

    Its observers average the extremes of batches, whose size its documents leave open: larger ones clip less. The
    milestones switch the observers on and batch norms to inference at the first step, and nothing after it.
    """
    import torch

    from cspedge.backends.coreml.quiet import import_coremltools

    import_coremltools()
    from coremltools.optimize.torch import quantization

    never = len(source.calibration) + 1
    config = quantization.ModuleLinearQuantizerConfig(quantization_scheme=scheme, milestones=[0, never, never, 0])
    quantizer = quantization.LinearQuantizer(
        _plain_batch_norms(source.reference.module), quantization.LinearQuantizerConfig(global_config=config)
    )
    prepared = quantizer.prepare(source.example())
    quantizer.step()
    prepared.eval()
    with torch.no_grad():
        for images in source.tensors(batch):
            prepared(images)
    return quantizer.finalize()


def _plain_batch_norms(module: nn.Module) -> nn.Module:
    """A copy in which timm's batch norms with their activation inside are two modules.

    The quantizer traces the model in training mode and would keep timm's own in it for good (measured: 4 dB SQNR).
    """
    from copy import deepcopy

    from timm.layers import BatchNormAct2d
    from torch import nn

    module = deepcopy(module)
    for parent in list(module.modules()):
        for name, norm in list(parent.named_children()):
            if isinstance(norm, BatchNormAct2d):
                plain = nn.BatchNorm2d(norm.num_features, norm.eps)
                plain.load_state_dict({k: v for k, v in norm.state_dict().items() if "." not in k})
                setattr(parent, name, nn.Sequential(plain, norm.drop, norm.act))
    return module.eval()


def to_mlpackage(source: Source, model: Any) -> Path:
    import numpy as np
    import torch

    from cspedge.backends.coreml.lower import INPUT
    from cspedge.backends.coreml.quiet import converting

    traced = torch.jit.trace(model.eval(), source.example())
    with converting():
        import coremltools as ct

        converted = ct.convert(
            traced,
            inputs=[ct.TensorType(name=INPUT, shape=source.shape, dtype=np.float32)],
            outputs=[ct.TensorType(name=source.reference.info.outputs[0].name, dtype=np.float32)],
            minimum_deployment_target=ct.target.iOS17,
            skip_model_load=True,
        )
    return save_mlpackage(source, converted)


def linear_quantize_activations(source: Source) -> Any:
    """coremltools' own calibration of a converted model, which needs Core ML itself."""
    from cspedge.backends.coreml.lower import INPUT
    from cspedge.backends.coreml.quiet import import_coremltools

    ct = import_coremltools()
    from coremltools.optimize import coreml

    config = coreml.experimental.OpActivationLinearQuantizerConfig(mode="linear_symmetric")
    activations = coreml.experimental.linear_quantize_activations(
        ct.models.MLModel(str(source.float_artifact)),
        coreml.OptimizationConfig(global_config=config),
        [{INPUT: image} for image in source.images()],
    )
    weights = coreml.OpLinearQuantizerConfig(mode="linear_symmetric")
    return coreml.linear_quantize_weights(activations, coreml.OptimizationConfig(global_config=weights))


def save_mlpackage(source: Source, model: Any) -> Path:
    path = source.folder / "model.mlpackage"
    model.save(str(path))
    return path
