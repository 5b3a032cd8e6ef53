"""The JSON line that the native runner prints: its schema, and whether it tells of what was asked for."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from cspedge.errors import TargetError, UsageError
from cspedge.report import checks

_POSITIVE = checks.number(0, math.inf)
_LINE = checks.closed(
    {
        "artifact": checks.name,
        "sha256": checks.sha256,
        "runtime": checks.closed({"name": checks.name, "version": checks.name}),
        "delegates": checks.list_of(checks.name),
        "threads": checks.count,
        "images": checks.count,
        "tensors_sha256": checks.sha256,
        "outputs_sha256": checks.or_null(checks.sha256),  # null: none were asked for
        "load_ms": _POSITIVE,
        "first_ms": _POSITIVE,
        "samples_ms": checks.list_of(_POSITIVE),
        "peak_rss_bytes": checks.count,
    },
    {"base_rss_bytes": checks.count},
)


@dataclass(frozen=True, kw_only=True)
class Line:
    """What one run of one artifact gave. Times in milliseconds; samples_ms: each run of one image, in order.

    delegates: who computed inside the runtime; peak_rss_bytes: 0 where the system does not tell; base_rss_bytes: what
    the process took before it loaded the model, None where it does not say.
    """

    runtime: str
    version: str
    delegates: tuple[str, ...]
    outputs_sha256: str | None
    load_ms: float
    first_ms: float
    samples_ms: tuple[float, ...]
    peak_rss_bytes: int
    base_rss_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a run was asked for, which its line must repeat; rounds: timed inferences; outputs: whether written."""

    label: str
    sha256: str
    threads: int
    images: int
    tensors_sha256: str
    rounds: int
    outputs: bool


def parse(text: str, asked: Asked, whose: str) -> Line:
    """Checks and reads the runner's output; whose: the device, for the message.

    Raises TargetError for anything but one line of the schema (NaN and infinities are no JSON), and for results of
    another artifact, other tensors, or another number of images, threads or samples.
    """
    where = f"device {whose!r} gave results of {asked.label} that cannot be used"
    try:
        found = json.loads(text, parse_constant=_refuse)
        _LINE(found, "")
    except ValueError as error:
        raise TargetError(f"{where}: no line of JSON ({error}); run it again") from error
    except UsageError as error:
        said = str(error).removeprefix("report.json: ")
        raise TargetError(f"{where}: {said}; build the runner of this cspedge") from error
    _matches(found, asked, where)
    return Line(
        runtime=found["runtime"]["name"],
        version=found["runtime"]["version"],
        delegates=tuple(found["delegates"]),
        outputs_sha256=found["outputs_sha256"],
        load_ms=float(found["load_ms"]),
        first_ms=float(found["first_ms"]),
        samples_ms=tuple(float(v) for v in found["samples_ms"]),
        peak_rss_bytes=found["peak_rss_bytes"],
        base_rss_bytes=found.get("base_rss_bytes"),
    )


def _matches(found: dict[str, Any], asked: Asked, where: str) -> None:
    pairs = {
        "artifact": (found["artifact"], asked.label),
        "artifact's SHA-256": (found["sha256"], asked.sha256),
        "tensors' SHA-256": (found["tensors_sha256"], asked.tensors_sha256),
        "number of images": (found["images"], asked.images),
        "number of threads": (found["threads"], asked.threads),
        "number of samples": (len(found["samples_ms"]), asked.rounds),
        "presence of outputs": (found["outputs_sha256"] is not None, asked.outputs),
    }
    for what, (got, wanted) in pairs.items():
        if got != wanted:
            raise TargetError(f"{where}: its {what} is {got!r}, and {wanted!r} was asked for; run it again")


def _refuse(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")
