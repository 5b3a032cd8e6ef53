"""The contact sheet: images whose answer flips, as report.json keeps them and as the page shows them."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cspedge.report import words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cspedge.types import ImageSet

MOST = 24  # images kept in report.json and on the page
THUMBNAIL = 96  # pixels on the longer side
DATA_URI = "data:image/jpeg;base64,"


def flips_entry(
    reference: NDArray[np.float32], artifacts: Mapping[str, NDArray[np.float32]], images: ImageSet, *, thumbnails: bool
) -> dict[str, Any]:
    """report.json's "flips": how many images any artifact answers otherwise than fp32, and the first MOST of them.

    reference and each of artifacts (by label): logits, float32 [n, classes], of `images`, which have labels;
    thumbnails: whether the pictures themselves go along, small JPEGs of what the model was given.
    """
    from dataclasses import asdict

    from cspedge.evaluate.flips import flips

    assert images.labels is not None
    found = flips(reference, artifacts, images.labels)
    return {
        "total": len(found),
        "lost": sum(flip.lost for flip in found),
        "images": [
            {
                "name": images.names[flip.index],
                "sha256": images.digests[flip.index],
                "label": flip.label,
                "answer": flip.answer,
                "margin": flip.margin,
                "artifacts": [asdict(row) for row in flip.artifacts],
                "thumbnail": thumbnail(images.images[flip.index]) if thumbnails else None,
            }
            for flip in found[:MOST]
        ],
    }


def thumbnail(pixels: NDArray[np.uint8]) -> str:
    """uint8 [3, H, W], RGB, as a JPEG data URI of at most THUMBNAIL pixels on a side."""
    import numpy as np
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    data = io.BytesIO()
    picture.save(data, format="JPEG", quality=80)
    return DATA_URI + base64.b64encode(data.getvalue()).decode("ascii")


def sheet(report: Mapping[str, Any]) -> dict[str, Any] | None:
    """The page's contact sheet {total, lost, cards, more}, None where no answer flips or nothing was recorded."""
    flips = report.get("flips")
    if not flips or not flips["images"]:
        return None
    names = report["model"].get("labels") or []
    cards = []
    for image in flips["images"]:
        answers: dict[int, list[str]] = {}
        for row in image["artifacts"]:
            answers.setdefault(row["answer"], []).append(f"{row['artifact']} {_margin(row['margin'])}")
        cards.append(
            {
                **image,
                "truth": words.class_name(names, image["label"]),
                "before": f"{words.class_name(names, image['answer'])} {_margin(image['margin'])}",
                "after": [(words.class_name(names, answer), ", ".join(said)) for answer, said in answers.items()],
            }
        )
    return {"total": flips["total"], "lost": flips["lost"], "cards": cards, "more": flips["total"] - len(cards)}


def _margin(value: float) -> str:
    return words.points(value / 100)
