"""The preprocessing contract in sentences, from the manifest that cspedge itself writes."""

from __future__ import annotations

from typing import Any

import pytest

from cspedge.models.preprocess import manifest
from cspedge.report.contract import steps
from cspedge.types import Preprocess


def contract(size: tuple[int, int], mode: str, pct: float = 0.875) -> dict[str, Any]:
    return manifest(
        Preprocess(
            input_size=(3, *size),
            crop_pct=pct,
            crop_mode=mode,
            interpolation="bicubic",
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
        )
    )


@pytest.mark.parametrize(
    ("size", "mode", "resize", "crop"),
    [
        ((224, 224), "center", "the shorter side is 256 px, keeping the proportions", "Take the 224 \u00d7 224 px"),
        ((192, 256), "center", "until it just covers 292 \u00d7 219 px", "Take the 256 \u00d7 192 px"),
        ((224, 224), "border", "the longer side is 256 px, keeping", "Fill what is missing with the mean colour"),
        ((192, 256), "border", "until it just fits into 292 \u00d7 219 px", "Fill what is missing"),
        (
            (224, 224),
            "squash",
            "Resize to 256 \u00d7 256 px, without keeping the proportions",
            "Take the 224 \u00d7 224",
        ),
    ],
)
def test_resize_in_numbers(size: tuple[int, int], mode: str, resize: str, crop: str) -> None:
    told = steps(contract(size, mode))
    assert any(resize in step and step.endswith("with bicubic interpolation.") for step in told)
    assert any(crop in step for step in told)


def test_every_key_of_the_manifest_is_told_in_order() -> None:
    told = steps(contract((224, 224), "center"))
    files = "Other kinds of files: alpha: dropped; animation: first frame;"
    resize = ["shorter side", "antialias", "in the middle"]
    marks = ["RGB", "EXIF", files, *resize, "[1, 3, 224, 224]", "the graph itself"]
    assert len(told) == len(marks)
    assert all(mark in step for mark, step in zip(marks, told, strict=True))


def test_a_whole_squash_crops_nothing() -> None:
    assert not any("in the middle" in step for step in steps(contract((224, 224), "squash", pct=1.0)))


def test_what_no_sentence_covers_is_listed() -> None:
    spec = contract((224, 224), "center") | {"alpha": "dropped", "palette": {"as": "RGB"}}
    spec["resize"] |= {"shorter_edge": 256, "crop": [200, 200]}
    spec["exif_orientation"] = "applied"
    told = steps(spec)
    assert told[-5:] == [
        "Resize crop: 200, 200",
        "Resize shorter edge: 256",
        "Exif orientation: applied",
        "Alpha: dropped",
        "Palette as: RGB",
    ]


@pytest.mark.parametrize(
    ("key", "value"), [("input_size", [3, 0, 224]), ("input_size", "224"), ("range", [0, 255]), ("layout", "NHWC")]
)
def test_another_form_is_listed_and_not_guessed(key: str, value: Any) -> None:
    told = steps(contract((224, 224), "center") | {key: value})
    assert not any(step.startswith("Hand over") for step in told)
    assert any(step.lower().startswith(key.replace("_", " ")) for step in told)


@pytest.mark.parametrize("pct", [0, -1, "all", None, True])
def test_a_crop_share_that_means_nothing_is_listed(pct: Any) -> None:
    spec = contract((224, 224), "center")
    spec["resize"]["crop_pct"] = pct
    told = steps(spec)
    assert not any("shorter side" in step for step in told)
    assert any(step.startswith("Resize crop share: ") for step in told)
