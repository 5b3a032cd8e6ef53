"""The Swift sources that only Apple's SDKs can build: parsed, type-checked against declarations, and what they need.

The declarations in `apple_stubs` were written for these tests, of exactly the names that the sources use. They check
that the sources agree with themselves and with Swift 6's rules; that they agree with Apple's SDK, only a Mac can say.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

STUBS = Path(__file__).with_name("apple_stubs")
RUNNER = "../../targets/coreml/runner"  # from apps/ios
# in the order in which they need one another
MODULES = (
    "CoreGraphics",
    "ImageIO",
    "CoreML",
    "Darwin",
    "System",
    "BackgroundAssets",
    "StoreKit",
    "ExecuTorch",
    "os",
    "ExtensionFoundation",
    "UIKit",
    "AVFoundation",
    "SwiftUI",
    "PhotosUI",
)
# each with the folders of its sources, in the order in which they need one another
APPLE_ONLY = {
    "CspEdgeKit": ("Sources/CspEdgeKit",),
    "CspEdgeExecuTorch": ("ExecuTorch/Sources/CspEdgeExecuTorch",),
    "CspEdgeModels": ("Models/Sources/CspEdgeModels",),
    "CspEdgeSample": ("App/CspEdgeSample",),
    "CspEdgeSampleTests": ("App/CspEdgeSampleTests",),
    "CspEdgeKitTests": ("Tests/CspEdgeKitTests",),
    "Downloader": ("App/Downloader",),
    "CspEdgeRunner": (f"{RUNNER}/Sources/CspEdgeRunner",),
    "CspEdgeRunnerTool": (f"{RUNNER}/Sources/CspEdgeRunnerTool",),
    "CspEdgeRunnerApp": (f"{RUNNER}/Device/App",),
    "CspEdgeDeviceTests": (f"{RUNNER}/Device/Tests",),
}
# what SwiftPM writes for a target with resources
ACCESSOR = "import Foundation\nextension Foundation.Bundle { static let module = Bundle.main }\n"

Compile = Callable[..., list[str]]


def test_every_source_parses(swift_syntax: Any) -> None:
    paths = swift_syntax.sources()
    assert len(paths) > 50
    assert {
        path: found for path in paths if (found := swift_syntax.mistakes(swift_syntax.parse(path.read_bytes())))
    } == {}


@pytest.mark.parametrize("broken", [b"func f( { }", b"let a = [1, 2", b"struct S { var }", b"if x { } else"])
def test_the_parser_notices_what_is_broken(swift_syntax: Any, broken: bytes) -> None:
    assert swift_syntax.mistakes(swift_syntax.parse(broken)) != []


def test_nothing_is_forced(swift_syntax: Any) -> None:
    """No force-unwrap, `try!` or `as!` in core, kit and app, nor in their tests."""
    found = {path: swift_syntax.forced(swift_syntax.parse(path.read_bytes())) for path in swift_syntax.sources()}
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "forced", [b"let a = b!", b"let a = try! b()", b"let a = b as! C", b"var a: Int!", b"f(g()!.h)"]
)
def test_what_is_forced_is_found(swift_syntax: Any, forced: bytes) -> None:
    assert len(swift_syntax.forced(swift_syntax.parse(forced))) == 1
    assert swift_syntax.forced(swift_syntax.parse(b"let a = !b && c != d")) == []


def test_unchecked_sendable_gives_its_reason(swift_syntax: Any) -> None:
    for path in swift_syntax.sources("Sources/CspEdgeKit", "ExecuTorch/Sources", "Models/Sources", "App"):
        text = path.read_text()
        declared = [line for line in text.splitlines() if "@unchecked Sendable" in line and "///" not in line]
        assert len(re.findall(r"/// `@unchecked Sendable`: ", text)) == len(declared), path


@pytest.fixture(scope="module")
def compile_(core: Any, swift_syntax: Any, tmp_path_factory: pytest.TempPathFactory) -> Compile:
    """Type-checks one target's sources in Swift 6 mode, warnings as errors; its errors, a line each."""
    folder = tmp_path_factory.mktemp("modules")
    ios: Path = swift_syntax.IOS
    mode = ["-swift-version", "6", "-parse-as-library", "-I", str(folder)]
    strict = ["-warnings-as-errors", "-package-name", "ios", "-enable-testing", "-I", str(ios / ".build/debug/Modules")]
    libcrypto = ["-Xcc", f"-fmodule-map-file={ios / 'Sources/CLibcrypto/module.modulemap'}"]

    def swiftc(*arguments: str) -> list[str]:
        done = subprocess.run(["swiftc", *mode, *arguments], capture_output=True, text=True, timeout=300)
        errors = [line for line in done.stderr.splitlines() if "error:" in line]
        assert done.returncode == 0 or errors, done.stderr
        return errors

    def emit(name: str, *arguments: str) -> list[str]:
        return swiftc("-emit-module", "-module-name", name, "-o", str(folder / f"{name}.swiftmodule"), *arguments)

    def check(name: str, files: list[str]) -> list[str]:
        errors = swiftc("-typecheck", "-module-name", name, *strict, *libcrypto, *files)
        return errors or emit(name, *strict, *libcrypto, *files)

    for module in MODULES:
        assert emit(module, str(STUBS / f"{module}.swift")) == []
    return check


