"""Taking or refusing a bundle: the checks of docs/bundle.md, in their order."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cspedge.bundle import pixels, signature
from cspedge.bundle.container import Container
from cspedge.bundle.manifest import NAME, SIGNATURE, UNLISTED, parse
from cspedge.bundle.names import Version, parse_version
from cspedge.bundle.refusal import Kind, Refusal
from cspedge.data.images import FORMATS, decode
from cspedge.errors import InputError
from cspedge.types import Status

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

JPEG_LEVELS = 1.0  # mean absolute difference that two JPEG decoders may have
CHILD_SECONDS = 600


class Signed(StrEnum):
    """What stands behind a bundle."""

    VERIFIED = "verified"
    NOT_CHECKED = "not-checked"  # there is a signature, and no key was given
    ABSENT = "absent"


@dataclass(frozen=True, kw_only=True)
class Replay:
    """One artifact on the golden images. worst: the largest difference as a share of the tolerance; None: not run."""

    artifact: str
    status: Status
    worst: float | None = None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Verified:
    """A bundle that passed."""

    manifest: Mapping[str, Any]
    signed: Signed
    replays: tuple[Replay, ...]


def verify(
    path: Path, *, key: Path | None = None, min_version: str | None = None, run_artifacts: bool = True
) -> Verified:
    """Checks the folder or zip at `path`; the first failure is raised as a Refusal.

    key: a public PEM file; without it nobody vouches for the bundle. min_version: the oldest version that is taken.
    Artifacts run in processes of their own, from copies of the bytes that were checked. UsageError for a key or a
    version that is none.
    """
    public = None if key is None else signature.read_public(key)
    oldest = None if min_version is None else parse_version(min_version, "minimum version")
    with checked(path, public) as (folder, manifest):
        if oldest is not None:
            check_version(manifest, oldest)
        check_content(folder, manifest)
        replays = replay(folder, manifest) if run_artifacts else ()
        signed = Signed.NOT_CHECKED if (folder / SIGNATURE).exists() else Signed.ABSENT
    return Verified(manifest=manifest, signed=Signed.VERIFIED if public is not None else signed, replays=replays)


@contextmanager
def checked(path: Path, key: ec.EllipticCurvePublicKey | None) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Steps 1 to 5: a private copy of the bundle whose bytes are those that were checked, and its manifest."""
    with Container(path) as container, tempfile.TemporaryDirectory(prefix="cspedge-bundle-") as private:
        folder = Path(private)
        digests = {name: container.copy(name, folder / name) for name in container.sizes}
        if key is not None:
            if SIGNATURE not in digests:
                raise Refusal(
                    Kind.SIGNATURE_MISSING, f"the bundle has no {SIGNATURE}, and a key was given; sign it first"
                )
            _compare(signature.verify((folder / SIGNATURE).read_bytes(), key), digests, {SIGNATURE}, "the signature")
        manifest = parse((folder / NAME).read_bytes())
        for entry in manifest["files"]:
            size = container.sizes.get(entry["path"])
            if size is not None and size != entry["bytes"]:
                raise Refusal(
                    Kind.FILE_CHANGED,
                    f"{entry['path']!r} has {size} bytes where {NAME} says {entry['bytes']}; take the bundle again",
                )
        _compare({entry["path"]: entry["sha256"] for entry in manifest["files"]}, digests, UNLISTED, NAME)
        yield folder, manifest


def _compare(said: Mapping[str, str], found: Mapping[str, str], unlisted: frozenset[str] | set[str], who: str) -> None:
    """Raises Refusal where files and a list of them differ."""
    for name in sorted(said.keys() - found.keys()):
        raise Refusal(Kind.FILE_MISSING, f"{name!r} is missing, which {who} lists; take the bundle again")
    for name in sorted(found.keys() - said.keys() - unlisted):
        raise Refusal(Kind.FILE_EXTRA, f"{name!r} is in the bundle and {who} does not list it; remove it")
    for name in sorted(said):
        if said[name] != found[name]:
            raise Refusal(Kind.FILE_CHANGED, f"{name!r} is not the file that {who} lists; take the bundle again")


def check_version(manifest: Mapping[str, Any], oldest: Version) -> None:
    """Raises Refusal (`version-older`) for a bundle below `oldest`."""
    if parse_version(manifest["version"]) < oldest:
        raise Refusal(
            Kind.VERSION_OLDER,
            f"the bundle has version {manifest['version']} and {'.'.join(map(str, oldest))} is the oldest "
            "that is taken; give a newer one",
        )


def check_update(manifest: Mapping[str, Any], installed: Mapping[str, Any], floor: Version = (0, 0, 0)) -> Version:
    """Whether a verified bundle may take the place of another; the floor from then on.

    floor: the largest `minimum_version` of all bundles accepted so far. Raises Refusal (`other-bundle`,
    `version-older`).
    """
    if manifest["name"] != installed["name"]:
        raise Refusal(
            Kind.OTHER_BUNDLE, f"the bundle is {manifest['name']!r} and {installed['name']!r} is installed; keep that"
        )
    check_version(manifest, max(parse_version(installed["version"]), floor))
    return max(floor, parse_version(manifest["minimum_version"]))


