"""Saved packages: hostile and damaged ones are refused, good ones are read as coremltools reads them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cspedge.backends.coreml import BACKEND
from cspedge.backends.coreml.blob import read_blob
from cspedge.backends.coreml.package import item_paths, read_program
from cspedge.backends.coreml.quiet import import_coremltools, quiet
from cspedge.backends.coreml.reference import Executor
from cspedge.errors import TargetError, UsageError

SPEC = Path("Data/com.apple.CoreML/model.mlmodel")
WEIGHTS = Path("Data/com.apple.CoreML/weights/weight.bin")


@pytest.fixture
def copy(small_packages: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the int8 package, to be damaged."""
    path = tmp_path / "copy.mlpackage"
    shutil.copytree(small_packages["int8"], path)
    return path


def edit_spec(path: Path, change: Callable[..., None]) -> None:
    """Changes the operations of a saved package."""
    import_coremltools()
    from coremltools.proto import Model_pb2

    spec = Model_pb2.Model()
    spec.ParseFromString((path / SPEC).read_bytes())
    main = spec.mlProgram.functions["main"]
    change(main.block_specializations[main.opset].operations)
    (path / SPEC).write_bytes(spec.SerializeToString())


def first(operations: object, kind: str) -> object:
    return next(op for op in operations if op.type == kind)  # type: ignore[attr-defined]


