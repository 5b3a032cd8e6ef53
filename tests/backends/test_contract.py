"""One contract for every backend: lower, save, load in a fresh process, run, compare, audit, parity, same bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cspedge import api, lowering
from cspedge.backends import BACKENDS, get_backend
from cspedge.config import Tolerance, load_target
from cspedge.devices.fresh import Job, burst
from cspedge.digest import sha256_bytes, sha256_path
from cspedge.errors import TargetError, UsageError
from cspedge.evaluate.metrics import agreement, sqnr_db
from cspedge.quantize.parity import differences
from cspedge.quantize.placement import PlacedModel, QuantizedModel, place, place_float
from cspedge.resources import target_names
from cspedge.types import Artifact, Evidence, ImageSet, Precision

CHILD = Path(__file__).with_name("run_artifact.py")


@dataclass(frozen=True, kw_only=True)
class Case:
    artifact: Artifact
    placed: PlacedModel


@pytest.fixture(scope="session")
def quantized() -> QuantizedModel:
    reference = api.load_reference()
    return api.quantize(reference, api.collect_calibration(reference, count=64))


@pytest.fixture(scope="session")
def photos() -> ImageSet:
    return api.collect_validation(api.load_reference())


@pytest.fixture(scope="session", params=[(t, p) for t in target_names() for p in ("float", "int8")], ids="/".join)
def case(request: Any, quantized: QuantizedModel, photos: ImageSet, lowered: Any) -> Case:
    artifact: Artifact = lowered(quantized, *request.param, photos.images)
    graph = (
        place_float(quantized.graph, quantized.input_shape)
        if artifact.precision.is_float
        else place(quantized, load_target(artifact.target).placement)
    )
    return Case(artifact=artifact, placed=graph)


def test_a_process_of_its_own_times_it(case: Case, photos: ImageSet, tmp_path: Path) -> None:
    """The worker of `cspedge bench`, once for each runtime that computes here by itself."""
    artifact = case.artifact
    if artifact.precision.is_float or api.open_session(artifact).evidence is not Evidence.MEASURED:
        pytest.skip("the int8 artifact of a runtime that runs here stands for all")
    pixels = photos.images[:1].tobytes()
    (tmp_path / "inputs.u8").write_bytes(pixels)
    job = Job(
        label=artifact.label,
        backend=artifact.backend,
        path=str(artifact.path),
        sha256=artifact.sha256,
        options=load_target(artifact.target).options,
        tensors=str(tmp_path / "inputs.u8"),
        shape=photos.images.shape[1:],
        threads=1,
        count=3,
    )
    line = burst(job, sha256_bytes(pixels))
    assert len(line.samples_ms) == 3
    assert line.runtime == artifact.backend
    assert line.base_rss_bytes is not None
    assert 0 < line.base_rss_bytes < line.peak_rss_bytes


def test_every_backend_has_a_target() -> None:
    assert {load_target(n).backend for n in target_names()} == set(BACKENDS)


def test_fresh_process_gives_pt2es_answers(case: Case, photos: ImageSet, tmp_path: Path) -> None:
    import torch

    images = photos.images[:64].astype(np.float32) / np.float32(255)
    np.save(tmp_path / "images.npy", images)
    command = [sys.executable, str(CHILD), case.artifact.target, str(case.artifact.path), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "logits.npy")
    expected = case.placed(torch.from_numpy(images))[0].numpy()
    sqnr = sqnr_db(expected, found)
    target = load_target(case.artifact.target)
    floor = target.tolerance.float_sqnr_db if case.artifact.precision.is_float else target.tolerance.int8_sqnr_db
    assert sqnr is None or sqnr >= floor
    assert agreement(expected, found) >= 0.98


def test_batches_and_single_images_agree(case: Case, photos: ImageSet) -> None:
    images = photos.images[:5].astype(np.float32) / np.float32(255)
    session = api.open_session(case.artifact)
    together = session.run(images)[0]
    alone = np.concatenate([session.run(images[i : i + 1])[0] for i in range(5)])
    assert together.dtype == np.float32
    assert together.shape == (5, 10)
    assert np.allclose(together, alone, rtol=1e-5, atol=1e-5)


def test_saved_file_carries_exactly_the_placed_numbers(case: Case) -> None:
    readback = get_backend(case.artifact.backend).readback(case.artifact.path)
    if case.artifact.precision.is_float:
        assert readback.activations == ()
        assert readback.weights == ()
    else:
        assert differences(case.placed, readback) == ()
        assert case.artifact.audit is not None
        assert case.artifact.audit.encodings_match is True


def test_audit_says_what_runs_in_int8(case: Case) -> None:
    audit = case.artifact.audit
    assert audit is not None
    if case.artifact.precision.is_float:
        assert audit.int8_mac_share == 0.0
        assert audit.encodings_match is None
    else:
        assert audit.int8_mac_share > 0.9
        assert 0.0 < audit.int8_op_share <= 1.0


def test_same_bytes_in_another_process_with_another_hash_seed(
    case: Case, quantized: QuantizedModel, tmp_path: Path
) -> None:
    if case.artifact.precision.is_float:
        pytest.skip("the int8 artifact holds all that the float one does, and more")
    command = [sys.executable, str(CHILD.with_name("lower_again.py")), case.artifact.target, str(tmp_path)]
    environment = os.environ | {"PYTHONHASHSEED": "4711"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["sha256"] == sha256_path(case.artifact.path)


def test_truncated_files_are_target_errors(case: Case, tmp_path: Path) -> None:
    import shutil

    if case.artifact.precision.is_float:
        pytest.skip("damage is the same for both precisions")
    copy = tmp_path / case.artifact.path.name
    if case.artifact.path.is_dir():
        shutil.copytree(case.artifact.path, copy)
        victim = max((p for p in copy.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    else:
        shutil.copyfile(case.artifact.path, copy)
        victim = copy
    victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 3])
    command = [sys.executable, str(CHILD), case.artifact.target, str(copy), str(tmp_path)]
    np.save(tmp_path / "images.npy", np.zeros((1, 3, 64, 64), np.float32))
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 7, done.stderr  # the child's word for a TargetError
    assert "Traceback" not in done.stderr


def test_precisions_that_a_target_lacks_are_refused(quantized: QuantizedModel, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="it offers fp32, int8"):
        api.lower(quantized, "onnxruntime", Precision.FP16, out=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_answers_outside_the_tolerance_are_no_artifact(quantized: QuantizedModel, tmp_path: Path) -> None:
    target = replace(load_target("openvino"), tolerance=Tolerance(float_sqnr_db=500.0))
    with pytest.raises(TargetError, match="below the tolerance of 500 dB"):
        lowering.lower(quantized, target, Precision.FP32, tmp_path)


@pytest.mark.parametrize("target", ["openvino", "onnxruntime"])
def test_an_artifact_of_another_graph_fails_the_check(
    target: str, quantized: QuantizedModel, photos: ImageSet, tmp_path: Path
) -> None:
    """One convolution has its output channels in another order: as far from PT2E as from fp32."""
    spec, backend = load_target(target), get_backend(target)
    name = "blocks.2.0.conv_pw:conv2d"
    wrong = replace(quantized, integer_weights=dict(quantized.integer_weights) | {name: _turned(quantized, name)})
    path = tmp_path / f"wrong{backend.suffix}"
    backend.lower(place(wrong, spec.placement), Precision.INT8, path, spec.options)
    session = backend.load(path, threads=1, options=spec.options)
    images, placed = photos.images[:8], place(quantized, spec.placement)
    with pytest.raises(TargetError, match=r"int8 logits has .* its kernels do not compute this graph"):
        lowering.compare(session, quantized, placed, Precision.INT8, spec, images)


def _turned(model: QuantizedModel, name: str) -> Any:
    return model.integer_weights[name].flip(0)
