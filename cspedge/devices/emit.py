"""`--emit DIR`: a folder with all that runs Core ML artifacts on a Mac or an iPhone by hand, and brings results back.

It holds the Swift runner with the module that it shares with apps, the artifacts, the images as the model takes them, a
description of the run with the digest of everything, and a README with the commands.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cspedge.bundle.apps.sources import files_of, write_project
from cspedge.devices.uri import IOS, DeviceUri
from cspedge.digest import pretty_json, sha256_bytes, sha256_file
from cspedge.errors import UsageError, WorkspaceError
from cspedge.resources import data_folder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cspedge.types import Artifact, Output

SCHEMA = 1  # of run.json and results.json
RUNNER_VERSION = "1"  # RunDescription.swift's: raised with every change of what it writes
WARMUP = 1  # the first inference after each load, told apart; how long warming up takes is decided here, from the times

RUNNER = "targets/coreml/runner"
JOB = f"{RUNNER}/Device/Job"
DESCRIPTION = "run.json"
TENSORS = "inputs.u8"
RESULTS = "results"
# What `sh run.sh` asks for, and what a command line takes.
TEAM, IDENTIFIER = "CSPEDGE_TEAM", "CSPEDGE_RUNNER_ID"
DEFAULT_IDENTIFIER = "com.example.cspedge-runner"


def check_folder(folder: Path) -> None:
    """Raises UsageError where `folder` is there and not empty, or is no folder."""
    try:
        if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
            raise UsageError(f"--emit {str(folder)!r} is there already; give a folder that is new or empty")
    except OSError as error:
        raise WorkspaceError(
            f"--emit {str(folder)!r} cannot be read ({error.strerror}); give another folder"
        ) from error


def chosen(total: int, wanted: int | None) -> list[int]:
    """Indices of the validation images that go along: all, or `wanted` evenly over the list, so over the classes."""
    if wanted is None or wanted >= total:
        return list(range(total))
    return [index * total // wanted for index in range(wanted)]


def describe(
    uri: DeviceUri,
    artifacts: Sequence[Artifact],
    outputs: Sequence[Output],
    pixels: NDArray[np.uint8],
    *,
    rounds: int,
    per_round: int,
) -> dict[str, Any]:
    """run.json. pixels: uint8 [n, 3, H, W]; rounds 0: the artifacts are validated and not timed.

    The device times as many inferences more as warming up can take (`cspedge.evaluate.steady`).
    """
    from cspedge.evaluate.steady import CAP

    return {
        "schema": SCHEMA,
        "runner": RUNNER_VERSION,
        "device": uri.text,
        "units": uri.units,
        "warmup": WARMUP,
        "rounds": rounds,
        "per_round": CAP + per_round,
        "tensors": {
            "file": TENSORS,
            "sha256": sha256_bytes(pixels.tobytes()),
            "images": len(pixels),
            "shape": list(pixels.shape[1:]),
        },
        "artifacts": [
            {
                "artifact": artifact.label,
                "path": _place(artifact),
                "sha256": artifact.sha256,
                "files": _files(artifact.path),
                "outputs": [{"name": o.name, "shape": list(o.shape)} for o in outputs],
            }
            for artifact in artifacts
        ],
    }


def file_name(label: str) -> str:
    """An artifact's label as a file's name."""
    return label.replace("/", "-")


def _place(artifact: Artifact) -> str:
    return f"models/{file_name(artifact.label)}.mlpackage"


def _files(package: Path) -> list[dict[str, str]]:
    """In the order of `cspedge.digest.sha256_path`, which the runner repeats."""
    files = sorted(p for p in package.rglob("*") if p.is_file())
    return [{"path": p.relative_to(package).as_posix(), "sha256": sha256_file(p)} for p in files]


def write(
    folder: Path,
    uri: DeviceUri,
    artifacts: Sequence[Artifact],
    outputs: Sequence[Output],
    pixels: NDArray[np.uint8],
    *,
    rounds: int,
    per_round: int,
) -> None:
    """Writes the folder, whole or not at all. Raises UsageError where it is not empty, WorkspaceError.

    outputs: the model's; pixels: uint8 [n, 3, H, W]; rounds: as in `describe`.
    """
    check_folder(folder)
    description = describe(uri, artifacts, outputs, pixels, rounds=rounds, per_round=per_round)
    sources = {f"{RUNNER}/{path}": data for path, data in files_of(data_folder("targets") / "coreml/runner").items()}
    del sources[f"{JOB}/README.md"]  # it says where the job comes from
    wanted = re.compile(r"Package\.swift|(Sources|Tests)/.*")  # neither the sample app nor ExecuTorch
    kit = files_of(data_folder("apps") / "ios")
    sources |= {f"apps/ios/{path}": data for path, data in kit.items() if wanted.fullmatch(path)}
    sources |= {
        f"{JOB}/{DESCRIPTION}": pretty_json(description).encode(),
        f"{JOB}/{TENSORS}": pixels.tobytes(),
        "run.sh": script(uri).encode(),
        "README.md": _readme(uri, description).encode(),
    }
    packages = {f"{JOB}/{_place(artifact)}": artifact.path for artifact in artifacts}
    write_project(folder.absolute().parent, folder.absolute().name, sources, packages)


def commands(uri: DeviceUri, team: str, identifier: str) -> list[list[str]]:
    """What runs the job, in the folder, and leaves the results in `results`. team, identifier: of iOS apps alone."""
    if uri.scheme != IOS:
        swift = ["xcrun", "swift", "run", "--package-path", RUNNER, "-c", "release", "cspedge-coreml-runner"]
        return [[*swift, JOB, RESULTS]]
    assert uri.udid is not None
    project = ["-project", f"{RUNNER}/Device/CspEdgeRunner.xcodeproj", "-scheme", "CspEdgeRunner"]
    where = ["-destination", f"platform=iOS,id={uri.udid}", "-derivedDataPath", "build", "-allowProvisioningUpdates"]
    signing = [f"DEVELOPMENT_TEAM={team}", f"CSPEDGE_RUNNER_ID={identifier}"]
    copy = ["xcrun", "devicectl", "device", "copy", "from", "--device", uri.udid]
    copy += ["--domain-type", "appDataContainer", "--domain-identifier", identifier]
    copy += ["--source", "Documents/results", "--destination", RESULTS]
    return [["xcrun", "xcodebuild", "test", *project, *where, *signing], copy]


def script(uri: DeviceUri) -> str:
    """run.sh, for a POSIX shell."""
    lines = ["#!/bin/sh", 'set -eu; cd "$(dirname "$0")"']
    if uri.scheme == IOS:
        lines += [
            f': "${{{TEAM}:?your team of ten letters and digits, as Xcode shows it}}"',
            f': "${{{IDENTIFIER}:={DEFAULT_IDENTIFIER}}}"',
        ]
    lines += [_line(command) for command in commands(uri, f"${TEAM}", f"${IDENTIFIER}")]
    return "\n".join(
        [*lines, f'echo "{RESULTS}/ is complete; give {RESULTS}/results.json to cspedge report --add"', ""]
    )


def _line(command: Sequence[str]) -> str:
    return " ".join(f'"{part}"' if "$" in part else shlex.quote(part) for part in command)


_README = """# {what} on {device}