@pytest.mark.parametrize("text", ["../../outside", "/etc/hosts", "com.apple.CoreML/../../../outside", "..\\outside"])
def test_paths_out_of_the_package_are_refused(copy: Path, text: str) -> None:
    (copy.parent / "outside").write_bytes((copy / SPEC).read_bytes())
    manifest = json.loads((copy / "Manifest.json").read_text())
    manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"] = text
    (copy / "Manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(TargetError, match="a path outside the package"):
        BACKEND.load(copy, threads=1, options={})


def test_a_link_out_of_the_package_is_refused(copy: Path) -> None:
    outside = copy.parent / "elsewhere.mlmodel"
    (copy / SPEC).rename(outside)
    (copy / SPEC).symlink_to(outside)
    with pytest.raises(TargetError, match="a path outside the package"):
        read_program(copy)


def test_blob_paths_are_reduced_to_their_last_part(copy: Path) -> None:
    def change(operations: object) -> None:
        for op in operations:  # type: ignore[attr-defined]
            for attribute in op.attributes.values():
                if attribute.HasField("blobFileValue"):
                    attribute.blobFileValue.fileName = "../../../../etc/weight.bin"

    edit_spec(copy, change)
    assert len(read_program(copy).operations) > 0  # from the package's own weight.bin

    def rename(operations: object) -> None:
        for op in operations:  # type: ignore[attr-defined]
            for attribute in op.attributes.values():
                if attribute.HasField("blobFileValue"):
                    attribute.blobFileValue.fileName = "@model_path/../Manifest.json"

    edit_spec(copy, rename)
    with pytest.raises(TargetError, match=r"the weight file 'Manifest.json', which the package does not have"):
        read_program(copy)


@pytest.mark.parametrize("keep", [0, 4, 64, 0.5, -1])
def test_truncated_weights_are_refused(copy: Path, keep: float) -> None:
    content = (copy / WEIGHTS).read_bytes()
    (copy / WEIGHTS).write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    with pytest.raises(TargetError, match=r"'weight.bin' is damaged at .*export the model again"):
        read_program(copy)


def test_missing_and_damaged_parts_are_refused(copy: Path) -> None:
    manifest, spec = (copy / "Manifest.json").read_text(), (copy / SPEC).read_bytes()
    (copy / SPEC).write_bytes(spec[: len(spec) // 2])
    with pytest.raises(TargetError, match=r"'model.mlmodel' of 'copy.mlpackage' is damaged"):
        read_program(copy)
    (copy / SPEC).unlink()
    with pytest.raises(TargetError, match="cannot be read"):
        read_program(copy)
    for text, message in ((manifest[:50], "is damaged"), ("{}", "is damaged"), ("[]", "is damaged")):
        (copy / "Manifest.json").write_text(text)
        with pytest.raises(TargetError, match=message):
            item_paths(copy)
    (copy / "Manifest.json").unlink()
    with pytest.raises(TargetError, match=r"is not an .mlpackage"):
        read_program(copy)


def test_unknown_op_in_a_saved_package_is_named_with_its_place(copy: Path) -> None:
    name = first(_operations(copy), "reduce_mean").outputs[0].name  # type: ignore[attr-defined]

    def change(operations: object) -> None:
        first(operations, "reduce_mean").type = "reduce_argmax"  # type: ignore[attr-defined]

    edit_spec(copy, change)
    with pytest.raises(TargetError, match=rf"does not know the op 'reduce_argmax': op '{name}' .*number \d+ in block"):
        BACKEND.load(copy, threads=1, options={})


def test_unknown_parameter_is_refused(copy: Path) -> None:
    def change(operations: object) -> None:
        op = first(operations, "relu")
        op.inputs["slope"].CopyFrom(op.inputs["x"])  # type: ignore[attr-defined]

    edit_spec(copy, change)
    with pytest.raises(TargetError, match=r"does not implement the parameter 'slope': op '.*' \(relu"):
        BACKEND.load(copy, threads=1, options={})


def test_values_that_are_defined_nowhere_are_refused(copy: Path) -> None:
    def change(operations: object) -> None:
        first(operations, "relu").inputs["x"].arguments[0].name = "nowhere"  # type: ignore[attr-defined]

    edit_spec(copy, change)
    with pytest.raises(TargetError, match=r"'nowhere', read by op .* is defined nowhere"):
        Executor(read_program(copy))


def test_wrong_shapes_are_refused(small_packages: dict[str, Path]) -> None:
    session = BACKEND.load(small_packages["int8"], threads=1, options={})
    with pytest.raises(TargetError, match=r"images of shape \[1, 3, 16, 16\]"):
        session.run(np.zeros((1, 3, 16, 16), np.float32))
    with pytest.raises(UsageError, match="no option 'units'"):
        BACKEND.load(small_packages["int8"], threads=1, options={"units": "all"})


def test_blobs_of_every_type_are_read_as_coremltools_writes_them(tmp_path: Path) -> None:
    import_coremltools()
    from coremltools.libmilstoragepython import _BlobStorageWriter

    path = tmp_path / "weight.bin"
    writer = _BlobStorageWriter(str(path))
    values = np.arange(-6, 6)
    offsets = {}
    for dtype in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "float32"):
        write = getattr(writer, f"write_{dtype.replace('float32', 'float')}_data")
        offsets[dtype] = write(np.ascontiguousarray(values.astype(dtype)))
    half = np.ascontiguousarray(values.astype(np.float16).view(np.uint16))
    offsets["float16"] = writer.write_fp16_data(half)
    del writer
    for dtype, offset in offsets.items():
        name = dtype.replace("float", "fp")
        found = read_blob(path, offset, name, (3, 4), "here")
        assert found.dtype == np.dtype(dtype)
        assert np.array_equal(found.reshape(-1), values.astype(dtype))
        with pytest.raises(TargetError, match="bytes where the shape"):
            read_blob(path, offset, name, (3, 5), "here")
    with pytest.raises(TargetError, match="element type int8 where the model says fp16"):
        read_blob(path, offsets["int8"], "fp16", (3, 4), "here")
    with pytest.raises(TargetError, match="no weight record"):
        read_blob(path, offsets["int8"] + 64, "int8", (3, 4), "here")
    with pytest.raises(TargetError, match="of a file of"):
        read_blob(path, 2**40, "int8", (3, 4), "here")


def test_coremltools_opens_the_package(small_packages: dict[str, Path]) -> None:
    ct = import_coremltools()
    for path in small_packages.values():
        with quiet():
            spec = ct.models.MLModel(str(path), skip_model_load=True).get_spec()
        assert [i.name for i in spec.description.input] == ["image"]
        assert [o.name for o in spec.description.output] == ["logits"]
        assert list(spec.description.input[0].type.multiArrayType.shape) == [1, 3, 32, 32]
        assert spec.specificationVersion == ct.target.iOS17


def test_loads_in_a_fresh_process_without_a_word(small_packages: dict[str, Path]) -> None:
    code = (
        "import sys, numpy as np; from pathlib import Path; from cspedge.backends.coreml import BACKEND;"
        "s = BACKEND.load(Path(sys.argv[1]), threads=1, options={});"
        "print(s.evidence, s.run(np.full((2, 3, 32, 32), 0.5, np.float32))[0].shape)"
    )
    command = [sys.executable, "-c", code, str(small_packages["int8"])]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.strip() == "reference-executor (2, 10)"
    assert done.stderr == ""


def _operations(path: Path) -> object:
    from coremltools.proto import Model_pb2

    spec = Model_pb2.Model()
    spec.ParseFromString((path / SPEC).read_bytes())
    main = spec.mlProgram.functions["main"]
    return main.block_specializations[main.opset].operations
