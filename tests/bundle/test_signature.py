"""Signatures, both ways through the `model_signing` package, and keys."""

from __future__ import annotations

import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cspedge.bundle import signature
from cspedge.bundle.verify import Signed, verify
from cspedge.bundle.write import Bundled
from cspedge.cli.app import app, call
from cspedge.errors import UsageError


def model_signing(*args: str) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("model_signing", reason="the package model-signing is not installed")
    command = [sys.executable, "-m", "model_signing", *args]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_model_signing_accepts_our_bundle(made: Bundled, keys: tuple[Path, Path], tmp_path: Path) -> None:
    copy = tmp_path / made.path.name
    shutil.copytree(made.path, copy)
    check = ["verify", "key", str(copy), "--signature", str(copy / "model.sig"), "--public_key", str(keys[1])]
    done = model_signing(*check)
    assert done.returncode == 0, done.stdout + done.stderr
    (copy / "labels.txt").write_text("other\n", encoding="utf-8")
    done = model_signing(*check)
    assert done.returncode == 1
    assert "labels.txt" in done.stdout + done.stderr


def test_we_accept_what_model_signing_signed(made: Bundled, keys: tuple[Path, Path], tmp_path: Path) -> None:
    copy = tmp_path / made.path.name
    shutil.copytree(made.path, copy)
    (copy / "model.sig").unlink()
    sign = ["sign", "key", str(copy), "--signature", str(copy / "model.sig"), "--private_key", str(keys[0])]
    done = model_signing(*sign)
    assert done.returncode == 0, done.stdout + done.stderr
    assert verify(copy, key=keys[1], run_artifacts=False).signed is Signed.VERIFIED
    assert (copy / "model.sig").read_bytes() != (made.path / "model.sig").read_bytes()


def test_the_same_files_and_key_give_the_same_signature(keys: tuple[Path, Path]) -> None:
    key = signature.read_private(keys[0])
    digests = {"a/b": "00" * 32, "a.txt": "11" * 32, "manifest.json": "22" * 32}
    one = signature.sign("x-1.0.0", digests, key)
    assert one == signature.sign("x-1.0.0", dict(reversed(digests.items())), key)
    assert signature.verify(one, key.public_key()) == digests
    assert one != signature.sign("x-1.0.1", digests, key)


def test_keys_are_made_once_and_kept_private(tmp_path: Path, capsys: Any) -> None:
    where = ["keygen", "--out", str(tmp_path / "keys")]
    assert call(app, where) == 0
    assert stat.S_IMODE((tmp_path / "keys" / "private.pem").stat().st_mode) == 0o600
    public = signature.read_public(tmp_path / "keys" / "public.pem")
    assert signature.key_hint(public) in capsys.readouterr().out
    before = (tmp_path / "keys" / "private.pem").read_bytes()
    assert call(app, where) == 2
    assert "keys are never overwritten" in capsys.readouterr().err
    assert (tmp_path / "keys" / "private.pem").read_bytes() == before


def test_other_kinds_of_keys_are_refused(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    from cryptography.hazmat.primitives import serialization as pem
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    for name, key in {
        "p384": ec.generate_private_key(ec.SECP384R1()),
        "ed": ed25519.Ed25519PrivateKey.generate(),
    }.items():
        private, public = tmp_path / f"{name}.pem", tmp_path / f"{name}.pub"
        private.write_bytes(key.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.NoEncryption()))
        public.write_bytes(key.public_key().public_bytes(pem.Encoding.PEM, pem.PublicFormat.SubjectPublicKeyInfo))
        for read, path in ((signature.read_private, private), (signature.read_public, public)):
            with pytest.raises(UsageError, match="give an unencrypted ECDSA P-256 key"):
                read(path)
    locked = tmp_path / "locked.pem"
    secret = pem.BestAvailableEncryption(b"secret")
    own = signature.read_private(keys[0])
    locked.write_bytes(own.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, secret))
    for read, path in (
        (signature.read_private, locked),
        (signature.read_private, tmp_path / "none.pem"),
        (signature.read_public, keys[0]),  # a private key where the public one belongs
    ):
        with pytest.raises(UsageError, match="is no usable key"):
            read(path)
