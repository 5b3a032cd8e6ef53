"""The contact sheet: which images it shows, that a thumbnail is the image, and that nothing else gets into the page."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cspedge.data.images import load as load_images
from cspedge.data.images import scan
from cspedge.errors import UsageError
from cspedge.report import load, render, validate
from cspedge.report.contact import DATA_URI, MOST, flips_entry, thumbnail
from cspedge.types import Head, ImageSet, Preprocess

Changed = Callable[[bool], dict[str, Any]]


def picture_of(uri: str) -> NDArray[np.float64]:
    assert uri.startswith(DATA_URI)
    with Image.open(io.BytesIO(base64.b64decode(uri.removeprefix(DATA_URI)))) as image:
        return np.asarray(image, dtype=np.float64)


def test_a_thumbnail_is_the_photograph(caltech: Path) -> None:
    folder = scan(caltech / "val")
    size = Preprocess(
        input_size=(3, 224, 160),
        crop_pct=1.0,
        crop_mode="center",
        interpolation="bicubic",
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    )
    image = load_images(folder, [3], size).images[0]
    found = picture_of(thumbnail(image))
    assert found.shape == (96, 69, 3)
    wanted = np.asarray(Image.fromarray(image.transpose(1, 2, 0)).resize((69, 96), Image.Resampling.BOX), np.float64)
    assert np.abs(found - wanted).mean() < 8  # grey levels; JPEG and another filter
    assert thumbnail(image) == thumbnail(image)


def test_each_entry_shows_its_own_image(changed: Changed, digit_images: ImageSet) -> None:
    report = changed(True)
    validate(report)
    rows = report["flips"]["images"]
    assert len(rows) == min(MOST, report["flips"]["total"]) > 5
    for row in rows:
        index = digit_images.names.index(row["name"])
        assert digit_images.digests[index] == row["sha256"]
        assert np.abs(picture_of(row["thumbnail"]) - digit_images.images[index].transpose(1, 2, 0)).mean() < 8
    lost = report["artifacts"][5]["paired"]["only_reference"]
    assert report["flips"]["lost"] == lost


def test_the_page_shows_them_and_can_do_without(changed: Changed) -> None:
    report = changed(True)
    html = render(report)
    assert html.count("<img ") == len(report["flips"]["images"])
    bare = changed(False)
    validate(bare)
    page = render(bare)
    assert "<img" not in page
    assert "base64" not in page
    assert {row["thumbnail"] for row in bare["flips"]["images"]} == {None}
    for row in report["flips"]["images"]:
        assert row["name"] in page
    assert f"{report['flips']['total']} of 360 images get another answer" in re.sub(r"\s+", " ", page)


def test_many_flips_are_capped_with_a_word(
    changed: Changed, digit_logits: tuple[NDArray[np.float32], NDArray[np.int64]], digit_images: ImageSet
) -> None:
    logits, _ = digit_logits
    report = changed(False)
    report["flips"] = flips_entry(logits, {"openvino/int8": -logits}, digit_images, thumbnails=True)
    validate(report)
    assert report["flips"]["total"] == len(logits)
    html = render(report)
    assert html.count("<img ") == MOST
    assert f"{len(logits) - MOST} more." in html


@pytest.mark.parametrize(
    "uri",
    [
        "https://example.invalid/x.jpg",
        "javascript:alert(1)",
        "data:image/svg+xml;base64,PHN2Zz4=",
        'data:image/jpeg;base64,AAAA" onerror="alert(1)',
        "data:image/jpeg;base64,",
        "data:image/jpeg;base64,AAAA\n",
        7,
    ],
)
def test_nothing_but_a_jpeg_gets_into_an_image(changed: Changed, uri: Any) -> None:
    report = changed(True)
    report["flips"]["images"][0]["thumbnail"] = uri
    with pytest.raises(UsageError, match=r"flips\.images\[0\]\.thumbnail is .* expected a JPEG as a data URI"):
        render(report)


def test_the_option_and_the_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cspedge.cli.options import build

    monkeypatch.chdir(tmp_path)
    assert not build({}, config=None, continues=False)[0].no_thumbnails
    assert build({"no_thumbnails": True}, config=None, continues=False)[0].no_thumbnails
    Path("cspedge.toml").write_text("no_thumbnails = true\n", encoding="utf-8")
    assert build({}, config=None, continues=False)[0].no_thumbnails


def test_a_real_run_lists_all_that_differs(real_run: Callable[[Head], Path]) -> None:
    found = load(real_run(Head.LOGITS) / "report.json")
    least = min(a["accuracy"]["agreement"] for a in found["artifacts"])
    n = found["reference"]["n"]
    assert (
        round((1 - least) * n)
        <= found["flips"]["total"]
        <= sum(round((1 - a["accuracy"]["agreement"]) * n) for a in found["artifacts"])
    )
    assert load(real_run(Head.EMBEDDING) / "report.json")["flips"] is None
