"""results.json of the Core ML runner, read and checked against the run.json that asked for it.

The results of a device lie in one folder: results.json, the run.json that asked for them, and each artifact's outputs
as raw float32. Each is known by the SHA-256 that another one gives.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cspedge.devices.emit import DESCRIPTION, RUNNER_VERSION, SCHEMA
from cspedge.digest import sha256_file
from cspedge.errors import InputError, UsageError
from cspedge.report import checks

NAME = "results.json"
PLATFORMS = ("iOS", "macOS")
_ANY = checks.opened({})  # lines have their own check
_RESULTS = checks.closed(
    {
        "schema": checks.constant(SCHEMA),
        "runner": checks.constant(RUNNER_VERSION),
        "run_sha256": checks.sha256,
        "device": checks.closed(
            {
                "uri": checks.name,
                "facts": checks.closed(
                    {"platform": checks.name, "model": checks.name, "machine": checks.name, "system": checks.name}
                ),
                "units": checks.name,
                "low_power_mode": checks.flag,
                "thermal_before": checks.name,
                "thermal_after": checks.name,
            }
        ),
        "artifacts": checks.list_of(
            checks.closed(
                {
                    "artifact": checks.name,
                    "compile_ms": checks.number(0),
                    "operations": checks.map_of(checks.count),
                    "validated": _ANY,
                    "timed": checks.list_of(_ANY),
                }
            )
        ),
        "failures": checks.list_of(checks.closed({"artifact": checks.name, "reason": checks.name})),
    }
)
# run.json, as `cspedge.devices.emit.describe` makes it
_ASKED = checks.closed(
    {
        "schema": checks.constant(SCHEMA),
        "runner": checks.constant(RUNNER_VERSION),
        "device": checks.name,
        "units": checks.name,
        "warmup": checks.count,
        "rounds": checks.count,
        "per_round": checks.count,
        "tensors": checks.closed(
            {
                "file": checks.name,
                "sha256": checks.sha256,
                "images": checks.count,
                "shape": checks.list_of(checks.count),
            }
        ),
        "artifacts": checks.list_of(
            checks.closed(
                {
                    "artifact": checks.name,
                    "path": checks.name,
                    "sha256": checks.sha256,
                    "files": checks.list_of(checks.closed({"path": checks.name, "sha256": checks.sha256})),
                    "outputs": checks.list_of(
                        checks.closed({"name": checks.name, "shape": checks.list_of(checks.count, at_least=1)})
                    ),
                }
            ),
            at_least=1,
        ),
    }
)


@dataclass(frozen=True, kw_only=True)
class Returned:
    """A device's results. `found`: results.json; `asked`: run.json, whose digest it gives; both as they were read."""

    path: Path
    found: Mapping[str, Any]
    asked: Mapping[str, Any]


def read(path: Path) -> Returned:
    """Raises InputError for what is no results.json, is of another schema or runner, or misses its run.json."""
    found = _json(path, _RESULTS)
    platform = found["device"]["facts"]["platform"]
    if platform not in PLATFORMS:
        raise InputError(
            f"{str(path)!r} comes from {platform!r}; results are those of Core ML on {' or '.join(PLATFORMS)}"
        )
    beside = path.with_name(DESCRIPTION)
    if not beside.is_file() or sha256_file(beside) != found["run_sha256"]:
        state = "was changed" if beside.is_file() else "is missing"
        raise InputError(f"{str(beside)!r} {state}, and {NAME} is of the run that it describes; copy the folder again")
    asked = _json(beside, _ASKED)
    device = found["device"]
    if (device["uri"], device["units"]) != (asked["device"], asked["units"]):
        raise InputError(
            f"{str(path)!r} is of {device['uri']!r} on {device['units']!r}, and {DESCRIPTION} asks for "
            f"{asked['device']!r} on {asked['units']!r}; take both from one run"
        )
    return Returned(path=path, found=found, asked=asked)


def _json(path: Path, check: checks.Check) -> Any:
    def refuse(word: str) -> Any:
        raise ValueError(f"{word} is not JSON")

    try:
        found = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    except FileNotFoundError as error:
        raise InputError(f"there is no {str(path)!r}; give the {NAME} that the runner wrote") from error
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise InputError(f"{str(path)!r} cannot be read as JSON ({error}); copy it from the device again") from error
    try:
        check(found, "")
    except UsageError as error:
        said = str(error).removeprefix("report.json: ")
        raise InputError(
            f"{str(path)!r} is not of runner {RUNNER_VERSION}, schema {SCHEMA}: {said}; run a folder that this "
            "cspedge emitted"
        ) from error
    return found
