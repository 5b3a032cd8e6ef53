"""What a phone's own resize and decode would cost: tensors, answers and accuracy against the contract's.

    python benchmarks/phone_resize.py ../shared [--model local-dir:DIR] [--img-size 64]

All validation photographs through every variant, then through the fp32 reference and one int8 artifact (calibrated
here, on the train folder); one thread. Differences are of the uint8 tensors, in 8-bit steps, and each model is
compared with its own answers to the contract's tensors. The variants are those of `phone_pixels.py`.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from phone_pixels import (  # of this folder
    LANCZOS_LOBES_HIGH,
    Pixels,
    bilinear,
    lanczos,
    power_of_two,
    sample_size,
    sampled,
    skia_bilinear,
    skia_nearest,
)

if TYPE_CHECKING:
    from cspedge.models.reference import Reference
    from cspedge.types import Artifact, ImageSet

SQUASHED = "Vision .scaleFill, the contract's filter"
STRONG = 2.0  # from this reduction on a photograph counts for the second column of agreement


@dataclass(frozen=True, kw_only=True)
class Photograph:
    """A JPEG file and its pixels by Pillow."""

    jpeg: bytes
    rgb: Pixels


Resize = Callable[[Photograph, int, int], Pixels]  # to (height, width), which the contract says


def resizers(rule: dict[str, Any]) -> dict[str, Resize]:
    """The variants with the contract's geometry; rule: `resize` of the bundle's manifest."""
    from cspedge.bundle.pixels import resize

    def to_target(photograph: Photograph, height: int, width: int) -> Pixels:
        size = sample_size(photograph.rgb.shape[:2], (height, width))
        return bilinear(sampled(photograph.jpeg, size), height, width)

    def small(photograph: Photograph, height: int, width: int) -> Pixels:
        return sampled(photograph.jpeg, power_of_two(photograph.rgb.shape[:2], (height, width)))

    def small_then_contract(photograph: Photograph, height: int, width: int) -> Pixels:
        pixels = small(photograph, height, width)
        return resize(pixels, height, width, rule["interpolation"], rule["first_pass"])

    def small_then_bilinear(photograph: Photograph, height: int, width: int) -> Pixels:
        return skia_bilinear(small(photograph, height, width), height, width)

    return {
        "inSampleSize, then the contract's resize": small_then_contract,
        "vImage, Lanczos 3": of_pixels(lanczos),
        "vImage, Lanczos 5": of_pixels(functools.partial(lanczos, lobes=LANCZOS_LOBES_HIGH)),
        "Core Image, Lanczos 3 in linear light": of_pixels(functools.partial(lanczos, linear_light=True)),
        "ImageDecoder.setTargetSize": to_target,
        "inSampleSize, then createScaledBitmap(filter=true)": small_then_bilinear,
        "bilinear without antialiasing": of_pixels(bilinear),
        "createScaledBitmap(filter=true)": of_pixels(skia_bilinear),
        "createScaledBitmap(filter=false)": of_pixels(skia_nearest),
    }


def of_pixels(resize: Callable[[Pixels, int, int], Pixels]) -> Resize:
    return lambda photograph, height, width: resize(photograph.rgb, height, width)


def tensors(
    reference: Reference, folder: Path, every: int
) -> tuple[ImageSet, dict[str, NDArray[np.uint8]], NDArray[np.float64]]:
    """The contract's images, each variant's tensors (uint8 [n, 3, H, W]), and by how much each photograph shrinks."""
    from cspedge import api
    from cspedge.bundle.manifest import preprocess_entry
    from cspedge.bundle.pixels import crop, resized_size
    from cspedge.data.images import decode
    from cspedge.models.preprocess import transform

    contract = reference.info.preprocess
    images = every_nth(api.collect_validation(reference, folder), every)
    entry = preprocess_entry(contract)
    window, squash = entry["crop"], transform(replace(contract, crop_mode="squash"))
    variants = resizers(entry["resize"])
    found = {name: np.empty_like(images.images) for name in (*variants, SQUASHED)}
    reductions = np.empty(len(images))
    for index, name in enumerate(images.names):
        jpeg = (folder / name).read_bytes()
        image = decode(jpeg).image
        photograph = Photograph(jpeg=jpeg, rgb=np.asarray(image))
        sides = resized_size(entry["resize"], image.height, image.width)
        reductions[index] = image.height / sides[0]
        for variant, resize in variants.items():
            resized = resize(photograph, *sides)
            found[variant][index] = crop(resized, window["height"], window["width"], entry["pad"]).transpose(2, 0, 1)
        found[SQUASHED][index] = squash(image)
    return images, found, reductions


def every_nth(images: ImageSet, n: int) -> ImageSet:
    labels = None if images.labels is None else images.labels[::n]
    return replace(
        images, images=images.images[::n], labels=labels, names=images.names[::n], digests=images.digests[::n]
    )


def steps(expected: NDArray[np.uint8], found: NDArray[np.uint8]) -> tuple[float, int, int]:
    """Of the absolute differences: mean, the 99.9 % point, the largest."""
    counts = np.zeros(256, np.int64)
    for a, b in zip(expected, found, strict=True):
        counts += np.bincount(np.abs(a.astype(np.int16) - b).ravel(), minlength=256)
    reached = np.searchsorted(np.cumsum(counts), 0.999 * counts.sum())
    return float(counts @ np.arange(256) / counts.sum()), int(reached), int(counts.nonzero()[0].max())


def int8(reference: Reference, train: Path, target: str, out: str) -> Artifact:
    from cspedge import api
    from cspedge.config import load_recipe

    images = api.collect_calibration(reference, train, count=load_recipe("fast").images.count)
    return api.lower(api.quantize(reference, images, recipe="fast"), target, out=out)


def compared(
    logits: NDArray[np.float32], found: NDArray[np.float32], labels: NDArray[np.int64], strong: NDArray[np.bool_]
) -> list[str]:
    """Cells: agreement with the contract's answers, over all and where the photograph shrinks most; change of top-1."""
    from cspedge.evaluate.metrics import agreement
    from cspedge.evaluate.stats import paired_drop_interval

    right, other = logits.argmax(1) == labels, found.argmax(1) == labels
    low, high = paired_drop_interval(right, other)
    change = (other.mean() - right.mean()) * 100
    return [
        f"{agreement(logits, found):.1%}",
        f"{agreement(logits[strong], found[strong]):.1%}" if strong.any() else "",
        f"{change:+.2f} [{-high * 100:+.2f}, {-low * 100:+.2f}]",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path, help="folder with data/caltech101/train and val, of JPEG files")
    parser.add_argument("--model", help="default: SHARED/references/lcnet_050.caltech101")
    parser.add_argument("--img-size", type=int, help="pixels on a side, for other reductions")
    parser.add_argument("--every", type=int, default=1, help="take each n-th photograph of val: a sample")
    parser.add_argument("--target", default="openvino", help="of the int8 artifact")
    arguments = parser.parse_args()
    if arguments.every < 1:
        parser.error(f"--every is {arguments.every}; allowed is 1 and above")

    from cspedge import api
    from cspedge.errors import CspedgeError

    photographs = arguments.shared / "data" / "caltech101"
    model = arguments.model or f"local-dir:{arguments.shared / 'references' / 'lcnet_050.caltech101'}"
    try:
        with tempfile.TemporaryDirectory() as folder:
            reference = api.load_reference(model, img_size=arguments.img_size)
            artifact = int8(reference, photographs / "train", arguments.target, folder)
            measure(reference, artifact, photographs / "val", arguments.every)
    except CspedgeError as error:
        parser.exit(error.exit_code, f"{error}\n")


