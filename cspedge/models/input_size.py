"""Whether a network can take an input size, tried on the meta device: shapes only, no arithmetic."""

from __future__ import annotations

import copy
from typing import Any

from cspedge.errors import InputError

# Twice 1,024, the largest size among the 1,826 pretrained models of timm 1.0.31.
MAX_SIZE = 2048


def check(model: Any, architecture: str, size: tuple[int, int, int]) -> None:
    """Raises InputError, naming a size that works, where the model cannot take an input of `size` (channels, H, W)."""
    height, width = size[1:]
    if min(height, width) < 1 or max(height, width) > MAX_SIZE:
        raise InputError(f"input size {_text(size)} for {architecture}: allowed are 1 to {MAX_SIZE} pixels on a side")
    shapes = copy.deepcopy(model).to("meta")
    reason = _failure(shapes, size)
    if reason is None:
        return
    own = model.pretrained_cfg.get("input_size") or (3, 224, 224)
    nearest = tuple(max(32, round(v / 32) * 32) for v in size[1:])
    works = [_text(s) for s in dict.fromkeys([(3, *nearest), tuple(own)]) if _failure(shapes, s) is None]
    advice = f"a size that works: {works[0]} (--img-size)" if works else "use the model's own size"
    raise InputError(f"{architecture} cannot take an input of {_text(size)} ({reason}); {advice}")


def _failure(shapes: Any, size: tuple[int, ...]) -> str | None:
    import torch

    try:
        with torch.no_grad():
            shapes(torch.empty(1, *size, device="meta"))
    except (RuntimeError, AssertionError, ValueError, IndexError, ZeroDivisionError) as error:
        text = str(error).strip()
        return text.splitlines()[0][:160].rstrip(".") if text else type(error).__name__
    return None


def _text(size: tuple[int, ...]) -> str:
    return f"{size[1]} x {size[2]}"
