"""coremltools without its chatter: version warnings at import, progress bars while converting. Errors still raise."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

# coremltools warns about newer torch and scikit-learn and, off macOS, about each part of its macOS bridge; importing
# torchao (which it does) makes torch warn about an enum.
NOISY = ("coremltools", "torch.utils._pytree")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Raises the level of the noisy loggers and drops Python warnings, for the time of the block."""
    levels = {name: logging.getLogger(name).level for name in NOISY}
    try:
        for name in NOISY:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def import_coremltools() -> Any:
    """The `coremltools` module, imported without its warnings; ImportError where it is not installed."""
    with quiet():
        import coremltools

    return coremltools


@dataclass
class Progress:
    """Which node coremltools is converting; None before the first and after the last one."""

    node: Any = None

    def nodes(self, items: Iterable[Any], **_: Any) -> Iterator[Any]:
        for item in items:
            self.node = item
            yield item

    def passes(self, items: Iterable[Any], **_: Any) -> Iterable[Any]:
        self.node = None
        return items


@contextlib.contextmanager
def converting() -> Iterator[Progress]:
    """For the time of one `ct.convert`: quiet, without progress bars; gives the node at which it fails.

    Progress bars stand in two coremltools modules under the names `_tqdm` and `tqdm`; there is no switch for them.
    """
    import_coremltools()
    from coremltools.converters.mil.frontend.torch import ops
    from coremltools.converters.mil.mil.passes import pass_pipeline

    progress = Progress()
    saved = ops._tqdm, pass_pipeline.tqdm
    try:
        ops._tqdm, pass_pipeline.tqdm = progress.nodes, progress.passes
        with quiet():
            yield progress
    finally:
        ops._tqdm, pass_pipeline.tqdm = saved
