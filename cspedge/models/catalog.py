"""What models exist: the first-class ones, and any timm classifier by pattern."""

from __future__ import annotations

import fnmatch
from typing import Any

from cspedge.errors import UsageError

BUILT_IN = "lcnet_050.digits"
FIRST_CLASS = (
    "lcnet_050.ra2_in1k",
    "lcnet_075.ra2_in1k",
    "lcnet_100.ra2_in1k",
    "fbnetv3_b.ra2_in1k",
    "fbnetv3_d.ra2_in1k",
    "fbnetv3_g.ra2_in1k",
    "ese_vovnet19b_dw.ra_in1k",
    "ese_vovnet39b.ra_in1k",
    "cspdarknet53.ra_in1k",
    "cspresnet50.ra_in1k",
    "cspresnext50.ra_in1k",
)


def catalog(pattern: str | None = None) -> list[dict[str, Any]]:
    """Rows of `cspedge models`: name, input size, crop, interpolation, where weights are.

    pattern: fnmatch over timm's pretrained names; None: the built-in and the first-class models. Raises UsageError
    where nothing matches.
    """
    import timm

    if pattern is None:
        return [_builtin(), *(_row(name) for name in FIRST_CLASS)]
    names = [n for n in timm.list_pretrained() if fnmatch.fnmatch(n, pattern) or n.partition(".")[0] == pattern]
    if not names:
        raise UsageError(f"no timm model matches {pattern!r}; try a pattern such as 'lcnet*'")
    return [_row(n) for n in names]


def _builtin() -> dict[str, Any]:
    import json

    from cspedge._builtin import builtin_path

    config = json.loads((builtin_path() / "config.json").read_text(encoding="utf-8"))["pretrained_cfg"]
    return {
        "name": BUILT_IN,
        "input_size": config["input_size"],
        "crop_pct": config["crop_pct"],
        "interpolation": config["interpolation"],
        "weights": "built in",
    }


def _row(name: str) -> dict[str, Any]:
    import timm

    config = timm.get_pretrained_cfg(name)
    return {
        "name": name,
        "input_size": list(config.input_size),
        "crop_pct": config.crop_pct,
        "interpolation": config.interpolation,
        "weights": "cached" if _cached(config.hf_hub_id) else "to be fetched",
    }


def _cached(hub_id: str | None) -> bool:
    """Whether timm's hub cache holds the weights, without asking the network."""
    from huggingface_hub import try_to_load_from_cache

    if not hub_id:
        return False
    files = ("model.safetensors", "pytorch_model.bin")
    return any(isinstance(try_to_load_from_cache(hub_id, file), str) for file in files)
