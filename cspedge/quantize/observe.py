"""Two streaming passes over the calibration images: extremes image by image, then histograms.

Memory is one batch, 16 bytes for each image and group, and one histogram of 2048 bins for each group.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from cspedge.errors import InputError
from cspedge.quantize.graph import NAME
from cspedge.quantize.observers import BINS
from cspedge.quantize.ranges import EVERYTHING, Bounds

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import fx

Progress = Callable[[int, int], None]
Look = Callable[[str, "torch.Tensor", slice], None]
SAMPLED = 2**12  # values of one tensor and image that its histogram counts


class Observed:
    """What one group of tensors was seen to do on n images.

    lows, highs: float64 [n], the extremes of each image after the lossless clip; lo, hi: where the histogram ends;
    counts: int64 [BINS] over [lo, hi].
    """

    def __init__(self, images: int) -> None:
        import numpy as np

        self.lows = np.full(images, np.inf)
        self.highs = np.full(images, -np.inf)
        self.lo = self.hi = 0.0
        self.counts = np.zeros(BINS, np.int64)

    def settle(self, outliers: float) -> None:
        """Ends the range where all but the share `outliers` of the images end.

        One image that drives a network out of its range (fbnetv3_b on Caltech-101: activations of 1,000 where all
        others stay below 10) would otherwise own the squared error, and every other image lose its answer.
        """
        import numpy as np

        self.lo = float(np.quantile(self.lows, outliers, method="lower"))
        self.hi = float(np.quantile(self.highs, 1.0 - outliers, method="higher"))

    @property
    def extremes(self) -> tuple[float, float]:
        """Over all images."""
        return float(self.lows.min()), float(self.highs.max())

    def add_extremes(self, name: str, tensor: torch.Tensor, where: slice, clip: Bounds) -> None:
        """Takes the extremes of a batch, the images `where`. Raises InputError where one is NaN or infinite."""
        import numpy as np

        images = tensor.flatten(1)
        lows, highs = images.amin(1), images.amax(1)
        refuse_non_finite(name, lows + highs)
        np.minimum(self.lows[where], lows.numpy().clip(*clip), out=self.lows[where])
        np.maximum(self.highs[where], highs.numpy().clip(*clip), out=self.highs[where])

    def add_histogram(self, tensor: torch.Tensor, clip: Bounds) -> None:
        """Counts the values of a batch, the same places of every image."""
        import torch

        if self.hi <= self.lo:
            return
        images = tensor.flatten(1)
        # an odd stride visits all channels and places; extremes were taken from every value
        values = images[:, :: (images.shape[1] // SAMPLED) | 1].float()
        if clip != EVERYTHING:
            values = values.clamp(*clip)
        self.counts += torch.histc(values, BINS, self.lo, self.hi).long().numpy()


def refuse_non_finite(name: str, values: torch.Tensor) -> None:
    """InputError naming the activation."""
    if not bool(values.isfinite().all()):
        raise InputError(
            f"the activation {name!r} is NaN or infinite on a calibration image; "
            "check the weights, and that the images suit the model's preprocessing"
        )


def observe(
    graph: fx.GraphModule,
    images: NDArray[np.uint8],
    groups: Mapping[str, str],
    clips: Mapping[str, Bounds],
    *,
    outliers: float,
    histograms: bool,
    batch_size: int,
    progress: Progress | None = None,
) -> dict[str, Observed]:
    """Observes every tensor of `groups` (tensor name -> group) on `images` (uint8 [n, 3, H, W]); by group.

    clips: bounds that a tensor is clipped to; outliers: the share of images whose extremes do not count; histograms:
    whether the second pass is made. Raises InputError where an activation is NaN or infinite, naming the tensor.
    """
    found = {group: Observed(len(images)) for group in dict.fromkeys(groups.values())}
    passes = 2 if histograms else 1

    def extremes(name: str, tensor: torch.Tensor, where: slice) -> None:
        found[groups[name]].add_extremes(name, tensor, where, clips.get(name, EVERYTHING))

    def counts(name: str, tensor: torch.Tensor, where: slice) -> None:
        found[groups[name]].add_histogram(tensor, clips.get(name, EVERYTHING))

    for number, look in enumerate((extremes, counts)[:passes]):
        for start in range(0, len(images), batch_size):
            end = min(start + batch_size, len(images))
            run(graph, images[start:end], look, groups, slice(start, end))
            if progress is not None:
                progress(number * len(images) + end, passes * len(images))
        if number == 0:
            for seen in found.values():
                seen.settle(outliers)
    return found


def run(graph: fx.GraphModule, batch: NDArray[np.uint8], look: Look, names: Mapping[str, Any], where: slice) -> None:
    """Runs the graph on uint8 [n, 3, H, W], the images `where`, and shows `look` each of the tensors `names`."""
    import numpy as np
    import torch
    from torch import fx

    class Observing(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            result = super().run_node(n)
            name = n.meta.get(NAME)
            if isinstance(name, str) and name in names:
                look(name, result, where)
            return result

    with torch.no_grad():
        interpreter = Observing(graph)
        interpreter.extra_traceback = False  # else fx appends the model's traceback to what `look` raises
        # divided in numpy, as every artifact's input is; also copies what may be memory-mapped read-only
        interpreter.run(torch.from_numpy(batch.astype(np.float32) / np.float32(255)))
