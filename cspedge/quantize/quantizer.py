"""A recipe from its first step to its last: ranges, corrections, learning. One set of numbers for all targets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cspedge.quantize.calibrate import QuantizeOptions, calibrate
from cspedge.quantize.placement import Placement

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import fx

    from cspedge.quantize.placement import QuantizedModel

Progress = Callable[[int, int], None]
CHECKED = 64  # images from which on a sixteenth is set aside


@dataclass(frozen=True, kw_only=True)
class CorrectOptions:
    """A recipe's `[correct]` table. bias: full sequential bias correction on the placed graphs."""

    bias: bool = False


@dataclass(frozen=True, kw_only=True)
class LearnOptions:
    """A recipe's `[learn]` table; rates are Adam's at the start and fall to nothing along a cosine.

    epochs: 0 for none; images: how many to learn from (0: those of the calibration), drawn from the same folder;
    weights: in steps of the integer grid (a weight moves to the next integer after half a step); scales: of their
    logarithm; zeros: in codes; biases: in steps of the layer's output. flip: half the batches are mirrored; mix: half
    carry a rectangle of their neighbour's image (CutMix, Yun et al. 2019, arXiv:1905.04899; the teacher sees it too).
    max_gmacs: how many billions of forward multiply-accumulates to spend, 0 for no end; a large network then learns for
    fewer steps. Not seconds: those would give other numbers on another day.
    """

    epochs: int = 0
    images: int = 0
    batch_size: int = 16
    weights: float = 0.02
    scales: float = 0.01
    zeros: float = 0.3
    biases: float = 0.02
    flip: bool = True
    mix: bool = False
    max_gmacs: float = 0.0

    def __post_init__(self) -> None:
        from cspedge.errors import UsageError

        if self.epochs < 0 or self.images < 0 or self.batch_size < 1:
            raise UsageError(
                f"epochs is {self.epochs!r}, images {self.images!r} and batch_size {self.batch_size!r}; epochs and "
                "images are 0 or more, a batch 1 or more"
            )
        if not 0 <= self.max_gmacs < float("inf"):
            raise UsageError(f"max_gmacs is {self.max_gmacs!r}; it is 0 or more")
        for name in ("weights", "scales", "zeros", "biases"):
            if not 0 <= getattr(self, name) < 10:
                raise UsageError(f"the rate of {name} is {getattr(self, name)!r}; it is from 0 to below 10")


@dataclass(frozen=True, kw_only=True)
class QuantizerOptions:
    """All that decides encodings, integer weights and biases, besides the images."""

    quantize: QuantizeOptions = field(default_factory=QuantizeOptions)
    correct: CorrectOptions = field(default_factory=CorrectOptions)
    learn: LearnOptions = field(default_factory=LearnOptions)


def quantize(
    graph: fx.GraphModule,
    input_shape: tuple[int, int, int],
    images: NDArray[np.uint8],
    options: QuantizerOptions,
    placements: Sequence[Placement],
    *,
    more_images: NDArray[np.uint8] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> QuantizedModel:
    """Calibrates, corrects and learns, as far as `options` say; last, moves scales so that runtimes round alike.

    graph: what `prepare` gave; images: uint8 [n, 3, H, W] for calibration; more_images: those to learn from, where a
    recipe wants other ones; placements: what corrections and learning see (`distinct`). The same inputs give the same
    numbers, bit for bit, with the same number of torch threads. Raises InputError for activations or losses that are
    not finite.
    """
    from cspedge.quantize.ties import avoid_ties

    model = calibrate(graph, input_shape, images, options.quantize, progress)
    if options.correct.bias or options.learn.epochs:
        learned_from = images if more_images is None else more_images
        model = _refined(model, placements, images, learned_from, options, seed, progress)
    return avoid_ties(model, placements) if options.quantize.avoid_ties else model


def _refined(
    model: QuantizedModel,
    placements: Sequence[Placement],
    images: NDArray[np.uint8],
    learned_from: NDArray[np.uint8],
    options: QuantizerOptions,
    seed: int,
    progress: Progress | None,
) -> QuantizedModel:
    """Correction, then learning; each is kept only where images that it did not see come closer to fp32.

    Every sixteenth calibration image is set aside for that; fewer than `CHECKED` teach nothing and judge nothing.
    """
    import numpy as np

    from cspedge.quantize.correct import correct_biases
    from cspedge.quantize.learn import learn, loss_on
    from cspedge.quantize.simulate import Learned

    aside = np.arange(len(images)) % 16 == 15
    check = images[aside] if len(images) >= CHECKED else images
    seen = images[~aside] if len(images) >= CHECKED else images
    if learned_from is images:
        learned_from = seen
    best, lowest = model, loss_on(Learned(model), placements, check)
    if options.correct.bias:
        corrected = Learned(model)
        correct_biases(corrected, placements, seen)
        found = loss_on(corrected, placements, check)
        if found < lowest:
            best, lowest = corrected.result(), found
    if options.learn.epochs:
        learned = Learned(best)
        learn(learned, placements, learned_from, options.learn, seed=seed, progress=progress)
        if loss_on(learned, placements, check) < lowest:
            best = learned.result()
    return best


def distinct(placements: Sequence[Placement]) -> tuple[Placement, ...]:
    """The placements that differ in what they compute: dtype and the number of nodes do not change a value."""
    found = {(p.fuse, p.quantize_output): Placement(fuse=p.fuse, quantize_output=p.quantize_output) for p in placements}
    covered = {
        key
        for key in found
        if not key[1] and (key[0], True) in found  # the same with quantized outputs is the harder case
    }
    return tuple(p for key, p in sorted(found.items()) if key not in covered)
