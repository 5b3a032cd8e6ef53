"""The stages as stored results: for each, what its key holds (how its files are written and read: `cspedge.objects`).

A key holds the digest of everything the result depends on; `CODE` is raised by hand when a stage's own code changes
its result. Nothing here decides what to run: that is `cspedge.pipeline`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from cspedge.digest import sha256_json
from cspedge.types import Head, Precision, Preprocess

if TYPE_CHECKING:
    from cspedge.config import Target
    from cspedge.data.corrupt import Corruption
    from cspedge.data.images import ImageList
    from cspedge.models.source import ModelSource
    from cspedge.quantize.islands import Cost
    from cspedge.quantize.mixed import MixedOptions
    from cspedge.quantize.placement import Placement
    from cspedge.quantize.quantizer import QuantizerOptions

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
        **({} if corruption is None else {"corruption": plain(asdict(corruption))}),
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
        "recipe": plain(asdict(options)),
        "placements": [plain(asdict(p)) for p in placements],
        "tools": tool_versions(*TORCH),
    }


def plain(value: Any) -> Any:
    """Enumerations as their words, tuples as lists."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return str(value) if isinstance(value, str) else value


def mixed_basis(reference: str, quantized: str, images: str, placement: Placement, threads: int) -> dict[str, Any]:
    """What an evaluation of the accuracy loop depends on: not its goals, its budget or the target's costs."""
    simulated = {key: value for key, value in asdict(placement).items() if key not in {"activation_dtype", "one_user"}}
    return {
        "code": CODE["mixed"],
        "reference": reference,
        "quantized": quantized,
        "images": images,
        "placement": plain(simulated),
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


@dataclass(frozen=True, kw_only=True)
class StageRow:
    """One line of the report's "stages"."""

    name: str
    seconds: float
    cached: bool
