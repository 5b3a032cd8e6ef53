"""The cores take a real bundle and refuse what cspedge refuses, with the same word."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cspedge.bundle import verify as python
from cspedge.bundle.manifest import NAME, SIGNATURE
from cspedge.bundle.refusal import Refusal

Change = Callable[[Any, Path], object]


def kind_in_python(path: Path, key: Path) -> str | None:
    try:
        python.verify(path, key=key)
    except Refusal as refused:
        return str(refused.kind)
    return None


def test_a_real_bundle_is_taken_and_its_artifact_gives_the_golden_answers(core: Any, real_bundle: Any) -> None:
    job = {"do": "verify", "bundle": str(real_bundle.path), "key": str(real_bundle.public)}
    with_runtime, without = core.run([{**job, **real_bundle.runtime()}, job])
    (artifact,) = real_bundle.manifest["artifacts"]
    label = f"{artifact['target']}/{artifact['precision']}"
    assert with_runtime["not_run"] == []
    assert 0 <= with_runtime["largest"][label] <= artifact["golden"][0]["max_abs"]
    assert without == {"largest": {}, "not_run": [label]}


def test_what_model_signing_signed_is_taken(core: Any, real_bundle: Any, tmp_path: Path) -> None:
    signing = pytest.importorskip("model_signing.signing", reason="model-signing is not installed")
    from model_signing import hashing

    path = real_bundle.copy(tmp_path)
    (path / SIGNATURE).unlink()
    ignoring = hashing.Config().set_ignored_paths(paths=[path / SIGNATURE], ignore_git_paths=True)
    signing.Config().use_elliptic_key_signer(private_key=real_bundle.private).set_hashing_config(ignoring).sign(
        path, path / SIGNATURE
    )
    (answer,) = core.run([{"do": "verify", "bundle": str(path), "key": str(real_bundle.public)}])
    assert "kind" not in answer, answer


def flip(path: Path, at: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def envelope(change: Callable[[Any], None]) -> Change:
    """Changes model.sig's JSON."""

    def apply(_: Any, path: Path) -> None:
        text = json.loads((path / SIGNATURE).read_text())
        change(text)
        (path / SIGNATURE).write_text(json.dumps(text))

    return apply


def statement(change: Callable[[Any], None]) -> Change:
    """Changes what is signed, and signs that."""

    def apply(real: Any, path: Path) -> None:
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

        from cspedge.bundle import signature

        text = json.loads((path / SIGNATURE).read_text())
        payload = json.loads(base64.b64decode(text["dsseEnvelope"]["payload"]))
        change(payload)
        data = json.dumps(payload).encode()
        signed = signature.read_private(real.private).sign(signature.encoding(data), ec.ECDSA(hashes.SHA256()))
        text["dsseEnvelope"]["payload"] = base64.b64encode(data).decode()
        text["dsseEnvelope"]["signatures"][0]["sig"] = base64.b64encode(signed).decode()
        (path / SIGNATURE).write_text(json.dumps(text))

    return apply


def field(*path: str | int, value: Any) -> Callable[[Any], None]:
    def change(document: Any) -> None:
        *parents, last = path
        for name in parents:
            document = document[name]
        document[last] = value

    return change


def first_resource(statement: Any) -> Any:
    return statement["predicate"]["resources"][0]


def rename(old: str, new: str) -> Change:
    return lambda _, path: (path / old).rename(path / new)


