"""Accuracy of one artifact and agreement between artifacts, from logits alone.

Logits are float [n, classes], labels int64 [n]; every figure is a fraction of 1.

One rule decides ties everywhere: of equal logits the lowest class index ranks first, as `argmax` does. Ties are
not rare here: an int8 output has at most 256 values, so two classes of one image often share one. Top-k counts a
label whose rank by that rule is below k, hence top-1 is exactly "argmax equals the label".
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from cspedge.errors import InputError, TargetError
from cspedge.types import Accuracy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


def check_logits(logits: NDArray[np.floating], what: str = "logits") -> NDArray[np.floating]:
    """Returns `logits` where they are finite and [n, classes] with n, classes >= 1.

    Raises InputError on another shape, TargetError on NaN or infinities (how many, and in which image first).
    """
    if logits.ndim != 2 or 0 in logits.shape:
        raise InputError(f"{what} have shape {list(logits.shape)}; needed is [images, classes], neither of them 0")
    bad = ~np.isfinite(logits)
    if bad.any():
        images = np.flatnonzero(bad.any(axis=1))
        raise TargetError(
            f"{what} hold {int(bad.sum())} NaN or infinite values in {len(images)} of {len(logits)} images, "
            f"the first in image {int(images[0])} (counted from 0); a figure from them would mean nothing"
        )
    return logits


def check_labels(labels: NDArray[np.integer], shape: tuple[int, ...]) -> NDArray[np.integer]:
    """Returns `labels` where they are class indices of logits of that shape. Raises InputError."""
    n, classes = shape
    if labels.shape != (n,):
        raise InputError(f"labels have shape {list(labels.shape)}, the logits are of {n} images; needed is [{n}]")
    if not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"labels are {labels.dtype}; needed are integers (class indices)")
    outside = (labels < 0) | (labels >= classes)
    if outside.any():
        first = int(np.flatnonzero(outside)[0])
        raise InputError(
            f"{int(outside.sum())} labels do not fit the model's {classes} classes, the first is {int(labels[first])} "
            f"at image {first} (counted from 0); allowed are 0 to {classes - 1}"
        )
    return labels


def check_pair(a: NDArray[np.floating], b: NDArray[np.floating]) -> None:
    """Raises InputError where two models' logits are not of one shape, TargetError on NaN or infinities."""
    check_logits(a)
    check_logits(b)
    if a.shape != b.shape:
        raise InputError(f"logits of shapes {list(a.shape)} and {list(b.shape)} cannot be compared: they must be equal")


def ranks(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> NDArray[np.int64]:
    """Rank of each image's label among the classes, 0 the best, ties to the lowest class index; [n]."""
    own = logits[np.arange(len(labels)), labels][:, None]
    earlier = np.arange(logits.shape[1])[None, :] < labels[:, None]
    ahead = (logits > own) | ((logits == own) & earlier)
    ranks: NDArray[np.int64] = ahead.sum(axis=1, dtype=np.int64)
    return ranks


def top_k(logits: NDArray[np.floating], labels: NDArray[np.integer], k: int) -> float:
    """Share of images whose label is among the k highest logits (ties: the lowest class index first).

    k above the number of classes counts every image. Raises InputError (shapes, labels, k < 1), TargetError (NaN).
    """
    if k < 1:
        raise InputError(f"top-k with k = {k}; allowed is 1 and above")
    check_logits(logits)
    return float(np.mean(ranks(logits, check_labels(labels, logits.shape)) < k))


def macro_top1(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """Top-1 within each class, averaged over the classes that occur in `labels`: rare classes count as common ones."""
    check_logits(logits)
    correct = logits.argmax(axis=1) == check_labels(labels, logits.shape)
    images = np.bincount(labels)
    hits = np.bincount(labels, weights=correct)
    present = images > 0
    return float(np.mean(hits[present] / images[present]))


def agreement(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Share of images on which both give the same class, right or wrong."""
    check_pair(a, b)
    return float(np.mean(a.argmax(axis=1) == b.argmax(axis=1)))


def sqnr_db(reference: NDArray[np.floating], other: NDArray[np.floating]) -> float | None:
    """Signal to quantization noise of all logits together, 10 log10(sum ref^2 / sum (ref - other)^2), in dB.

    Summed in float64. None where both are equal (the ratio is infinite). Raises InputError where the reference is all
    zero and the other is not (the ratio is 0, its logarithm no number).
    """
    check_pair(reference, other)
    ref = reference.astype(np.float64)
    noise = float(np.sum(np.square(ref - other.astype(np.float64))))
    if noise == 0.0:
        return None
    signal = float(np.sum(np.square(ref)))
    if signal == 0.0:
        raise InputError("the reference logits are all zero, so SQNR has no value; the reference weights look wrong")
    return float(10.0 * np.log10(signal / noise))


def max_abs_diff(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Largest absolute difference of any logit, taken in float64."""
    check_pair(a, b)
    return float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max())


def accuracy(
    logits: NDArray[np.floating], reference_logits: NDArray[np.floating], labels: NDArray[np.integer]
) -> Accuracy:
    """All accuracy figures of one artifact on one validation set.

    logits, reference_logits: [n, classes] of the same images in the same order; labels: [n]. `drop_top1` is the
    reference's top-1 minus the artifact's (positive: the artifact is worse); `drop_ci95` is its paired 95 % interval
    (`cspedge.evaluate.stats.paired_drop_interval`). With fewer than five classes `top5` is top-k of all of them.
    Raises InputError (shapes, labels), TargetError (NaN or infinities, saying whose).
    """
    from cspedge.evaluate.stats import paired_drop_interval

    check_logits(logits, "the artifact's logits")
    check_logits(reference_logits, "the reference's logits")
    check_pair(logits, reference_logits)
    correct = logits.argmax(axis=1) == check_labels(labels, logits.shape)
    reference_correct = reference_logits.argmax(axis=1) == labels
    n, classes = logits.shape
    return Accuracy(
        n=n,
        top1=float(correct.mean()),
        top5=top_k(logits, labels, min(5, classes)),
        macro_top1=macro_top1(logits, labels),
        # From counts: the difference of two rounded means would print as 0.010000000000000009.
        drop_top1=(int(reference_correct.sum()) - int(correct.sum())) / n,
        drop_ci95=paired_drop_interval(reference_correct, correct),
        agreement=agreement(logits, reference_logits),
        sqnr_db=sqnr_db(reference_logits, logits),
    )


def agreement_matrix(labelled: Mapping[str, NDArray[np.floating]]) -> list[dict[str, Any]]:
    """Every unordered pair of artifacts, as `report.json` lists them under "agreement".

    labelled: artifact label ("openvino/int8") to logits [n, classes]. Returns {"a", "b", "top1_agreement",
    "max_abs_logit_diff"} with a < b, sorted by (a, b). Raises InputError or TargetError naming the artifact.
    """
    for name, logits in labelled.items():
        check_logits(logits, f"the logits of {name!r}")
    rows: list[dict[str, Any]] = []
    for a, b in combinations(sorted(labelled), 2):
        first, second = labelled[a], labelled[b]
        if first.shape != second.shape:
            raise InputError(
                f"logits of {a!r} have shape {list(first.shape)} and of {b!r} {list(second.shape)}: they must be equal"
            )
        rows.append(
            {
                "a": a,
                "b": b,
                "top1_agreement": agreement(first, second),
                "max_abs_logit_diff": max_abs_diff(first, second),
            }
        )
    return rows
