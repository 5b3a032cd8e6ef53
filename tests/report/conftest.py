"""Real runs of `cspedge run` on the built-in model, one per head, and a report of answers that change."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cspedge.cli.app import app, call
from cspedge.digest import sha256_bytes
from cspedge.evaluate.metrics import accuracy
from cspedge.evaluate.paired import paired
from cspedge.report import load
from cspedge.report.contact import flips_entry
from cspedge.report.single_images import of_artifact
from cspedge.types import Head, ImageSet

RealRun = Callable[[Head], Path]
EXAMPLE = Path(__file__).with_name("example_report.json")


@pytest.fixture(scope="session")
def real_run(tmp_path_factory: pytest.TempPathFactory) -> RealRun:
    """A function from a head to the folder of results, run when first asked for; few images, one fast runtime."""
    root = tmp_path_factory.mktemp("real")
    done: dict[Head, Path] = {}

    def run(head: Head) -> Path:
        if head not in done:
            out = root / head
            where = ["--workspace", str(root / "store"), "--out", str(out)]
            small = ["--target", "onnxruntime", "--recipe", "fast", "--calib-images", "32"]
            assert call(app, ["run", "--head", head, *small, *where]) == 0
            done[head] = out
        return done[head]

    return run


@pytest.fixture(scope="session")
def two_runs(real_run: RealRun, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folders of two real runs on the same images, the second calibrated on two of them."""
    first = real_run(Head.LOGITS)
    second = tmp_path_factory.mktemp("second") / "few"
    few = ["--target", "onnxruntime", "--recipe", "fast", "--calib-images", "2"]
    assert call(app, ["run", *few, "--workspace", str(first.parent / "store"), "--out", str(second)]) == 0
    return first, second


@pytest.fixture(scope="session")
def digit_images(digit_logits: tuple[NDArray[np.float32], NDArray[np.int64]]) -> ImageSet:
    """The digits that `digit_logits` are of, 64 pixels on a side."""
    from sklearn.datasets import load_digits

    pixels = (load_digits().images[900:] * 255 / 16).astype(np.uint8).repeat(8, axis=1).repeat(8, axis=2)
    return ImageSet(
        images=np.repeat(pixels[:, None], 3, axis=1),
        labels=digit_logits[1],
        names=tuple(f"{label}/{i}.png" for i, label in enumerate(digit_logits[1])),
        digests=tuple(sha256_bytes(image.tobytes()) for image in pixels),
        source="scikit-learn's digits",
    )


@pytest.fixture
def changed(
    digit_logits: tuple[NDArray[np.float32], NDArray[np.int64]], digit_images: ImageSet
) -> Callable[..., dict[str, Any]]:
    """A function from `thumbnails` (and `levels`) to the example with other figures.

    openvino/int8 has those of digits' logits rounded to 4 bits (or that many levels to a side of 0), openvino/fp32
    those of unchanged ones.
    """
    logits, labels = digit_logits

    def build(thumbnails: bool, levels: int = 7) -> dict[str, Any]:
        scale = np.float32(np.abs(logits).max() / levels)
        coarse = (np.round(logits / scale) * scale).astype(np.float32)
        found = load(EXAMPLE)
        for index, other in ((5, coarse), (4, logits)):
            figures = {"accuracy": accuracy(other, logits, labels), "paired": paired(other, logits, labels)}
            found["artifacts"][index] |= {k: json.loads(json.dumps(asdict(v))) for k, v in figures.items()}
            found["artifacts"][index]["images"] = of_artifact(other, logits, labels)
        answers = {"openvino/fp32": logits, "openvino/int8": coarse}
        return found | {"flips": flips_entry(logits, answers, digit_images, thumbnails=thumbnails)}

    return build
