"""Paired evidence on one artifact: what changed against fp32 on the same images, and what chance explains of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cspedge.evaluate.metrics import check_labels, check_pair, ranks
from cspedge.types import ClassChange, Paired

if TYPE_CHECKING:
    from numpy.typing import NDArray

RESAMPLES = 2000
SEED = 0
LEAST_IN_BIN = 10  # images, when calibration errors are taken


def paired(logits: NDArray[np.floating], reference_logits: NDArray[np.floating], labels: NDArray[np.integer]) -> Paired:
    """Every paired figure of one artifact against the fp32 reference.

    logits, reference_logits: [n, classes] of the same images in the same order; labels: int [n]. The same input gives
    the same figures: resampling has a fixed seed. Raises InputError (shapes, labels), TargetError (NaN or infinities).
    """
    from cspedge.evaluate.stats import mcnemar_p, tango_interval

    check_pair(logits, reference_logits)
    check_labels(labels, logits.shape)
    n, classes = logits.shape
    before, after = (ranks(values, labels) for values in (reference_logits, logits))
    lost, gained = _discordant(before < 1, after < 1)
    lost5, gained5 = (int(v.sum()) for v in _discordant(before < 5, after < 5))
    everything = np.ones(n, np.bool_)
    images, worse, better = (np.bincount(labels[v], minlength=classes) for v in (everything, lost, gained))
    top1, macro = _bootstrap(images, worse, better)
    present = images > 0
    bins_before, error_before = calibration_error(reference_logits, labels)
    bins_after, error_after = calibration_error(logits, labels)
    return Paired(
        only_reference=int(lost.sum()),
        only_artifact=int(gained.sum()),
        mcnemar_p=mcnemar_p(int(lost.sum()), int(gained.sum())),
        drop_bootstrap95=top1,
        top5_drop=(lost5 - gained5) / n,
        top5_ci95=tango_interval(lost5, gained5, n),
        top5_mcnemar_p=mcnemar_p(lost5, gained5),
        macro_drop=float(np.mean((worse - better)[present] / images[present])),
        macro_bootstrap95=macro,
        ece_reference=error_before,
        ece_reference_bins=bins_before,
        ece=error_after,
        ece_bins=bins_after,
        classes=int(present.sum()),
        changed=_changed(images, worse, better),
    )


def _discordant(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    return before & ~after, ~before & after


def _bootstrap(
    images: NDArray[np.intp], worse: NDArray[np.intp], better: NDArray[np.intp]
) -> tuple[tuple[float, float] | None, tuple[float, float] | None]:
    """95 % percentile bootstrap intervals (Efron 1979) of the drops in top-1 and in macro top-1, resampling pairs.

    images, worse, better: by class, all images, those that only the reference and those that only the artifact gets
    right. Images are drawn anew within each class, so that no class loses all of its own: macro top-1 would have no
    value there. Drawing n pairs with replacement and counting is one multinomial draw of the counts.

    None, None where no answer changed: every resample of equal pairs says 0, which is no evidence of no loss
    (`stats.paired_drop_interval` keeps its width there).
    """
    if not (worse.any() or better.any()):
        return None, None
    rng = np.random.default_rng(SEED)
    total = np.zeros(RESAMPLES)
    macro = np.zeros(RESAMPLES)
    present = np.flatnonzero(images)
    for index in present[(worse + better)[present] > 0]:
        n = int(images[index])
        share = np.array([worse[index], better[index], n - worse[index] - better[index]]) / n
        drawn = rng.multinomial(n, share, size=RESAMPLES)
        net = drawn[:, 0] - drawn[:, 1]
        total += net
        macro += net / n
    return _middle95(total / images.sum()), _middle95(macro / len(present))


def _middle95(drops: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.percentile(drops, [2.5, 97.5])
    return float(low), float(high)


def _changed(images: NDArray[np.intp], worse: NDArray[np.intp], better: NDArray[np.intp]) -> tuple[ClassChange, ...]:
    """The classes in which any answer became right or wrong, the least likely by chance first.

    Benjamini and Hochberg's procedure (JRSS B 57, 1995, 289-300) over every class that has images, because the list
    says which classes to look at: of those with q below 0.05 at most one in twenty is there by chance. Holm's guards
    against a single false one, and with 1,000 classes of 50 images it would never name any. Classes share no images,
    so their tests are independent, as the procedure asks.
    """
    from scipy.stats import false_discovery_control

    from cspedge.evaluate.stats import mcnemar_p

    present = np.flatnonzero(images)
    p = np.array([mcnemar_p(int(worse[i]), int(better[i])) for i in present])
    q = false_discovery_control(p, method="bh")
    rows = [
        ClassChange(
            label=int(i),
            n=int(images[i]),
            only_reference=int(worse[i]),
            only_artifact=int(better[i]),
            p=float(p[k]),
            q=float(q[k]),
        )
        for k, i in enumerate(present)
        if worse[i] or better[i]
    ]
    return tuple(sorted(rows, key=lambda r: (r.p, -(r.only_reference - r.only_artifact) / r.n, r.label)))


def calibration_error(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> tuple[int, float]:
    """How many bins, and the expected calibration error: the mean gap between confidence and accuracy, 0 to 1.

    logits: [n, classes], labels: int [n]. Confidence is the softmax probability of the answer. The bins hold equally
    many images (Nguyen and O'Connor, EMNLP 2015), as many bins as there can be with accuracy still rising from bin to
    bin: ECE-sweep with equal mass of Roelofs et al., "Mitigating bias in calibration error estimation", AISTATS 2022.
    A fixed number of bins reads too high on small sets, and more so the better the model is calibrated. One limit is
    ours: a bin holds LEAST_IN_BIN images or more. Where next to no answer is wrong, accuracy never falls, the sweep
    ends with one image in a bin, and the mean distance of confidence from 0 or 1 is no calibration error.
    """
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    confidence = 1.0 / np.exp(shifted).sum(axis=1)
    order = np.argsort(confidence, kind="stable")
    right = (logits.argmax(axis=1) == labels)[order].astype(np.float64)
    n = len(right)
    hits, sure = (np.concatenate([[0.0], np.cumsum(v)]) for v in (right, confidence[order]))
    bins, edges = 1, np.array([0, n])
    for more in range(2, n // LEAST_IN_BIN + 1):
        finer = np.arange(more + 1) * n // more
        if (np.diff(np.diff(hits[finer]) / np.diff(finer)) < 0).any():
            break
        bins, edges = more, finer
    return bins, float(np.abs(np.diff(hits[edges]) - np.diff(sure[edges])).sum() / n)
