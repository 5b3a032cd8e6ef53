"""A phone's store of bundles: a new one takes its place only after all checks, and the old one stays until then."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest

# A runtime that says that it was started and then never answers.
HANGS = "import pathlib, sys; pathlib.Path(sys.argv[1]).touch(); sys.stdin.buffer.read()"


@pytest.fixture(scope="module")
def versions(real_bundle: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The real bundle in several versions, each signed: version -> folder."""
    folder = tmp_path_factory.mktemp("versions")
    wanted = {"1.2.0": "1.0.0", "1.10.0": "1.1.0", "1.1.0": "1.0.0", "2.0.0": "1.10.0"}
    return {
        version: real_bundle.edited(folder / version, {"version": version, "minimum_version": floor})
        for version, floor in wanted.items()
    }


def test_only_a_good_and_newer_bundle_takes_the_place(
    core: Any, real_bundle: Any, versions: dict[str, Path], tmp_path: Path
) -> None:
    tampered = real_bundle.copy(tmp_path / "tampered")
    (tampered / "golden" / "00.tensor").write_bytes(b"x")
    truncated = real_bundle.copy(tmp_path / "truncated")
    artifact = truncated / real_bundle.manifest["artifacts"][0]["path"]
    artifact.write_bytes(artifact.read_bytes()[:1000])
    other = real_bundle.edited(tmp_path / "other", {"name": "another"})
    foreign = real_bundle.copy(tmp_path / "foreign")
    real_bundle.sign(foreign, real_bundle.other)

    store = tmp_path / "store"
    common = {"store": str(store), "name": real_bundle.manifest["name"], "key": str(real_bundle.public)}
    accept = {"do": "accept", **common, **real_bundle.runtime()}
    look = {"do": "installed", **common}
    steps: list[tuple[Path, str | None, str | None]] = [
        (tampered, "file-changed", None),  # nothing is there yet, and nothing comes
        (versions["1.2.0"], None, "1.2.0"),
        (truncated, "file-changed", "1.2.0"),
        (foreign, "signature-wrong-key", "1.2.0"),
        (other, "other-bundle", "1.2.0"),
        (versions["1.1.0"], "version-older", "1.2.0"),
        (versions["1.10.0"], None, "1.10.0"),  # by number, not by letter
        (versions["1.2.0"], "version-older", "1.10.0"),  # a replay
        (versions["1.10.0"], None, "1.10.0"),  # a repair
        (versions["2.0.0"], None, "2.0.0"),
    ]
    jobs = [job for source, _, _ in steps for job in ({**accept, "bundle": str(source)}, look)]
    answers = core.run(jobs)
    found = [(answers[i].get("kind"), answers[i + 1]) for i in range(0, len(answers), 2)]
    assert found == [(kind, installed) for _, kind, installed in steps]
    # what was refused, and what was replaced, is gone
    assert sorted(p.name.split("-")[0] for p in store.iterdir()) == ["bundle", "installed.json"]


def test_damage_of_the_installed_bundle_is_seen_and_repaired(
    core: Any, real_bundle: Any, versions: dict[str, Path], tmp_path: Path
) -> None:
    store = tmp_path / "store"
    common = {"store": str(store), "name": real_bundle.manifest["name"], "key": str(real_bundle.public)}
    accept = {"do": "accept", **common, **real_bundle.runtime(), "bundle": str(versions["1.2.0"])}
    core.run([accept])
    (installed,) = [p for p in store.iterdir() if p.is_dir()]
    (installed / "labels.txt").write_text("0\n")
    look = {"do": "installed", **common}
    damaged, _, repaired = core.run([look, accept, look])
    assert damaged["kind"] == "file-changed"
    assert repaired == "1.2.0"


def test_a_process_killed_in_the_middle_of_accepting_leaves_the_old_bundle_in_force(
    core: Any, real_bundle: Any, versions: dict[str, Path], tmp_path: Path
) -> None:
    """Killed while the new bundle is copied whole, checked and answers its golden images."""
    store, marker = tmp_path / "store", tmp_path / "started"
    common = {"store": str(store), "name": real_bundle.manifest["name"], "key": str(real_bundle.public)}
    accept = {"do": "accept", **common, **real_bundle.runtime()}
    look = {"do": "installed", **common}
    core.run([{**accept, "bundle": str(versions["1.2.0"])}])
    hanging = {**accept, "bundle": str(versions["2.0.0"]), "runtime": [sys.executable, "-c", HANGS, str(marker)]}
    with core.started([hanging]) as process:
        while not marker.exists():
            assert process.poll() is None, "it ended before its golden images"
            time.sleep(0.01)
    assert len(list(store.iterdir())) > 2, "nothing of the new bundle was there yet"
    assert core.run([look]) == ["1.2.0"]
    _, after = core.run([{**accept, "bundle": str(versions["2.0.0"])}, look])
    assert after == "2.0.0"
    assert sorted(p.name.split("-")[0] for p in store.iterdir()) == ["bundle", "installed.json"]
