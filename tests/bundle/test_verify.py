"""`cspedge verify`: what must be taken, and what must be refused and by which word."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from cspedge.bundle.refusal import Kind, Refusal
from cspedge.bundle.verify import Signed, check_update, verify
from cspedge.bundle.write import Bundled
from cspedge.cli.app import app, call
from cspedge.errors import UsageError


def test_vectors_are_refused_by_their_word(vector: Any, made: Bundled, keys: tuple[Path, Path], tmp_path: Path) -> None:
    vectors = sys.modules["bundle_vectors"]
    path = vectors.make(vector, vectors.Good(bundle=made.path, key=keys[0]), tmp_path)
    options = {"key": keys[1] if vector.key else None, "min_version": vector.min_version, "run_artifacts": vector.run}
    if vector.kind is None:
        found = verify(path, **options)
        assert found.signed is (Signed.VERIFIED if vector.key else Signed.NOT_CHECKED)
        return
    with pytest.raises(Refusal) as refused:
        verify(path, **options)
    assert refused.value.kind is vector.kind
    assert refused.value.exit_code == 3
    assert "\n" not in refused.value.sentence


def test_every_kind_has_a_vector() -> None:
    kinds = {vector.kind for vector in sys.modules["bundle_vectors"].VECTORS}
    assert kinds - {None} == set(Kind) - {Kind.OTHER_BUNDLE}  # of an update, see below


def test_artifacts_run_and_reproduce_golden(made: Bundled, keys: tuple[Path, Path], capfd: Any) -> None:
    assert call(app, ["verify", str(made.zip), "--key", str(keys[1]), "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert (found["ok"], found["signature"], found["version"]) == (True, "verified", "1.2.3")
    assert [row["artifact"] for row in found["artifacts"]] == ["onnxruntime/int8", "openvino/int8"]
    assert all(row["status"] == "ok" and 0 <= row["worst"] <= 1 for row in found["artifacts"])


def test_a_refusal_is_one_sentence_with_its_kind(made: Bundled, tmp_path: Path, capsys: Any) -> None:
    assert call(app, ["verify", str(tmp_path / "none")]) == 3
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.endswith("does not exist; give the folder or the zip of a bundle [not-a-bundle]\n")
    assert call(app, ["verify", str(made.path), "--no-run", "--min-version", "2.0.0", "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["kind"] == "version-older"
    assert call(app, ["verify", str(made.path), "--min-version", "2"]) == 2
    assert call(app, ["verify", str(made.path), "--key", str(made.path / "labels.txt")]) == 2


def test_a_runtime_that_is_missing_is_no_refusal(made: Bundled, monkeypatch: Any, capfd: Any) -> None:
    """The real import machinery without OpenVINO."""
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert call(app, ["verify", str(made.path), "--json"]) == 4
    rows = {row["artifact"]: row for row in json.loads(capfd.readouterr().out)["artifacts"]}
    assert rows["openvino/int8"]["status"] == "unavailable"
    assert "cspedge[openvino]" in rows["openvino/int8"]["reason"]
    assert rows["onnxruntime/int8"]["worst"] <= 1


def test_what_is_run_are_the_bytes_that_were_checked(made: Bundled, keys: tuple[Path, Path], tmp_path: Path) -> None:
    """Files that change between the check and the use do not matter: the use is of a private copy."""
    import shutil

    from cspedge.bundle.signature import read_public
    from cspedge.bundle.verify import checked, replay

    copy = tmp_path / "copy"
    shutil.copytree(made.path, copy)
    with checked(copy, read_public(keys[1])) as (folder, manifest):
        for name in manifest["artifacts"][0]["files"]:
            (copy / name).write_bytes(b"other bytes")
        (one, _) = replay(folder, manifest)
    assert one.worst is not None
    assert one.worst <= 1


def test_an_update_is_never_older(made: Bundled) -> None:
    at = dict(made.manifest)  # version 1.2.3, minimum 1.0.0
    assert check_update(at, at) == (1, 0, 0)
    assert check_update({**at, "version": "1.10.0", "minimum_version": "1.9.0"}, at) == (1, 9, 0)
    for older, floor in (({**at, "version": "1.2.2"}, (0, 0, 0)), (at, (1, 9, 0))):
        with pytest.raises(Refusal) as refused:
            check_update(older, at, floor)
        assert refused.value.kind is Kind.VERSION_OLDER
    with pytest.raises(Refusal) as refused:
        check_update({**at, "name": "another"}, at)
    assert refused.value.kind is Kind.OTHER_BUNDLE


def test_vectors_can_be_given_to_other_languages(made: Bundled, keys: tuple[Path, Path], tmp_path: Path) -> None:
    vectors = sys.modules["bundle_vectors"]
    some = tuple(vector for vector in vectors.VECTORS if vector.step in (1, 6))  # all are a hundred megabytes
    vectors.export(vectors.Good(bundle=made.path, key=keys[0]), tmp_path, some)
    rows = json.loads((tmp_path / "vectors.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in rows] == [vector.name for vector in some]
    assert all((tmp_path / row["path"]).exists() for row in rows)
    assert (tmp_path / "public.pem").read_bytes() == keys[1].read_bytes()


def test_a_zip_of_overlapping_members_is_refused(made: Bundled, tmp_path: Path) -> None:
    """Two entries of the directory over one place in the file (Fifield, "A better zip bomb", WOOT 2019)."""
    path = tmp_path / "overlap.zip"
    path.write_bytes(Path(str(made.zip)).read_bytes())
    with zipfile.ZipFile(path, "a") as archive:
        first = archive.infolist()[0]
        twin = zipfile.ZipInfo(first.filename.replace("cspedge.txt", "twin.txt"), first.date_time)
        for field in ("header_offset", "CRC", "file_size", "compress_size", "external_attr", "create_system"):
            setattr(twin, field, getattr(first, field))
        archive.filelist.append(twin)
        archive.NameToInfo[twin.filename] = twin
        archive._didModify = True  # type: ignore[attr-defined]
    with pytest.raises(Refusal) as refused:
        verify(path, run_artifacts=False)
    assert refused.value.kind is Kind.ARCHIVE_DAMAGED


def test_a_version_has_three_numbers(made: Bundled) -> None:
    for text in ("1", "1.0", "1.0.0.0", "01.0.0", "1.0.0\n", "1.0.x", "1.0.0-rc1"):
        with pytest.raises(UsageError, match=r"MAJOR\.MINOR\.PATCH"):
            verify(made.path, min_version=text)
