"""The apps' cores, compiled as they are in apps/ and run as programs."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
IOS, CORE, CPP = ROOT / "apps" / "ios", ROOT / "apps" / "android" / "core", ROOT / "apps" / "cpp"
BUILD = ROOT / "build" / "apps"
JARS = ROOT / ".venv-kotlin" / "lib"


@dataclass(frozen=True, kw_only=True)
class Core:
    """One core's check program (`CspEdgeCheck`, `Check.kt`): jobs in, one JSON value for each out."""

    name: str
    command: tuple[str, ...]

    def run(self, jobs: Sequence[Mapping[str, Any]]) -> list[Any]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "jobs.json"
            path.write_text(json.dumps(jobs))
            done = subprocess.run([*self.command, str(path)], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        assert len(answers) == len(jobs)
        return answers


def kotlin() -> Core:
    """Compiles `core` with its check program; skips where there is no JDK or no compiler."""
    if shutil.which("java") is None:
        pytest.skip("Kotlin's core needs a JDK (apt-get install openjdk-17-jdk-headless)")
    jars = sorted(JARS.glob("python*/site-packages/run_kotlin_kernel/jars/*.jar"))
    compiler = [jar for jar in jars if jar.name.endswith("-all.jar")]
    library = [jar for jar in jars if jar.name.startswith("kotlin-stdlib-")]
    if not compiler or not library:
        pytest.skip("Kotlin's core needs its compiler (make kotlin)")
    sources = sorted(CORE.rglob("*.kt"))
    classes = BUILD / f"kotlin-{_digest([*sources, ROOT / 'apps' / 'android' / 'kotlin-requirements.txt'])}"
    with _locked("kotlin"):
        if not classes.exists():
            draft = classes.with_suffix(".draft")
            shutil.rmtree(draft, ignore_errors=True)
            folders = [str(CORE / "src" / part / "kotlin") for part in ("main", "test")]
            java = ["java", "-XX:+UseSerialGC", "-cp", str(compiler[0]), "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler"]
            options = ["-no-stdlib", "-no-reflect", "-Werror", "-jvm-target", "17"]
            _build([*java, *options, "-cp", str(library[0]), "-d", str(draft), *folders], CORE)
            draft.rename(classes)
    path = os.pathsep.join(map(str, (classes, CORE / "src" / "main" / "resources", library[0])))
    return Core(name="kotlin", command=("java", "-XX:+UseSerialGC", "-cp", path, "cspedge.core.CheckKt"))


def swift() -> Core:
    """Builds the Swift package with its check program and XCTests; skips where there is no toolchain."""
    if shutil.which("swift") is None:
        pytest.skip("CspEdgeCore needs a Swift 6 toolchain (swift.org/install)")
    if os.uname().sysname == "Linux" and not Path("/usr/include/openssl/evp.h").exists():
        pytest.skip("on Linux CspEdgeCore needs OpenSSL's headers (apt-get install libssl-dev)")
    with _locked("swift"):
        _build(["swift", "build", "--build-tests"], IOS)
    return Core(name="swift", command=(str(IOS / ".build" / "debug" / "CspEdgeCheck"),))


def cpp() -> Core:
    """Compiles the C++ example's preprocessing with a check program of its own; skips where it cannot."""
    require_cpp()
    sources = [CPP / f"{name}.cpp" for name in ("bundle", "image", "preprocess")]
    sources.append(ROOT / "tests" / "apps" / "cpp" / "check.cpp")
    program = BUILD / f"cpp-{_digest([*sources, *CPP.glob('*.h')])}"
    with _locked("cpp"):
        if not program.exists():
            draft = program.with_suffix(".draft")
            options = ["-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", f"-I{CPP}"]
            _build(["g++", *options, *map(str, sources), "-lcrypto", "-o", str(draft)], CPP)
            draft.rename(program)
    return Core(name="cpp", command=(str(program),))


def require_cpp() -> None:
    """Skips where the C++ example cannot be built."""
    if shutil.which("g++") is None:
        pytest.skip("the C++ example needs a compiler (apt-get install g++)")
    for header, package in (("openssl/evp.h", "libssl-dev"), ("nlohmann/json.hpp", "nlohmann-json3-dev")):
        if not (Path("/usr/include") / header).exists():
            pytest.skip(f"the C++ example needs {header} (apt-get install {package})")


def _build(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


def _digest(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


@contextmanager
def _locked(name: str) -> Iterator[None]:
    """The test workers build one after another; the second finds the first one's result."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
