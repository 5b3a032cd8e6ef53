"""Accuracy of a trained network in strict fp32, with intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cspedge.evaluate.stats import share_interval
from cspedge.models.preprocess import to_float
from cspedge.types import ImageSet, Preprocess

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

RESAMPLES = 2000


def logits(net: Any, images: NDArray[np.uint8], contract: Preprocess, place: torch.device) -> NDArray[np.float32]:
    """Logits float32 [n, classes] of uint8 [n, 3, H, W], without autocast and TF32; `net` keeps its mode."""
    import numpy as np
    import torch

    training = net.training
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (contract.mean, contract.std))
    found: list[NDArray[np.float32]] = []
    net.eval()
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for at in range(0, len(images), 64):
            inputs = (torch.from_numpy(to_float(images[at : at + 64])) - mean) / std
            found.append(net(inputs.to(place)).float().cpu().numpy())
    net.train(training)
    return np.concatenate(found)


def quick_top1(net: Any, val: ImageSet, contract: Preprocess, place: torch.device, count: int = 512) -> float:
    """Top-1 on at most `count` images, evenly spaced over the validation set (so over its classes)."""
    import numpy as np

    chosen = np.unique(np.linspace(0, len(val) - 1, min(count, len(val))).round().astype(int))
    assert val.labels is not None
    return float((logits(net, val.images[chosen], contract, place).argmax(1) == val.labels[chosen]).mean())


def metrics(found: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, Any]:
    """Top-1, top-5 and macro top-1 with 95 % intervals, fractions of 1, as provenance holds them.

    Shares: Wilson's score interval (Journal of the American Statistical Association 22, 1927, 209-212). Macro: a
    percentile bootstrap (Efron 1979) in which each class keeps its number of images. Raises TargetError for NaN.
    """
    from cspedge.evaluate.metrics import macro_top1, top_k

    n, classes = found.shape
    top1, top5 = top_k(found, labels, 1), top_k(found, labels, min(5, classes))
    return {
        "n": n,
        "top1": round(top1, 6),
        "top1_ci95": _interval(round(top1 * n), n),
        "top5": round(top5, 6),
        "top5_ci95": _interval(round(top5 * n), n),
        "macro_top1": round(macro_top1(found, labels), 6),
        "macro_top1_ci95": _macro_interval(found.argmax(1) == labels, labels),
    }


def _interval(hits: int, n: int) -> list[float]:
    return [round(bound, 6) for bound in share_interval(hits, n)]


def _macro_interval(correct: NDArray[np.bool_], labels: NDArray[np.int64]) -> list[float]:
    """Resampling a class's images with replacement makes its hits binomial, which is what is drawn."""
    import numpy as np

    counts = np.bincount(labels)
    hits = np.bincount(labels, weights=correct)[counts > 0]
    counts = counts[counts > 0]
    drawn = np.random.default_rng(0).binomial(counts, hits / counts, size=(RESAMPLES, len(counts)))
    low, high = np.percentile((drawn / counts).mean(1), [2.5, 97.5])
    return [round(float(low), 6), round(float(high), 6)]
