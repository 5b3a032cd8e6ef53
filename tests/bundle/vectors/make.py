"""Bad bundles, each made from a good one by a few lines, with the kind of refusal that every reader must give.

    python tests/bundle/vectors/make.py BUNDLE PRIVATE_KEY OUT

writes them below OUT with `vectors.json`, for the readers in Swift and Kotlin: a list of `name`, `path` (a folder or a
zip), `key` (public key to verify with, or null), `min_version` (or null), `kind` (null: to be taken), `step` (of
docs/bundle.md) and `run` (whether only running the artifact shows it).
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import stat
import sys
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cspedge import atomic
from cspedge.bundle import signature
from cspedge.bundle.refusal import Kind
from cspedge.bundle.write import write_zip
from cspedge.digest import pretty_json, sha256_file


@dataclass(frozen=True, kw_only=True)
class Good:
    """What vectors are made from: a signed bundle and its private key."""

    bundle: Path
    key: Path


# Changes a copy of the bundle; returns what is to be verified, where that is not the folder itself.
Change = Callable[[Path, Good], Path | None]


@dataclass(frozen=True, kw_only=True)
class Vector:
    name: str
    kind: Kind | None
    step: int
    change: Change
    key: bool = True
    min_version: str | None = None
    run: bool = False


def manifest_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return found


def seal(folder: Path, good: Good, manifest: dict[str, Any] | None = None) -> None:
    """Lists the files anew and signs, as a publisher would: what is wrong then is wrong in an authentic bundle."""
    manifest = manifest_of(folder) if manifest is None else manifest
    unlisted = {"manifest.json", "model.sig"}
    manifest["files"] = [
        {"path": name, "bytes": status.st_size, "sha256": sha256_file(folder / name)}
        for name, status in atomic.plain_files(folder).items()
        if name not in unlisted
    ]
    (folder / "manifest.json").write_text(pretty_json(manifest), encoding="utf-8")
    sign(folder, good.key)


def sign(folder: Path, key: Path) -> None:
    names = [name for name in atomic.plain_files(folder) if name != "model.sig"]
    digests = {name: sha256_file(folder / name) for name in names}
    (folder / "model.sig").write_bytes(signature.sign(folder.name, digests, signature.read_private(key)))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def edit(change: Callable[[dict[str, Any]], object]) -> Change:
    """A vector whose manifest says something else, signed."""

    def apply(folder: Path, good: Good) -> None:
        manifest = manifest_of(folder)
        change(manifest)
        seal(folder, good, manifest)

    return apply


def edit_signature(change: Callable[[dict[str, Any]], object]) -> Change:
    """A vector whose model.sig says something else."""

    def apply(folder: Path, good: Good) -> None:
        path = folder / "model.sig"
        found = json.loads(path.read_text(encoding="utf-8"))
        change(found)
        path.write_text(json.dumps(found), encoding="utf-8")

    return apply


def restate(change: Callable[[dict[str, Any]], object]) -> Change:
    """A vector whose signed statement says something else, signed with the right key."""

    def apply(folder: Path, good: Good) -> None:
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

        path = folder / "model.sig"
        found = json.loads(path.read_text(encoding="utf-8"))
        statement = json.loads(base64.b64decode(found["dsseEnvelope"]["payload"]))
        change(statement)
        payload = json.dumps(statement).encode()
        key = signature.read_private(good.key)
        signed = key.sign(signature.encoding(payload), ec.ECDSA(hashes.SHA256()))
        found["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
        found["dsseEnvelope"]["signatures"][0]["sig"] = base64.b64encode(signed).decode()
        path.write_text(json.dumps(found), encoding="utf-8")

    return apply


def on_file(name: str, change: Callable[[Path], object], *, sealed: bool = False) -> Change:
    """A vector with one file changed; sealed: listed and signed as it then is. `@artifact` is the first artifact's."""

    def apply(folder: Path, good: Good) -> None:
        manifest = manifest_of(folder)
        files = {"@artifact": manifest["artifacts"][0]["files"][0], "@image": manifest["golden"]["images"][0]["file"]}
        path = folder / files.get(name, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        change(path)
        if sealed:
            seal(folder, good)

    return apply


def other_key(folder: Path, good: Good) -> None:
    other, _ = signature.make_keys(folder.parent / "other")
    sign(folder, other)
    shutil.rmtree(folder.parent / "other")


def zipped(members: Callable[[zipfile.ZipFile, Path], None]) -> Change:
    """A vector that is a zip: the whole bundle, and what `members` adds."""

    def apply(folder: Path, good: Good) -> Path:
        path = folder.with_suffix(".zip")
        write_zip(folder, path)
        with zipfile.ZipFile(path, "a", zipfile.ZIP_STORED) as archive:
            members(archive, folder)
        shutil.rmtree(folder)
        return path

    return apply


def add_link(archive: zipfile.ZipFile, folder: Path) -> None:
    info = zipfile.ZipInfo(f"{folder.name}/golden/link", (1980, 1, 1, 0, 0, 0))
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    archive.writestr(info, "/etc/passwd")


def add(name: str, data: bytes = b"x") -> Callable[[zipfile.ZipFile, Path], None]:
    return lambda archive, folder: archive.writestr(name.replace("@", folder.name), data)


def bomb(archive: zipfile.ZipFile, folder: Path) -> None:
    """Zeros beyond what a zip of this size may declare, in a thousandth of their size."""
    archive.compression = zipfile.ZIP_DEFLATED
    size = int((200 * Path(str(archive.filename)).stat().st_size + (64 << 20)) / 0.7)
    with archive.open(f"{folder.name}/golden/zeros", "w", force_zip64=True) as file:
        for _ in range(size >> 20):
            file.write(bytes(1 << 20))


def truncated_zip(folder: Path, good: Good) -> Path:
    path = folder.with_suffix(".zip")
    write_zip(folder, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    shutil.rmtree(folder)
    return path


def link(folder: Path, good: Good) -> None:
    os.remove(folder / "labels.txt")
    (folder / "labels.txt").symlink_to("LICENSES/weights.txt")


def png(width: int, height: int) -> bytes:
    """A PNG's header for a size, with one empty row of data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)

    header = width.to_bytes(4) + height.to_bytes(4) + bytes([8, 2, 0, 0, 0])
    rows = zlib.compress(b"\0" * (3 * min(width, 16) + 1))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def image_of(width: int, height: int) -> Change:
    """The first golden image declares another size, in its file and in the manifest."""

    def apply(folder: Path, good: Good) -> None:
        manifest = manifest_of(folder)
        image = manifest["golden"]["images"][0]
        image["width"], image["height"] = width, height
        (folder / image["file"]).write_bytes(png(width, height))
        (folder / image["rgb"]).write_bytes(bytes(min(3 * width * height, 48)))
        seal(folder, good, manifest)

    return apply


def golden_off(folder: Path, good: Good) -> None:
    """The first expected answer is off by ten tolerances: what a model with other weights looks like."""
    import numpy as np

    entry = manifest_of(folder)["artifacts"][0]["golden"][0]
    values = np.fromfile(folder / entry["file"], "<f4")
    values[0] += 10 * entry["max_abs"]
    values.tofile(folder / entry["file"])
    seal(folder, good)


def swap(path: Path, data: bytes) -> object:
    return path.write_bytes(data)


def newer(manifest: dict[str, Any]) -> None:
    manifest["schema"] = 2
    manifest["something_new"] = True


VECTORS: tuple[Vector, ...] = (
    Vector(name="good", kind=None, step=9, change=lambda folder, good: None),
    Vector(name="good-no-key", kind=None, step=9, change=lambda folder, good: None, key=False),
    Vector(name="good-zip", kind=None, step=9, change=zipped(lambda archive, folder: None)),
    Vector(name="good-version-allowed", kind=None, step=9, change=lambda folder, good: None, min_version="1.2.3"),
    Vector(
        name="good-emulated",
        kind=None,
        step=9,
        change=edit(lambda m: m["artifacts"][0]["evidence"].update(kind="emulated")),
    ),
    Vector(name="no-manifest", kind=Kind.NOT_A_BUNDLE, step=1, change=on_file("manifest.json", lambda p: p.unlink())),
    Vector(name="truncated-zip", kind=Kind.ARCHIVE_DAMAGED, step=1, change=truncated_zip),
    Vector(name="traversal-zip", kind=Kind.PATH_UNSAFE, step=2, change=zipped(add("@/../../evil"))),
    Vector(name="absolute-zip", kind=Kind.PATH_UNSAFE, step=2, change=zipped(add("/tmp/evil"))),
    Vector(name="backslash-zip", kind=Kind.PATH_UNSAFE, step=2, change=zipped(add("@/golden\\evil"))),
    Vector(name="unicode-zip", kind=Kind.PATH_UNSAFE, step=2, change=zipped(add("@/labels\u0301.txt"))),
    Vector(name="git", kind=Kind.PATH_UNSAFE, step=2, change=on_file(".gitattributes", lambda p: swap(p, b"x"))),
    Vector(name="git-folder", kind=Kind.PATH_UNSAFE, step=2, change=on_file(".git/config", lambda p: swap(p, b"x"))),
    Vector(name="link", kind=Kind.LINK, step=2, change=link),
    Vector(name="link-zip", kind=Kind.LINK, step=2, change=zipped(add_link)),
    Vector(name="case-twin-zip", kind=Kind.NAME_COLLISION, step=2, change=zipped(add("@/LABELS.TXT"))),
    Vector(name="file-and-folder-zip", kind=Kind.NAME_COLLISION, step=2, change=zipped(add("@/labels.txt/x"))),
    Vector(name="zip-bomb", kind=Kind.TOO_LARGE, step=2, change=zipped(bomb)),
    Vector(
        name="long-manifest",
        kind=Kind.TOO_LARGE,
        step=2,
        change=on_file("manifest.json", lambda p: swap(p, p.read_bytes() + b" " * (4 << 20))),
    ),
    Vector(name="unsigned", kind=Kind.SIGNATURE_MISSING, step=3, change=on_file("model.sig", lambda p: p.unlink())),
    Vector(
        name="signature-truncated",
        kind=Kind.SIGNATURE_INVALID,
        step=3,
        change=on_file("model.sig", lambda p: swap(p, p.read_bytes()[:500])),
    ),
    Vector(
        name="signature-media-type",
        kind=Kind.SIGNATURE_INVALID,
        step=3,
        change=edit_signature(lambda s: s.update(mediaType="application/json")),
    ),
    Vector(
        name="signature-twice",
        kind=Kind.SIGNATURE_INVALID,
        step=3,
        change=edit_signature(lambda s: s["dsseEnvelope"]["signatures"].append(s["dsseEnvelope"]["signatures"][0])),
    ),
    Vector(name="other-key", kind=Kind.SIGNATURE_WRONG_KEY, step=3, change=other_key),
    Vector(
        name="signature-changed",
        kind=Kind.SIGNATURE_MISMATCH,
        step=3,
        change=edit_signature(lambda s: s["dsseEnvelope"].update(payload=base64.b64encode(b'{"_type": "x"}').decode())),
    ),
    Vector(
        name="old-predicate",
        kind=Kind.SIGNATURE_INVALID,
        step=3,
        change=restate(lambda s: s.update(predicateType="https://model_signing/Digests/v0.1")),
    ),
    Vector(
        name="ignores-a-file",
        kind=Kind.SIGNATURE_INVALID,
        step=3,
        change=restate(lambda s: s["predicate"]["serialization"].update(ignore_paths=["labels.txt"])),
    ),
    Vector(
        name="allows-links",
        kind=Kind.SIGNATURE_INVALID,
        step=3,
        change=restate(lambda s: s["predicate"]["serialization"].update(allow_symlinks=True)),
    ),
    Vector(
        name="wrong-root",
        kind=Kind.SIGNATURE_INVALID,
        step=3,
        change=restate(lambda s: s["subject"][0]["digest"].update(sha256="0" * 64)),
    ),
    Vector(name="changed-byte", kind=Kind.FILE_CHANGED, step=3, change=on_file("@artifact", flip)),
    Vector(name="changed-manifest", kind=Kind.FILE_CHANGED, step=3, change=on_file("manifest.json", flip)),
    Vector(name="missing-file", kind=Kind.FILE_MISSING, step=3, change=on_file("labels.txt", lambda p: p.unlink())),
    Vector(name="extra-file", kind=Kind.FILE_EXTRA, step=3, change=on_file("extra.txt", lambda p: swap(p, b"x"))),
    Vector(
        name="truncated-file",
        kind=Kind.FILE_CHANGED,
        step=3,
        change=on_file("@artifact", lambda p: swap(p, p.read_bytes()[:-100])),
    ),
    Vector(name="changed-byte-no-key", kind=Kind.FILE_CHANGED, step=5, change=on_file("@artifact", flip), key=False),
    Vector(
        name="truncated-file-no-key",
        kind=Kind.FILE_CHANGED,
        step=5,
        change=on_file("@artifact", lambda p: swap(p, p.read_bytes()[:-100])),
        key=False,
    ),
    Vector(
        name="missing-file-no-key",
        kind=Kind.FILE_MISSING,
        step=5,
        change=on_file("labels.txt", lambda p: p.unlink()),
        key=False,
    ),
    Vector(
        name="extra-file-no-key",
        kind=Kind.FILE_EXTRA,
        step=5,
        change=on_file("extra.txt", lambda p: swap(p, b"x")),
        key=False,
    ),
    Vector(
        name="not-json",
        kind=Kind.MANIFEST_INVALID,
        step=4,
        change=on_file("manifest.json", lambda p: swap(p, b"\xff{")),
        key=False,
    ),
    Vector(name="newer-schema", kind=Kind.SCHEMA_NEWER, step=4, change=edit(newer)),
    Vector(name="unknown-field", kind=Kind.UNKNOWN_FIELD, step=4, change=edit(lambda m: m.update(color="blue"))),
    Vector(
        name="unknown-field-inside",
        kind=Kind.UNKNOWN_FIELD,
        step=4,
        change=edit(lambda m: m["artifacts"][0]["evidence"]["accuracy"].update(top3=1.0)),
    ),
    Vector(
        name="unknown-evidence",
        kind=Kind.MANIFEST_INVALID,
        step=4,
        change=edit(lambda m: m["artifacts"][0]["evidence"].update(kind="simulated")),
    ),
    Vector(name="missing-field", kind=Kind.MANIFEST_INVALID, step=4, change=edit(lambda m: m.pop("outputs"))),
    Vector(
        name="wrong-type",
        kind=Kind.MANIFEST_INVALID,
        step=4,
        change=edit(lambda m: m["preprocess"]["resize"].update(height="64")),
    ),
    Vector(
        name="no-such-file",
        kind=Kind.MANIFEST_INVALID,
        step=4,
        change=edit(lambda m: m["golden"]["images"][0].update(tensor="golden/none.tensor")),
    ),
    Vector(
        name="minimum-above-version",
        kind=Kind.MANIFEST_INVALID,
        step=4,
        change=edit(lambda m: m.update(minimum_version="9.0.0")),
    ),
    Vector(
        name="older-version",
        kind=Kind.VERSION_OLDER,
        step=6,
        change=lambda folder, good: None,
        min_version="1.10.0",
    ),
    Vector(
        name="labels-short",
        kind=Kind.LABELS_INVALID,
        step=7,
        change=on_file("labels.txt", lambda p: swap(p, b"one\n"), sealed=True),
    ),
    Vector(name="zero-size-image", kind=Kind.IMAGE_EMPTY, step=7, change=image_of(0, 8)),
    Vector(name="100-megapixel-image", kind=Kind.IMAGE_TOO_LARGE, step=7, change=image_of(10_000, 10_000)),
    Vector(
        name="image-of-another-size",
        kind=Kind.IMAGE_INVALID,
        step=7,
        change=edit(lambda m: m["golden"]["images"][0].update(width=m["golden"]["images"][0]["width"] + 1)),
    ),
    Vector(
        name="image-empty-file",
        kind=Kind.IMAGE_INVALID,
        step=7,
        change=on_file("@image", lambda p: swap(p, b""), sealed=True),
    ),
    Vector(
        name="other-pixels",
        kind=Kind.IMAGE_INVALID,
        step=7,
        change=on_file("golden/00.rgb", flip, sealed=True),
    ),
    Vector(
        name="other-interpolation",
        kind=Kind.PREPROCESS_MISMATCH,
        step=8,
        change=edit(lambda m: m["preprocess"]["resize"].update(interpolation="nearest")),
    ),
    Vector(
        name="other-tensor",
        kind=Kind.PREPROCESS_MISMATCH,
        step=8,
        change=on_file("golden/00.tensor", flip, sealed=True),
    ),
    Vector(
        name="artifact-cut",
        kind=Kind.ARTIFACT_REFUSED,
        step=9,
        change=on_file("@artifact", lambda p: swap(p, p.read_bytes()[: p.stat().st_size // 2]), sealed=True),
        run=True,
    ),
    Vector(name="golden-mismatch", kind=Kind.GOLDEN_MISMATCH, step=9, change=golden_off, run=True),
)


def make(vector: Vector, good: Good, folder: Path) -> Path:
    """Makes one vector below `folder`; what is to be verified."""
    copy = folder / vector.name / good.bundle.name
    shutil.copytree(good.bundle, copy, symlinks=True)
    return vector.change(copy, good) or copy


def export(good: Good, out: Path, vectors: tuple[Vector, ...] = VECTORS) -> None:
    """Writes vectors with their list, for other languages."""
    rows = []
    for vector in vectors:
        path = make(vector, good, out)
        row = {k: v for k, v in asdict(vector).items() if k != "change"}
        rows.append(row | {"path": path.relative_to(out).as_posix(), "key": "public.pem" if vector.key else None})
    public = signature.public_pem(signature.read_private(good.key).public_key())
    (out / "public.pem").write_bytes(public)
    (out / "vectors.json").write_text(pretty_json(rows), encoding="utf-8")


if __name__ == "__main__":
    export(Good(bundle=Path(sys.argv[1]), key=Path(sys.argv[2])), Path(sys.argv[3]))
