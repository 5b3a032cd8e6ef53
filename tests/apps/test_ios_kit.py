"""CspEdgeKit beyond the core: upright images, and its whole way from pixels to classes, on a real runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from cspedge.data.digits import digits
from cspedge.data.images import decode, decode_listed

pytestmark = pytest.mark.parametrize("core", ["swift"], indirect=True, scope="session")


def upright_as_in_pillow(core: Any, image: Image.Image, folder: Path) -> None:
    (folder / "rgb").write_bytes(np.asarray(image).tobytes())
    job = {"do": "upright", "rgb": str(folder / "rgb"), "width": image.width, "height": image.height}
    orientations = range(1, 9)
    jobs = [{**job, "orientation": n, "out": str(folder / f"{n}.rgb")} for n in orientations]
    for number, size in zip(orientations, core.run(jobs), strict=True):
        tagged = image.copy()
        tagged.getexif()[0x0112] = number
        expected = np.asarray(ImageOps.exif_transpose(tagged))
        assert size == [expected.shape[1], expected.shape[0]], number
        found = np.fromfile(folder / f"{number}.rgb", np.uint8).reshape(expected.shape)
        np.testing.assert_array_equal(found, expected, err_msg=str(number))


def test_the_eight_orientations_of_a_scan(core: Any, tmp_path: Path) -> None:
    upright_as_in_pillow(core, decode_listed(digits("val"), 3).image.crop((0, 0, 5, 8)), tmp_path)


def test_the_eight_orientations_of_a_photograph(core: Any, caltech: Path, tmp_path: Path) -> None:
    photo = decode(min((caltech / "val").glob("*/*.jpg"))).image
    assert photo.width != photo.height
    upright_as_in_pillow(core, photo, tmp_path)


def classify(real_bundle: Any, path: Path, images: list[dict[str, Any]]) -> list[dict[str, Any]]:
    common = {"do": "classify", "bundle": str(path), "key": str(real_bundle.public), **real_bundle.runtime()}
    sizes = [{"width": image["width"], "height": image["height"]} for image in images]
    return [{**common, **size, "rgb": str(path / image["rgb"])} for size, image in zip(sizes, images, strict=True)]


def test_the_classifier_gives_the_pipeline_s_classes_and_probabilities(core: Any, real_bundle: Any) -> None:
    manifest = real_bundle.manifest
    (artifact,) = manifest["artifacts"]
    images = manifest["golden"]["images"][:3]
    logits = np.fromfile(real_bundle.path / artifact["golden"][0]["file"], "<f4").astype(float).reshape(-1, 10)
    labels = (real_bundle.path / "labels.txt").read_text().splitlines()
    for answer, row in zip(core.run(classify(real_bundle, real_bundle.path, images)), logits[:3], strict=True):
        assert answer["artifact"] == "onnxruntime/int8"
        order = np.argsort(-row, kind="stable")[:5]
        assert [found[:2] for found in answer["top"]] == [[index, labels[index]] for index in order]
        powers = np.exp(row - row.max())
        np.testing.assert_allclose([found[2] for found in answer["top"]], (powers / powers.sum())[order], rtol=1e-6)
        assert answer["passed"] == [True] * len(manifest["golden"]["images"])


def test_the_self_test_names_the_image_that_fails(core: Any, real_bundle: Any, tmp_path: Path) -> None:
    manifest = real_bundle.manifest
    golden = manifest["artifacts"][0]["golden"][0]
    answers = np.fromfile(real_bundle.path / golden["file"], "<f4").reshape(-1, 10)
    answers[5, 2] += 2 * golden["max_abs"]
    path = real_bundle.copy(tmp_path)
    real_bundle.replace(path, golden["file"], answers.tobytes())
    (answer,) = core.run(classify(real_bundle, path, manifest["golden"]["images"][:1]))
    assert [index for index, passed in enumerate(answer["passed"]) if not passed] == [5]


def test_an_image_that_is_too_large_is_refused_before_it_is_resized(
    core: Any, real_bundle: Any, tmp_path: Path
) -> None:
    (tmp_path / "rgb").write_bytes(bytes(3 * 400_000))
    (job,) = classify(real_bundle, real_bundle.path, real_bundle.manifest["golden"]["images"][:1])
    (answer,) = core.run([{**job, "rgb": str(tmp_path / "rgb"), "width": 400_000, "height": 1}])
    assert answer["kind"] == "image-too-large"
