"""Learning of scales, zero points, biases and the rounding of weights against the fp32 network's own answers.

No labels: the fp32 network is the teacher. What is learned starts where calibration and bias correction ended, and is
shared by all placements, so one set of numbers serves every target.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from cspedge.errors import InputError
from cspedge.quantize.graph import as_tuple
from cspedge.quantize.partial import elements, multiply_accumulates
from cspedge.quantize.placement import chosen_tensors, int8_needs
from cspedge.quantize.scaling import fitted
from cspedge.quantize.simulate import Learned, simulation

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cspedge.quantize.placement import Placement
    from cspedge.quantize.quantizer import LearnOptions

Progress = Callable[[int, int], None]
LIVE = 2**26  # activations of a part of a batch, each of which the backward pass keeps about three times: 0.8 GB


def learn(
    learned: Learned,
    placements: Sequence[Placement],
    images: NDArray[np.uint8],
    options: LearnOptions,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> None:
    """Adam on the numbers of `learned`; steps take turns over `placements`.

    images: uint8 [n, 3, H, W]. The loss is `robust` of `relative_error`. Large networks learn for fewer steps
    (`LearnOptions.max_gmacs`), and a batch goes through in as many parts as keep its activations below `LIVE` values.
    Raises InputError where a loss is not finite.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    graph = copy.deepcopy(learned.model.graph).to(device)
    learned.to(device)
    simulations = [simulation(learned, placement).to(device) for placement in placements]
    optimizer = torch.optim.Adam(_groups(learned, options))
    rates = [group["lr"] for group in optimizer.param_groups]
    sizes = elements(learned.model)
    macs = sum(multiply_accumulates(learned.model, sizes).values())
    steps = options.epochs * math.ceil(len(images) / options.batch_size)
    if options.max_gmacs:
        steps = max(1, min(steps, int(options.max_gmacs * 1e9 / (macs * options.batch_size))))
    part = max(1, LIVE // sum(sizes.values()))
    drop = _Drop(learned, placements, options.drop, seed)
    learned.learning(True)
    try:
        for step, drawn in enumerate(itertools.islice(_batches(images, options, seed), steps)):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / steps))
            optimizer.zero_grad()
            drop(step % len(simulations))
            for batch in torch.split(drawn.to(device), part):
                with torch.no_grad():
                    wanted = as_tuple(graph(batch))
                errors = relative_error(as_tuple(simulations[step % len(simulations)](batch)), wanted)
                loss = robust(errors) * (len(batch) / len(drawn))
                if not bool(torch.isfinite(loss)):
                    raise InputError(
                        f"learning gave a loss of {float(loss.detach())} at step {step} of {steps}; lower the rates of "
                        "the recipe's [learn] table, or set its epochs to 0"
                    )
                loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if progress is not None:
                progress(step + 1, steps)
    finally:
        learned.skip()
        learned.to("cpu")
        learned.learning(False)


class _Drop:
    """Leaves some tensors in float at each step, with the layers that read them.

    Numbers that were learned with everything in int8 make up for one another's errors, so that taking one away does
    harm; QDrop (Wei et al. 2022, arXiv:2203.05740) drops single values for a flatter loss.
    """

    def __init__(self, learned: Learned, placements: Sequence[Placement], share: float, seed: int) -> None:
        self.learned = learned
        self.share = share
        self.generator = np.random.Generator(np.random.PCG64(seed + 1))
        self.tensors: list[list[str]] = []
        self.needs: list[dict[str, frozenset[str]]] = []
        for placement in placements:
            graph = fitted(learned.model, placement).graph
            chosen = chosen_tensors(graph, placement) & set(learned.model.encodings.activations)
            self.tensors.append(sorted(chosen))
            self.needs.append(int8_needs(graph, placement))

    def __call__(self, index: int) -> None:
        if not self.share:
            return
        groups = self.learned.groups
        names = sorted({groups[name] for name in self.tensors[index]})
        gone = {name for name in names if self.generator.random() < self.share}
        layers = [layer for layer, needs in self.needs[index].items() if {groups.get(n, n) for n in needs} & gone]
        self.learned.skip(gone, layers)


