"""An artifact on a device: pushed once with its manifest and runner, then run in a fresh process for each call."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cspedge.devices.line import Asked, Line, parse
from cspedge.devices.runner import LOADERS, PROGRAM
from cspedge.digest import canonical_json, sha256_bytes, sha256_file, sha256_json
from cspedge.errors import DeviceError, TargetError
from cspedge.types import Artifact, Evidence, Output

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cspedge.devices.base import Device, Finished

SCHEMA = 1  # of the manifest, the same as a bundle's
BATCH = 256  # images that are sent at once: a process, and a loaded model, for each batch


@dataclass(frozen=True, kw_only=True)
class Runner:
    """A built runner: its files' SHA-256 by name, in `folder`."""

    folder: Path
    files: Mapping[str, str]

    @property
    def digest(self) -> str:
        return sha256_json(dict(self.files))

    def command(self, folder: str) -> list[str]:
        """What starts it where its files lie in `folder`: by the loader that came with it, where one did."""
        program = f"{folder}/{PROGRAM}"
        for loader in LOADERS.values():
            if loader in self.files:
                return [f"{folder}/{loader}", "--inhibit-cache", "--library-path", folder, program]
        return [program]


class DeviceSession:
    """An artifact on a device. `last`: the line of the newest run. Satisfies `cspedge.backends.base.Session`."""

    batch = BATCH

    def __init__(
        self,
        device: Device,
        runner: Runner,
        artifact: Artifact,
        *,
        shape: tuple[int, ...],
        outputs: tuple[Output, ...],
        threads: int,
        work: Path,
    ) -> None:
        """Sends runner and artifact. shape: of an image, [3, H, W]; work: a folder here for what goes to and fro.

        Raises DeviceError.
        """
        self.evidence = Evidence.MEASURED if device.timed else Evidence.EMULATED
        self._device, self._artifact, self._outputs = device, artifact, outputs
        self._threads, self._work = threads, work
        folder = f"runner-{runner.digest[:16]}"
        self._program = runner.command(folder)
        executable = (PROGRAM, *LOADERS.values())
        for name, digest in runner.files.items():
            device.push(runner.folder / name, f"{folder}/{name}", digest, executable=name in executable)
        self._job = self._push_job(shape)
        self._tensors = ""  # digest of those that were sent last
        self.last: Line | None = None

    def run(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """images: float32 [n, 3, H, W], whole steps of 1/255 -> each output float32 [n, ...], in the model's order.

        Raises DeviceError where the device is lost, TargetError where the artifact fails or its results are not those
        that were asked for.
        """
        import numpy as np

        pixels = np.rint(images * np.float32(255)).astype(np.uint8)
        self.last = self._call(pixels, warmup=0, rounds=0, outputs="outputs.f32")
        target = self._work / "outputs.f32"
        self._device.fetch("outputs.f32", target)
        if sha256_file(target) != self.last.outputs_sha256:
            raise DeviceError(f"outputs of device {self._device.uri!r} changed on their way; run it again")
        values = np.fromfile(target, "<f4")
        sizes = [math.prod(output.shape) for output in self._outputs]
        if values.size != len(images) * sum(sizes):
            raise TargetError(
                f"{self._artifact.label} on {self._device.uri!r} gave {values.size} values for {len(images)} images, "
                f"not {sum(sizes)} each; lower it again"
            )
        parts = np.split(values.reshape(len(images), -1), np.cumsum(sizes)[:-1], axis=1)
        return tuple(
            p.reshape(len(images), *o.shape).astype(np.float32) for p, o in zip(parts, self._outputs, strict=True)
        )

    def burst(self, image: NDArray[np.uint8], *, warmup: int, rounds: int) -> Line:
        """One fresh process that loads the artifact and times `rounds` inferences of uint8 [1, 3, H, W]."""
        climate = self._device.climate

        def work() -> Line:
            return self._call(image, warmup=warmup, rounds=rounds, outputs=None)

        self.last = work() if climate is None else climate.timed(self._artifact.label, work)
        return self.last

    def _call(self, pixels: NDArray[np.uint8], *, warmup: int, rounds: int, outputs: str | None) -> Line:
        data = pixels.tobytes()
        digest = sha256_bytes(data)
        if digest != self._tensors:
            (self._work / "inputs.u8").write_bytes(data)
            self._device.push(self._work / "inputs.u8", "inputs.u8", digest)
            self._tensors = digest
        command = [*self._program, self._job, "--bench", "--artifact", self._artifact.label, "--tensors", "inputs.u8"]
        command += ["--threads", str(self._threads), "--warmup", str(warmup), "--rounds", str(rounds)]
        done = self._device.run([*command, *(() if outputs is None else ("--outputs", outputs))])
        if done.code:
            raise failure(done, self._artifact.label, self._device.uri)
        asked = Asked(
            label=self._artifact.label,
            sha256=self._artifact.sha256,
            threads=self._threads,
            images=len(pixels),
            tensors_sha256=digest,
            rounds=rounds,
            outputs=outputs is not None,
        )
        return parse(done.stdout, asked, self._device.uri)

    def _push_job(self, shape: tuple[int, ...]) -> str:
        """The artifact's files and a manifest in the bundle's form; the name of their folder on the device."""
        job, path, files = f"artifact-{self._artifact.sha256[:16]}", self._artifact.path, []
        for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
            place = "model" if path.is_file() else f"model/{file.relative_to(path).as_posix()}"
            digest = sha256_file(file)
            self._device.push(file, f"{job}/{place}", digest)
            files.append({"path": place, "sha256": digest})
        manifest = {
            "schema": SCHEMA,
            "input": {"shape": [1, *shape]},
            "files": files,
            "artifacts": [
                {
                    "target": self._artifact.target,
                    "precision": str(self._artifact.precision),
                    "backend": self._artifact.backend,
                    "path": "model",
                    "sha256": self._artifact.sha256,
                    "runtime": {"name": self._artifact.backend},
                }
            ],
        }
        text = canonical_json(manifest).encode()
        (self._work / "manifest.json").write_bytes(text)
        self._device.push(self._work / "manifest.json", f"{job}/manifest.json", sha256_bytes(text))
        return job


def failure(done: Finished, label: str, uri: str) -> TargetError | DeviceError:
    """Why a runner stopped, in its own last words; a C library older than the one it was built with is named."""
    said = " ".join((done.stderr.strip().splitlines() or [f"exit code {done.code}"])[-1].split())[:300]
    if "GLIBC" in said or "cannot open shared object file" in said:
        return DeviceError(
            f"device {uri!r} is too old for the runner that was built here, or lacks a library ({said}); use one "
            "with a system as new as this one's"
        )
    return TargetError(f"{label} failed on device {uri!r}: {said.removeprefix('error: ')}")
