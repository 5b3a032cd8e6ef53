"""`cspedge bundle --app ios`: the project that it makes, its Xcode projects and its packages."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

import pytest

from cspedge import atomic
from cspedge.bundle import signature
from cspedge.bundle.apps import Project, ios
from cspedge.bundle.verify import verify
from cspedge.bundle.write import Bundled, BundleOptions, bundle
from cspedge.digest import sha256_file
from cspedge.options import RunOptions, Silent
from cspedge.types import Precision

IOS = Path(__file__).resolve().parents[2] / "apps" / "ios"
XCODE = ("CspEdgeSample", "CspEdgeSamplePacks")
DEVICE = IOS.parents[1] / "targets" / "coreml" / "runner" / "Device"  # the runner's project for iOS devices


@dataclass(frozen=True, kw_only=True)
class Made:
    """Bundles of the built-in model for iOS: both runtimes inside the app, Core ML alone as an asset pack."""

    inside: Bundled
    packed: Bundled
    public: Path


@pytest.fixture(scope="session")  # tests of the session's core are moved together, out of their module's order
def made(tmp_path_factory: pytest.TempPathFactory, few_scans: Path) -> Made:
    root = tmp_path_factory.mktemp("ios")
    private, public = signature.make_keys(root / "keys")

    def make(out: str, targets: tuple[str, ...], delivery: str | None) -> Bundled:
        run = RunOptions(
            workspace=root / "store", out=root / out, val=str(few_scans), targets=targets, precisions=(Precision.FP32,)
        )
        options = BundleOptions(app="ios", key=private, latency=False, version="1.2.0", delivery=delivery)
        return bundle(run, options, Silent())

    return Made(
        inside=make("inside", (), None), packed=make("packed", ("coreml",), ios.BACKGROUND_ASSETS), public=public
    )


def project(made: Bundled) -> Path:
    assert made.project is not None
    return made.project


def digests(folder: Path) -> dict[str, str]:
    return {name: sha256_file(folder / name) for name in atomic.plain_files(folder)}


def test_the_bundle_lies_in_the_project_as_it_was_signed(made: Made) -> None:
    folder = project(made.inside)
    resources = folder / ios.SIGNED_FOLDER
    assert folder.name == f"{made.inside.path.name}-ios"
    assert sorted(path.name for path in resources.iterdir()) == [made.inside.path.name, "public.pem"]
    assert digests(resources / made.inside.path.name) == digests(made.inside.path)
    key = resources / "public.pem"
    assert key.read_bytes() == made.public.read_bytes()
    assert made.inside.manifest["app"] == "ios"
    assert {artifact["backend"] for artifact in made.inside.manifest["artifacts"]} == ios.BACKENDS


def test_the_command_verifies_the_bundle_with_the_project_s_key(made: Made) -> None:
    from typer.testing import CliRunner

    from cspedge.cli.app import app

    resources = project(made.inside) / ios.SIGNED_FOLDER
    command = ["verify", str(resources / made.inside.path.name), "--key", str(resources / "public.pem")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output


def test_the_same_bundle_gives_the_same_project(made: Made, tmp_path: Path) -> None:
    key = made.public.read_bytes()
    again = ios.project(Project(bundle=made.inside.path, out=tmp_path, public_key=key))
    assert again is not None
    assert digests(again) == digests(project(made.inside))


def manifest_of(package: Path) -> Any:
    """What SwiftPM reads from a Package.swift, without fetching anything."""
    if shutil.which("swift") is None:
        pytest.skip("SwiftPM comes with a Swift 6 toolchain (swift.org/install)")
    command = ["swift", "package", "--package-path", str(package), "dump-package"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def dependencies(package: Path) -> list[str]:
    """Names of local packages, addresses and branches of others."""
    found = []
    for entry in manifest_of(package)["dependencies"]:
        for local in entry.get("fileSystem", ()):
            found.append(local["nameForTargetDependencyResolutionOnly"])
        for remote in entry.get("sourceControl", ()):
            (place,) = remote["location"]["remote"]
            found.append(f"{place['urlString']} {remote['requirement']['branch'][0]}")
    return found


def test_the_packages_are_linked_as_the_bundle_needs_them(made: Made) -> None:
    inside, packed = project(made.inside), project(made.packed)
    core = manifest_of(inside)
    assert [product["name"] for product in core["products"]] == ["CspEdgeCore", "CspEdgeKit"]
    assert core["dependencies"] == []
    assert core["swiftLanguageVersions"] == ["6"]
    (executorch,) = [a for a in made.inside.manifest["artifacts"] if a["backend"] == "executorch"]
    branch = f"swiftpm-{executorch['runtime']['version']}"
    assert dependencies(inside / "Models") == ["CspEdge", "CspEdgeExecuTorch"]
    assert dependencies(inside / "ExecuTorch") == ["CspEdge", f"https://github.com/pytorch/executorch.git {branch}"]
    # an app with Core ML alone neither names nor fetches ExecuTorch
    assert dependencies(packed / "Models") == ["CspEdge"]
    assert not (packed / "ExecuTorch").exists()
    resources = manifest_of(packed / "Models")["targets"][0]["resources"]
    assert [list(resource["rule"]) for resource in resources] == [["copy"]]


def test_the_core_builds_from_the_project_alone_and_the_models_are_copied(made: Made, tmp_path: Path) -> None:
    if shutil.which("swift") is None or not Path("/usr/include/openssl/evp.h").exists():
        pytest.skip("needs a Swift 6 toolchain, and OpenSSL's headers on Linux")
    key = made.public.read_bytes()
    folder = ios.project(Project(bundle=made.packed.path, out=tmp_path, public_key=key))
    assert folder is not None
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CSPEDGE")}
    command = ["swift", "build", "--package-path", str(folder / "Models")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    built = folder / "Models/.build/debug"
    assert (built / "Modules/CspEdgeCore.swiftmodule").exists()
    copied = built / "CspEdgeModels_CspEdgeModels.resources/Signed"
    assert digests(copied / made.packed.path.name) == digests(made.packed.path)


def test_an_asset_pack_has_apple_s_layout_and_the_key_stays_in_the_app(made: Made) -> None:
    folder = project(made.packed)
    pack = json.loads((folder / ios.PACK / "manifest.json").read_text())
    assert pack.keys() == {"assetPackID", "downloadPolicy", "fileSelectors", "platforms"}
    assert re.fullmatch(r"[A-Za-z0-9-]+", pack["assetPackID"])
    assert pack["downloadPolicy"] == {
        "essential": {"installationEventTypes": ["firstInstallation", "subsequentUpdate"]}
    }
    assert pack["platforms"] == ["iOS"]
    (selector,) = pack["fileSelectors"]
    assert list(selector) == ["directory"]
    place = folder / ios.PACK / selector["directory"]
    assert digests(place) == digests(made.packed.path)
    resources = folder / ios.SIGNED_FOLDER
    assert sorted(path.name for path in resources.iterdir()) == ["delivery.json", "public.pem"]
    delivery = json.loads((resources / "delivery.json").read_text())
    name = made.packed.manifest["name"]
    assert delivery == {"assetPackID": pack["assetPackID"], "name": name, "path": selector["directory"]}
    verify(place, key=resources / "public.pem", run_artifacts=False)
    # the app that has a downloader and Background Assets' keys, and only that one
    assert [path.name for path in sorted((folder / "App").glob("*.xcodeproj"))] == ["CspEdgeSamplePacks.xcodeproj"]
    assert (folder / "App/Downloader").is_dir()
    inside = project(made.inside)
    assert [path.name for path in sorted((inside / "App").glob("*.xcodeproj"))] == ["CspEdgeSample.xcodeproj"]
    assert [path for path in inside.rglob("*") if path.name.startswith(("Downloader", "Packs"))] == []


@pytest.mark.parametrize("core", ["swift"], indirect=True, scope="session")
def test_the_kit_runs_the_project_s_executorch_program(made: Made, core: Any, make_bundle: Any) -> None:
    """On ExecuTorch itself, in a process of its own; Core ML's artifact is for other systems."""
    folder = project(made.inside) / ios.SIGNED_FOLDER / made.inside.path.name
    manifest = made.inside.manifest
    image = manifest["golden"]["images"][0]
    job = {"do": "classify", "bundle": str(folder), "key": str(folder.with_name("public.pem"))}
    pixels = {"rgb": str(folder / image["rgb"]), "width": image["width"], "height": image["height"]}
    (answer,) = core.run([{**job, **pixels, **make_bundle.runtime(manifest, "executorch")}])
    assert answer["artifact"] == "executorch/fp32"
    assert answer["passed"] == [True] * len(manifest["golden"]["images"])
    assert answer["top"][0][0] == image["label"]


