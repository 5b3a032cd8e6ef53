"""The Android app's start: the bundle among its assets is unpacked once, whole or not at all."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.parametrize("core", ["kotlin"], indirect=True)


@pytest.fixture
def start(core: Any, real_bundle: Any, tmp_path: Path) -> dict[str, Any]:
    """The job of a start with the real bundle among the assets."""
    shutil.copytree(real_bundle.path, tmp_path / "assets" / "cspedge" / "bundle")
    return {
        "do": "provide",
        "assets": str(tmp_path / "assets"),
        "root": "cspedge/bundle",
        "store": str(tmp_path / "store"),
        "name": real_bundle.manifest["name"],
        "key": str(real_bundle.public),
        **real_bundle.runtime(),
    }


def look(start: dict[str, Any]) -> dict[str, Any]:
    return {**start, "do": "installed"}


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_it_is_unpacked_at_the_first_start_alone(core: Any, real_bundle: Any, start: dict[str, Any]) -> None:
    first, again = core.run([start, start])
    assert first["version"] == "1.2.0"
    assert again == first, "the second start unpacked it anew"
    assert files(Path(first["folder"])) == files(real_bundle.path)


def test_an_app_update_brings_its_own_and_leaves_nothing_of_the_old(
    core: Any, real_bundle: Any, start: dict[str, Any], tmp_path: Path
) -> None:
    newer = real_bundle.edited(tmp_path / "newer", {"version": "1.3.0"})
    updated = {**start, "assets": str(tmp_path / "updated")}
    shutil.copytree(newer, tmp_path / "updated" / "cspedge" / "bundle")
    first, second = core.run([start, updated])
    assert (first["version"], second["version"]) == ("1.2.0", "1.3.0")
    store = Path(start["store"])
    assert {p.name for p in store.iterdir()} == {Path(second["folder"]).name, "installed.json"}


def test_a_newer_one_that_was_accepted_stays(
    core: Any, real_bundle: Any, start: dict[str, Any], tmp_path: Path
) -> None:
    newer = real_bundle.edited(tmp_path / "newer", {"version": "2.0.0"})
    _, _, found = core.run([start, {**start, "do": "accept", "bundle": str(newer)}, start])
    assert found["version"] == "2.0.0"


def test_damage_is_repaired_at_the_next_start(core: Any, real_bundle: Any, start: dict[str, Any]) -> None:
    (first,) = core.run([start])
    artifact = Path(first["folder"]) / real_bundle.manifest["artifacts"][0]["path"]
    artifact.write_bytes(artifact.read_bytes()[:-1])
    repaired, seen = core.run([start, look(start)])
    assert seen == "1.2.0"
    assert files(Path(repaired["folder"])) == files(real_bundle.path)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda root: (root / "labels.txt").write_text("0\n"), "file-changed"),
        (lambda root: (root / "more.txt").write_text("x"), "file-extra"),
        (lambda root: (root / "golden" / "00.rgb").unlink(), "file-missing"),
        (lambda root: (root / "model.sig").unlink(), "signature-missing"),
        (lambda root: (root / "a name").write_text("x"), "path-unsafe"),
        (lambda root: (root / "LABELS.txt").write_text("x"), "name-collision"),
    ],
    ids=["changed", "extra", "missing", "unsigned", "unsafe", "twins"],
)
def test_assets_are_trusted_no_more_than_a_download(core: Any, start: dict[str, Any], change: Any, kind: str) -> None:
    change(Path(start["assets"]) / "cspedge" / "bundle")
    answer, seen = core.run([start, look(start)])
    assert answer["kind"] == kind
    assert seen is None
    assert not any(Path(start["store"]).iterdir())


def test_killed_while_unpacking_the_next_start_has_a_whole_one(
    core: Any, real_bundle: Any, start: dict[str, Any]
) -> None:
    """SIGKILL as soon as the first files are there; a kill that comes after the last is not counted and tried again."""
    expected = files(real_bundle.path)
    store = Path(start["store"])
    for _ in range(20):
        shutil.rmtree(store, ignore_errors=True)
        with core.started([start]) as process:
            while not (copied := list(store.glob(".staging-*/**/*.*"))):
                assert process.poll() is None, "it ended before it unpacked a file"
                time.sleep(0.0005)
        (staging,) = store.glob(".staging-*")
        if len(files(staging)) < len(expected):
            break
    assert copied
    assert 0 < len(files(staging)) < len(expected), "no kill came in the middle"
    assert core.run([look(start)]) == [None], "a part of a bundle is in force"
    (found,) = core.run([start])
    assert files(Path(found["folder"])) == expected
    assert {p.name for p in store.iterdir()} == {Path(found["folder"]).name, "installed.json"}
