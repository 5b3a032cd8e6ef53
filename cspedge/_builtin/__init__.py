"""The checkpoint that comes with the package: `lcnet_050` on the built-in digits, made by `cspedge train` alone."""

from __future__ import annotations

from pathlib import Path

NAME = "lcnet_050.digits"


def builtin_path() -> Path:
    """The built-in checkpoint's folder, in timm's hub layout (`local-dir:` loads it).

    Made again with `cspedge train lcnet_050 --data digits --recipe digits --out DIR` (and one torch thread, where the
    bytes matter); recipe, seed, threads and versions are in its `provenance.json`.
    """
    return Path(__file__).parent / NAME