# what anybody between publisher and phone can do
FORGED: dict[str, Change] = {
    "a changed byte of the artifact": lambda r, p: flip(p / r.manifest["artifacts"][0]["path"], 100),
    "a changed byte of a golden image": lambda _, p: flip(p / "golden" / "00.rgb"),
    "a changed byte of the manifest": lambda _, p: flip(p / NAME, 30),
    "a file less": lambda _, p: (p / "labels.txt").unlink(),
    "a file more": lambda _, p: (p / "golden" / "extra.png").write_bytes(b"x"),
    "no manifest": lambda _, p: (p / NAME).unlink(),
    "no signature": lambda _, p: (p / SIGNATURE).unlink(),
    "an empty folder": lambda _, p: (p / "empty").mkdir(),
    "a hidden folder": lambda _, p: ((p / ".git").mkdir(), (p / ".git" / "config").write_text("x")),
    "a space in a name": rename("labels.txt", "the labels.txt"),
    "a name outside ASCII": rename("labels.txt", "l\u00e4bels.txt"),
    "a name that ends in a dot": rename("labels.txt", "labels."),
    "two names but for case": lambda _, p: (p / "LABELS.txt").write_bytes(b"x"),
    "a link": lambda _, p: ((p / "labels.txt").unlink(), os.symlink("/etc/hostname", p / "labels.txt")),
    "a folder that is a link": lambda _, p: os.symlink("golden", p / "more"),
    "a manifest of 5 MiB": lambda _, p: (p / NAME).write_bytes(b" " * (5 << 20)),
    "another key's signature": lambda r, p: r.sign(p, r.other),
    "another key's signature without its hint": lambda r, p: (
        r.sign(p, r.other),
        envelope(field("verificationMaterial", "publicKey", "hint", value=""))(r, p),
    ),
    "a signature that is no JSON": lambda _, p: (p / SIGNATURE).write_text("{"),
    "a doubled key in the signature": lambda _, p: (p / SIGNATURE).write_text(
        (p / SIGNATURE).read_text().replace('{"dsse', '{"mediaType":"x","dsse', 1)
    ),
    "another media type": envelope(field("mediaType", value="application/json")),
    "another payload type": envelope(field("dsseEnvelope", "payloadType", value="text/plain")),
    "two signatures": envelope(lambda e: e["dsseEnvelope"]["signatures"].append(e["dsseEnvelope"]["signatures"][0])),
    "no base64": envelope(field("dsseEnvelope", "payload", value="%%%")),
    "a signature that is no DER": envelope(field("dsseEnvelope", "signatures", 0, "sig", value="AAAA")),
    "a truncated signature": lambda _, p: (p / SIGNATURE).write_bytes((p / SIGNATURE).read_bytes()[:-40]),
}
# what a publisher's key could be made to sign by an older or other tool
SIGNED: dict[str, Change] = {
    "the predicate of version 0.2": statement(field("predicateType", value="https://model_signing/Digests/v0.1")),
    "another statement": statement(field("_type", value="https://in-toto.io/Statement/v0.1")),
    "links allowed": statement(field("predicate", "serialization", "allow_symlinks", value=True)),
    "an ignored path": statement(field("predicate", "serialization", "ignore_paths", value=["golden"])),
    "shards": statement(field("predicate", "serialization", "method", value="shards")),
    "another hash": statement(lambda s: first_resource(s).update(algorithm="blake3")),
    "a path outside": statement(lambda s: first_resource(s).update(name="../LICENSE")),
    "another root": statement(lambda s: s["subject"][0]["digest"].update(sha256="0" * 64)),
    "a name twice": statement(lambda s: s["predicate"]["resources"].append(first_resource(s))),
    "no subject": statement(field("subject", value=[])),
}


@pytest.mark.parametrize("changes", [FORGED, SIGNED], ids=["forged", "signed"])
def test_changed_bundles_are_refused_by_all_three_alike(
    core: Any, real_bundle: Any, changes: dict[str, Change], tmp_path: Path
) -> None:
    jobs = []
    for number, change in enumerate(changes.values()):
        path = real_bundle.copy(tmp_path / str(number))
        change(real_bundle, path)
        jobs.append({"do": "verify", "bundle": str(path), "key": str(real_bundle.public)})
    found = {what: answer.get("kind") for what, answer in zip(changes, core.run(jobs), strict=True)}
    expected = {
        what: kind_in_python(Path(job["bundle"]), real_bundle.public) for what, job in zip(changes, jobs, strict=True)
    }
    assert found == expected
    assert None not in found.values()