def measure(reference: Reference, artifact: Artifact, folder: Path, every: int) -> None:
    from cspedge import api

    def answers(images: ImageSet) -> tuple[NDArray[np.float32], Any]:
        logits = api.reference_logits(reference, images)
        return logits, api.evaluate(artifact, images, reference, logits=logits).vectors

    images, variants, reductions = tensors(reference, folder, every)
    strong, expected = reductions >= STRONG, answers(images)
    tops = [f"{(logits.argmax(1) == images.labels).mean():.2%}" for logits in expected]
    print(f"{reference.info.name}: n = {len(images)}; top-1 fp32 {tops[0]}, {artifact.label} {tops[1]}")
    least, median, most = np.percentile(reductions, [0, 50, 100])
    print(f"photographs shrink by {median:.2f} ({least:.2f} to {most:.2f}), {strong.sum()} by {STRONG:g} or more\n")
    agrees = f"agrees | where {STRONG:g} x | top-1, points [95 %]"
    print(f"| | steps: mean | 99.9 % | max | fp32: {agrees} | int8: {agrees} |\n|---|" + "--:|" * 9)
    for name, found in variants.items():
        mean, tail, largest = steps(images.images, found)
        cells = [f"{mean:.2f}", str(tail), str(largest)]
        for logits, other in zip(expected, answers(replace(images, images=found)), strict=True):
            cells += compared(logits, other, images.labels, strong)
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
