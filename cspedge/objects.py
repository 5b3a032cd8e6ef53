"""What a stage's stored object holds: files written into its folder, and the values read back from them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cspedge.digest import pretty_json
from cspedge.measured import Latency, RanOn
from cspedge.models.heads import outputs_from
from cspedge.models.reference import ReferenceInfo
from cspedge.stages import plain
from cspedge.types import Artifact, Audit, Closeness, Evidence, ImageSet, Precision, Preprocess, Skipped

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cspedge.quantize.mixed import Mixed
    from cspedge.quantize.placement import QuantizedModel
    from cspedge.store import StoredObject


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
    values = asdict(artifact) | {"path": artifact.path.name, "precision": str(artifact.precision)}
    (folder / "artifact.json").write_text(pretty_json(values), encoding="utf-8")
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
    return {"evidence": str(evidence)} | ({} if ran_on is None else {"ran_on": plain(asdict(ran_on))})


def read_evidence(stored: StoredObject) -> tuple[Evidence, RanOn | None]:
    """What stands behind an evaluation, and the device where it ran (None: this process)."""
    ran_on = stored.meta.get("ran_on")
    return Evidence(stored.meta["evidence"]), None if ran_on is None else RanOn(**_tuples(ran_on))


def read_closeness(stored: StoredObject) -> tuple[Closeness, ...]:
    rows = json.loads(stored.file("closeness.json").read_text(encoding="utf-8"))
    return tuple(Closeness(**row) for row in rows)


def write_latencies(found: Mapping[str, Latency | str], folder: Path) -> dict[str, Any]:
    values = {k: v if isinstance(v, str) else asdict(v) for k, v in found.items()}
    (folder / "latency.json").write_text(pretty_json(values), encoding="utf-8")
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
