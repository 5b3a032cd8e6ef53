"""The stages as stored results: for each, what its key holds and how its files are written and read.

A key holds the digest of everything the result depends on; `CODE` is raised by hand when a stage's own code changes
its result. Nothing here decides what to run: that is `cspedge.pipeline`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cspedge.digest import pretty_json, sha256_json
from cspedge.measured import Latency, RanOn
from cspedge.models.heads import outputs_from
from cspedge.models.reference import ReferenceInfo
from cspedge.types import Artifact, Audit, Closeness, Evidence, Head, ImageSet, Precision, Preprocess, Skipped

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cspedge.config import Target
    from cspedge.data.corrupt import Corruption
    from cspedge.data.images import ImageList
    from cspedge.models.source import ModelSource
    from cspedge.quantize.islands import Cost
    from cspedge.quantize.mixed import Mixed, MixedOptions
    from cspedge.quantize.placement import Placement, QuantizedModel
    from cspedge.quantize.quantizer import QuantizerOptions
    from cspedge.store import StoredObject

CODE: Mapping[str, int] = {
    "reference": 3,
    "images": 1,
    "logits": 2,
    "quantize": 5,
    "mixed": 2,
    "lower": 3,
    "evaluate": 2,
    "robustness": 1,
    "trace": 1,
    "bench": 2,
    "runner": 1,
    "instructions": 1,
}
TORCH = ("torch", "numpy")


def tool_versions(*packages: str) -> dict[str, str]:
    """Installed versions by name, without importing anything; "absent" for what is not installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


# ---- keys: what each result depends on -----------------------------------------------------------------------------


def reference_inputs(source: ModelSource, head: Head, img_size: int | None) -> dict[str, Any]:
    return {
        "source": source.digest,
        "name": source.name,
        "head": str(head),
        "img_size": img_size,
        "tools": tool_versions("torch", "timm"),
    }


def images_inputs(
    images: ImageList,
    indices: Sequence[int],
    preprocess: Preprocess,
    max_unreadable: float,
    labels: Sequence[int] | None,
    corruption: Corruption | None = None,
) -> dict[str, Any]:
    return {
        "digests": [images.digests[i] for i in indices],
        "names": [images.names[i] for i in indices],
        "source": images.source,
        "labels": None if labels is None else sha256_json([int(v) for v in labels]),
        "preprocess": asdict(preprocess),
        "max_unreadable": max_unreadable,
        "tools": tool_versions("pillow", "torchvision", "timm"),
        **({} if corruption is None else {"corruption": _plain(asdict(corruption))}),
    }


def logits_inputs(reference: str, images: str, device: str, threads: int) -> dict[str, Any]:
    return {
        "reference": reference,
        "images": images,
        "device": device,
        "threads": threads,
        "tools": tool_versions(*TORCH),
    }


def quantize_inputs(
    reference: str,
    images: Sequence[str],
    options: QuantizerOptions,
    placements: Sequence[Placement],
    threads: int,
    device: str,
) -> dict[str, Any]:
    """images: digests of the calibration's and, where a recipe learns from others, of those."""
    return {
        "threads": threads,
        "device": device,
        "reference": reference,
        "images": list(images),
        "recipe": _plain(asdict(options)),
        "placements": [_plain(asdict(p)) for p in placements],
        "tools": tool_versions(*TORCH),
    }


def _plain(value: Any) -> Any:
    """Enumerations as their words, tuples as lists."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, str) else value


def mixed_basis(reference: str, quantized: str, images: str, placement: Placement, threads: int) -> dict[str, Any]:
    """What an evaluation of the accuracy loop depends on: not its goals, its budget or the target's costs."""
    simulated = {key: value for key, value in asdict(placement).items() if key not in {"activation_dtype", "one_user"}}
    return {
        "code": CODE["mixed"],
        "reference": reference,
        "quantized": quantized,
        "images": images,
        "placement": _plain(simulated),
        "threads": threads,
        "tools": tool_versions(*TORCH),
    }


def mixed_inputs(basis: Mapping[str, Any], cost: Cost, options: MixedOptions) -> dict[str, Any]:
    return {"basis": dict(basis), "cost": asdict(cost), "options": asdict(options)}


def lower_inputs(
    reference: str,
    quantized: str | None,
    images: str | None,
    target: Target,
    precision: Precision,
    backend_code: int,
    sdk: Mapping[str, str],
    name: str,
    keep: Sequence[str] = (),
) -> dict[str, Any]:
    """quantized and images (those of the check) are None for float artifacts, which no calibration touches.

    keep: tensors that stay in float.
    """
    from cspedge import lowering

    wanted = lowering.target_inputs(target)
    if precision.is_float:  # a float artifact has no placement
        del wanted["placement"]
        wanted["options"] = {k: v for k, v in target.options.items() if k not in target.common}
    return {
        "reference": reference,
        "quantized": quantized,
        "check_images": images,
        "target": wanted,
        "precision": str(precision),
        "backend_code": backend_code,
        "lowering_code": lowering.CODE_VERSION,
        "name": name,
        "keep": sorted(keep),
        "tools": tool_versions("torch", "torchao", "timm") | dict(sdk),
    }


