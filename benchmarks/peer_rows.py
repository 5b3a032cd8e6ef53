"""What `peers.py` measures on: one reference with its images and answers, and a row of figures for each artifact."""

from __future__ import annotations

import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peer_flows import OURS, Flow, Run  # of this folder
from peer_tools import Source

import cspedge
from cspedge import api, inputs
from cspedge.config import load_recipe
from cspedge.data.images import check_disjoint
from cspedge.data.sampling import sample
from cspedge.devices.host import describe, peak_rss_mb
from cspedge.digest import sha256_file, sha256_json, size_of
from cspedge.models.source import resolve
from cspedge.options import RunOptions, Silent
from cspedge.resources import data_folder
from cspedge.stages import tool_versions
from cspedge.store import Store

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cspedge.backends.base import Session
    from cspedge.types import ImageSet

CODE = 1  # raised by hand when a peer's flow changes, so that its rows are measured anew
SEED = 0
COMMON = ("numpy", "torch", "timm")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What to compare on. model: as `cspedge run` takes it, None for the built-in digits; val_limit: None is all."""

    model: str | None
    train: Path | None
    val: Path | None
    images: int
    val_limit: int | None
    work: Path


@dataclass(frozen=True, kw_only=True)
class Material:
    """A reference and what it is compared on; logits: the fp32 reference's, float32 [n, classes]."""

    wanted: Wanted
    loaded: inputs.Loaded
    calibration: ImageSet
    validation: ImageSet
    logits: NDArray[np.float32]

    def head(self) -> dict[str, Any]:
        """What a table says above its rows."""
        labels = self.validation.labels
        assert labels is not None
        host, info = describe(), self.loaded.info
        return {
            "reference": info.name,
            "weights": info.weights_sha256,
            "pixels": info.preprocess.input_size[1],
            "top1": float((self.logits.argmax(axis=1) == labels).mean()),
            "n": len(labels),
            "limited": self.wanted.val_limit is not None,
            "calibration": len(self.calibration),
            "calibration_sha256": self.calibration.sha256,
            "cpu": host.cpu,
            "isa": list(host.isa),
        }

    def key(self, name: str, flow: Flow) -> str:
        """Digest of everything a flow's rows depend on: cspedge's include its own code."""
        recipe = asdict(load_recipe(name.removeprefix(OURS))) if name.startswith(OURS) else None
        return sha256_json(
            {
                "reference": self.loaded.stored.digest,
                "calibration": self.calibration.sha256,
                "validation": self.validation.sha256,
                "flow": name,
                "recipe": None if recipe is None else {"as written": str(recipe), "code": _own_code()},
                "code": CODE,
                "isa": describe().isa,
                "tools": tool_versions(*COMMON, *flow.packages),
            }
        )


def collect(wanted: Wanted) -> Material:
    """Loads what the product's own store has already, and makes the rest."""
    options = RunOptions(model=wanted.model, workspace=wanted.work)
    ledger = inputs.Ledger(store=Store(wanted.work), ui=Silent(), name="peers")
    loaded = inputs.load_model(resolve(wanted.model), options, ledger)
    train, val = api.list_images(wanted.train, "train"), api.list_images(wanted.val, "val")
    chosen = sample(train, wanted.images, seed=SEED, stratified=True)
    check_disjoint(train.subset(chosen), val, allow=False)
    limit = len(val) if wanted.val_limit is None else min(wanted.val_limit, len(val))
    every = tuple(range(len(val))) if limit == len(val) else sample(val, limit, seed=SEED, stratified=True)
    labels = inputs.find_labels(val, loaded.info)
    _, calibration, _ = inputs.load_images("calibration images", train, chosen, None, options, loaded, ledger)
    stored, validation, _ = inputs.load_images("validation images", val, every, labels, options, loaded, ledger)
    logits, _ = inputs.reference_vectors(loaded, stored, validation, 1, ledger)
    return Material(wanted=wanted, loaded=loaded, calibration=calibration, validation=validation, logits=logits)


def measure(material: Material, flow: Flow, runtimes: list[str], *, latency: bool) -> Iterator[dict[str, Any]]:
    """A row for each of `runtimes`, failures included: other people's tools raise every type there is."""
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        try:
            source = _source(material, flow, Path(folder))
            wall, cpu = time.perf_counter(), time.process_time()
            quantized = flow.quantize(source)
            figures = {"quantize_s": time.perf_counter() - wall, "quantize_cpu_s": time.process_time() - cpu}
        except Exception as error:
            yield from ({"runtime": runtime} | failure(error) for runtime in runtimes)
            return
        for runtime in runtimes:
            try:
                row = _row(material, source, quantized, flow.runs[runtime], f"{flow.title} on {runtime}", latency)
            except Exception as error:
                row = failure(error)
            yield {"runtime": runtime, "peak_rss_mb": peak_rss_mb()} | figures | row


def failure(error: Exception | str) -> dict[str, Any]:
    """The row of what did not work; the whole story goes to standard error."""
    if isinstance(error, str):
        return {"status": "failed", "reason": error}
    traceback.print_exception(error, file=sys.stderr)
    text = " ".join(str(error).split())
    return {"status": "failed", "reason": f"{type(error).__name__}: {text}"[:300]}


def _source(material: Material, flow: Flow, folder: Path) -> Source:
    reference = material.loaded.reference()
    artifact = None
    if flow.needs is not None:
        target, precision = flow.needs
        artifact = api.lower(api.quantize(reference, None), target, precision, out=folder / "float").path
    return Source(reference=reference, calibration=material.calibration, folder=folder, float_artifact=artifact)


def _row(material: Material, source: Source, quantized: Any, run: Run, whose: str, latency: bool) -> dict[str, Any]:
    from cspedge.backends import get_backend
    from cspedge.errors import TargetError
    from cspedge.evaluate.answers import vectors
    from cspedge.evaluate.metrics import accuracy
    from cspedge.evaluate.stats import share_interval

    wall, cpu = time.perf_counter(), time.process_time()
    path = run.lower(source, quantized)
    times = {"lower_s": time.perf_counter() - wall, "lower_cpu_s": time.process_time() - cpu}
    session = get_backend(run.backend).load(path, threads=1, options=run.options)
    images, labels = material.validation.images, material.validation.labels
    assert labels is not None
    output = material.loaded.info.outputs[0]
    found = vectors(session.run, output, images, whose=whose, error=TargetError)
    figures = accuracy(found, material.logits, labels)
    same = round(figures.agreement * figures.n)
    return {
        "status": "ok",
        **times,
        "bytes": size_of(path),
        "evidence": str(session.evidence),
        **asdict(figures),
        "agreement_ci95": share_interval(same, figures.n),
        "p50_ms": _p50(session, images) if latency else None,
    }


def _p50(session: Session, images: NDArray[np.uint8]) -> float | None:
    """Median of 100 single-image inferences; None for what does not run natively here."""
    import numpy as np

    from cspedge.evaluate.latency import bench
    from cspedge.types import Evidence

    if session.evidence is not Evidence.MEASURED:
        return None
    result = bench({"": session}, images[:1].astype(np.float32) / np.float32(255))
    return float(np.median(result.samples[""]))


def _own_code() -> Mapping[str, str]:
    """Digests of cspedge's source files and target files, by their names."""
    package = Path(cspedge.__file__).parent
    files = [*package.rglob("*.py"), *data_folder("targets").rglob("*.toml")]
    return {str(Path(*file.parts[-3:])): sha256_file(file) for file in sorted(files)}
