"""What models exist: the first-class ones, and any timm classifier by pattern."""

from __future__ import annotations

import fnmatch
import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

from cspedge.errors import UsageError

BUILT_IN = "lcnet_050.digits"
# timm publishes no weights for the two without a tag.
FIRST_CLASS = (
    "lcnet_035",
    "lcnet_050.ra2_in1k",
    "lcnet_075.ra2_in1k",
    "lcnet_100.ra2_in1k",
    "lcnet_150",
    "fbnetv3_b.ra2_in1k",
    "fbnetv3_d.ra2_in1k",
    "fbnetv3_g.ra2_in1k",
    "ese_vovnet19b_dw.ra_in1k",
    "ese_vovnet39b.ra_in1k",
    "cspdarknet53.ra_in1k",
    "cspresnet50.ra_in1k",
    "cspresnext50.ra_in1k",
)
# Counting builds the network: 0.1 s for lcnet, above a second for a large one.
MOST_COUNTED = 30
SOURCE = "timm's results on ImageNet-1k, huggingface/pytorch-image-models"


def catalog(pattern: str | None = None) -> list[dict[str, Any]]:
    """Rows of `cspedge models`, one a model.

    name; params; input_size, crop_pct, interpolation: of the default size; sizes: for the default size and the test
    size where there is one, img_size, crop_pct, gmacs, and published top1 and top5 in percent (None: no figure);
    weights: `built in`, `cached` here, on the `hub`, or `none` published.
    params and gmacs are None where more than `MOST_COUNTED` models match, and for networks that are no classifier of
    images of one size. pattern: fnmatch over timm's names; None: the built-in and the first-class models. Raises
    UsageError where nothing matches.
    """
    import timm

    if pattern is None:
        return [_builtin(), *(_row(name, True) for name in FIRST_CLASS)]
    names = [n for n in timm.list_pretrained() if fnmatch.fnmatch(n, pattern) or n.partition(".")[0] == pattern]
    # Architectures without published weights are models too: --weights brings their own.
    bare = {n.partition(".")[0] for n in timm.list_pretrained()}
    names += [n for n in timm.list_models() if n not in bare and fnmatch.fnmatch(n, pattern)]
    if not names:
        raise UsageError(f"no timm model matches {pattern!r}; try a pattern such as 'lcnet*'")
    return [_row(n, len(names) <= MOST_COUNTED) for n in sorted(names)]


def params_and_gmacs(
    architecture: str, sizes: tuple[tuple[int, int, int], ...], num_classes: int = 1000
) -> tuple[int, list[float]]:
    """Parameters, and GMACs of one image at each size (channels, H, W), counted on the meta device without weights.

    GMACs as timm's model cards count them (by fvcore): one for each multiply-accumulate of convolutions and linear
    layers, two for each element of a batch norm in evaluation. Raises what timm raises for a size it cannot take.
    """
    import timm
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        model = timm.create_model(architecture, num_classes=num_classes).eval()
    norm = torch.ops.aten.native_batch_norm
    gmacs = []
    for size in sizes:
        # Counted under the one name; known under the other, it is not taken apart before.
        counter = FlopCounterMode(display=False, custom_mapping={norm: _batch_norm, norm.default: _batch_norm})
        with counter, torch.no_grad():
            model(torch.empty(1, *size, device="meta"))
        gmacs.append(counter.get_total_flops() / 2e9)
    return sum(p.numel() for p in model.parameters()), gmacs


def _batch_norm(shape: tuple[int, ...], *_: Any, **__: Any) -> int:
    """In FLOPs, of which torch counts two for a multiply-accumulate."""
    import math

    return 4 * math.prod(shape)


def _builtin() -> dict[str, Any]:
    import json

    from cspedge._builtin import builtin_path

    found = json.loads((builtin_path() / "config.json").read_text(encoding="utf-8"))
    config = found["pretrained_cfg"]
    size = tuple(config["input_size"])
    params, gmacs = params_and_gmacs(found["architecture"], (size,), found["num_classes"])
    return {
        "name": BUILT_IN,
        "params": params,
        "input_size": list(size),
        "crop_pct": config["crop_pct"],
        "interpolation": config["interpolation"],
        "sizes": [_at(BUILT_IN, size, config["crop_pct"], gmacs[0])],
        "weights": "built in",
    }


def _row(name: str, counted: bool) -> dict[str, Any]:
    import timm

    config = timm.get_pretrained_cfg(name)
    crops = {tuple(config.input_size): config.crop_pct}
    if config.test_input_size:
        crops.setdefault(tuple(config.test_input_size), config.test_crop_pct or config.crop_pct)
    params, gmacs = _counted(name.partition(".")[0], tuple(crops)) if counted else (None, [None] * len(crops))
    return {
        "name": name,
        "params": params,
        "input_size": list(config.input_size),
        "crop_pct": config.crop_pct,
        "interpolation": config.interpolation,
        "sizes": [_at(name, size, crop, g) for (size, crop), g in zip(crops.items(), gmacs, strict=True)],
        "weights": _weights(name),
    }


def _counted(architecture: str, sizes: tuple[Any, ...]) -> tuple[int | None, list[float] | list[None]]:
    try:
        return params_and_gmacs(architecture, sizes)
    except (RuntimeError, AssertionError, ValueError, TypeError, NotImplementedError):
        # Some of timm's networks have no meta device or take one size only; what they are is listed all the same.
        return None, [None] * len(sizes)


def _at(name: str, size: tuple[int, ...], crop_pct: float, gmacs: float | None) -> dict[str, Any]:
    figures = _published().get(name, {}).get(str(size[1]), {})
    return {
        "img_size": size[1],
        "crop_pct": crop_pct,
        "gmacs": None if gmacs is None else round(gmacs, 4),
        "top1": figures.get("top1"),
        "top5": figures.get("top5"),
    }


@cache
def _published() -> dict[str, dict[str, dict[str, float]]]:
    return tomllib.loads(files("cspedge.models").joinpath("published.toml").read_text(encoding="utf-8"))


def _weights(name: str) -> str:
    from cspedge.models import hub

    if not hub.published(name):
        return "none"
    return "hub" if hub.cached(name) is None else "cached"
