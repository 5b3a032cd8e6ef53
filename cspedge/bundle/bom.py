"""The AI bill of materials: CycloneDX 1.6 by its own library, with the modelCard that the library has no class for.

cyclonedx-python-lib 11 has `modelCard` as a comment only (cyclonedx/model/component.py). It writes the document; the
card is put into the model's component after that, and the library's strict validator checks the whole.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from cspedge.bundle.licenses import UNKNOWN
from cspedge.digest import pretty_json, sha256_json
from cspedge.errors import RuntimeMissingError, UsageError
from cspedge.evaluate.stats import share_interval

if TYPE_CHECKING:
    from cyclonedx.model.component import Component

NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:cspedge:bundle")
NAME = "bom.cdx.json"


def require_cyclonedx() -> None:
    """Raises RuntimeMissingError where the library is not installed."""
    try:
        import cyclonedx  # noqa: F401
    except ImportError as error:
        raise RuntimeMissingError(
            "a bill of materials needs 'cyclonedx-python-lib'; install it with: pip install cspedge[bundle]"
        ) from error


def bill_of_materials(manifest: Mapping[str, Any], trained_on: Mapping[str, Any] | None) -> str:
    """bom.cdx.json for a manifest (without its `files`); the same text for the same manifest.

    trained_on: the provenance of the weights, as in report.json. Raises UsageError where the result breaks the schema.
    """
    require_cyclonedx()
    from cyclonedx.output.json import JsonV1Dot6
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    document = json.loads(JsonV1Dot6(_bom(manifest, trained_on)).output_as_string())
    document["metadata"].pop("timestamp", None)  # the same bytes on another day
    document["metadata"]["component"]["modelCard"] = model_card(manifest, trained_on)
    text = pretty_json(document)
    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if problem is not None:
        raise UsageError(f"the bill of materials would break CycloneDX 1.6: {str(problem)[:300]}; report it to cspedge")
    return text


def _bom(manifest: Mapping[str, Any], trained_on: Mapping[str, Any] | None) -> Any:
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentType

    model = _model(manifest, trained_on)
    serial = uuid.uuid5(NAMESPACE, sha256_json(dict(manifest)))
    generator = manifest["generator"]
    tool = Component(name=generator["name"], version=generator["version"], type=ComponentType.APPLICATION)
    tool.bom_ref.value = "tool"
    bom = Bom(serial_number=serial, metadata=BomMetaData(component=model))
    bom.metadata.tools.components.add(tool)
    parts = []
    for artifact in manifest["artifacts"]:
        label = f"{artifact['target']}/{artifact['precision']}"
        is_file = artifact["files"] == [artifact["path"]]  # no standard says how a folder is hashed
        parts.append(
            Component(
                name=artifact["path"],
                type=ComponentType.FILE,
                bom_ref=f"artifact:{label}",
                description=f"{label}: {artifact['placement']}",
                hashes=[HashType(alg=HashAlgorithm.SHA_256, content=artifact["sha256"])] if is_file else [],
                properties=_properties(_artifact_facts(artifact) | {"cspedge:sha256": artifact["sha256"]}),
            )
        )
    for name, version in sorted({(a["runtime"]["name"], a["runtime"]["version"]) for a in manifest["artifacts"]}):
        parts.append(Component(name=name, version=version, type=ComponentType.FRAMEWORK, bom_ref=f"runtime:{name}"))
    for part in parts:
        bom.components.add(part)
    bom.register_dependency(model, parts)
    return bom


def _model(manifest: Mapping[str, Any], trained_on: Mapping[str, Any] | None) -> Component:
    from cyclonedx.contrib.license.factories import LicenseFactory
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.component import Component, ComponentType, Pedigree

    model, terms = manifest["model"], manifest["licenses"]["weights"]
    licenses = [] if terms["license"] == UNKNOWN else [LicenseFactory().make_from_string(terms["license"])]
    source = Component(
        name=model["name"],
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref="checkpoint",
        description="the fp32 checkpoint that everything was made of",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=model["weights_sha256"])],
        licenses=licenses,
        properties=_properties({"cspedge:started_from": _started_from(trained_on)}),
    )
    return Component(
        name=manifest["name"],
        version=manifest["version"],
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref="model",
        licenses=licenses,
        copyright=terms["attribution"] or UNKNOWN,
        pedigree=Pedigree(ancestors=[source]),
        properties=_properties(
            {
                "cspedge:license": terms["license"],
                "cspedge:encodings_sha256": manifest["encodings_sha256"] or "none: nothing is int8",
                "cspedge:golden_images_license": manifest["licenses"]["golden"]["license"],
                "cspedge:parameters": str(model["params"]),
            }
        ),
    )


def _started_from(trained_on: Mapping[str, Any] | None) -> str:
    """What the checkpoint itself was made from."""
    if not trained_on or "start" not in trained_on:
        return UNKNOWN
    start = trained_on["start"]
    return "scratch" if start is None else json.dumps(start, sort_keys=True)


def _artifact_facts(artifact: Mapping[str, Any]) -> dict[str, str]:
    runtime, evidence = artifact["runtime"], artifact["evidence"]
    return {
        "cspedge:runtime": f"{runtime['name']} {runtime['version']}",
        "cspedge:evidence": evidence["kind"],
        "cspedge:verdict": evidence["verdict"],
        "cspedge:minimum_os": ", ".join(artifact["minimum_os"]) or UNKNOWN,
        "cspedge:float_tensors": str(len(artifact["float_tensors"])),
    }


def _properties(values: Mapping[str, str]) -> list[Any]:
    from cyclonedx.model import Property

    return [Property(name=name, value=value) for name, value in values.items()]


def model_card(manifest: Mapping[str, Any], trained_on: Mapping[str, Any] | None) -> dict[str, Any]:
    """CycloneDX's modelCard: parameters, data, metrics with n and interval, limits; what is not known says so."""
    model = manifest["model"]
    shape = "x".join(map(str, manifest["input"]["shape"]))
    training = trained_on.get("data") if trained_on else None
    return {
        "modelParameters": {
            "approach": {"type": "supervised"},
            "task": {"logits": "image classification", "embedding": "image embedding"}.get(
                model["head"], "image feature extraction"
            ),
            "architectureFamily": "convolutional neural network",
            "modelArchitecture": model["architecture"],
            "datasets": [
                _dataset("training", training if isinstance(training, str) else UNKNOWN, {}),
                _images("calibration", manifest["calibration"]),
                _images("validation", manifest["validation"]),
            ],
            "inputs": [{"format": f"float32 {shape}, RGB in [0, 1]"}],
            "outputs": [
                {"format": f"{o['values']}: float32 {'x'.join(map(str, o['shape']))}"} for o in manifest["outputs"]
            ],
        },
        "quantitativeAnalysis": {"performanceMetrics": list(_metrics(manifest))},
        "considerations": {
            "users": [UNKNOWN],
            "useCases": [UNKNOWN],
            "technicalLimitations": [
                "Accuracy holds for images like the validation set's, prepared by the manifest's contract."
            ],
            "performanceTradeoffs": [
                f"{a['target']}/{a['precision']}: {a['evidence']['verdict']}. {' '.join(a['evidence']['reasons'])}"
                for a in manifest["artifacts"]
            ],
            "ethicalConsiderations": [{"name": UNKNOWN, "mitigationStrategy": UNKNOWN}],
        },
    }


