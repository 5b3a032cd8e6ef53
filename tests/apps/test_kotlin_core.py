"""What the Android app does with a bundle once it has it: orientation, choice of artifact, answers, self-test."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from cspedge.data.digits import digits
from cspedge.data.images import decode, decode_listed

KOTLIN = pytest.mark.parametrize("core", ["kotlin"], indirect=True)


@pytest.fixture(scope="session")
def state_program(toolchains: Any) -> tuple[str, ...]:
    """The program of the app's tests, which sends events to its screen."""
    return toolchains.kotlin_command("cspedge.app.state.CheckKt", *toolchains.android_classes())


@KOTLIN
def test_the_eight_orientations_are_pillow_s(core: Any, tmp_path: Path) -> None:
    """0 and 9 are no orientations, and change nothing."""
    scan = decode_listed(digits("val"), 3).image.crop((0, 1, 8, 6))  # wider than high
    (tmp_path / "rgb").write_bytes(scan.tobytes())
    common = {"do": "orient", "rgb": str(tmp_path / "rgb"), "width": scan.width, "height": scan.height}
    sizes = core.run([{**common, "exif": exif, "out": str(tmp_path / str(exif))} for exif in range(10)])
    seen = set()
    for exif, size in enumerate(sizes):
        tagged = scan.copy()
        tagged.getexif()[0x0112] = exif
        upright = ImageOps.exif_transpose(tagged)
        assert tuple(size) == upright.size, exif
        assert (tmp_path / str(exif)).read_bytes() == upright.tobytes(), exif
        seen.add((upright.size, upright.tobytes()))
    assert len(seen) == 8, "the scan is its own mirror image"


@KOTLIN
def test_the_median(core: Any) -> None:
    samples: list[list[float]] = [[3.5], [9, 1], [5, 1, 30], [4, 1, 2, 100]]
    found = core.run([{"do": "median", "samples": some} for some in [[], *samples]])
    assert found == [None, *(median(some) for some in samples)]


def stored_logits(real_bundle: Any, row: int) -> np.ndarray:
    manifest = real_bundle.manifest
    values = np.fromfile(real_bundle.path / manifest["artifacts"][0]["golden"][0]["file"], "<f4")
    return values.reshape(len(manifest["golden"]["images"]), -1)[row]


@KOTLIN
def test_the_app_names_what_python_s_artifact_names(core: Any, real_bundle: Any) -> None:
    """From the decoded image through the app's own path to the five likeliest classes, in order."""
    manifest = real_bundle.manifest
    common = {"do": "classify", "bundle": str(real_bundle.path), "key": str(real_bundle.public)}
    jobs = []
    for entry in manifest["golden"]["images"]:
        pixels = {"rgb": str(real_bundle.path / entry["rgb"]), "width": entry["width"], "height": entry["height"]}
        jobs.append({**common, **real_bundle.runtime(), **pixels})
    labels = (real_bundle.path / "labels.txt").read_text().splitlines()
    for row, answer in enumerate(core.run(jobs)):
        logits = stored_logits(real_bundle, row).astype(float)
        powers = np.exp(logits - logits.max())
        likeliest = np.argsort(-logits, kind="stable")[:5]
        assert answer["artifact"] == "onnxruntime/int8"
        assert [(index, label) for index, label, _ in answer["top"]] == [(i, labels[i]) for i in likeliest]
        found = [probability for _, _, probability in answer["top"]]
        np.testing.assert_allclose(found, (powers / powers.sum())[likeliest], rtol=1e-9)


@KOTLIN
def test_the_artifact_is_chosen_by_verdict_then_precision(core: Any, real_bundle: Any, tmp_path: Path) -> None:
    (int8,) = real_bundle.manifest["artifacts"]
    image = real_bundle.manifest["golden"]["images"][0]

    def chosen(*variants: tuple[str, str]) -> list[str]:
        """Bundles with the same file under other precisions and verdicts: (precision, verdict)."""
        entries = [{**int8, "precision": p, "evidence": {**int8["evidence"], "verdict": v}} for p, v in variants]
        path = real_bundle.edited(tmp_path / "-".join(p for p, _ in variants), {"artifacts": entries})
        pixels = {"rgb": str(path / image["rgb"]), "width": image["width"], "height": image["height"]}
        job = {"do": "classify", "bundle": str(path), "key": str(real_bundle.public), **real_bundle.runtime()}
        (answer,) = core.run([{**job, **pixels}])
        assert answer["artifact"] == answer["runnable"][0]
        return [label.partition("/")[2] for label in answer["runnable"]]

    assert chosen(("fp32", "ship"), ("int8", "ship")) == ["int8", "fp32"]
    assert chosen(("int8", "do-not-ship"), ("fp32", "caution")) == ["fp32", "int8"]


