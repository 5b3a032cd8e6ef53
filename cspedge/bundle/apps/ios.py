"""`--app ios`: the Swift package and the sample app, with the signed bundle and its public key inside.

With `--delivery background-assets` the bundle lies beside the app instead, in the layout of an Apple-hosted asset pack
(iOS 26): a manifest for Apple's `ba-package`, and an Xcode project with the downloader extension and the keys that
Managed Background Assets ask for. Sources: Apple's "Creating managed asset packs" and "Downloading Apple-hosted asset
packs".
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cspedge.bundle.apps import Project
from cspedge.bundle.apps.sources import app_sources, set_line, write_project
from cspedge.bundle.manifest import NAME
from cspedge.digest import pretty_json

BACKENDS: frozenset[str] | None = frozenset({"coreml", "executorch"})
SIGNED = True
BACKGROUND_ASSETS = "background-assets"
DELIVERIES: tuple[str, ...] = (BACKGROUND_ASSETS,)

SIGNED_FOLDER = "Models/Sources/CspEdgeModels/Signed"
PACK = "AssetPack"
# The Xcode project of the other delivery, with what belongs to it alone.
_IN_APP = ("App/CspEdgeSample.xcodeproj/",)
_PACKS = (
    "App/CspEdgeSamplePacks.xcodeproj/",
    "App/Downloader/",
    "App/Config/Packs",
    "App/Config/Downloader",
)


def files(manifest: Mapping[str, Any]) -> Mapping[str, bytes]:
    """The bundle itself needs nothing more; an app takes it as it is."""
    return {}


def project(project: Project) -> Path | None:
    """Writes `<name>-<version>-ios/`; WorkspaceError where it cannot be written."""
    assert project.public_key is not None  # SIGNED
    manifest = json.loads((project.bundle / NAME).read_text(encoding="utf-8"))
    packed = project.delivery == BACKGROUND_ASSETS
    sources = {
        path: data
        for path, data in app_sources("ios").items()
        if not path.startswith((*(_IN_APP if packed else _PACKS), f"{SIGNED_FOLDER}/README"))
    }
    _set_runtimes(sources, manifest)
    sources[f"{SIGNED_FOLDER}/public.pem"] = project.public_key
    if packed:
        place = f"cspedge/{manifest['name']}"
        delivery = {"assetPackID": asset_pack_id(manifest["name"]), "name": manifest["name"], "path": place}
        sources[f"{SIGNED_FOLDER}/delivery.json"] = pretty_json(delivery).encode()
        sources[f"{PACK}/manifest.json"] = pretty_json(asset_pack_manifest(delivery["assetPackID"], place)).encode()
        folders = {f"{PACK}/{place}": project.bundle}
    else:
        folders = {f"{SIGNED_FOLDER}/{project.bundle.name}": project.bundle}
    sources["README.md"] = _readme(manifest, packed).encode()
    return write_project(project.out, f"{project.bundle.name}-ios", sources, folders)


def asset_pack_id(name: str) -> str:
    """The pack's identifier: the bundle's name in ASCII letters, digits and hyphens."""
    return "cspedge-" + re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")


def asset_pack_manifest(identifier: str, path: str) -> dict[str, Any]:
    """What `ba-package` reads, in the folder that holds `path`: the models come with the app's installation."""
    return {
        "assetPackID": identifier,
        "downloadPolicy": {"essential": {"installationEventTypes": ["firstInstallation", "subsequentUpdate"]}},
        "fileSelectors": [{"directory": path}],
        "platforms": ["iOS"],
    }


def _set_runtimes(sources: dict[str, bytes], manifest: Mapping[str, Any]) -> None:
    """Links ExecuTorch where an artifact needs it, in the version that made it, and leaves it out otherwise."""
    versions = {a["runtime"]["version"] for a in manifest["artifacts"] if a["backend"] == "executorch"}
    if not versions:
        for path in [path for path in sources if path.startswith("ExecuTorch/")]:
            del sources[path]
        return
    version = min(versions)  # one SDK exported them all
    for path, start, value in (
        ("Models/Package.swift", "let executorch = ", "true"),
        ("ExecuTorch/Package.swift", "let version = ", f'"{version}"'),
    ):
        sources[path] = set_line(sources[path].decode(), start, value).encode()


_USE = """# {stem} for iOS

An iOS app with the model `{name}` {version} in it, made by cspedge. In an app of your own:

1. Drag this folder's `Models` into your Xcode project (File, Add Package Dependencies, Add Local) and add the
   product `CspEdgeModels` to your app.
2. ```swift
   import CspEdgeModels

   let classifier = try await CspEdgeModels.classifier()
   let answer = try await classifier.classify(jpeg)   // answer.top: labels with probabilities
   ```

`CspEdgeModels.classifier()` checks the bundle's signature and every byte with the public key in
`{signed}`, opens the best artifact that this device runs, and keeps the compiled model.
`answer` is the report's: the same resize, byte for byte, then the model, then softmax.

{delivery}

Core ML's artifacts run on iOS 17 and later. What was not run on a device is listed in cspedge's docs/devices.md.
"""
_SAMPLE = """The sample app is `App/{xcode}.xcodeproj` (Xcode {minimum} or later). Write your team and an identifier of
your own into `App/Config/Sample.xcconfig`, then run it; its self-test shows every golden image's distance against its
tolerance. The same as a test, on a simulator or a device:

```
xcodebuild test -project App/{xcode}.xcodeproj -scheme CspEdgeSample \\
    -destination 'platform=iOS Simulator,name=iPhone 16'
```
"""
_PACKED = """
## The asset pack

The models come as an Apple-hosted asset pack, `{identifier}`, which the system downloads when the app is installed and
keeps up to date (iOS 26). The key stays in the app, and a pack's bundle is put in force only when its signature holds,
its version is not older and its golden images pass; until then the one before it stays.

```
cd {pack}
xcrun ba-package package manifest.json --output-path {identifier}.aar
xcrun ba-serve --host localhost {identifier}.aar        # to try it before App Store Connect has it
```

In an app of your own: a Background Download extension (Apple-Hosted, Managed) as in `App/Downloader`, the app group of
`App/Config/Packs.entitlements` for both, and the keys `BAAppGroupID`, `BAHasManagedAssetPacks` and `BAUsesAppleHosting`
as in `App/Config/Packs-Info.plist`.
"""


def _readme(manifest: Mapping[str, Any], packed: bool) -> str:
    sample = _SAMPLE.format(xcode="CspEdgeSamplePacks" if packed else "CspEdgeSample", minimum="26" if packed else "16")
    if packed:
        sample += _PACKED.format(identifier=asset_pack_id(manifest["name"]), pack=PACK)
    stem = f"{manifest['name']}-{manifest['version']}"
    return _USE.format(
        stem=stem, name=manifest["name"], version=manifest["version"], signed=SIGNED_FOLDER, delivery=sample.strip()
    )
