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
IOS, ANDROID, CPP = ROOT / "apps" / "ios", ROOT / "apps" / "android", ROOT / "apps" / "cpp"
API = Path(__file__).with_name("android_api")
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

    @contextmanager
    def started(self, jobs: Sequence[Mapping[str, Any]]) -> Iterator[subprocess.Popen[bytes]]:
        """The jobs under way, in a process that is killed (SIGKILL) at the end of the block."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "jobs.json"
            path.write_text(json.dumps(jobs))
            with subprocess.Popen([*self.command, str(path)], stdout=subprocess.DEVNULL) as process:
                try:
                    yield process
                finally:
                    process.kill()


def kotlin() -> Core:
    """Compiles `core` with its check program; skips where there is no JDK or no compiler."""
    classes = kotlin_classes("core", kotlin_folders("core"))
    return Core(name="kotlin", command=kotlin_command("cspedge.core.CheckKt", classes))


def kotlin_folders(module: str, *parts: str) -> list[Path]:
    """Folders of Kotlin sources of a module: of `parts`, or what it compiles and its tests."""
    return [ANDROID / module / "src" / part / "kotlin" for part in parts or ("main", "test")]


def kotlin_command(main: str, *classes: Path) -> tuple[str, ...]:
    """The JVM that runs a program of these classes with `core`'s resources; arguments follow."""
    places = [*classes, ANDROID / "core" / "src" / "main" / "resources", kotlin_jars()[1]]
    return ("java", "-XX:+UseSerialGC", "-cp", os.pathsep.join(map(str, places)), main)


def kotlin_classes(name: str, folders: Sequence[Path], *uses: Path) -> Path:
    """Compiles Kotlin sources (folders, files) against other classes, once; warnings are errors. Where they lie."""
    compiler, library = kotlin_jars()
    sources = [path for folder in folders for path in ([folder] if folder.is_file() else sorted(folder.rglob("*.kt")))]
    used = hashlib.sha256(" ".join(place.name for place in uses).encode()).hexdigest()[:16]
    digest = _digest([*sources, ANDROID / "kotlin-requirements.txt", Path(__file__)])
    classes = BUILD / f"kotlin-{name}-{digest}-{used}"
    with _locked("kotlin"):
        if not classes.exists():
            draft = classes.with_suffix(".draft")
            shutil.rmtree(draft, ignore_errors=True)
            java = ["java", "-XX:+UseSerialGC", "-cp", str(compiler), "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler"]
            # Java 8's library: that of Android 8 holds no more of it
            platform = ["-Xjdk-release=8", "-jvm-target", "1.8"]
            options = ["-no-stdlib", "-no-reflect", "-Werror", *platform, "-d", str(draft)]
            path = os.pathsep.join(map(str, (library, *uses)))
            _build([*java, *options, "-cp", path, *map(str, folders)], ANDROID)
            draft.rename(classes)
    return classes


def android_classes() -> tuple[Path, ...]:
    """`models`, the app with its models inside and its tests; then `core`. Android's API is what `API` declares."""
    core = kotlin_classes("core", kotlin_folders("core"))
    sources = [
        API,
        *kotlin_folders("models", "main", "executorch", "onnxruntime"),
        *kotlin_folders("app", "main", "apk", "test", "androidTest"),
    ]
    return kotlin_classes("android", sources, core), core


def kotlin_jars() -> tuple[Path, Path]:
    """The compiler and its standard library; skips where they or a JDK are missing."""
    if shutil.which("java") is None:
        pytest.skip("Kotlin's core needs a JDK (apt-get install openjdk-17-jdk-headless)")
    jars = sorted(JARS.glob("python*/site-packages/run_kotlin_kernel/jars/*.jar"))
    compiler = [jar for jar in jars if jar.name.endswith("-all.jar")]
    library = [jar for jar in jars if jar.name.startswith("kotlin-stdlib-")]
    if not compiler or not library:
        pytest.skip("Kotlin's core needs its compiler (make kotlin)")
    return compiler[0], library[0]


RUNNER = ROOT / "targets" / "coreml" / "runner"


def coreml_runner() -> Path:
    """Builds the Core ML runner's package, on Linux without Core ML; where its programs lie. Skips as `swift`."""
    require_swift()
    place = BUILD / "coreml-runner"  # not in targets/, which goes into the wheel as it is
    with _locked("coreml-runner"):
        _build(["swift", "build", "--build-tests", "--scratch-path", str(place)], RUNNER)
    return place / "debug"


def swift() -> Core:
    """Builds the Swift package with its check program and XCTests; skips where there is no toolchain."""
    require_swift()
    with _locked("swift"):
        _build(["swift", "build", "--build-tests"], IOS)
    return Core(name="swift", command=(str(IOS / ".build" / "debug" / "CspEdgeCheck"),))


def require_swift() -> None:
    """Skips where Swift's packages cannot be built."""
    if shutil.which("swift") is None:
        pytest.skip("CspEdgeCore needs a Swift 6 toolchain (swift.org/install)")
    if os.uname().sysname == "Linux" and not Path("/usr/include/openssl/evp.h").exists():
        pytest.skip("on Linux CspEdgeCore needs OpenSSL's headers (apt-get install libssl-dev)")


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