@KOTLIN
def test_a_bundle_without_a_runtime_here_says_so(core: Any, real_bundle: Any) -> None:
    image = real_bundle.manifest["golden"]["images"][0]
    pixels = {"rgb": str(real_bundle.path / image["rgb"]), "width": image["width"], "height": image["height"]}
    job = {"do": "classify", "bundle": str(real_bundle.path), "key": str(real_bundle.public), **pixels}
    (answer,) = core.run([job])
    assert answer["kind"] == "artifact-refused"
    assert "onnxruntime/int8" in answer["message"]


@KOTLIN
@pytest.mark.parametrize(("shift", "holds"), [(0, True), (1, False)])
def test_the_self_test_shows_every_distance(core: Any, real_bundle: Any, shift: int, holds: bool) -> None:
    """And what a decoder that is a level off does: golden PNGs must decode to their very pixels."""
    job = {"do": "self-test", "bundle": str(real_bundle.path), "key": str(real_bundle.public), "shift": shift}
    (rows,) = core.run([{**job, **real_bundle.runtime()}])
    manifest = real_bundle.manifest
    assert [row["file"] for row in rows] == [entry["file"] for entry in manifest["golden"]["images"]]
    assert all(entry["file"].endswith(".png") for entry in manifest["golden"]["images"])
    for row in rows:
        assert row["tensor"] is True
        assert 0 <= row["difference"] <= row["allowed"] == manifest["artifacts"][0]["golden"][0]["max_abs"]
        assert row["decoded"] == shift
        assert row["holds"] is holds


def shown(program: tuple[str, ...], events: list[str], folder: Path) -> list[dict[str, Any]]:
    """What the screen shows after each event."""
    (folder / "events").write_text("\n".join(events))
    done = subprocess.run([*program, str(folder / "events")], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_screen_opens_answers_and_keeps_medians(state_program: tuple[str, ...], tmp_path: Path) -> None:
    events = ["asked", "progress x", "opened", "asked", "asked", "answered 1 2 10", "asked", "answered 2 4 30"]
    screens = shown(state_program, events, tmp_path)
    assert [screen["request"] for screen in screens] == [0, 0, 0, 1, 1, 1, 2, 2]
    assert [screen["busy"] for screen in screens] == [False, False, False, True, True, False, True, False]
    assert [screen["ready"] for screen in screens] == [False, False, True, False, False, True, False, True]
    assert [screen["progress"] for screen in screens[:3]] == ["Opening the model", "x", None]
    assert [screen["shown"] for screen in screens[5:]] == [10, None, 30]
    assert [screen["medians"] for screen in screens[5:]] == [[2, 10], [2, 10], [3, 20]]


def test_late_answers_and_failures(state_program: tuple[str, ...], tmp_path: Path) -> None:
    events = ["opened", "asked", "failed 1 broken", "answered 1 1 1", "asked", "answered 1 1 1", "answered 2 1 7"]
    screens = shown(state_program, events, tmp_path)
    assert [screen["error"] for screen in screens] == [None, None, "broken", "broken", None, None, None]
    assert [screen["shown"] for screen in screens] == [None] * 6 + [7]
    assert screens[-1]["samples"] == 1


def test_the_self_test_of_the_screen(state_program: tuple[str, ...], tmp_path: Path) -> None:
    events = ["test", "opened", "page SELF_TEST", "test", "asked", "tested 0.5 1.0", "test", "tested 0.5 1.5"]
    screens = shown(state_program, [*events, "test", "tested NaN", "test", "test-failed gone"], tmp_path)
    assert [screen["testing"] for screen in screens[:4]] == [False, False, False, True]
    assert [screen["request"] for screen in screens] == [0] * len(screens)
    assert [screen["test_holds"] for screen in screens[5::2]][:3] == [True, False, False]
    assert (screens[-1]["error"], screens[-1]["testing"]) == ("gone", False)


def test_only_the_last_hundred_images_count(state_program: tuple[str, ...], tmp_path: Path) -> None:
    events = ["opened"]
    for request in range(1, 121):
        events += ["asked", f"answered {request} 1 {request}"]
    last = shown(state_program, events, tmp_path)[-1]
    assert (last["samples"], last["medians"]) == (100, [1, median(range(21, 121))])


def test_a_model_that_does_not_open_shows_why(state_program: tuple[str, ...], tmp_path: Path) -> None:
    (screen, asked) = shown(state_program, ["not-opened key", "asked"], tmp_path)
    assert (screen["error"], screen["progress"], asked["request"]) == ("key", None, 0)


@KOTLIN
def test_a_photograph_turned_upright_keeps_its_answer(core: Any, caltech: Path, tmp_path: Path) -> None:
    """A camera's picture, a quarter turn off: turned back it is the very photograph."""
    photo = decode(sorted((caltech / "val").glob("*/*.jpg"))[0]).image
    turned = photo.transpose(Image.Transpose.ROTATE_90)
    (tmp_path / "rgb").write_bytes(turned.tobytes())
    job = {"do": "orient", "rgb": str(tmp_path / "rgb"), "width": turned.width, "height": turned.height}
    (size,) = core.run([{**job, "exif": 6, "out": str(tmp_path / "out")}])
    assert tuple(size) == photo.size
    assert (tmp_path / "out").read_bytes() == photo.tobytes()
