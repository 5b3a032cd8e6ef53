"""A recipe from its first step to its last: ranges, corrections, learning. One set of numbers for all targets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from cspedge.quantize.calibrate import QuantizeOptions, calibrate
from cspedge.quantize.placement import Placement

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import fx

    from cspedge.quantize.placement import QuantizedModel
    from cspedge.quantize.simulate import Learned

Progress = Callable[[int, int], None]
CHECKED = 64  # images from which on a sixteenth is set aside


@dataclass(frozen=True, kw_only=True)
class CorrectOptions:
    """A recipe's `[correct]` table. bias: full sequential bias correction on the placed graphs."""

    bias: bool = False


@dataclass(frozen=True, kw_only=True)
class LearnOptions:
    """A recipe's `[learn]` table; rates are Adam's at the start and fall to nothing along a cosine.

    epochs: 0 for none; settle: epochs afterwards of all but the scales, which were moved in between to where runtimes
    round alike (`cspedge.quantize.ties`); images: how many to learn from (0: those of the calibration), drawn from the
    same folder; weights: in steps of the integer grid (a weight moves to the next integer after half a step); scales:
    of their logarithm; zeros: in codes; biases: in steps of the layer's output; flip: half the batches are mirrored;
    mix: half carry a rectangle of their neighbour's image (CutMix, Yun et al. 2019, arXiv:1905.04899; the teacher sees
    it too); drop: the share of tensors that stay in float at each step, drawn anew, so that the numbers also suit what
    the accuracy loop leaves of them; max_gmacs: how many billions of forward multiply-accumulates to spend on both, 0
    for no end; a large network then learns for fewer steps. Not seconds: those would give other numbers on another day.
    """

    epochs: int = 0
    settle: int = 0
    images: int = 0
    batch_size: int = 16
    weights: float = 0.02
    scales: float = 0.01
    zeros: float = 0.3
    biases: float = 0.02
    flip: bool = True
    mix: bool = False
    drop: float = 0.0
    max_gmacs: float = 0.0

    def __post_init__(self) -> None:
        from cspedge.errors import UsageError

        if min(self.epochs, self.settle, self.images) < 0 or self.batch_size < 1:
            raise UsageError(
                f"epochs is {self.epochs!r}, settle {self.settle!r}, images {self.images!r} and batch_size "
                f"{self.batch_size!r}; epochs, settle and images are 0 or more, a batch 1 or more"
            )
        if self.settle and not self.epochs:
            raise UsageError(
                f"settle is {self.settle!r} with epochs 0; it follows the learning: set epochs, or settle = 0"
            )
        if not 0 <= self.drop < 1:
            raise UsageError(f"drop is {self.drop!r}; it is a share of the tensors, from 0 to below 1")
        if not 0 <= self.max_gmacs < float("inf"):
            raise UsageError(f"max_gmacs is {self.max_gmacs!r}; it is 0 or more")
        for name in ("weights", "scales", "zeros", "biases"):
            if not 0 <= getattr(self, name) < 10:
                raise UsageError(f"the rate of {name} is {getattr(self, name)!r}; it is from 0 to below 10")

    def first(self) -> LearnOptions:
        """Everything is learned."""
        return self._part(self.epochs)

    def last(self) -> LearnOptions:
        """All but the scales is learned."""
        return replace(self._part(self.settle), scales=0.0, zeros=0.0)

    def _part(self, epochs: int) -> LearnOptions:
        share = epochs / max(self.epochs + self.settle, 1)
        return replace(self, epochs=epochs, settle=0, max_gmacs=self.max_gmacs * share)


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
    refinement = _Refinement(placements, images, more_images, options, seed, progress)
    model = refinement.learned(refinement.corrected(model))
    if options.quantize.avoid_ties:
        model = avoid_ties(model, placements)
    return refinement.settled(model)


class _Refinement:
    """Correction and learning; each is kept only where images that it did not see come closer to fp32.

    Every sixteenth calibration image is set aside for that; fewer than `CHECKED` teach nothing and judge nothing.
    """

    def __init__(
        self,
        placements: Sequence[Placement],
        images: NDArray[np.uint8],
        more_images: NDArray[np.uint8] | None,
        options: QuantizerOptions,
        seed: int,
        progress: Progress | None,
    ) -> None:
        import numpy as np

        aside = np.arange(len(images)) % 16 == 15
        self.check = images[aside] if len(images) >= CHECKED else images
        self.seen = images[~aside] if len(images) >= CHECKED else images
        self.lessons = self.seen if more_images is None else more_images
        self.placements = placements
        self.options = options
        self.seed = seed
        self.progress = progress

    def corrected(self, model: QuantizedModel) -> QuantizedModel:
        """With bias correction, where the recipe wants it."""
        from cspedge.quantize.correct import correct_biases

        if not self.options.correct.bias:
            return model
        return self._better(model, lambda numbers: correct_biases(numbers, self.placements, self.seen))

    def learned(self, model: QuantizedModel) -> QuantizedModel:
        """After `epochs` of learning everything."""
        return self._taught(model, self.options.learn.first())

    def settled(self, model: QuantizedModel) -> QuantizedModel:
        """After `settle` epochs of learning all but the scales, which stand where runtimes round alike."""
        return self._taught(model, self.options.learn.last())

    def _taught(self, model: QuantizedModel, options: LearnOptions) -> QuantizedModel:
        from cspedge.quantize.learn import learn

        if not options.epochs:
            return model

        def teach(numbers: Learned) -> None:
            learn(numbers, self.placements, self.lessons, options, seed=self.seed, progress=self.progress)

        return self._better(model, teach)

    def _better(self, model: QuantizedModel, change: Callable[[Learned], None]) -> QuantizedModel:
        from cspedge.quantize.learn import loss_on
        from cspedge.quantize.simulate import Learned

        numbers = Learned(model)
        before = loss_on(numbers, self.placements, self.check)
        change(numbers)
        return numbers.result() if loss_on(numbers, self.placements, self.check) < before else model


def distinct(placements: Sequence[Placement]) -> tuple[Placement, ...]:
    """The placements that differ in what they compute: dtype and the number of nodes do not change a value."""
    found = {
        (p.fuse, p.channel_scales, p.quantize_output): Placement(
            fuse=p.fuse, channel_scales=p.channel_scales, quantize_output=p.quantize_output
        )
        for p in placements
    }
    covered = {
        key
        for key in found
        if not key[2] and (*key[:2], True) in found  # the same with quantized outputs is the harder case
    }
    return tuple(p for key, p in sorted(found.items()) if key not in covered)
