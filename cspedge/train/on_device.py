"""Augmentation on the training device, a batch at a time: timm draws what happens to each image, tensors do it.

What is drawn (crop, flip, RandAugment's operations and levels, colour jitter, erasing) comes from timm's and
torchvision's own code, in the loader, seeded per image. What differs from the CPU path is arithmetic: the crop is
resized by averaging bilinear samples (RoIAlign, He et al. 2017, doi:10.1109/ICCV.2017.322) whatever the recipe's
interpolation says, and rotations and shears are bilinear.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from cspedge.errors import InputError
from cspedge.train.cache import Pixels
from cspedge.train.recipe import Recipe
from cspedge.train.seeds import image_seed, seeded

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

RATIO = (3 / 4, 4 / 3)  # of a crop's sides, as in timm's training transform


@dataclass(frozen=True, kw_only=True)
class Draw:
    """What happens to one image. box: the crop (x1, y1, x2, y2), pixels; steps: (operation, argument) in order.

    erase: (top, left, noise float32 [3, h, w]) in the augmented, normalised image.
    """

    box: tuple[int, int, int, int]
    flip: bool
    steps: tuple[tuple[str, float], ...]
    erase: tuple[int, int, torch.Tensor] | None


class Padded:
    """A dataset keyed by (epoch, index): an image's uint8 pixels, its label and its draw."""

    def __init__(self, pixels: Pixels, labels: NDArray[np.int64], recipe: Recipe, cfg: Mapping[str, Any]) -> None:
        from timm.data.auto_augment import rand_augment_transform
        from timm.data.random_erasing import RandomErasing

        self.pixels, self.labels, self.recipe = pixels, labels, recipe
        self.policy: Any = None
        if recipe.auto_augment is not None:
            self.policy = rand_augment_transform(recipe.auto_augment, {"translate_const": 0})
            for op in self.policy.ops:  # timm chooses operations and levels; they are written down, not done
                op.aug_fn = partial(_note, op.name)
        self.erasing = RandomErasing(recipe.erase, mode="pixel", device="cpu") if recipe.erase else None

    def __getitem__(self, key: tuple[int, int]) -> tuple[NDArray[np.uint8], int, Draw] | str:
        epoch, index = key
        try:
            pixels = self.pixels.array(index)
        except InputError as error:
            return str(error)
        with seeded(image_seed(self.recipe.seed, epoch, index), cuda=False):
            return pixels, int(self.labels[index]), self._draw(pixels.shape[1], pixels.shape[0])

    def _draw(self, width: int, height: int) -> Draw:
        import torch
        from timm.data.transforms import RandomResizedCropAndInterpolation

        shape = torch.empty((3, height, width), device="meta")
        top, left, h, w = RandomResizedCropAndInterpolation.get_params(shape, self.recipe.scale, RATIO)
        flip = random.random() < self.recipe.hflip
        steps = self.policy([]) if self.policy is not None else _jitter(self.recipe.color_jitter)
        return Draw(box=(left, top, left + w, top + h), flip=flip, steps=tuple(steps), erase=self._erased())

    def _erased(self) -> tuple[int, int, torch.Tensor] | None:
        """timm's random erasing of an image of NaN shows which rectangle it takes and what it puts there."""
        import torch

        if self.erasing is None:
            return None
        image = self.erasing(torch.full((3, self.recipe.img_size, self.recipe.img_size), math.nan))
        rows, columns = (~image[0].isnan()).nonzero(as_tuple=True)
        if not len(rows):
            return None
        top, left = int(rows.min()), int(columns.min())
        return top, left, image[:, top : int(rows.max()) + 1, left : int(columns.max()) + 1].clone()

    @staticmethod
    def collate(
        items: Sequence[tuple[NDArray[np.uint8], int, Draw] | str],
    ) -> tuple[torch.Tensor, torch.Tensor, list[Draw]] | str:
        """uint8 [batch, H, W, 3], int64 [batch] and the draws; or why an image cannot be read.

        Smaller images stand at the top left. Their last row and column are repeated once, since sampling at an edge
        looks half a pixel beyond it.
        """
        import numpy as np
        import torch

        good = [item for item in items if not isinstance(item, str)]
        if len(good) < len(items):
            return next(item for item in items if isinstance(item, str))
        height, width = (1 + max(image.shape[axis] for image, _, _ in good) for axis in (0, 1))
        batch = np.zeros((len(good), height, width, 3), np.uint8)
        for place, (image, _, _) in zip(batch, good, strict=True):
            h, w = image.shape[:2]
            place[: h + 1, : w + 1] = np.pad(image, ((0, 1), (0, 1), (0, 0)), mode="edge")
        return torch.from_numpy(batch), torch.tensor([label for _, label, _ in good]), [draw for _, _, draw in good]


