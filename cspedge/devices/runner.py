"""The native runner: `apps/cpp`, built for a device's machine with one runtime's own libraries beside it.

One program serves the bundles' users (`cspedge bundle --app cpp`) and the devices: what a device runs is a folder with
a manifest in the bundle's form. The runtime comes from its Python package, which carries headers, libraries and CMake
files (executorch, openvino); onnxruntime's carries none, so it has no native runner.
"""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cspedge.bundle.apps.sources import app_sources
from cspedge.digest import sha256_bytes, sha256_json
from cspedge.errors import RuntimeMissingError

PROGRAM = "cspedge-runner"


@dataclass(frozen=True, kw_only=True)
class Sdk:
    """A runtime's Python package: its CMake name, the folder of its libraries and the patterns of those that run."""

    cmake: str
    folder: str
    libraries: tuple[str, ...]


SDKS = {
    "executorch": Sdk(
        cmake="executorch",
        folder="executorch/lib",
        libraries=(
            "libexecutorch.so",
            "libexecutorch_backend_xnnpack.so",
            "libexecutorch_kernels_optimized.so",
            "libexecutorch_kernels_quantized.so",
            "libexecutorch_threadpool.so",
        ),
    ),
    "openvino": Sdk(
        cmake="OpenVINO",
        folder="openvino/libs",
        libraries=("libopenvino.so.*", "libopenvino_ir_frontend.so.*", "libopenvino_*_cpu_plugin.so", "libtbb*.so.*",
                   "libhwloc.so.*"),
    ),
}  # fmt: skip


def require(backend: str) -> Sdk:
    """Raises RuntimeMissingError for a runtime without a native runner."""
    if backend not in SDKS:
        raise RuntimeMissingError(
            f"there is no native runner for {backend!r}, which --device needs; there is one for "
            f"{' and '.join(sorted(SDKS))} (--target)"
        )
    return SDKS[backend]


def inputs(backend: str, machine: str) -> dict[str, Any]:
    """What a built runner depends on. Raises RuntimeMissingError where it cannot be built here."""
    require(backend)
    if machine != platform.machine():
        raise RuntimeMissingError(
            f"the device is a {machine!r} machine and this one is {platform.machine()!r}; the native runner is "
            "built for the machine that builds it"
        )
    return {
        "sources": sha256_json({path: sha256_bytes(data) for path, data in app_sources("cpp").items()}),
        "machine": machine,
        "runtime": {backend: importlib.metadata.version(backend)},
        "compiler": _output([_tool("g++", "apt-get install g++"), "-dumpfullversion"]),
        "system": platform.libc_ver()[1],
    }


def build(backend: str, folder: Path) -> None:
    """Builds the runner and writes it with its runtime's libraries into `folder`.

    The program finds them beside itself. Raises RuntimeMissingError where a compiler, CMake, OpenSSL or nlohmann/json
    is missing.
    """
    sdk = require(backend)
    site = Path(str(importlib.metadata.distribution(backend).locate_file("")))
    sources, work = folder / "src", folder / "build"
    for path, data in app_sources("cpp").items():
        (sources / path).parent.mkdir(parents=True, exist_ok=True)
        (sources / path).write_bytes(data)
    others = [other.cmake for name, other in SDKS.items() if name != backend]
    cmake = _cmake()
    configure = [cmake, "-S", str(sources), "-B", str(work), f"-DCMAKE_PREFIX_PATH={site / backend}"]
    configure += [f"-DCMAKE_DISABLE_FIND_PACKAGE_{name}=ON" for name in others]
    # libraries beside the program; OpenSSL inside it, since boards have other versions
    configure += ["-DCMAKE_BUILD_WITH_INSTALL_RPATH=ON", "-DCMAKE_INSTALL_RPATH=$ORIGIN"]
    _output([*configure, "-DOPENSSL_USE_STATIC_LIBS=ON"])
    _output([cmake, "--build", str(work)])
    shutil.copyfile(work / PROGRAM, folder / PROGRAM)
    for pattern in sdk.libraries:
        for library in sorted((site / sdk.folder).glob(pattern)):
            shutil.copyfile(library, folder / library.name)
    shutil.rmtree(sources)
    shutil.rmtree(work)


def _cmake() -> str:
    beside = Path(sys.executable).with_name("cmake")
    return str(beside) if beside.exists() else _tool("cmake", "pip install 'cmake>=3.28'")


def _tool(name: str, how: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise RuntimeMissingError(f"the native runner of --device is built with {name!r}, which is not here: {how}")
    return found


def _output(command: Sequence[str]) -> str:
    """What a tool prints; RuntimeMissingError with the last thing that it said where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        said = " ".join((done.stderr.strip() or done.stdout.strip()).split())[-300:]
        raise RuntimeMissingError(
            f"the native runner of --device cannot be built ({Path(command[0]).name}: {said}); it needs CMake 3.28, a "
            "C++17 compiler, OpenSSL and nlohmann/json (apt-get install g++ libssl-dev nlohmann-json3-dev)"
        )
    return done.stdout.strip()
