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
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cspedge.bundle.apps.sources import app_sources
from cspedge.digest import sha256_bytes, sha256_json
from cspedge.errors import RuntimeMissingError

PROGRAM = "cspedge-runner"
ARM = "aarch64"
# The dynamic loaders of the C library that runners are built with; Android has another one.
LOADERS = {ARM: "ld-linux-aarch64.so.1", "x86_64": "ld-linux-x86-64.so.2"}
# What the runner and the runtimes' libraries need of the system, where that is Linux with glibc.
LIBC = ("libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libgcc_s.so.1", "libstdc++.so.6")
# What pip takes for an aarch64 machine with a glibc of this age or older.
GLIBC = (17, 24, 26, 27, 28, 31, 34, 35)


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
    return {
        "sources": sha256_json({path: sha256_bytes(data) for path, data in app_sources("cpp").items()}),
        "machine": machine,
        "runtime": {backend: importlib.metadata.version(backend)},
        "compiler": _output([_compiler(machine), "-dumpfullversion"]),
        "system": platform.libc_ver()[1],
    }


def _compiler(machine: str) -> str:
    if machine == platform.machine():
        return _tool("g++", "apt-get install g++")
    if machine != ARM:
        raise RuntimeMissingError(
            f"the device is a {machine!r} machine and this one is {platform.machine()!r}; the native runner is built "
            f"for this one's kind and for {ARM}"
        )
    return _tool(f"{ARM}-linux-gnu-g++", f"apt-get install g++-{ARM}-linux-gnu")


def build(backend: str, machine: str, folder: Path) -> None:
    """Builds the runner and writes it with its runtime's libraries into `folder`; for Arm, cross-compiled where needed.

    The program finds them beside itself. Raises RuntimeMissingError where a compiler, CMake, OpenSSL or nlohmann/json
    is missing.
    """
    sdk = require(backend)
    sources, work = folder.absolute() / "src", folder.absolute() / "build"  # CMake's own folder is another
    native = machine == platform.machine()
    site = Path(str(importlib.metadata.distribution(backend).locate_file(""))) if native else arm_site([backend], work)
    for path, data in app_sources("cpp").items():
        (sources / path).parent.mkdir(parents=True, exist_ok=True)
        (sources / path).write_bytes(data)
    others = [other.cmake for name, other in SDKS.items() if name != backend]
    cmake = _cmake()
    configure = [cmake, "-S", str(sources), "-B", str(work), f"-DCMAKE_PREFIX_PATH={site / backend}"]
    configure += [f"-DCMAKE_DISABLE_FIND_PACKAGE_{name}=ON" for name in others]
    # libraries beside the program; OpenSSL inside it, since boards have other versions
    configure += ["-DCMAKE_BUILD_WITH_INSTALL_RPATH=ON", "-DCMAKE_INSTALL_RPATH=$ORIGIN"]
    configure += ["-DOPENSSL_USE_STATIC_LIBS=ON"] if native else arm_options()
    _output(configure)
    _output([cmake, "--build", str(work)])
    shutil.copyfile(work / PROGRAM, folder / PROGRAM)
    for pattern in sdk.libraries:
        for library in sorted((site / sdk.folder).glob(pattern)):
            shutil.copyfile(library, folder / library.name)
    shutil.rmtree(sources)
    shutil.rmtree(work)


def libc(machine: str) -> dict[str, Path]:
    """The files of a C library for that machine, by name, with the loader that starts the program then.

    For a device with another C library, as Android: the runtimes' packages hold shared libraries that need this one, so
    that nothing can be linked statically. Raises RuntimeMissingError where the compiler lacks one.
    """
    compiler, found = _compiler(machine), {}
    for name in (*LIBC, LOADERS[machine]):
        found[name] = Path(_output([compiler, f"-print-file-name={name}"]))
        if not found[name].is_absolute():  # the bare name, where it has none
            package = "g++" if machine == platform.machine() else f"g++-{ARM}-linux-gnu"
            tool = Path(compiler).name
            raise RuntimeMissingError(
                f"the native runner needs {name!r}, which {tool} does not have: apt-get install {package}"
            )
    return found


def arm_options() -> list[str]:
    """What CMake needs to cross-compile for Arm. Raises RuntimeMissingError where a part is missing."""
    library = Path(f"/usr/lib/{ARM}-linux-gnu/libcrypto.a")
    if not library.exists():
        raise RuntimeMissingError(
            f"the native runner for {ARM} needs {library}, which is not here: dpkg --add-architecture arm64 && "
            "apt-get update && apt-get install libssl-dev:arm64"
        )
    options = ["-DCMAKE_SYSTEM_NAME=Linux", f"-DCMAKE_SYSTEM_PROCESSOR={ARM}"]
    options += [f"-DCMAKE_CXX_COMPILER={_compiler(ARM)}", f"-DOPENSSL_CRYPTO_LIBRARY={library}"]
    return [
        *options,
        "-DOPENSSL_INCLUDE_DIR=/usr/include",
        f"-DCMAKE_CXX_FLAGS=-idirafter/usr/include/{ARM}-linux-gnu",
    ]


def arm_site(backends: Sequence[str], work: Path) -> Path:
    """The runtimes' aarch64 wheels, of the versions here, downloaded by pip and unpacked into a folder of `work`."""
    site, wheels = work / f"site-{ARM}", work / f"wheels-{ARM}"
    if site.exists():
        return site
    tags = [f"--platform=manylinux_2_{minor}_{ARM}" for minor in GLIBC]
    wanted = [f"{name}=={importlib.metadata.version(name)}" for name in backends]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", *tags]
    done = subprocess.run([*pip, "--dest", str(wheels), *wanted], capture_output=True, text=True, check=False)
    if done.returncode:
        said = " ".join(done.stderr.split())[-300:]
        raise RuntimeMissingError(f"pip does not find {' '.join(wanted)} for {ARM} ({said}); it needs the network once")
    draft = site.with_suffix(".draft")
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(draft)
    draft.rename(site)
    shutil.rmtree(wheels)
    return site


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