def relative_error(found: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor]) -> torch.Tensor:
    """Per image, float32 [n]: the squared error relative to what is wanted, averaged over the outputs.

    Of logits, without their mean, which no softmax sees.
    """
    total = torch.zeros(len(wanted[0]), device=wanted[0].device)
    for mine, exact in zip(found, wanted, strict=True):
        error, size = (mine - exact).flatten(1), exact.flatten(1)
        if exact.dim() == 2 and exact.shape[1] > 1:
            error, size = error - error.mean(1, keepdim=True), size - size.mean(1, keepdim=True)
        total = total + error.square().sum(1) / size.square().sum(1).clamp(min=1e-12)
    return total / len(wanted)


def robust(errors: torch.Tensor) -> torch.Tensor:
    """The mean of log(1 + e / 0.1): like e / 0.1 where an image is well kept (10 dB and more), flat where it is lost.

    Else a few images that drive a network out of its range (fbnetv3_b) decide what all others get.
    """
    return torch.log1p(errors / 0.1).mean()


def loss_on(
    learned: Learned, placements: Sequence[Placement], images: NDArray[np.uint8], batch_size: int = 32
) -> float:
    """The loss of the numbers as they stand, over images uint8 [n, 3, H, W] and all placements."""
    graph, errors = learned.model.graph, []
    simulations = [simulation(learned, placement) for placement in placements]
    with torch.no_grad():
        for start in range(0, len(images), batch_size):
            batch = torch.from_numpy(images[start : start + batch_size].astype(np.float32) / np.float32(255))
            wanted = as_tuple(graph(batch))
            errors += [relative_error(as_tuple(found(batch)), wanted) for found in simulations]
    return float(robust(torch.cat(errors)))


def _groups(learned: Learned, options: LearnOptions) -> list[dict[str, object]]:
    """Parameters with their rates; a bias moves in steps of what its layer's output is encoded in."""
    quantizers = [q for q in learned.activations.values() if q.log_scale.requires_grad]
    groups: list[dict[str, object]] = [
        {"params": [q.steps for q in learned.weights.values()], "lr": options.weights},
        {"params": [q.log_scale for q in quantizers], "lr": options.scales},
        {"params": [q.zero for q in quantizers], "lr": options.zeros},
    ]
    encodings = learned.model.encodings.activations
    for name, bias in learned.biases.items():
        step = encodings[name].scale if name in encodings else 1e-2
        groups.append({"params": [bias], "lr": options.biases * step})
    return [group for group in groups if group["lr"]]


def _batches(images: NDArray[np.uint8], options: LearnOptions, seed: int) -> Iterator[torch.Tensor]:
    generator = np.random.Generator(np.random.PCG64(seed))
    for _ in range(options.epochs):
        order = generator.permutation(len(images))
        for start in range(0, len(images), options.batch_size):
            chosen = np.sort(order[start : start + options.batch_size])
            batch = torch.from_numpy(images[chosen].astype(np.float32) / np.float32(255))
            if options.flip and generator.random() < 0.5:
                batch = batch.flip(3)
            if options.mix and generator.random() < 0.5:
                batch = _cut_mix(batch, generator)
            yield batch


def _cut_mix(batch: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
    """Each image with a rectangle of the next one's, a quarter to three quarters of a side, at the same place."""
    sizes = [int(generator.integers(side // 4, 3 * side // 4 + 1)) for side in batch.shape[2:]]
    top, left = (int(generator.integers(0, side - size + 1)) for side, size in zip(batch.shape[2:], sizes, strict=True))
    rows, columns = slice(top, top + sizes[0]), slice(left, left + sizes[1])
    mixed = batch.clone()
    mixed[:, :, rows, columns] = batch.roll(1, 0)[:, :, rows, columns]
    return mixed