def test_the_readme_names_what_is_there(made: Made) -> None:
    for made_ in (made.inside, made.packed):
        folder = project(made_)
        text = (folder / "README.md").read_text()
        paths = set(re.findall(r"`((?:App|Models|AssetPack)/[^`{}]+)`", text))
        assert len(paths) >= 3
        assert [path for path in paths if not (folder / path).exists()] == []
        assert "let classifier = try await CspEdgeModels.classifier()" in text
        assert max(map(len, text.splitlines())) <= 140


def test_the_projects_have_every_path_of_their_xcode_project(made: Made) -> None:
    for made_, name in zip((made.inside, made.packed), XCODE, strict=True):
        app = project(made_) / "App"
        assert missing(*objects_of(name, app), app) == []


# The Xcode projects, as they stand in apps/ios


def objects_of(name: str, app: Path = IOS / "App") -> tuple[Any, str]:
    parser = pytest.importorskip("openstep_parser", reason="openstep-parser (of pbxproj) is not installed")
    with (app / f"{name}.xcodeproj/project.pbxproj").open() as file:
        tree = parser.OpenStepDecoder.ParseFromFile(file)
    return tree["objects"], tree["rootObject"]


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for item in value.values():
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
    else:
        yield str(value)


def places(objects: Any, group: str, folder: PurePosixPath) -> Iterator[PurePosixPath]:
    """Paths, relative to the project's folder, that groups name: files, and folders that Xcode keeps in step with."""
    for child in objects[group]["children"]:
        entry = objects[child]
        path = folder / entry.get("path", "")
        if entry["sourceTree"] == "BUILT_PRODUCTS_DIR":
            continue
        assert entry["sourceTree"] == "<group>"
        if entry["isa"] == "PBXGroup":
            yield from places(objects, child, path)
        else:
            yield path