def check_content(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Steps 7 and 8: labels, golden images, and the contract of preprocessing."""
    if manifest["model"]["labels"] is not None:
        _check_labels((folder / manifest["model"]["labels"]).read_bytes(), manifest["model"]["num_classes"])
    for image in manifest["golden"]["images"]:
        pixels.check_size(image["height"], image["width"], manifest["preprocess"], f"the image {image['file']!r}")
        _check_image(folder, image, manifest)


def _check_labels(data: bytes, classes: int) -> None:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise Refusal(Kind.LABELS_INVALID, f"labels.txt is not UTF-8 ({error}); take the bundle again") from error
    if text.count("\n") != classes or not text.endswith("\n"):
        raise Refusal(
            Kind.LABELS_INVALID,
            f"labels.txt has {text.count(chr(10))} lines and the model {classes} classes; take the bundle again",
        )


def _check_image(folder: Path, image: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
    import numpy as np

    shape = (image["height"], image["width"], 3)
    rgb = _raw(folder, image["rgb"], np.uint8, shape)
    try:
        decoded = np.asarray(decode((folder / image["file"]).read_bytes()).image)
    except InputError as error:
        kind = Kind.IMAGE_TOO_LARGE if "larger than the limit" in str(error) else Kind.IMAGE_INVALID
        raise Refusal(kind, f"the image {image['file']!r} {error}; of {', '.join(FORMATS[:2])}, please") from error
    if decoded.shape != shape:
        raise _image(
            f"{image['file']!r} decodes to {decoded.shape[1]} x {decoded.shape[0]} pixels, not {image['width']} "
            f"x {image['height']}"
        )
    difference = float(np.abs(decoded.astype(np.int16) - rgb).mean())
    if difference > (JPEG_LEVELS if image["file"].endswith(".jpg") else 0):
        raise _image(
            f"{image['file']!r} decodes to other pixels than {image['rgb']!r} (by {difference:.3g} on average)"
        )
    expected = _raw(folder, image["tensor"], np.uint8, tuple(manifest["input"]["shape"][1:]))
    found = pixels.tensor(rgb, manifest["preprocess"], f"the image {image['file']!r}")
    if not np.array_equal(found, expected):
        share = float((found != expected).mean())
        raise Refusal(
            Kind.PREPROCESS_MISMATCH,
            f"{image['rgb']!r}, resized and cropped by the manifest, differs from {image['tensor']!r} in {share:.1%} "
            "of the values; the bundle's contract is not that of its model, make it again",
        )


def _raw(folder: Path, name: str, dtype: Any, shape: tuple[int, ...]) -> Any:
    """A raw file of golden/ as an array; Refusal where its length is not the shape's."""
    import numpy as np

    data = (folder / name).read_bytes()
    if len(data) != np.dtype(dtype).itemsize * int(np.prod(shape, dtype=np.int64)):
        raise _image(f"{name!r} has {len(data)} bytes, not those of shape {shape}")
    return np.frombuffer(data, dtype).reshape(shape)


def _image(what: str) -> Refusal:
    return Refusal(Kind.IMAGE_INVALID, f"{what}; take the bundle again")


def replay(folder: Path, manifest: Mapping[str, Any]) -> tuple[Replay, ...]:
    """Step 9: every artifact that can run here, in a process of its own; raises Refusal for one that fails."""
    from cspedge.backends import get_backend
    from cspedge.errors import UsageError

    found = []
    for index, artifact in enumerate(manifest["artifacts"]):
        label = f"{artifact['target']}/{artifact['precision']}"
        try:
            available = get_backend(artifact["backend"]).availability()
            reason = None if available.ok else available.reason
        except UsageError as error:
            reason = str(error)
        if reason is not None:
            found.append(Replay(artifact=label, status=Status.UNAVAILABLE, reason=reason))
            continue
        found.append(Replay(artifact=label, status=Status.OK, worst=_in_child(folder, index, label)))
    return tuple(found)


def _in_child(folder: Path, index: int, label: str) -> float:
    """Runs `cspedge.bundle.child`: a damaged artifact may take its process with it."""
    command = [sys.executable, "-m", "cspedge.bundle.child", str(folder), str(index)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=CHILD_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise _refused(label, f"gave no answer within {CHILD_SECONDS} s") from error
    try:
        answer = json.loads(done.stdout)
    except ValueError as error:
        last = (done.stderr.strip().splitlines() or ["without a word"])[-1][:200]
        raise _refused(label, f"ended its process (exit {done.returncode}: {last})") from error
    if answer["refused"] is not None:
        raise _refused(label, answer["refused"])
    worst = answer["worst"]
    if worst is None or worst > 1:
        by = "an answer that is no number" if worst is None else f"{worst:.3g} times the difference that is allowed"
        raise Refusal(
            Kind.GOLDEN_MISMATCH,
            f"{label} does not reproduce golden/ on this machine: {by}; do not use it here, make the bundle again",
        )
    return float(worst)


def _refused(label: str, why: str) -> Refusal:
    return Refusal(Kind.ARTIFACT_REFUSED, f"{label} cannot be run: it {why}; take the bundle again")
