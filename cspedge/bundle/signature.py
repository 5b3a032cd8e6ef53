"""Keys, signing and verifying: OpenSSF Model Signing v1.0 (DSSE in a Sigstore bundle) with ECDSA P-256.

The `model-signing` package makes and reads the same format, and the tests run both ways through it. It is not what
signs here because its signatures differ each time (random nonce, random order of keys), and not what verifies because
it also takes the predicate and the faulty encoding of its version 0.2, passes over `.git*`, and reads the files a
second time. The cryptography is that of `cryptography`.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from cspedge import atomic
from cspedge.bundle.manifest import SIGNATURE, strict_json
from cspedge.bundle.names import is_safe
from cspedge.bundle.refusal import Kind, Refusal
from cspedge.digest import canonical_json
from cspedge.errors import RuntimeMissingError, UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://model_signing/signature/v1.0"
# `model_signing` names these in what it signs; none of them but the signature itself may be in a bundle.
IGNORED = frozenset({SIGNATURE, ".git", ".gitattributes", ".github", ".gitignore"})
PRIVATE, PUBLIC = "private.pem", "public.pem"


def make_keys(folder: Path) -> tuple[Path, Path]:
    """Writes a new P-256 key pair, `private.pem` (PKCS #8, mode 0600) and `public.pem`; UsageError if one exists."""
    _require()
    from cryptography.hazmat.primitives import serialization as pem
    from cryptography.hazmat.primitives.asymmetric import ec

    private, public = folder / PRIVATE, folder / PUBLIC
    for path in (private, public):
        if path.exists():
            raise UsageError(f"{str(path)!r} exists; keys are never overwritten, choose another folder")
    key = ec.generate_private_key(ec.SECP256R1())
    atomic.make_folder(folder)
    text = key.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.NoEncryption())
    atomic.write_bytes(private, text, mode=0o600)
    atomic.write_bytes(public, public_pem(key.public_key()))
    return private, public


def public_pem(key: ec.EllipticCurvePublicKey) -> bytes:
    """SubjectPublicKeyInfo as PEM, the text whose SHA-256 is a signature's hint."""
    from cryptography.hazmat.primitives import serialization as pem

    return key.public_bytes(pem.Encoding.PEM, pem.PublicFormat.SubjectPublicKeyInfo)


def key_hint(key: ec.EllipticCurvePublicKey) -> str:
    return hashlib.sha256(public_pem(key)).hexdigest()


def read_private(path: Path) -> ec.EllipticCurvePrivateKey:
    """A private P-256 key from a PEM file; UsageError for anything else."""
    _require()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = _read_key(path, lambda data: serialization.load_pem_private_key(data, None))
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise _unusable(path, "it holds another kind of key")
    return key


def read_public(path: Path) -> ec.EllipticCurvePublicKey:
    """A public P-256 key from a PEM file; UsageError for anything else, a private key among them."""
    _require()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = _read_key(path, serialization.load_pem_public_key)
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        raise _unusable(path, "it holds another kind of key")
    return key


def _read_key(path: Path, load: Any) -> Any:
    try:
        return load(path.read_bytes())
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from error
    except (ValueError, TypeError) as error:  # TypeError: an encrypted key
        raise _unusable(path, str(error).splitlines()[0][:120]) from error


def _unusable(path: Path, why: str) -> UsageError:
    return UsageError(
        f"{str(path)!r} is no usable key ({why}); give an unencrypted ECDSA P-256 key in PEM, as `cspedge keygen` makes"
    )