def missing(objects: Any, root: str, app: Path = IOS / "App", settings: str = "Config/Sample.xcconfig") -> list[str]:
    """What a project names and does not have: objects, files, folders, packages, products, settings' files."""
    project = objects[root]
    wrong = [text for text in strings(objects) if re.fullmatch(r"[0-9A-F]{24}", text) and text not in objects]
    wrong += [str(path) for path in places(objects, project["mainGroup"], PurePosixPath()) if not (app / path).exists()]
    packages = {key: (app / objects[key]["relativePath"]).resolve() for key in project["packageReferences"]}
    for entry in objects.values():
        if entry["isa"] == "XCSwiftPackageProductDependency":
            text = packages[entry["package"]].joinpath("Package.swift").read_text()
            wrong += [] if f'.library(name: "{entry["productName"]}"' in text else [entry["productName"]]
        if entry["isa"] == "XCBuildConfiguration":
            named = [entry["buildSettings"].get(key) for key in ("INFOPLIST_FILE", "CODE_SIGN_ENTITLEMENTS")]
            wrong += [path for path in named if path is not None and not (app / path).is_file()]
    defined = re.findall(r"^(\w+) =", (app / settings).read_text(), re.MULTILINE)
    used = {name for text in strings(objects) for name in re.findall(r"\$\((CSPEDGE_\w+)\)", text)}
    return wrong + sorted(used - set(defined))


def check_scheme(objects: Any, path: Path) -> None:
    """Its references are targets of the project that it lies in."""
    for reference in ElementTree.parse(path).iter("BuildableReference"):
        assert objects[reference.attrib["BlueprintIdentifier"]]["name"] == reference.attrib["BlueprintName"]
        assert reference.attrib["ReferencedContainer"] == f"container:{path.parents[2].name}"


def targets_of(objects: Any, root: str) -> dict[str, str]:
    """Product types by the targets' names."""
    targets = [objects[key] for key in objects[root]["targets"]]
    return {target["name"]: target["productType"] for target in targets}


APP, TESTS = "com.apple.product-type.application", "com.apple.product-type.bundle.unit-test"


@pytest.mark.parametrize("name", XCODE)
def test_every_path_of_the_xcode_projects_exists(name: str) -> None:
    objects, root = objects_of(name)
    assert missing(objects, root) == []
    packed = {"Downloader": "com.apple.product-type.extensionkit-extension"} if name.endswith("Packs") else {}
    assert targets_of(objects, root) == {"CspEdgeSample": APP, "CspEdgeSampleTests": TESTS, **packed}
    check_scheme(objects, IOS / f"App/{name}.xcodeproj/xcshareddata/xcschemes/CspEdgeSample.xcscheme")


def test_every_path_of_the_runner_s_project_exists() -> None:
    name = "CspEdgeRunner"
    objects, root = objects_of(name, DEVICE)
    assert missing(objects, root, DEVICE, "Runner.xcconfig") == []
    assert targets_of(objects, root) == {"CspEdgeRunnerApp": APP, "CspEdgeDeviceTests": TESTS}
    scheme = DEVICE / f"{name}.xcodeproj/xcshareddata/xcschemes/{name}.xcscheme"
    check_scheme(objects, scheme)
    # measured as it ships: optimised, and the job's folder goes along as it is
    action = ElementTree.parse(scheme).find("TestAction")
    assert action is not None
    assert action.attrib["buildConfiguration"] == "Release"
    job = [entry for entry in objects.values() if entry.get("path") == "Job"]
    assert [entry["lastKnownFileType"] for entry in job] == ["folder"]


@pytest.mark.parametrize("wanted", ["PBXFileSystemSynchronizedRootGroup", "PBXFileReference", "PBXNativeTarget"])
def test_a_project_that_names_what_is_not_there_is_noticed(wanted: str) -> None:
    objects, root = objects_of("CspEdgeSample")
    key = next(
        key
        for key, entry in objects.items()
        if entry["isa"] == wanted and entry.get("sourceTree") != "BUILT_PRODUCTS_DIR"
    )
    if wanted == "PBXNativeTarget":
        del objects[key]
    else:
        objects[key]["path"] = "Nowhere"
    assert missing(objects, root) != []