def test_a_changed_byte_in_any_file_is_refused(core: Any, real_bundle: Any, tmp_path: Path) -> None:
    names = [p.relative_to(real_bundle.path).as_posix() for p in real_bundle.path.rglob("*") if p.is_file()]
    jobs = []
    for number, name in enumerate(names):
        path = real_bundle.copy(tmp_path / str(number))
        flip(path / name, (path / name).stat().st_size // 2)
        jobs.append({"do": "verify", "bundle": str(path), "key": str(real_bundle.public)})
    found = {name: answer.get("kind") for name, answer in zip(names, core.run(jobs), strict=True)}
    assert str(found.pop(SIGNATURE)).startswith("signature-")
    assert found == dict.fromkeys(found, "file-changed")
    assert found.keys() > {entry["path"] for entry in real_bundle.manifest["files"]}


def replaced_file(name: str, data: Callable[[bytes], bytes]) -> Change:
    """Another file under its name, listed and signed as if it were right."""
    return lambda real, path: real.replace(path, name, data((path / name).read_bytes()))


def manifest_change(change: Callable[[Any], None]) -> Change:
    def apply(real: Any, path: Path) -> None:
        manifest = json.loads((path / NAME).read_text())
        change(manifest)
        (path / NAME).write_text(json.dumps(manifest))
        real.sign(path)

    return apply


def manifest_text(change: Callable[[str], str]) -> Change:
    def apply(real: Any, path: Path) -> None:
        (path / NAME).write_text(change((path / NAME).read_text()))
        real.sign(path)

    return apply


# what a mistake of the publisher would be: everything is signed
MISTAKES: dict[str, Change] = {
    "a newer schema": manifest_change(field("schema", value=2)),
    "a newer schema with new fields": manifest_change(lambda m: m.update(schema=7, news=True)),
    "schema 0": manifest_change(field("schema", value=0)),
    "no schema": manifest_change(lambda m: m.pop("schema")),
    "a list": manifest_text(lambda _: "[1]"),
    "no JSON": manifest_text(lambda text: text.replace(":", "=", 1)),
    "a trailing comma": manifest_text(lambda text: text.rstrip().removesuffix("}") + ",}"),
    "a doubled key": manifest_text(lambda text: text.replace("{", '{"name": "x", ', 1)),
    "NaN": manifest_text(lambda text: text.replace('"params": ', '"params": NaN, "x": ', 1)),
    "an unknown field": manifest_change(field("telemetry", value="no")),
    "an unknown field deep inside": manifest_change(field("artifacts", 0, "evidence", "accuracy", "auc", value=1)),
    "an unknown field and a wrong type": manifest_change(lambda m: m.update(telemetry=1, name=5)),
    "a wrong type": manifest_change(field("name", value=5)),
    "a boolean for a number": manifest_change(field("model", "params", value=True)),
    "a field less": manifest_change(lambda m: m.pop("licenses")),
    "a version of two numbers": manifest_change(field("version", value="1.2")),
    "a version with a line end": manifest_change(field("version", value="1.2.0\n")),
    "a minimum above the version": manifest_change(field("minimum_version", value="9.0.0")),
    "another input shape": manifest_change(field("input", "shape", value=[1, 3, 5, 5])),
    "a path outside": manifest_change(field("artifacts", 0, "path", value="../model.onnx")),
    "an artifact twice": manifest_change(lambda m: m["artifacts"].append(m["artifacts"][0])),
    "a file twice": manifest_change(lambda m: m["files"].append(m["files"][0])),
    "an unlisted golden file": manifest_change(field("golden", "images", 0, "rgb", value="golden/99.rgb")),
    "golden answers of another output": manifest_change(field("golden", "reference", 0, "output", value="boxes")),
    "another digest": manifest_change(field("files", 0, "sha256", value="0" * 64)),
    "other sizes": manifest_change(lambda m: m["files"][0].update(bytes=m["files"][0]["bytes"] + 1)),
    "a file that is not there": manifest_change(lambda m: m["files"].append({**m["files"][0], "path": "nothing"})),
    "a label less": replaced_file("labels.txt", lambda data: data.partition(b"\n")[2]),
    "labels without the last line end": replaced_file("labels.txt", lambda data: data.rstrip(b"\n")),
    "labels that are no UTF-8": replaced_file("labels.txt", lambda data: b"\xff" + data),
    "an image of zero size": manifest_change(field("golden", "images", 0, "width", value=0)),
    "an image of 100 megapixels": manifest_change(
        lambda m: m["golden"]["images"][0].update(width=10_000, height=10_000)
    ),
    "an image of another size": manifest_change(field("golden", "images", 0, "width", value=7)),
    "a shorter tensor": replaced_file("golden/00.tensor", lambda data: data[:-1]),
    "another tensor": replaced_file("golden/00.tensor", lambda data: bytes([data[0] ^ 1]) + data[1:]),
    "another interpolation": manifest_change(field("preprocess", "resize", "interpolation", value="nearest")),
}


def test_mistakes_of_a_publisher_are_refused_by_all_three_alike(core: Any, real_bundle: Any, tmp_path: Path) -> None:
    test_changed_bundles_are_refused_by_all_three_alike(core, real_bundle, MISTAKES, tmp_path)


def other_answers(data: bytes) -> bytes:
    values = np.frombuffer(data, "<f4").copy()
    values[3] += 100
    return values.tobytes()


def test_artifacts_that_do_not_answer_as_promised_are_refused_by_all_three_alike(
    core: Any, real_bundle: Any, tmp_path: Path
) -> None:
    (artifact,) = real_bundle.manifest["artifacts"]
    changes = {
        "golden-mismatch": replaced_file(artifact["golden"][0]["file"], other_answers),
        "artifact-refused": replaced_file(artifact["path"], lambda data: data[: len(data) // 2]),
    }
    jobs = []
    for kind, change in changes.items():
        path = real_bundle.copy(tmp_path / kind)
        change(real_bundle, path)
        jobs.append({"do": "verify", "bundle": str(path), "key": str(real_bundle.public), **real_bundle.runtime()})
        assert kind_in_python(path, real_bundle.public) == kind
    assert [answer.get("kind") for answer in core.run(jobs)] == list(changes)