def sign(name: str, digests: Mapping[str, str], key: ec.EllipticCurvePrivateKey) -> bytes:
    """model.sig over files given by path and SHA-256: the same bytes for the same files and key (RFC 6979)."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    ordered = sorted(digests, key=lambda path: PurePosixPath(path).parts)  # as model-signing sorts
    statement = {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": _root([digests[path] for path in ordered])}}],
        "predicateType": PREDICATE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": [SIGNATURE],
            },
            "resources": [{"name": path, "algorithm": "sha256", "digest": digests[path]} for path in ordered],
        },
    }
    payload = canonical_json(statement).encode()
    signature = key.sign(encoding(payload), ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
    }
    material = {"publicKey": {"hint": key_hint(key.public_key())}, "tlogEntries": []}
    bundle = {"mediaType": MEDIA_TYPE, "verificationMaterial": material, "dsseEnvelope": envelope}
    return canonical_json(bundle).encode() + b"\n"


def encoding(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding, version 1: what is signed."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def verify(data: bytes, key: ec.EllipticCurvePublicKey) -> dict[str, str]:
    """The files that model.sig vouches for, SHA-256 by path; raises Refusal (`signature-*`)."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    payload, signature, hint = _envelope(data)
    if hint and hint != key_hint(key):
        raise Refusal(
            Kind.SIGNATURE_WRONG_KEY,
            f"{SIGNATURE} was made with another key (hint {hint[:16]}, the given key's is {key_hint(key)[:16]}); "
            "give the publisher's public key",
        )
    try:
        key.verify(signature, encoding(payload), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as error:
        raise Refusal(
            Kind.SIGNATURE_MISMATCH, f"{SIGNATURE} does not hold for this key: it was changed, or made with another one"
        ) from error
    return _resources(payload)


def _envelope(data: bytes) -> tuple[bytes, bytes, str]:
    """Payload, DER signature and hint of a model.sig."""
    try:
        bundle = strict_json(data)
        envelope = bundle["dsseEnvelope"]
        if bundle["mediaType"] != MEDIA_TYPE or envelope["payloadType"] != PAYLOAD_TYPE:
            raise ValueError(f"it is of type {bundle['mediaType']!r} with a payload {envelope['payloadType']!r}")
        (entry,) = envelope["signatures"]
        hint = bundle["verificationMaterial"]["publicKey"].get("hint") or ""
        if not isinstance(hint, str):
            raise ValueError("its hint is no text")
        return (
            base64.b64decode(envelope["payload"], validate=True),
            base64.b64decode(entry["sig"], validate=True),
            hint,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _malformed(error) from error


def _resources(payload: bytes) -> dict[str, str]:
    """The signed list of files, of the v1.0 predicate alone."""
    try:
        statement = strict_json(payload)
        kinds = statement["_type"], statement["predicateType"]
        if kinds != (STATEMENT, PREDICATE):
            raise ValueError(f"it states {kinds}, not {STATEMENT} with {PREDICATE}")
        (subject,) = statement["subject"]
        how = statement["predicate"]["serialization"]
        if (how["method"], how["hash_type"], how["allow_symlinks"]) != ("files", "sha256", False):
            raise ValueError(f"it was made with {how}, not of whole files with SHA-256 and without links")
        if not set(how.get("ignore_paths", [])) <= IGNORED:
            raise ValueError(f"it leaves files out: {sorted(set(how['ignore_paths']) - IGNORED)}")
        found: dict[str, str] = {}
        for row in statement["predicate"]["resources"]:
            name, digest = row["name"], row["digest"]
            if row["algorithm"] != "sha256" or len(bytes.fromhex(digest)) != 32 or not is_safe(name) or name in found:
                raise ValueError(f"its entry {row} is not one file with its SHA-256")
            found[name] = digest.lower()
        if subject["digest"]["sha256"] != _root(list(found.values())):
            raise ValueError("its root digest is not that of its files")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _malformed(error) from error
    return found


def _root(digests: list[str]) -> str:
    return hashlib.sha256(b"".join(bytes.fromhex(digest) for digest in digests)).hexdigest()


def _malformed(error: Exception) -> Refusal:
    return Refusal(
        Kind.SIGNATURE_INVALID, f"{SIGNATURE} is no Model Signing v1.0 signature ({error}); sign the bundle again"
    )


def _require() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise RuntimeMissingError(
            "signatures need the package 'cryptography'; install it with: pip install cspedge[bundle]"
        ) from error