class OnDevice:
    """Does the draws to a batch, on the device that the batch is on."""

    def __init__(self, recipe: Recipe, cfg: Mapping[str, Any]) -> None:
        self.size, self.mean, self.std = recipe.img_size, cfg["mean"], cfg["std"]

    def __call__(self, pixels: torch.Tensor, draws: Sequence[Draw]) -> torch.Tensor:
        """pixels: uint8 [batch, H, W, 3]. Returns float32 [batch, 3, img_size, img_size], normalised."""
        import torch

        place = pixels.device
        images = self.augmented(pixels, draws)
        mean, std = (torch.tensor(values, device=place).view(1, 3, 1, 1) for values in (self.mean, self.std))
        done: torch.Tensor = (images.float() / 255 - mean) / std
        for image, draw in zip(done, draws, strict=True):
            if draw.erase is not None:
                top, left, noise = draw.erase
                image[:, top : top + noise.shape[1], left : left + noise.shape[2]] = noise.to(place)
        return done

    def augmented(self, pixels: torch.Tensor, draws: Sequence[Draw]) -> torch.Tensor:
        """The batch before normalisation: uint8 [batch, 3, img_size, img_size]."""
        import torch
        from torchvision.ops import roi_align

        place = pixels.device
        boxes = torch.tensor([(i, *draw.box) for i, draw in enumerate(draws)], dtype=torch.float32, device=place)
        # sampling_ratio -1: as many samples as a target pixel covers source pixels, which is what antialiases
        cropped = roi_align(pixels.permute(0, 3, 1, 2).float(), boxes, self.size, sampling_ratio=-1, aligned=True)
        flip = torch.tensor([draw.flip for draw in draws], device=place).view(-1, 1, 1, 1)
        images = torch.where(flip, cropped.flip(-1), cropped).round().clamp(0, 255).to(torch.uint8)
        for turn in range(max((len(draw.steps) for draw in draws), default=0)):
            groups: dict[str, list[int]] = {}
            for index, draw in enumerate(draws):
                if turn < len(draw.steps):
                    groups.setdefault(draw.steps[turn][0], []).append(index)
            for name, members in sorted(groups.items()):
                where = torch.tensor(members, device=place)
                arguments = torch.tensor([draws[i].steps[turn][1] for i in members], device=place).view(-1, 1, 1, 1)
                images[where] = self._apply(name, images[where], arguments)
        return images

    def _apply(self, name: str, x: torch.Tensor, argument: torch.Tensor) -> torch.Tensor:
        """One RandAugment operation on uint8 [n, 3, S, S], with an argument [n, 1, 1, 1] in timm's units."""
        import torch
        from torchvision.transforms.v2 import functional as tv

        # Pillow's enhancements blend with what the factor 0 gives; torchvision takes one factor for the whole batch.
        dull: dict[str, Callable[[torch.Tensor, float], torch.Tensor]] = {
            "Brightness": tv.adjust_brightness,
            "Contrast": tv.adjust_contrast,
            "Color": tv.adjust_saturation,
            "Sharpness": tv.adjust_sharpness,
        }
        plain: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
            "AutoContrast": tv.autocontrast,
            "Equalize": tv.equalize,
            "Invert": tv.invert,
        }
        if name in plain:
            return plain[name](x)
        if name in dull:
            base = dull[name](x, 0.0).float()
            return (base + argument * (x.float() - base)).round().clamp(0, 255).to(torch.uint8)
        wide = x.to(torch.int32)
        if name == "Posterize":
            kept = 8 - argument.to(torch.int32).clamp(0, 8)
            return ((wide >> kept) << kept).to(torch.uint8)
        if name == "Solarize":
            return torch.where(wide >= argument, 255 - wide, wide).to(torch.uint8)
        if name == "SolarizeAdd":
            return torch.where(wide < 128, wide + argument.to(torch.int32), wide).clamp(max=255).to(torch.uint8)
        return self._moved(name, x, argument.flatten())

    def _moved(self, name: str, x: torch.Tensor, argument: torch.Tensor) -> torch.Tensor:
        """Rotation (degrees), shear (a factor, from the top left) or translation (a share of the side), as Pillow."""
        import torch
        from torch.nn.functional import affine_grid, grid_sample

        one, zero = torch.ones_like(argument), torch.zeros_like(argument)
        angle = torch.deg2rad(-argument)
        # Where an output pixel comes from, in coordinates from -1 to 1: x' = a x + b y + c.
        rows = {
            "Rotate": (angle.cos(), angle.sin(), zero, -angle.sin(), angle.cos(), zero),
            "ShearX": (one, argument, argument, zero, one, zero),
            "ShearY": (one, zero, zero, argument, one, argument),
            "TranslateXRel": (one, zero, 2 * argument, zero, one, zero),
            "TranslateYRel": (one, zero, zero, zero, one, 2 * argument),
        }[name]
        theta = torch.stack(rows, 1).view(-1, 2, 3)
        fill = (torch.tensor(self.mean, device=x.device) * 255).round().view(1, 3, 1, 1)
        grid = affine_grid(theta, list(x.shape), align_corners=False)
        moved: torch.Tensor = grid_sample(x.float() - fill, grid, align_corners=False) + fill
        return moved.round().clamp(0, 255).to(torch.uint8)


def _note(name: str, steps: list[tuple[str, float]], *arguments: float, **_: Any) -> list[tuple[str, float]]:
    """Takes the place of a timm operation: the "image" is the list of what was drawn so far."""
    return [*steps, (name.removesuffix("Increasing"), float(arguments[0]) if arguments else 0.0)]


def _jitter(strength: float) -> list[tuple[str, float]]:
    """torchvision's ColorJitter: brightness, contrast and saturation in random order."""
    from torchvision.transforms import ColorJitter

    if not strength:
        return []
    jitter = ColorJitter(strength, strength, strength)
    order, *factors = ColorJitter.get_params(jitter.brightness, jitter.contrast, jitter.saturation, None)
    names = ("Brightness", "Contrast", "Color")
    return [(names[i], float(factors[i])) for i in order.tolist() if i < len(names)]


__all__ = ["Draw", "OnDevice", "Padded"]
