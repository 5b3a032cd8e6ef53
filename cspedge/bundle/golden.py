"""golden/: real input images with the tensors and the answers that an app must reproduce."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cspedge.data.images import decode
from cspedge.data.sampling import sample
from cspedge.digest import sha256_bytes
from cspedge.errors import InputError
from cspedge.models.preprocess import too_oblong, transform
from cspedge.types import Precision, Preprocess

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from cspedge.data.images import ImageList

COUNT = 8
CANDIDATES = 64
LARGE, CROP = 1 << 20, 1024  # pixels of an image, and the side of what is kept of a larger one
# What Pillow tells of an image that says nothing about its maker, its place or its colours.
_HARMLESS = frozenset(
    [
        "jfif",
        "jfif_version",
        "jfif_unit",
        "jfif_density",
        "dpi",
        "progressive",
        "progression",
        "adobe",
        "adobe_transform",
        "interlace",
    ]
)


@dataclass(frozen=True, kw_only=True)
class GoldenImage:
    """One image as it goes into a bundle.

    name, label: in its list; file: bytes of a JPEG or PNG; rgb: uint8 [h, w, 3]; tensor: uint8 [3, H, W].
    """

    name: str
    label: int | None
    file: bytes
    suffix: str
    encoding: str
    reason: str | None
    source_sha256: str
    rgb: NDArray[np.uint8]
    tensor: NDArray[np.uint8]


def choose(
    images: ImageList, labels: Sequence[int] | None, preprocess: Preprocess, count: int = COUNT
) -> list[GoldenImage]:
    """`count` different images by content digest, the classes taking turns; large ones only where there are no others.

    Raises InputError where fewer can be read.
    """
    different = len(set(images.digests))
    order = sample(images, min(CANDIDATES, different), seed=0, stratified=bool(images.class_names))
    found: list[GoldenImage] = []
    large: list[GoldenImage] = []
    for index in order:
        try:
            image = _golden(
                images.read(index), images.names[index], None if labels is None else labels[index], preprocess
            )
        except (InputError, OSError):
            continue  # unreadable ones were counted and named when the images were loaded
        (large if image.encoding == "png-crop" else found).append(image)
        if len(found) == count:
            return found
    found += large[: count - len(found)]
    if len(found) < count:
        raise InputError(
            f"a bundle needs {count} different readable images and {images.source!r} has {len(found)}; give --val more"
        )
    return found


def _golden(raw: bytes, name: str, label: int | None, preprocess: Preprocess) -> GoldenImage:
    import numpy as np
    from PIL import Image

    image = decode(raw).image
    if too_oblong(image.size, preprocess):
        raise InputError("is too narrow to be resized")
    encoding, reason, suffix = _encoding(raw, image)
    if encoding == "png-crop":
        left, top = (max(0, (side - CROP) // 2) for side in image.size)
        image = image.crop((left, top, min(left + CROP, image.width), min(top + CROP, image.height)))
    rgb = np.asarray(image, np.uint8)
    file = raw
    if encoding != "original":
        buffer = io.BytesIO()
        Image.fromarray(rgb).save(buffer, "PNG")
        file = buffer.getvalue()
    return GoldenImage(
        name=name,
        label=label,
        file=file,
        suffix=suffix,
        encoding=encoding,
        reason=reason,
        source_sha256=sha256_bytes(raw),
        rgb=rgb,
        tensor=transform(preprocess)(image),
    )


def _encoding(raw: bytes, image: Image.Image) -> tuple[str, str | None, str]:
    """How a source file goes into the bundle, why not as it is, and the file's suffix."""
    from PIL import Image

    with Image.open(io.BytesIO(raw)) as source:
        if image.width * image.height > LARGE:
            return "png-crop", "size", ".png"
        if source.format not in {"JPEG", "PNG"} or source.mode not in {"RGB", "L"} or "transparency" in source.info:
            return "png", "format", ".png"
        if source.getexif() or set(source.info) - _HARMLESS:
            return "png", "metadata", ".png"
        return "original", None, ".jpg" if source.format == "JPEG" else ".png"


def write_images(images: Sequence[GoldenImage], folder: Path) -> list[dict[str, Any]]:
    """Writes the images below the bundle `folder`; their entries of the manifest."""
    import numpy as np

    (folder / "golden").mkdir()
    entries = []
    for index, image in enumerate(images):
        names = {"file": image.suffix, "rgb": ".rgb", "tensor": ".tensor"}
        paths = {key: f"golden/{index:02d}{suffix}" for key, suffix in names.items()}
        (folder / paths["file"]).write_bytes(image.file)
        (folder / paths["rgb"]).write_bytes(np.ascontiguousarray(image.rgb).tobytes())
        (folder / paths["tensor"]).write_bytes(np.ascontiguousarray(image.tensor).tobytes())
        entries.append(
            {
                **paths,
                "encoding": image.encoding,
                "reason": image.reason,
                "source_sha256": image.source_sha256,
                "width": image.rgb.shape[1],
                "height": image.rgb.shape[0],
                "label": image.label,
            }
        )
    return entries


def answers(run: Callable[[NDArray[np.float32]], Any], images: Sequence[GoldenImage], names: Sequence[str]) -> Answers:
    """Each output of a model on the images, float32 [n, ...], by name; the model sees one image at a time."""
    import numpy as np

    batch = np.stack([image.tensor for image in images]).astype(np.float32) / np.float32(255)
    rows = [run(batch[i : i + 1]) for i in range(len(batch))]
    return {
        name: np.concatenate(column).astype("<f4") for name, column in zip(names, zip(*rows, strict=True), strict=True)
    }


Answers = Mapping[str, "NDArray[np.float32]"]


def write_answers(found: Answers, stem: str, folder: Path) -> list[dict[str, str]]:
    """Writes `golden/<stem>.<output>.f32`; their entries of the manifest."""
    import numpy as np

    entries = []
    for name, values in found.items():
        path = f"golden/{stem}.{name}.f32"
        (folder / path).write_bytes(np.ascontiguousarray(values, "<f4").tobytes())
        entries.append({"output": name, "file": path})
    return entries


def tolerance(precision: Precision, reference: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    """The largest difference that an artifact's answer may have elsewhere (docs/bundle.md, golden).

    Float formats differ by the order of sums; int8 kernels of another CPU round codes otherwise.
    """
    import numpy as np

    largest = float(np.abs(reference).max()) or 1.0
    share = {Precision.FP32: 1e-3, Precision.FP16: 2e-2, Precision.INT8: 2e-2}[precision]
    allowed = share * largest
    if precision is Precision.INT8:
        allowed = max(allowed, float(np.abs(found - reference).max()))
    return float(f"{allowed * 1.0005:.3e}")  # to four digits, never below