def evaluate_inputs(
    artifact: str,
    images: str,
    threads: int,
    sdk: Mapping[str, str],
    backend_code: int,
    options: Mapping[str, object],
    isa: Sequence[str],
    reference: str | None,
    device: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """torch's version and the backend's code are here because Core ML's reference executor is made of them.

    device: another place than this process; reference: digest of a reference that runs beside the artifact, for
    feature maps; None where its answers are stored.
    """
    return {
        "reference": reference,
        "artifact": artifact,
        "images": images,
        "threads": threads,
        "options": dict(options),
        "isa": list(isa),
        "backend_code": backend_code,
        "tools": tool_versions(*TORCH) | dict(sdk),
        **_device(device),
    }


def _device(device: Mapping[str, Any] | None) -> dict[str, Any]:
    return {} if device is None else {"device": dict(device)}


def bench_inputs(
    artifacts: Mapping[str, str],
    image: str,
    threads: int,
    rounds: int,
    per_round: int,
    seed: int,
    host: Mapping[str, Any],
    sdk: Mapping[str, str],
    device: Mapping[str, Any] | None = None,
    *,
    protocol: str,
    sweep: Sequence[int],
) -> dict[str, Any]:
    """device: another place than this host; sweep: other numbers of threads."""
    return {
        "artifacts": dict(artifacts),
        "image": image,
        "threads": threads,
        "rounds": rounds,
        "per_round": per_round,
        "seed": seed,
        "protocol": str(protocol),
        "sweep": list(sweep),
        "host": dict(host),
        "tools": dict(sdk),
        **_device(device),
    }


# ---- results: written into a stage's folder, read from a verified object -------------------------------------------


def write_reference(info: ReferenceInfo, folder: Path) -> dict[str, Any]:
    (folder / "reference.json").write_text(pretty_json(asdict(info)), encoding="utf-8")
    return {}


def _tuples(data: Mapping[str, Any]) -> dict[str, Any]:
    """JSON's lists become the tuples of a frozen value."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}


def read_reference(stored: StoredObject) -> ReferenceInfo:
    data = json.loads(stored.file("reference.json").read_text(encoding="utf-8"))
    pre = _tuples(data.pop("preprocess"))
    labels, outputs = tuple(data.pop("labels")), outputs_from(data.pop("outputs"))
    return ReferenceInfo(**data, labels=labels, outputs=outputs, preprocess=Preprocess(**pre))


def write_images(images: ImageSet, notes: Sequence[tuple[str, str]], folder: Path) -> dict[str, Any]:
    import numpy as np

    np.save(folder / "images.npy", images.images)
    if images.labels is not None:
        np.save(folder / "labels.npy", images.labels)
    listing = {
        "names": list(images.names),
        "digests": list(images.digests),
        "source": images.source,
        "skipped": [asdict(s) for s in images.skipped],
        "notes": [list(n) for n in notes],
    }
    (folder / "images.json").write_text(pretty_json(listing), encoding="utf-8")
    return {"n": len(images)}


def read_images(stored: StoredObject) -> tuple[ImageSet, tuple[tuple[str, str], ...]]:
    """The images (memory-mapped: most runs of a finished workspace never look at a pixel) and decoding remarks."""
    import numpy as np

    listing = json.loads(stored.file("images.json").read_text(encoding="utf-8"))
    labels = np.load(stored.file("labels.npy")) if "labels.npy" in stored.files else None
    images = ImageSet(
        images=np.load(stored.file("images.npy"), mmap_mode="r"),
        labels=labels,
        names=tuple(listing["names"]),
        digests=tuple(listing["digests"]),
        source=listing["source"],
        skipped=tuple(Skipped(**s) for s in listing["skipped"]),
    )
    return images, tuple((n[0], n[1]) for n in listing["notes"])


def write_array(name: str, values: NDArray[np.float32], folder: Path) -> None:
    import numpy as np

    np.save(folder / f"{name}.npy", values)


def read_array(name: str, stored: StoredObject) -> NDArray[np.float32]:
    import numpy as np

    found: NDArray[np.float32] = np.load(stored.file(f"{name}.npy"))
    return found


def write_quantized(model: QuantizedModel, folder: Path) -> dict[str, Any]:
    from safetensors.torch import save_file

    from cspedge.quantize.outliers import to_list

    (folder / "encodings.json").write_text(pretty_json(model.encodings.to_dict()), encoding="utf-8")
    (folder / "outliers.json").write_text(pretty_json(to_list(model.outliers)), encoding="utf-8")
    save_file({k: v.contiguous() for k, v in sorted(model.equalization.items())}, folder / "equalization.safetensors")
    save_file({k: v.contiguous() for k, v in sorted(model.integer_weights.items())}, folder / "integer.safetensors")
    if model.biases:
        save_file({k: v.contiguous() for k, v in sorted(model.biases.items())}, folder / "biases.safetensors")
    return {"activations": len(model.encodings.activations), "weights": len(model.encodings.weights)}


def read_quantized(stored: StoredObject, graph: Any, shape: tuple[int, int, int]) -> QuantizedModel:
    """The quantized model again: the graph is prepared anew from the weights, the numbers come from the store."""
    from safetensors.torch import load_file

    from cspedge.quantize.encodings import loads
    from cspedge.quantize.equalize import equalized
    from cspedge.quantize.outliers import from_list
    from cspedge.quantize.placement import QuantizedModel

    scales = load_file(stored.file("equalization.safetensors"))
    return QuantizedModel(
        graph=equalized(graph, scales),
        input_shape=shape,
        encodings=loads(stored.file("encodings.json").read_text(encoding="utf-8")),
        integer_weights=load_file(stored.file("integer.safetensors")),
        biases=load_file(stored.file("biases.safetensors")) if "biases.safetensors" in stored.files else {},
        equalization=scales,
        prepared=graph if scales else None,
        outliers=from_list(json.loads(stored.file("outliers.json").read_text(encoding="utf-8"))),
    )


def write_mixed(mixed: Mixed, folder: Path) -> dict[str, Any]:
    """Times are measurements, so this object's digest varies: lowering takes the tensors instead."""
    (folder / "mixed.json").write_text(pretty_json(mixed.to_dict()), encoding="utf-8")
    return {"met": mixed.met, "tensors": len(mixed.tensors)}


def read_mixed(stored: StoredObject) -> Mixed:
    from cspedge.quantize.mixed import from_dict

    return from_dict(json.loads(stored.file("mixed.json").read_text(encoding="utf-8")))


def write_artifact(artifact: Artifact, folder: Path) -> dict[str, Any]:
    """The artifact itself was written into `folder` by the lowering; this adds what is known about it.

    `lower_s` is a measurement, so this object's own digest varies: later stages take the artifact's SHA-256 instead.
    """
    plain = asdict(artifact) | {"path": artifact.path.name, "precision": str(artifact.precision)}
    (folder / "artifact.json").write_text(pretty_json(plain), encoding="utf-8")
    return {}


def read_artifact(stored: StoredObject) -> Artifact:
    data = json.loads(stored.file("artifact.json").read_text(encoding="utf-8"))
    audit = data.pop("audit")
    if audit is not None:
        audit = Audit(**_tuples(audit))
    path = stored.file(data.pop("path"))
    precision = Precision(data.pop("precision"))
    return Artifact(**_tuples(data), path=path, audit=audit, precision=precision)


def write_evaluation(
    found: NDArray[np.float32], evidence: Evidence, folder: Path, ran_on: RanOn | None = None
) -> dict[str, Any]:
    write_array("vectors", found, folder)
    return _evidence(evidence, ran_on)


def write_closeness(
    rows: Sequence[Closeness], evidence: Evidence, folder: Path, ran_on: RanOn | None = None
) -> dict[str, Any]:
    (folder / "closeness.json").write_text(pretty_json([asdict(row) for row in rows]), encoding="utf-8")
    return _evidence(evidence, ran_on)


def _evidence(evidence: Evidence, ran_on: RanOn | None) -> dict[str, Any]:
    return {"evidence": str(evidence)} | ({} if ran_on is None else {"ran_on": _plain(asdict(ran_on))})


def read_evidence(stored: StoredObject) -> tuple[Evidence, RanOn | None]:
    """What stands behind an evaluation, and the device where it ran (None: this process)."""
    ran_on = stored.meta.get("ran_on")
    return Evidence(stored.meta["evidence"]), None if ran_on is None else RanOn(**_tuples(ran_on))


def read_closeness(stored: StoredObject) -> tuple[Closeness, ...]:
    rows = json.loads(stored.file("closeness.json").read_text(encoding="utf-8"))
    return tuple(Closeness(**row) for row in rows)


def write_latencies(found: Mapping[str, Latency | str], folder: Path) -> dict[str, Any]:
    plain = {k: v if isinstance(v, str) else asdict(v) for k, v in found.items()}
    (folder / "latency.json").write_text(pretty_json(plain), encoding="utf-8")
    return {}


def read_latencies(stored: StoredObject) -> dict[str, Latency | str]:
    from cspedge.evaluate.timing import latency_from

    data = json.loads(stored.file("latency.json").read_text(encoding="utf-8"))
    return {label: value if isinstance(value, str) else latency_from(value) for label, value in data.items()}


def write_counts(samples: Sequence[int], folder: Path) -> dict[str, Any]:
    (folder / "instructions.json").write_text(pretty_json(list(samples)), encoding="utf-8")
    return {}


def read_counts(stored: StoredObject) -> tuple[int, ...]:
    return tuple(json.loads(stored.file("instructions.json").read_text(encoding="utf-8")))


@dataclass(frozen=True, kw_only=True)
class StageRow:
    """One line of the report's "stages"."""

    name: str
    seconds: float
    cached: bool