@pytest.mark.parametrize("core", ["swift"], indirect=True, scope="session")
def test_the_apple_only_sources_type_check(compile_: Compile, swift_syntax: Any, tmp_path: Path) -> None:
    (tmp_path / "accessor.swift").write_text(ACCESSOR)
    for name, folders in APPLE_ONLY.items():
        files = [str(path) for path in swift_syntax.sources(*folders)]
        extra = [str(tmp_path / "accessor.swift")] if name == "CspEdgeModels" else []
        assert compile_(name, files + extra) == [], name
    # and the check notices a wrong name, a wrong type and a data race
    kit = {path.name: path for path in swift_syntax.sources("Sources/CspEdgeKit")}
    for name, old, new in (
        ("CoreMLRuntime.swift", ".compileModel(at: url)", ".compileModels(at: url)"),
        ("CoreMLRuntime.swift", "shape: manifest.inputShape", "shape: manifest.name"),
        ("CoreMLSession.swift", "let model: Serialized<MLModel>", "let model: MLModel"),
    ):
        shown = kit[name].read_text()
        assert old in shown
        (tmp_path / name).write_text(shown.replace(old, new))
        others = [str(path) for path in kit.values() if path.name != name]
        assert compile_("CspEdgeKit", [*others, str(tmp_path / name)]) != [], new


def test_the_sources_are_formatted(swift_syntax: Any) -> None:
    if shutil.which("swift") is None:
        pytest.skip("the formatter comes with a Swift 6 toolchain (swift.org/install)")
    paths = [str(path) for path in swift_syntax.sources()]
    command = [
        "swift",
        "format",
        "lint",
        "--strict",
        "--configuration",
        str(swift_syntax.IOS / ".swift-format"),
        *paths,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


# Apple's list of APIs that need a reason in the privacy manifest, by their category
REASON_NEEDED = {
    "NSPrivacyAccessedAPICategoryFileTimestamp": "creationDate modificationDate fileModificationDate creationDateKey "
    "contentModificationDateKey getattrlist getattrlistbulk fgetattrlist getattrlistat stat fstat fstatat lstat",
    "NSPrivacyAccessedAPICategorySystemBootTime": "systemUptime mach_absolute_time",
    "NSPrivacyAccessedAPICategoryDiskSpace": "volumeAvailableCapacityKey volumeAvailableCapacityForImportantUsageKey "
    "volumeAvailableCapacityForOpportunisticUsageKey volumeTotalCapacityKey systemFreeSize systemSize statfs statvfs "
    "fstatfs fstatvfs",
    "NSPrivacyAccessedAPICategoryActiveKeyboards": "activeInputModes",
    "NSPrivacyAccessedAPICategoryUserDefaults": "UserDefaults AppStorage",
}
NETWORK = {"URLSession", "URLRequest", "NWConnection", "NWPathMonitor", "WKWebView", "CFNetwork"}


def test_the_privacy_manifest_says_what_the_sources_do(swift_syntax: Any, plist: Callable[[str], Any]) -> None:
    used = swift_syntax.identifiers(
        swift_syntax.sources("Sources/CspEdgeCore", "Sources/CspEdgeKit", "ExecuTorch", "Models", "App")
    )
    needed = {kind for kind, names in REASON_NEEDED.items() if used.keys() & set(names.split())}
    manifest = plist("App/CspEdgeSample/PrivacyInfo.xcprivacy")
    assert {entry["NSPrivacyAccessedAPIType"] for entry in manifest["NSPrivacyAccessedAPITypes"]} == needed
    assert manifest["NSPrivacyTracking"] is False
    assert manifest["NSPrivacyTrackingDomains"] == manifest["NSPrivacyCollectedDataTypes"] == []
    assert used.keys() & NETWORK == set(), "nothing is sent anywhere"
    assert "Classifier" in used  # the search finds what is there


def test_info_plists_have_what_the_sources_need(swift_syntax: Any, plist: Callable[[str], Any]) -> None:
    used = swift_syntax.identifiers(swift_syntax.sources("App/CspEdgeSample", "Sources/CspEdgeKit"))
    assert used.keys() >= {"AVCaptureDevice", "AssetPackManager"}
    app, packs = plist("App/Config/Info.plist"), plist("App/Config/Packs-Info.plist")
    assert len(app["NSCameraUsageDescription"]) > 40
    # the keys of Managed Background Assets, Apple-hosted; only where there is a pack
    background = {"BAAppGroupID": "$(CSPEDGE_APP_GROUP)", "BAHasManagedAssetPacks": True, "BAUsesAppleHosting": True}
    assert packs == {**app, **background}
    group = plist("App/Config/Packs.entitlements")["com.apple.security.application-groups"]
    assert group == [packs["BAAppGroupID"]]
    extension = plist("App/Config/Downloader-Info.plist")["EXAppExtensionAttributes"]
    assert extension["EXExtensionPointIdentifier"] == "com.apple.background-asset-downloader-extension"
    settings = (swift_syntax.IOS / "App/Config/Sample.xcconfig").read_text()
    assert "CSPEDGE_APP_GROUP = group.$(CSPEDGE_APP_ID)" in settings