Made by cspedge: {count} Core ML artifact{s} ({labels}), {images} images, and the runner that compiles and runs them
with Core ML on `{units}`{timing}. Nothing is downloaded.

Needed: {needed}. Copy this folder to the Mac as it is, then

```
{command}
```

The runner checks the digest of every file before it begins. Copy the folder `{results}` back to where cspedge ran, and
in the same workspace, with the options of that run,

```
cspedge report --add {results}/results.json
```

The results are taken if they belong to these very artifacts and images and no file was changed. The commands, one by
one:

```
{commands}
```

{folder} is the job: `run.json` says what is run and with which digests.
{hints}"""
_IOS_HINTS = """
`CSPEDGE_TEAM` is the team that signs the app (Xcode, Settings, Accounts; ten letters and digits), `CSPEDGE_RUNNER_ID`
an identifier of your own for it. The device must be paired, unlocked and in developer mode, and stays on the app's
screen. Let it cool down and take it off the charger for times that another run repeats.
"""


def _readme(uri: DeviceUri, description: dict[str, Any]) -> str:
    ios, labels = uri.scheme == IOS, [entry["artifact"] for entry in description["artifacts"]]
    rounds, per_round = description["rounds"], description["per_round"]
    command = "CSPEDGE_TEAM=ABCDE12345 CSPEDGE_RUNNER_ID=com.yourname.cspedge-runner sh run.sh" if ios else "sh run.sh"
    return _README.format(
        what="Latency and answers" if rounds else "Answers",
        device=uri.text,
        count=len(labels),
        s="s" * (len(labels) != 1),
        labels=", ".join(labels),
        images=description["tensors"]["images"],
        units=uri.units,
        timing=f"; {rounds} rounds of {per_round} inferences of the first image, those that warm it up among them"
        if rounds
        else "",
        needed="a Mac with Xcode 16 or later, and the device with iOS 17 or later"
        if ios
        else "a Mac with macOS 14 or later and Xcode 16 or its command line tools",
        command=command,
        results=RESULTS,
        commands="\n".join(_line(c) for c in commands(uri, f"${TEAM}", f"${IDENTIFIER}")),
        folder=f"`{JOB}`",
        hints=_IOS_HINTS if ios else "",
    )
