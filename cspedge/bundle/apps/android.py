"""A Gradle project that classifies on Android, with the bundle inside the app or in an AI pack of Google Play.

The project is `apps/android` with the signed bundle among its assets, the public key in the app (never beside the
models, which Play may replace), the bundle's name, and the runtimes in the versions that the golden answers are of.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from cspedge.bundle.apps.sources import app_sources, set_line, write_project
from cspedge.bundle.manifest import NAME
from cspedge.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from cspedge.bundle.apps import Project

BACKENDS: frozenset[str] | None = frozenset({"executorch", "onnxruntime"})
SIGNED = True
PACK = "play-ai-pack"
DELIVERIES: tuple[str, ...] = (PACK,)

ASSETS = "src/main/assets/cspedge/bundle"
KEY = "app/src/main/assets/cspedge/public.pem"
CATALOG, PROPERTIES, STRINGS = "gradle/libs.versions.toml", "gradle.properties", "app/src/main/res/values/bundle.xml"

_README = """\
# {name} {version} on Android

The signed bundle ({models}) is in `{module}/{assets}`, and the key that signed it in `{key}`.

Open this folder in Android Studio, or, with JDK 17, the Android SDK (platform 36) and Gradle {gradle} or a later 8.x:

    gradle :app:{task}

Gradle's wrapper is described in `gradle/wrapper` but not included; `gradle wrapper` adds it, checked by its SHA-256.

## In an app of your own

Take over the modules `core` and `models`{pack}, the key and the lists `noCompress` and `dependencies` of
`app/build.gradle.kts`; then, not on the main thread:

```kotlin
{lines}
```

The first start checks the bundle (signature, every byte, the answers to its golden images) and copies it to the app's
own folder, from which the runtime maps it; later starts check it again and copy nothing. What is refused comes as a
`Refusal` with its reason.

The runtimes' versions in `gradle/libs.versions.toml` are those that made the golden answers. Should Maven Central have
no Android library of just that version, take the newest of the same minor version and run the app's self-test.
"""
_LINES = """\
val classifier = openClassifier(context, "{name}"{source})
val answer = classifier.classify(context.contentResolver, uri)
val best = answer.top.first() // label, probability"""
_PACK_SOURCE = ", bundleSource(context) { progress -> }"


def files(manifest: Mapping[str, Any]) -> Mapping[str, bytes]:
    """Nothing: the bundle stays what it is, so that an update needs no new app."""
    del manifest
    return {}


def project(project: Project) -> Path | None:
    """Writes `<name>-<version>-android/`; UsageError for a file that Android's packaging would drop."""
    assert project.public_key is not None  # SIGNED
    manifest = json.loads((project.bundle / NAME).read_text(encoding="utf-8"))
    check_assets(entry["path"] for entry in manifest["files"])
    packed = project.delivery == PACK
    # Kotlin's compiler from PyPI is for cspedge's own tests, the next two are one user's; one delivery is there.
    other = ("app/src/apk/",) if packed else ("app/src/pack/", "pack/")
    runtimes = sorted({artifact["backend"] for artifact in manifest["artifacts"]})
    unused = tuple(f"models/src/{'no-' if name in runtimes else ''}{name}/" for name in sorted(BACKENDS or ()))
    left_out = ("kotlin-requirements.txt", "local.properties", ".idea/", *other, *unused)
    found = {path: data for path, data in app_sources("android").items() if not path.startswith(left_out)}
    found[CATALOG] = _pinned(found[CATALOG].decode(), manifest).encode()
    properties = set_line(found[PROPERTIES].decode(), "cspedge.delivery=", PACK if packed else "apk")
    found[PROPERTIES] = set_line(properties, "cspedge.runtimes=", ",".join(runtimes)).encode()
    found[STRINGS] = re.sub(rb"(?<=translatable=\"false\">)[^<]*", manifest["name"].encode(), found[STRINGS])
    found[KEY] = project.public_key
    found["README.md"] = _readme(manifest, found, packed).encode()
    module = "pack" if packed else "models"
    return write_project(project.out, f"{project.bundle.name}-android", found, {f"{module}/{ASSETS}": project.bundle})


def check_assets(paths: Iterable[str]) -> None:
    """UsageError for a name that does not come through Android's packaging unchanged.

    It leaves out folders beginning with `_` and some names of other tools (aapt's default ignoreAssetsPattern; names
    beginning with `.` are in no bundle), and unpacks `.gz`.
    """
    for path in paths:
        *folders, name = path.lower().split("/")
        if (
            any(folder.startswith("_") for folder in folders)
            or name.endswith((".gz", ".scc"))
            or {"cvs", "thumbs.db", "picasa.ini"} & {*folders, name}
        ):
            raise UsageError(
                f"Android's packaging drops or changes {path!r} of this bundle; give the model or target that it is "
                "named after another name"
            )


def _pinned(catalog: str, manifest: Mapping[str, Any]) -> str:
    """The catalog with each runtime in the version that its artifacts were checked with, local labels left off."""
    for artifact in manifest["artifacts"]:
        version = artifact["runtime"]["version"].partition("+")[0]
        catalog = set_line(catalog, f"{artifact['backend']} = ", f'"{version}"')
    return catalog


def _readme(manifest: Mapping[str, Any], found: Mapping[str, bytes], packed: bool) -> str:
    wrapper = found["gradle/wrapper/gradle-wrapper.properties"].decode()
    gradle = re.search(r"gradle-([0-9.]+)-bin", wrapper)
    assert gradle is not None
    return _README.format(
        name=manifest["name"],
        version=manifest["version"],
        models=", ".join(f"{a['target']}/{a['precision']}" for a in manifest["artifacts"]),
        module="pack" if packed else "models",
        assets=ASSETS,
        key=KEY,
        gradle=gradle[1],
        task="bundleRelease" if packed else "assembleDebug",
        pack=", `pack`, `app/src/pack`" if packed else "",
        lines=_LINES.format(name=manifest["name"], source=_PACK_SOURCE if packed else ""),
    )
