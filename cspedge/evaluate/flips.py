"""The images on which an artifact gives another answer than the fp32 reference, and by how little or much."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cspedge.evaluate.metrics import check_labels, check_pair

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Turned:
    """One artifact's other answer to an image; margin: as in `Flip`, of fp32's answer, so it is never above 0."""

    artifact: str
    answer: int
    margin: float


@dataclass(frozen=True, kw_only=True)
class Flip:
    """One image that at least one artifact answers otherwise than fp32.

    index: in the validation images; label, answer: class indices, the truth and fp32's; margin: logit of fp32's answer
    less the largest other logit, in the logits' own units.
    """

    index: int
    label: int
    answer: int
    margin: float
    artifacts: tuple[Turned, ...]

    @property
    def lost(self) -> bool:
        """Whether fp32 was right, so that every other answer is wrong."""
        return self.answer == self.label


def flips(
    reference: NDArray[np.floating], artifacts: Mapping[str, NDArray[np.floating]], labels: NDArray[np.integer]
) -> list[Flip]:
    """Every image that any artifact answers otherwise, what alarms most first.

    reference: [n, classes]; artifacts: by label, of the same shape; labels: int [n]. First come images that fp32 got
    right, and among those the ones it was surest of: near a tie int8 may fall to either side, far from it something is
    wrong. Raises InputError (shapes, labels), TargetError (NaN).
    """
    check_labels(labels, reference.shape)
    answers = reference.argmax(axis=1)
    margins = _margins(reference, answers)
    turned: dict[int, list[Turned]] = {}
    for name, logits in artifacts.items():
        check_pair(reference, logits)
        other, left = logits.argmax(axis=1), _margins(logits, answers)
        for index in np.flatnonzero(other != answers):
            row = Turned(artifact=name, answer=int(other[index]), margin=float(left[index]))
            turned.setdefault(int(index), []).append(row)
    found = [
        Flip(index=i, label=int(labels[i]), answer=int(answers[i]), margin=float(margins[i]), artifacts=tuple(rows))
        for i, rows in turned.items()
    ]
    return sorted(found, key=lambda flip: (not flip.lost, -flip.margin, flip.index))


def _margins(logits: NDArray[np.floating], answers: NDArray[np.integer]) -> NDArray[np.float64]:
    """Logit of each image's answer less the largest of the others, [n]; with one class alone 0."""
    values = logits.astype(np.float64)
    rows = np.arange(len(values))
    own = values[rows, answers]
    if values.shape[1] == 1:
        return np.zeros(len(values))
    values[rows, answers] = -np.inf
    found: NDArray[np.float64] = own - values.max(axis=1)
    return found