def _images(use: str, entry: Mapping[str, Any] | None) -> dict[str, Any]:
    if entry is None:
        return _dataset(use, "none: nothing is int8", {})
    return _dataset(use, entry["source"], {"n": str(entry["n"]), "sha256": entry["sha256"]})


def _dataset(use: str, source: str, facts: Mapping[str, str]) -> dict[str, Any]:
    properties = [{"name": f"cspedge:{key}", "value": value} for key, value in sorted(facts.items())]
    return {"type": "dataset", "name": f"{use}: {source}", "contents": {"properties": properties}}


def _metrics(manifest: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every measured figure with how many images stand behind it and its 95 % interval."""
    reference = manifest["reference"]
    for name in ("top1", "top5") if reference["top1"] is not None else ():
        yield _share(name, reference[name], reference["n"], "reference/fp32")
    for artifact in manifest["artifacts"]:
        label, evidence = f"{artifact['target']}/{artifact['precision']}", artifact["evidence"]
        accuracy, latency = evidence["accuracy"], evidence["latency"]
        if accuracy is not None:
            for name in ("top1", "top5", "agreement"):
                yield _share(name, accuracy[name], accuracy["n"], label)
            yield _metric("drop_top1", accuracy["drop_top1"], accuracy["n"], label, accuracy["drop_ci95"])
        for output in evidence["outputs"]:
            yield _metric(f"cosine_mean of {output['name']}", output["cosine_mean"], output["n"], label)
        if latency is not None:
            yield _metric("latency_p50_ms", latency["p50_ms"], latency["n"], f"{label} on {latency['device']}")


def _share(name: str, value: float, n: int, label: str) -> dict[str, Any]:
    return _metric(name, value, n, label, share_interval(min(n, round(value * n)), n))


def _metric(name: str, value: float, n: int, label: str, interval: Any = None) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": name, "value": f"{value:.6g}", "slice": f"{label}, n = {n}"}
    if interval is not None:
        entry["confidenceInterval"] = {"lowerBound": f"{interval[0]:.6g}", "upperBound": f"{interval[1]:.6g}"}
    return entry
