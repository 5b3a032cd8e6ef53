"""Real bundles for the cores: made, changed and signed again as anybody could."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cspedge.bundle import signature
from cspedge.bundle.manifest import NAME, SIGNATURE
from cspedge.bundle.write import BundleOptions, bundle
from cspedge.digest import pretty_json, sha256_file
from cspedge.options import RunOptions, Silent
from cspedge.types import Precision


@dataclass(frozen=True, kw_only=True)
class RealBundle:
    """A signed bundle, the keys that signed it, and another pair. run: what it was made from."""

    path: Path
    run: RunOptions
    private: Path
    public: Path
    other: Path
    other_public: Path

    @property
    def manifest(self) -> dict[str, Any]:
        return dict(json.loads((self.path / NAME).read_text()))

    def runtime(self) -> Mapping[str, Any]:
        """The fields of a job that let its artifact run."""
        return runtime(self.manifest, self.manifest["artifacts"][0]["backend"])

    def copy(self, folder: Path) -> Path:
        """A copy to be changed, under its own name."""
        return Path(shutil.copytree(self.path, folder / self.path.name))

    def edited(self, folder: Path, fields: Mapping[str, Any]) -> Path:
        """A copy with other fields in its manifest, signed anew: the publisher's own doing, not a forger's."""
        path = self.copy(folder)
        (path / NAME).write_text(pretty_json({**self.manifest, **fields}))
        self.sign(path)
        return path

    def replace(self, path: Path, name: str, data: bytes) -> None:
        """Another file under its name in a copy at `path`, listed and signed as if it were right."""
        (path / name).write_bytes(data)
        manifest = json.loads((path / NAME).read_text())
        entry = next(entry for entry in manifest["files"] if entry["path"] == name)
        entry.update(bytes=len(data), sha256=sha256_file(path / name))
        (path / NAME).write_text(pretty_json(manifest))
        self.sign(path)

    def sign(self, path: Path, private: Path | None = None) -> None:
        files = [p for p in sorted(path.rglob("*")) if p.is_file() and p.name != SIGNATURE]
        digests = {p.relative_to(path).as_posix(): sha256_file(p) for p in files}
        key = signature.read_private(private or self.private)
        (path / SIGNATURE).write_bytes(signature.sign(path.name, digests, key))


def runtime(manifest: Mapping[str, Any], backend: str) -> Mapping[str, Any]:
    """The fields of a job that let this backend's artifacts run."""
    shape = ",".join(str(side) for side in manifest["input"]["shape"][1:])
    child = Path(__file__).with_name("runtime_child.py")
    return {"backend": backend, "runtime": [sys.executable, str(child), backend, shape]}


def make(folder: Path) -> RealBundle:
    """The built-in model for ONNX Runtime in int8, through the pipeline, with golden images of the digits."""
    private, public = signature.make_keys(folder / "keys")
    other, other_public = signature.make_keys(folder / "other")
    run = RunOptions(
        workspace=folder / "workspace",
        out=folder / "out",
        targets=("onnxruntime",),
        precisions=(Precision.INT8,),
        recipe="fast",
        calib_images=32,
    )
    options = BundleOptions(key=private, latency=False, version="1.2.0", minimum_version="1.0.0")
    made = bundle(run, options, Silent())
    return RealBundle(path=made.path, run=run, private=private, public=public, other=other, other_public=other_public)
