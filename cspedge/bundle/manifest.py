"""manifest.json: read strictly, checked against the published schema and the rules between its fields."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from cspedge.bundle.names import parse_version
from cspedge.bundle.refusal import Kind, Refusal
from cspedge.errors import RuntimeMissingError, UsageError
from cspedge.models.preprocess import MAX_PIXELS
from cspedge.resources import bundle_schema
from cspedge.types import Preprocess

SCHEMA = 1
NAME, SIGNATURE = "manifest.json", "model.sig"
UNLISTED = frozenset({NAME, SIGNATURE})


def strict_json(data: bytes) -> Any:
    """Parses UTF-8 JSON; ValueError for doubled keys, NaN and whatever else is no JSON."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            raise ValueError(f"the key {next(n for n in names if names.count(n) > 1)!r} stands twice in one object")
        return found

    def refuse(word: str) -> Any:
        raise ValueError(f"{word} is not JSON")

    try:
        return json.loads(data.decode(), object_pairs_hook=unique, parse_constant=refuse)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def parse(data: bytes) -> dict[str, Any]:
    """The manifest in these bytes; Refusal (`manifest-invalid`, `schema-newer`, `unknown-field`) for anything else."""
    try:
        found = strict_json(data)
    except ValueError as error:
        raise _invalid(f"is not JSON ({error})") from error
    if not isinstance(found, dict) or type(found.get("schema")) is not int or found["schema"] < 1:
        raise _invalid("has no schema number; it was not written by cspedge")
    if found["schema"] > SCHEMA:
        raise Refusal(
            Kind.SCHEMA_NEWER,
            f"{NAME} has schema {found['schema']} and this cspedge knows schema {SCHEMA}; update cspedge",
        )
    validate(found)
    return found


def validate(manifest: Mapping[str, Any]) -> None:
    """Checks a manifest of schema 1 against docs/bundle.schema.json and the rules between fields; raises Refusal."""
    _check_schema(manifest)
    for problem in _problems(manifest):
        raise _invalid(problem)


def _check_schema(manifest: Mapping[str, Any]) -> None:
    try:
        from jsonschema import Draft202012Validator
    except ImportError as error:
        raise RuntimeMissingError(
            "bundles need the package 'jsonschema'; install it with: pip install cspedge[bundle]"
        ) from error
    errors = sorted(Draft202012Validator(bundle_schema()).iter_errors(manifest), key=lambda e: e.json_path)
    fields = [e for error in errors for e in _with_causes(error) if e.validator == "additionalProperties"]
    if fields:
        where = fields[0].json_path.removeprefix("$").lstrip(".") or "its top"
        raise Refusal(
            Kind.UNKNOWN_FIELD, f"{NAME}, at {where}: {fields[0].message}; this schema has no such field, remove it"
        )
    if errors:
        where = errors[0].json_path.removeprefix("$").lstrip(".") or "its top"
        raise _invalid(f"is wrong at {where}: {errors[0].message[:300]}")


def _with_causes(error: Any) -> Iterator[Any]:
    """A schema error and, where alternatives failed, what each failed by."""
    yield error
    for cause in error.context or ():
        yield from _with_causes(cause)


def _problems(manifest: Mapping[str, Any]) -> Iterator[str]:
    """What breaks a rule between fields."""
    try:
        older = parse_version(manifest["version"]) < parse_version(manifest["minimum_version"])
    except UsageError as error:
        yield f"is wrong: {error}"
        return
    if older:
        yield f"has version {manifest['version']!r} below its own minimum_version {manifest['minimum_version']!r}"
    window, resize = manifest["preprocess"]["crop"], manifest["preprocess"]["resize"]
    if manifest["input"]["shape"] != [1, 3, window["height"], window["width"]]:
        yield f"has an input of shape {manifest['input']['shape']} behind a crop to {list(window.values())}"
    if resize["rule"] == "shorter-edge" and resize["height"] != resize["width"]:
        yield "has a shorter-edge resize of different height and width"
    listed = {entry["path"] for entry in manifest["files"]}
    if len(listed) < len(manifest["files"]):
        yield "lists a file twice"
    for path in sorted({*_named(manifest)} - listed):
        yield f"names {path!r} and does not list it under files"
    labels = [f"{a['target']}/{a['precision']}" for a in manifest["artifacts"]]
    if len(set(labels)) < len(labels):
        yield "lists two artifacts of one target and precision"
    names = [output["name"] for output in manifest["outputs"]]
    rows = [manifest["golden"]["reference"], *(artifact["golden"] for artifact in manifest["artifacts"])]
    if any([row["output"] for row in entries] != names for entries in rows):
        yield f"has golden outputs that are not the model's, {names}"
    for artifact in manifest["artifacts"]:
        path, files = artifact["path"], artifact["files"]
        if files != [path] and not all(name.startswith(f"{path}/") for name in files):
            yield f"gives the artifact {path!r} files that are not below it"


def _named(manifest: Mapping[str, Any]) -> Iterator[str]:
    """Every path that the manifest names outside `files`."""
    if manifest["model"]["labels"] is not None:
        yield manifest["model"]["labels"]
    yield from manifest["licenses"]["files"]
    yield from (row["file"] for row in manifest["golden"]["reference"])
    for image in manifest["golden"]["images"]:
        yield from (image["file"], image["rgb"], image["tensor"])
    for artifact in manifest["artifacts"]:
        yield from artifact["files"]
        yield from (row["file"] for row in artifact["golden"])


def _invalid(what: str) -> Refusal:
    return Refusal(Kind.MANIFEST_INVALID, f"{NAME} {what}; take the bundle from its source again")


def preprocess_entry(preprocess: Preprocess) -> dict[str, Any]:
    """How a decoded image becomes the tensor, in the manifest's words.

    Sources: `transforms_imagenet_eval` in timm/data/transforms_factory.py, 1.0.31; the first pass is Pillow's, which
    takes a tall image's height first from version 13 on (its pull request 9549).
    """
    from PIL import __version__ as pillow

    height, width = preprocess.input_size[1:]
    scaled = [math.floor(side / preprocess.crop_pct) for side in (height, width)]
    rule = {"squash": "exact", "border": "fit"}.get(preprocess.crop_mode)
    if rule is None:
        rule = "shorter-edge" if scaled[0] == scaled[1] else "cover"
    return {
        "resize": {
            "rule": rule,
            "height": scaled[0],
            "width": scaled[1],
            "interpolation": preprocess.interpolation,
            "antialias": True,
            "first_pass": "width-unless-tall" if int(pillow.split(".")[0]) >= 13 else "width",
        },
        "crop": {"at": "center", "height": height, "width": width},
        "pad": [round(255 * value) for value in preprocess.mean] if rule == "fit" else [0, 0, 0],
        "scale": "x / 255",
        "max_pixels": MAX_PIXELS,
        "exif_orientation": "ignored",
    }
