"""Lowering to Core ML: the placed graph through `coremltools.convert`, saved with the same bytes every time.

What varies between two runs of coremltools (measured: two random UUIDs, the date and versions in the metadata, the
order of protobuf maps, a debug file beside the manifest) is replaced or dropped. The package holds only what Core ML
needs: Manifest.json, model.mlmodel and weight.bin.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cspedge.backends.coreml.package import item_paths
from cspedge.backends.coreml.quiet import Progress, converting
from cspedge.digest import pretty_json, sha256_file
from cspedge.errors import TargetError
from cspedge.quantize.ops import module_path, op_name
from cspedge.types import Precision

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from cspedge.quantize.placement import PlacedModel

INPUT = "image"
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:cspedge:mlpackage")
SPEC = "com.apple.CoreML/model.mlmodel"
WEIGHTS = "com.apple.CoreML/weights"
# This pass divides the scales around quantized additions by one another (dequantize scale 1.0), after which the
# artifact no longer carries the encodings.
UNWANTED_PASSES = ("common::distributive_quantized_binary_op_scale_normalization",)


def lower(model: PlacedModel, precision: Precision, path: Path, *, int8_compute: Precision = Precision.FP16) -> None:
    """Writes `path`, an .mlpackage for iOS 17 / macOS 14: input `image` float32 [1, 3, H, W], outputs float32.

    fp32 computes in float32; fp16 in float16; int8 in float16 around int8 tensors, as coremltools does, or in what
    `int8_compute` says. A quantizer's scale has the type of its input, so scales are float16 values. The image's 1/255
    becomes 0.0039215088, which gives all 256 pixel values their exact codes.
    Raises TargetError naming op and module path where coremltools cannot convert the graph.
    """
    import torch.ao.quantization.fx._decomposed  # noqa: F401  registers torch.ops.quantized_decomposed

    program = model.exported().run_decompositions({})
    names = rename(program)
    with tempfile.TemporaryDirectory() as folder:
        computes = int8_compute if precision is Precision.INT8 else precision
        converted = _convert(program, names, model.outputs, computes, Path(folder) / "converted.mlpackage")
        try:
            _save(converted, path)
        except OSError:
            shutil.rmtree(path, ignore_errors=True)  # a full disk leaves no half-written package
            raise


def artifact_name(module: str, op: str) -> str:
    """How an op is called inside the package: `blocks.2.0.conv_dw`, `conv2d` -> `blocks_2_0_conv_dw__conv2d`."""
    return re.sub(r"[^0-9A-Za-z_]", "_", f"{module or 'model'}__{op}")


def rename(program: ExportedProgram) -> dict[str, str]:
    """Names each node after its module, so that the saved program tells where an op comes from; name -> module path.

    Stack traces go: coremltools copies them from pass to pass and they would hold absolute paths.
    """
    where: dict[str, str] = {}
    seen: dict[str, int] = {}
    user_inputs = set(program.graph_signature.user_inputs)
    changed: dict[str, str] = {}
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
        if node.op == "placeholder" and node.name in user_inputs:
            base = INPUT
        elif node.op == "call_function":
            base = artifact_name(module_path(node), op_name(node) or node.name)
        else:
            continue
        seen[base] = seen.get(base, 0) + 1
        new = base if seen[base] == 1 else f"{base}_{seen[base]}"
        changed[node.name] = new
        where[new] = module_path(node) or "the model itself"
        node.name = new
    for spec in (*program.graph_signature.input_specs, *program.graph_signature.output_specs):
        old = getattr(spec.arg, "name", None)
        if old in changed:
            spec.arg.name = changed[old]
    return where


def _convert(
    program: ExportedProgram, names: dict[str, str], outputs: tuple[str, ...], computes: Precision, package: Path
) -> Any:
    import numpy as np

    with converting() as progress:
        import coremltools as ct

        passes = ct.PassPipeline()
        passes.remove_passes(UNWANTED_PASSES)
        try:
            return ct.convert(
                program,
                convert_to="mlprogram",
                minimum_deployment_target=ct.target.iOS17,
                compute_precision=ct.precision.FLOAT32 if computes is Precision.FP32 else ct.precision.FLOAT16,
                outputs=[ct.TensorType(name=name, dtype=np.float32) for name in outputs],
                pass_pipeline=passes,
                package_dir=str(package),
                skip_model_load=True,
            )
        except Exception as error:  # coremltools raises every type there is; the cause is chained
            raise _failure(error, progress, names) from error


def _failure(error: Exception, progress: Progress, names: dict[str, str]) -> TargetError:
    """What coremltools said, with the op and module it stopped at where it says so or was converting one."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    unsupported = re.match(r"Unsupported fx node (\w+), kind (\w+)", text)
    where = ""
    if unsupported:
        where, text = f" at op {unsupported[2]!r} in module {names.get(unsupported[1], 'unknown')!r}", "not supported"
    elif progress.node is not None:
        where = f" at op {progress.node.kind!r} in module {names.get(progress.node.name, 'unknown')!r}"
    return TargetError(
        f"backend 'coreml' cannot convert the graph{where}: {text}; "
        "use a model without this op, or leave this target out"
    )


def _save(converted: Any, path: Path) -> None:
    """Writes spec, weights and manifest under `path`; the item ids are UUIDv5 of their content."""
    spec = converted.get_spec()
    spec.mlProgram.attributes.pop("buildInfo", None)
    spec.description.metadata.Clear()
    source = item_paths(Path(converted.package_path))
    weights = next((p / "weight.bin" for p in source.values() if (p / "weight.bin").is_file()), None)
    spec_path, weight_folder = path / "Data" / SPEC, path / "Data" / WEIGHTS
    weight_folder.mkdir(parents=True)
    spec_path.write_bytes(spec.SerializeToString(deterministic=True))
    if weights is not None:
        shutil.copyfile(weights, weight_folder / "weight.bin")
    content = sha256_file(spec_path) + (sha256_file(weight_folder / "weight.bin") if weights is not None else "")
    root, weight_id = (str(uuid.uuid5(NAMESPACE, f"{item}\n{content}")).upper() for item in (SPEC, WEIGHTS))
    entries = {root: _entry("model.mlmodel", SPEC, "CoreML Model Specification")}
    if weights is not None:
        entries[weight_id] = _entry("weights", WEIGHTS, "CoreML Model Weights")
    manifest = {"fileFormatVersion": "1.0.0", "itemInfoEntries": entries, "rootModelIdentifier": root}
    (path / "Manifest.json").write_text(pretty_json(manifest), encoding="utf-8", newline="\n")


def _entry(name: str, path: str, description: str) -> dict[str, str]:
    return {"author": "com.apple.CoreML", "description": description, "name": name, "path": path}
