"""The comparison with fp32 once more, on images that were mildly corrupted: int8 fails there first.

Both sides see the same corrupted images, so what fp32 itself loses to a blur is told apart from what int8 loses more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from cspedge.data.corrupt import MILD, Corruption
from cspedge.errors import UsageError
from cspedge.inputs import Ledger, Loaded, Validation, load_images, reference_vectors
from cspedge.options import RunOptions
from cspedge.types import Head, ImageSet

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cspedge.data.images import ImageList


@dataclass(frozen=True, kw_only=True)
class Corrupted:
    """One artifact's answers to n corrupted images beside fp32's to the same, fractions of 1.

    name: of the corruption; only_reference, only_artifact: images that one of the two alone gets right.
    """

    name: str
    n: int
    top1: float
    drop_top1: float
    drop_ci95: tuple[float, float]
    agreement: float
    only_reference: int
    only_artifact: int


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One corruption, the images under it (digest: of the stored set), fp32's logits on them, float32 [n, classes]."""

    corruption: Corruption
    digest: str
    images: ImageSet
    logits: NDArray[np.float32]


def check(options: RunOptions) -> None:
    """UsageError where images under corruptions are asked for and cannot be compared."""
    if options.robustness < 0:
        raise UsageError(f"robustness is {options.robustness}; it is a number of images, 1 or more (0: none)")
    if options.robustness and options.head is not Head.LOGITS:
        raise UsageError(
            f"--robustness compares answers, which --head {options.head} does not give; "
            "leave it out, or use --head logits"
        )


def conditions(
    options: RunOptions, listed: ImageList, labels: NDArray[np.int64], loaded: Loaded, ledger: Ledger
) -> tuple[Condition, ...]:
    """`options.robustness` validation images (all where there are fewer) under each mild corruption.

    Drawn by content and evenly over the classes, as calibration images are; labels: int64, of all of `listed`.
    """
    from cspedge.data.sampling import sample

    count = min(options.robustness, len(set(listed.digests)))
    indices = sample(listed, count, seed=options.seed)
    found = []
    for corruption in MILD:
        task = f"images, {corruption.name}"
        stored, images, _ = load_images(task, listed, indices, labels, options, loaded, ledger, corruption)
        logits, _ = reference_vectors(loaded, stored, images, options.threads, ledger, corruption.name)
        found.append(Condition(corruption=corruption, digest=stored.digest, images=images, logits=logits))
    return tuple(found)


def judged(condition: Condition, logits: NDArray[np.float32]) -> Corrupted:
    """One artifact's logits [n, classes] under a corruption beside fp32's."""
    from cspedge.evaluate.metrics import accuracy

    labels = condition.images.labels
    assert labels is not None
    found = accuracy(logits, condition.logits, labels)
    before, after = (values.argmax(axis=1) == labels for values in (condition.logits, logits))
    return Corrupted(
        name=condition.corruption.name,
        n=found.n,
        top1=found.top1,
        drop_top1=found.drop_top1,
        drop_ci95=found.drop_ci95,
        agreement=found.agreement,
        only_reference=int((before & ~after).sum()),
        only_artifact=int((after & ~before).sum()),
    )


def entry(conditions: Sequence[Condition], validation: Validation) -> dict[str, Any] | None:
    """The report's "robustness": the corruptions with their parameters, and what fp32 itself loses to each.

    Its loss is paired as well: the same images as they are and corrupted. None where there were no conditions.
    """
    from cspedge.evaluate.stats import paired_drop_interval

    if not conditions:
        return None
    assert validation.vectors is not None
    assert validation.images.labels is not None
    right = validation.vectors.argmax(axis=1) == validation.images.labels
    place = {name: index for index, name in enumerate(validation.images.names)}
    rows = []
    for condition in conditions:
        clean = right[[place[name] for name in condition.images.names]]
        now = condition.logits.argmax(axis=1) == condition.images.labels
        rows.append(
            {
                **{k: v if isinstance(v, float) else str(v) for k, v in asdict(condition.corruption).items()},
                "n": len(condition.images),
                "clean_top1": float(clean.mean()),
                "top1": float(now.mean()),
                "drop_top1": (int(clean.sum()) - int(now.sum())) / len(now),
                "drop_ci95": list(paired_drop_interval(clean, now)),
            }
        )
    return {"sha256": conditions[0].images.sha256, "corruptions": rows}
