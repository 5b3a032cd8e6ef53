"""What a run is asked for, and where it says how far it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cspedge.types import Head

if TYPE_CHECKING:
    from cspedge.config import Budget
    from cspedge.evaluate.timing import BenchProtocol
    from cspedge.types import Precision


class Upto(IntEnum):
    """How far to go; each includes the ones before."""

    QUANTIZE = 1
    LOWER = 2
    EVALUATE = 3
    BENCH = 4


class PlacementChoice(StrEnum):
    """best: each target's own placement; common: one for all, so that all give the same answer."""

    BEST = "best"
    COMMON = "common"


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What the user asked for. `precisions` empty: each target's own default; `targets` empty: all.

    sweep: other numbers of threads to time; protocol: None for in-process; a device has fresh processes always.
    """

    model: str | None = None
    weights: str | None = None
    labels: str | None = None
    head: Head = Head.LOGITS
    img_size: int | None = None
    calib: str | None = None
    val: str | None = None
    workspace: Path = Path(".cspedge")
    out: Path = Path("cspedge-out")
    targets: tuple[str, ...] = ()
    precisions: tuple[Precision, ...] = ()
    recipe: str = "default"
    placement: PlacementChoice = PlacementChoice.BEST
    calib_images: int | None = None
    allow_overlap: bool = False
    max_unreadable: float = 0.01
    threads: int = 1
    seed: int = 0
    rounds: int = 10
    per_round: int = 10
    sweep: tuple[int, ...] = ()
    protocol: BenchProtocol | None = None
    budget: Budget | None = None
    explain: bool = False
    no_thumbnails: bool = False
    robustness: int = 0  # validation images that int8 artifacts are compared on under mild corruptions, too
    device: str | None = None  # where artifacts are validated and timed; None: in this process
    emit: Path | None = None  # a folder to write, to run on an Apple device by hand
    emit_images: int | None = None  # how many validation images go along; None: all
    add: tuple[str, ...] = ()  # results.json of devices that ran by hand


class Ui(Protocol):
    """Where progress goes; the command line prints it to stderr, the default is silent."""

    def progress(self, task: str) -> Callable[[int, int], None]: ...

    def finished(self, task: str, seconds: float, cached: bool, detail: str = "") -> None: ...

    def note(self, text: str) -> None: ...


class Silent:
    """A Ui that says nothing."""

    def progress(self, task: str) -> Callable[[int, int], None]:
        del task
        return lambda done, total: None

    def finished(self, task: str, seconds: float, cached: bool, detail: str = "") -> None:
        del task, seconds, cached, detail

    def note(self, text: str) -> None:
        del text
