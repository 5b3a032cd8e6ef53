"""How close an artifact's outputs are to the reference's, tensor by tensor, batch by batch.

Feature maps of a thousand images are tens of gigabytes, so they are compared as they come and never kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from cspedge.errors import InputError, TargetError
from cspedge.types import Closeness, Output

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHUNK = 2**22  # similarities held at a time when nearest neighbours are looked for


class Comparison:
    """Running comparison of every output of two models on the same images."""

    def __init__(self, outputs: Sequence[Output]) -> None:
        self.outputs = tuple(outputs)
        self._signal = [0.0] * len(self.outputs)
        self._noise = [0.0] * len(self.outputs)
        self._cosines: list[list[NDArray[np.float64]]] = [[] for _ in self.outputs]

    def add(self, expected: Sequence[NDArray[np.float32]], found: Sequence[NDArray[np.float32]], whose: str) -> None:
        """One batch. expected, found: each output, float32 [n, *shape].

        Raises InputError where the reference, TargetError where the artifact (`whose`) gives another number of outputs,
        another shape, NaN or infinities.
        """
        check(expected, self.outputs, "the fp32 reference", InputError)
        check(found, self.outputs, whose, TargetError)
        for index, (reference, other) in enumerate(zip(expected, found, strict=True)):
            a, b = (v.reshape(len(v), -1).astype(np.float64) for v in (reference, other))
            self._signal[index] += float(np.square(a).sum())
            self._noise[index] += float(np.square(a - b).sum())
            self._cosines[index].append(cosines(a, b))

    def result(self) -> tuple[Closeness, ...]:
        """SQNR over all values of all images; cosine similarity image by image."""
        rows = []
        for output, signal, noise, parts in zip(self.outputs, self._signal, self._noise, self._cosines, strict=True):
            similar = np.concatenate(parts)
            if signal == 0.0 and noise > 0.0:
                raise InputError(f"the reference's {output.name} is all zero; its weights look wrong")
            rows.append(
                Closeness(
                    name=output.name,
                    n=len(similar),
                    sqnr_db=None if noise == 0.0 else 10.0 * math.log10(signal / noise),
                    cosine_mean=float(similar.mean()),
                    cosine_min=float(similar.min()),
                )
            )
        return tuple(rows)


def compare(
    output: Output, expected: NDArray[np.float32], found: NDArray[np.float32], whose: str = "the artifact"
) -> Closeness:
    """Both models' vectors on the same images, float32 [n, d]. Raises as `Comparison.add` does."""
    comparison = Comparison([output])
    comparison.add([expected], [found], whose)
    return comparison.result()[0]


def check(
    found: Sequence[NDArray[np.float32]],
    outputs: Sequence[Output],
    whose: str,
    error: type[InputError] | type[TargetError],
) -> None:
    """Raises `error` where outputs are not as many, not of the shapes, or not as finite as they should be."""
    if len(found) != len(outputs):
        raise error(f"{whose} gives {len(found)} outputs, not {len(outputs)}")
    for output, values in zip(outputs, found, strict=True):
        if values.shape[1:] != output.shape:
            raise error(f"{whose} gives {output.name} as {list(values.shape[1:])}, not {list(output.shape)}")
        bad = ~np.isfinite(values)
        if bad.any():
            raise error(
                f"{whose} gives {int(bad.sum())} NaN or infinite values in {output.name}; "
                "a figure from them would mean nothing"
            )


def cosines(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cosine similarity of each row of a and b, [n, d] -> [n]; of two rows of zeros 1, of one 0."""
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    both_zero = ~a.any(axis=1) & ~b.any(axis=1)
    products = (a * b).sum(axis=1)
    similar = np.divide(products, norms, out=np.zeros_like(products), where=norms > 0)
    return np.where(both_zero, 1.0, np.clip(similar, -1.0, 1.0))


def neighbours(vectors: NDArray[np.float32]) -> NDArray[np.int64]:
    """Index of each image's nearest other image by cosine similarity, [n, d] -> [n]; ties to the lowest index.

    Raises InputError for fewer than two images.
    """
    if len(vectors) < 2:
        raise InputError(f"nearest neighbours need two images or more; there are {len(vectors)}")
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    unit = vectors / np.where(norms > 0, norms, 1.0)
    nearest = np.empty(len(unit), np.int64)
    step = max(1, CHUNK // len(unit))
    for start in range(0, len(unit), step):
        similar = unit[start : start + step] @ unit.T
        rows = np.arange(len(similar))
        similar[rows, start + rows] = -np.inf
        nearest[start : start + step] = similar.argmax(axis=1)
    return nearest


def neighbour_agreement(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Share of images whose nearest other image is the same one in both models' embeddings, [n, d] each."""
    return float(np.mean(neighbours(a) == neighbours(b)))


def neighbour_matrix(labelled: Mapping[str, NDArray[np.float32]]) -> list[dict[str, Any]]:
    """Every unordered pair of embeddings, as `report.json` lists them under "agreement".

    labelled: artifact label to vectors [n, d]. Returns {"a", "b", "neighbour_agreement", "max_abs_diff"} with a < b.
    """
    if len(next(iter(labelled.values()))) < 2:
        return []
    nearest = {label: neighbours(vectors) for label, vectors in labelled.items()}
    return [
        {
            "a": a,
            "b": b,
            "neighbour_agreement": float(np.mean(nearest[a] == nearest[b])),
            "max_abs_diff": float(np.abs(labelled[a].astype(np.float64) - labelled[b]).max()),
        }
        for a, b in combinations(sorted(labelled), 2)
    ]
