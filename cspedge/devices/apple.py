"""`mac://` and `ios://UDID`: Core ML on Apple's devices, driven with Xcode's tools on a Mac, by hand from elsewhere.

Both ways run the folder that `cspedge.devices.emit` writes, and take its results through `cspedge.devices.results`.
Written against Apple's documentation of xcodebuild and devicectl; its authors have no Mac.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cspedge.devices import emit, results, uri
from cspedge.errors import DeviceError, RuntimeMissingError, TargetError, UsageError
from cspedge.options import RunOptions, Upto
from cspedge.types import Artifact, ArtifactResult, Head, Status

if TYPE_CHECKING:
    from cspedge.config import Target
    from cspedge.inputs import Validation
    from cspedge.models.reference import ReferenceInfo

BACKEND = "coreml"


def asked(options: RunOptions, upto: Upto, targets: Sequence[Target]) -> uri.DeviceUri | None:
    """The Apple device of `--device`, None for any other; before any work is done.

    Raises UsageError for options that do not go together, DeviceError where there is no Mac and no `--emit`.
    """
    if upto < Upto.EVALUATE:
        return None
    found = None if options.device is None else uri.parse(options.device)
    apple = found is not None and found.scheme in {uri.MAC, uri.IOS}
    if options.emit is not None and not apple:
        raise UsageError(f"--emit is for --device {uri.FORMS[uri.MAC]} and --device {uri.FORMS[uri.IOS]}; give one")
    if options.emit_images is not None and options.emit is None:
        raise UsageError("--emit-images says how many images --emit DIR writes; give DIR")
    if options.add and options.device is not None:
        raise UsageError("--add takes the results of a device that ran by hand; give it without --device and --emit")
    if not apple:
        return None
    assert found is not None
    others = sorted({target.name for target in targets if target.backend != BACKEND})
    if others:
        raise UsageError(
            f"device {found.text!r} runs Core ML artifacts alone, and {', '.join(others)} would be run too; give "
            "--target coreml"
        )
    if options.head is Head.FEATURES:
        raise UsageError(
            f"--head features is not for device {found.text!r}: feature maps are too large to bring back; "
            "validate them here, or --head logits there"
        )
    if options.emit is not None:
        emit.check_folder(options.emit)
    elif sys.platform != "darwin":
        raise DeviceError(
            f"device {found.text!r} needs a Mac with Xcode, which this is not; --emit DIR writes a folder to run "
            "there, and `cspedge report --add results.json` takes its results in"
        )
    elif shutil.which("xcrun") is None:
        raise RuntimeMissingError(
            f"device {found.text!r} needs Xcode's tools, and xcrun is not here: xcode-select --install"
        )
    return found


def write(
    device: uri.DeviceUri,
    folder: Path,
    rows: Sequence[ArtifactResult],
    validation: Validation,
    info: ReferenceInfo,
    options: RunOptions,
    upto: Upto,
) -> None:
    """Writes the folder of `--emit`. Raises TargetError where no artifact was made, UsageError, WorkspaceError."""
    artifacts: list[Artifact] = [r.artifact for r in rows if r.status is Status.OK and r.artifact is not None]
    if not artifacts:
        raise TargetError(f"there is no artifact to run on device {device.text!r}: {rows[0].reason}")
    pixels = validation.images.images[emit.chosen(len(validation.images), options.emit_images)]
    rounds = options.rounds if upto >= Upto.BENCH else 0
    emit.write(folder, device, artifacts, info.outputs, pixels, rounds=rounds, per_round=options.per_round)


def run(
    device: uri.DeviceUri,
    rows: Sequence[ArtifactResult],
    validation: Validation,
    info: ReferenceInfo,
    options: RunOptions,
    upto: Upto,
) -> results.Returned:
    """Runs the folder that `write` writes, with Xcode's tools on this Mac, and reads its results.

    Raises UsageError for a team or identifier that is none, DeviceError where a command of Xcode fails.
    """
    team, identifier = _signing(device)
    with tempfile.TemporaryDirectory(prefix="cspedge-apple-") as work:
        folder = Path(work) / "run"
        write(device, folder, rows, validation, info, options, upto)
        for command in emit.commands(device, team, identifier):
            done = subprocess.run(
                command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
            )
            if done.returncode:
                said = " ".join((done.stderr.strip() or done.stdout.strip()).split())[-300:]
                raise DeviceError(
                    f"device {device.text!r}: {' '.join(command[1:3])} failed ({said}); see docs/devices.md"
                )
        return results.read(folder / emit.RESULTS / results.NAME)


def _signing(device: uri.DeviceUri) -> tuple[str, str]:
    """Whose app it is that runs on an iPhone."""
    if device.scheme != uri.IOS:
        return "", ""
    team, identifier = os.environ.get(emit.TEAM, ""), os.environ.get(emit.IDENTIFIER, emit.DEFAULT_IDENTIFIER)
    if not re.fullmatch(r"[A-Z0-9]{10}", team):
        raise UsageError(
            f"the environment's {emit.TEAM} is {team!r}; device {device.text!r} needs the team that signs its app, ten "
            "capitals and digits as Xcode shows it"
        )
    if not re.fullmatch(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+", identifier):
        raise UsageError(f"the environment's {emit.IDENTIFIER} is {identifier!r}; an app's is com.yourname.something")
    return team, identifier
