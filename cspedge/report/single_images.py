"""What report.json says of single images: which ones an artifact gets right, and those whose answer flips.

One bit an image, in the order of the validation set, as base64: 8 kB for 50,000 images. Two reports on the same images
are compared image by image with them, without either run's workspace.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cspedge.report import checks

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def pack(mask: NDArray[np.bool_]) -> str:
    """bool [n] as base64 of n bits, the first image in the highest bit of the first byte, zeros at the end."""
    import numpy as np

    return base64.b64encode(np.packbits(mask).tobytes()).decode("ascii")


def unpack(text: str, n: int) -> NDArray[np.bool_]:
    """`pack` undone: bool [n]."""
    import numpy as np

    return np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8), count=n).astype(np.bool_)


def of_artifact(
    logits: NDArray[np.float32], reference: NDArray[np.float32], labels: NDArray[np.int64]
) -> dict[str, str]:
    """{right, same}: top-1 right, and the reference's answer given; logits float32 [n, classes], labels int64 [n]."""
    answers = logits.argmax(axis=1)
    return {"right": pack(answers == labels), "same": pack(answers == reference.argmax(axis=1))}


def bits(value: Any, where: str) -> None:
    """A check: base64 of at least one byte."""
    checks.text(value, where)
    try:
        found = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        found = b""
    if not found:
        raise checks.wrong(where, f"is {checks.show(value)}", "bits in base64")


def check_counts(report: Mapping[str, Any]) -> None:
    """Raises UsageError where bits and the shares beside them tell two stories."""
    reference = report["reference"]
    if reference.get("right") is not None:
        _counts(reference["right"], reference["n"], reference["top1"], "reference.right")
    for index, artifact in enumerate(report["artifacts"]):
        if artifact.get("images") is None:
            continue
        where, accuracy = f"artifacts[{index}].images", artifact["accuracy"]
        if accuracy is None:
            raise checks.wrong(where, "is given without accuracy", "null")
        _counts(artifact["images"]["right"], accuracy["n"], accuracy["top1"], f"{where}.right")
        _counts(artifact["images"]["same"], accuracy["n"], accuracy["agreement"], f"{where}.same")


def _counts(text: str, n: int, share: float | None, where: str) -> None:
    size = len(base64.b64decode(text))
    if size != (n + 7) // 8:
        raise checks.wrong(where, f"has {size} bytes", f"{(n + 7) // 8}, one bit for each of {n} images")
    found = int(unpack(text, n).sum())
    if share is None or abs(found - share * n) > 0.5:
        raise checks.wrong(where, f"has {found} bits of {n}", f"as many as its share of {share} says")


IMAGES = checks.closed({"right": bits, "same": bits})
# Images that an artifact answers otherwise than fp32, the first of them with what they show, where that may go along.
FLIPS = checks.closed(
    {
        "total": checks.count,
        "lost": checks.count,
        "images": checks.list_of(
            checks.closed(
                {
                    "name": checks.text,
                    "sha256": checks.sha256,
                    "label": checks.count,
                    "answer": checks.count,
                    "margin": checks.number(),
                    "artifacts": checks.list_of(
                        checks.closed({"artifact": checks.name, "answer": checks.count, "margin": checks.number()}),
                        at_least=1,
                    ),
                    "thumbnail": checks.or_null(checks.jpeg),
                }
            )
        ),
    }
)
