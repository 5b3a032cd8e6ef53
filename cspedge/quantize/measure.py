"""What a partly quantized model answers on tuning images, beside the fp32 reference."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from cspedge.evaluate.outputs import Comparison
from cspedge.quantize.graph import output_names
from cspedge.quantize.margins import expected_flips, gives_logits, lead
from cspedge.quantize.partial import Partial, batches
from cspedge.types import Output

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Answers on n images beside fp32's.

    agreement, expected, drop: of logits, shares of images (drop None without labels). expected is the agreement without
    the luck of the draw: each image's margin against the changes of the images whose margins are nearest. cosine: mean
    over images, of the output that is furthest off; sqnr_db: likewise, None where both are equal; shift: mean change of
    the margin (`cspedge.quantize.margins`), without its sign and without the tenth of the images that change most.
    """

    n: int
    agreement: float | None
    expected: float | None
    drop: float | None
    cosine: float
    sqnr_db: float | None
    shift: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


Enough = Callable[[Measured], bool]


class Bench:
    """Tuning images, and the reference's answers to them, kept where they are vectors.

    images: uint8 [n, 3, H, W]; labels: int64 [n] or None.
    """

    def __init__(
        self,
        partial: Partial,
        images: NDArray[np.uint8],
        labels: NDArray[np.int64] | None = None,
        *,
        batch: int = 32,
    ) -> None:
        self.partial = partial
        self.images = images
        self.batch = batch
        self.logits = gives_logits(partial.model)
        self.labels = labels if self.logits else None
        self._kept: dict[int, tuple[torch.Tensor, ...]] = {}

    def measure(self, tensors: Collection[str], layers: Collection[str], enough: Enough | None = None) -> Measured:
        """Runs the model with `tensors` and `layers` quantized, on all images or until what is measured is `enough`."""
        tally = _Tally(logits=self.logits, labelled=self.labels is not None)
        for index, inputs in enumerate(batches(self.images, self.batch)):
            with torch.no_grad():
                expected = self._reference(index, inputs)
                found = self.partial.run(inputs, tensors, layers)
            if tally.comparison is None:
                names = output_names(self.partial.model.graph)
                shapes = [Output(name=n, shape=tuple(v.shape[1:])) for n, v in zip(names, expected, strict=True)]
                tally.comparison = Comparison(shapes)
            truth = None if self.labels is None else self.labels[tally.n : tally.n + len(inputs)]
            tally.add(expected, found, truth)
            if enough is not None and enough(tally.result()):
                break
        return tally.result()

    def _reference(self, index: int, inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if index in self._kept:
            return self._kept[index]
        outputs = self.partial.run(inputs)
        if all(v.dim() == 2 for v in outputs):
            self._kept[index] = outputs
        return outputs


@dataclass
class _Tally:
    """What was measured so far."""

    logits: bool
    labelled: bool
    comparison: Comparison | None = None
    n: int = 0
    same: int = 0
    lost: int = 0
    before: list[torch.Tensor] = field(default_factory=list)
    after: list[torch.Tensor] = field(default_factory=list)

    def add(
        self, expected: Sequence[torch.Tensor], found: Sequence[torch.Tensor], labels: NDArray[np.int64] | None
    ) -> None:
        assert self.comparison is not None
        self.comparison.add([v.numpy() for v in expected], [v.numpy() for v in found], "the quantized model")
        for outputs, into in ((expected, self.before), (found, self.after)):
            into.append(lead(expected, outputs, logits=self.logits))
        self.n += len(expected[0])
        if self.logits:
            right, answer = (v[0].argmax(dim=1).numpy() for v in (expected, found))
            self.same += int((right == answer).sum())
            if labels is not None:
                self.lost += int((right == labels).sum()) - int((answer == labels).sum())

    def result(self) -> Measured:
        assert self.comparison is not None
        rows = self.comparison.result()
        before, changes = (torch.cat(v).double().numpy() for v in (self.before, self.after))
        changes -= before
        return Measured(
            n=self.n,
            agreement=self.same / self.n if self.logits else None,
            expected=1.0 - expected_flips(before, changes) if self.logits else None,
            drop=self.lost / self.n if self.labelled else None,
            cosine=min(row.cosine_mean for row in rows),
            sqnr_db=min((row.sqnr_db for row in rows if row.sqnr_db is not None), default=None),
            shift=_typical(changes),
        )


def _typical(changes: NDArray[np.float64]) -> float:
    """The mean of |change| without its largest tenth: a few images out of range (fbnetv3_b) would own it."""
    import numpy as np

    return float(np.sort(np.abs(changes))[: max(1, len(changes) - len(changes) // 10)].mean())


def batch_size(sizes: Mapping[str, int], parameters: int, max_memory_mb: float) -> int:
    """Images at a time that keep a forward and a backward pass inside `max_memory_mb`, from 1 to 32.

    sizes: values of each tensor for one image; parameters: of the model, held as float twice. What Python and torch
    take by themselves is not counted.
    """
    image = 4.0 * 6.0 * sum(sizes.values())  # measured: 3.5 to 5.5 floats for each value
    left = max_memory_mb * 1e6 - 2 * 4.0 * parameters
    return int(min(max(left / max(image, 1.0), 1), 32))
