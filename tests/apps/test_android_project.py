"""`cspedge bundle --app android`: from the built-in model to a Gradle project with the signed bundle in it."""

from __future__ import annotations

import json
import re
import tomllib
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cspedge.bundle import signature
from cspedge.bundle.apps import Project, android
from cspedge.bundle.manifest import NAME
from cspedge.bundle.verify import verify
from cspedge.bundle.write import Bundled, BundleOptions, bundle
from cspedge.cli.app import app, call
from cspedge.errors import UsageError
from cspedge.options import Silent

INSIDE = "models/src/main/assets/cspedge/bundle"
PACKED = "pack/src/main/assets/cspedge/bundle"
KEY = "app/src/main/assets/cspedge/public.pem"
ANDROID = Path(__file__).resolve().parents[2] / "apps" / "android"
IMPORTS = "import android.content.Context\nimport android.net.Uri\nimport cspedge.models.*\n"
CODE_IN_README = re.compile(r"```kotlin\n(.*?)```", re.DOTALL)


@pytest.fixture(scope="module")
def made(real_bundle: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str | None, Bundled]:
    """By delivery: a bundle for both of Android's runtimes with its project beside it."""
    folder = tmp_path_factory.mktemp("android")
    run = replace(real_bundle.run, targets=("executorch", "onnxruntime"), out=folder / "inside")
    options = BundleOptions(app="android", key=real_bundle.private, latency=False, version="1.2.0")
    packed = replace(options, delivery="play-ai-pack")
    return {
        None: bundle(run, options, Silent()),
        "play-ai-pack": bundle(replace(run, out=folder / "packed"), packed, Silent()),
    }


@pytest.fixture(params=[None, "play-ai-pack"], ids=["inside", "play-ai-pack"])
def delivered(request: pytest.FixtureRequest, made: dict[str | None, Bundled]) -> tuple[Path, Bundled]:
    """The project's folder and the bundle that it was made of, for each delivery."""
    found = made[request.param]
    assert found.project is not None
    return found.project, found


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def place(project: Path) -> Path:
    """Where the bundle lies in a project; it is in one place alone."""
    (found,) = [path for path in (project / INSIDE, project / PACKED) if path.exists()]
    return found


def test_the_bundle_is_in_the_assets_and_the_app_s_key_verifies_it(delivered: tuple[Path, Bundled]) -> None:
    project, found = delivered
    assert project == found.path.with_name("lcnet_050.digits-1.2.0-android")
    assert tree(place(project)) == tree(found.path)
    verified = verify(place(project), key=project / KEY)
    assert verified.signed
    assert KEY.rpartition("/")[0] not in place(project).as_posix(), "the key lies beside what it is for"


def test_the_models_are_inside_or_in_the_pack(made: dict[str | None, Bundled]) -> None:
    inside, packed = (tree(found.project) for found in made.values() if found.project is not None)
    assert not any(path.startswith(("pack/", "app/src/pack/")) for path in inside)
    assert not any(path.startswith(("models/src/main/assets/", "app/src/apk/")) for path in packed)
    assert b"\ncspedge.delivery=apk\n" in inside["gradle.properties"]
    assert b"\ncspedge.delivery=play-ai-pack\n" in packed["gradle.properties"]
    assert {"pack/build.gradle.kts", "app/src/pack/kotlin/cspedge/app/Delivery.kt"} <= packed.keys()


def test_name_and_runtimes_are_the_bundle_s(delivered: tuple[Path, Bundled]) -> None:
    project, found = delivered
    strings = ET.parse(project / "app" / "src" / "main" / "res" / "values" / "bundle.xml").getroot()
    assert {entry.attrib["name"]: entry.text for entry in strings} == {"bundle_name": found.manifest["name"]}
    catalog = tomllib.loads((project / "gradle" / "libs.versions.toml").read_text())
    made_with = {a["backend"]: a["runtime"]["version"].partition("+")[0] for a in found.manifest["artifacts"]}
    assert made_with.keys() == {"executorch", "onnxruntime"}
    assert made_with == {name: catalog["versions"][name] for name in made_with}


def test_other_versions_and_names_reach_the_project(made: dict[str | None, Bundled], tmp_path: Path) -> None:
    """A bundle made with runtimes of another day, under a name of its own."""
    source = made[None].path
    manifest = json.loads((source / NAME).read_text())
    manifest["name"] = "shop.items"
    for artifact in manifest["artifacts"]:
        artifact["runtime"]["version"] = "9.8.7+cpu"
    folder = tmp_path / "shop.items-1.2.0"
    folder.mkdir()
    (folder / NAME).write_text(json.dumps(manifest))
    written = android.project(Project(bundle=folder, out=tmp_path, public_key=b"a key"))
    assert written is not None
    catalog = tomllib.loads((written / "gradle" / "libs.versions.toml").read_text())
    assert (catalog["versions"]["executorch"], catalog["versions"]["onnxruntime"]) == ("9.8.7", "9.8.7")
    strings = ET.parse(written / "app" / "src" / "main" / "res" / "values" / "bundle.xml").getroot()
    assert strings[0].text == "shop.items"
    assert (written / KEY).read_bytes() == b"a key"
    assert 'openClassifier(context, "shop.items")' in (written / "README.md").read_text()


def test_the_same_bundle_gives_the_same_project(delivered: tuple[Path, Bundled], tmp_path: Path) -> None:
    project, found = delivered
    delivery = "play-ai-pack" if place(project) == project / PACKED else None
    asked = Project(bundle=found.path, out=tmp_path, public_key=(project / KEY).read_bytes(), delivery=delivery)
    again = android.project(asked)
    assert again is not None
    assert tree(again) == tree(project)


def test_every_file_of_the_bundle_stays_uncompressed(made: dict[str | None, Bundled]) -> None:
    project = made[None].project
    assert project is not None
    script = (project / "app" / "build.gradle.kts").read_text()
    listed = re.search(r"noCompress \+= listOf\((.*?)\)", script)
    assert listed is not None
    endings = set(re.findall(r'"(\w+)"', listed[1]))
    assert {Path(name).suffix.removeprefix(".") for name in made[None].files} <= endings


def test_its_sources_are_those_that_are_checked_here(delivered: tuple[Path, Bundled]) -> None:
    """Nothing of the code is generated: names, versions and delivery stand in files beside it."""
    project, _ = delivered
    sources = {path: data for path, data in tree(project).items() if path.endswith((".kt", ".kts"))}
    assert len(sources) > 30
    assert sources.items() <= tree(ANDROID).items()


def test_the_three_lines_of_each_readme_compile(
    made: dict[str | None, Bundled], toolchains: Any, tmp_path: Path
) -> None:
    """Against the declarations of tests/apps/android_api."""
    for number, found in enumerate(made.values()):
        assert found.project is not None
        lines = CODE_IN_README.search((found.project / "README.md").read_text())
        assert lines is not None
        assert lines[1].count("\n") == 3
        head = f"package cspedge.app\n\n{IMPORTS}\nfun use{number}(context: Context, uri: Uri): Any {{\n"
        (tmp_path / f"Use{number}.kt").write_text(f"{head}{lines[1]}return best\n}}\n")
    toolchains.kotlin_classes("readme", [tmp_path], *toolchains.android_classes())


def test_the_project_s_core_takes_its_own_bundle(
    made: dict[str | None, Bundled], toolchains: Any, tmp_path: Path
) -> None:
    """The first start of the app, as far as the JVM goes: unpacked from the assets, checked by the app's key."""
    project = made[None].project
    assert project is not None
    core = toolchains.kotlin()
    job = {"do": "provide", "assets": str(project / "models" / "src" / "main" / "assets"), "root": "cspedge/bundle"}
    (found,) = core.run([{**job, "store": str(tmp_path), "name": "lcnet_050.digits", "key": str(project / KEY)}])
    assert found["version"] == "1.2.0"
    assert tree(Path(found["folder"])) == tree(made[None].path)


@pytest.mark.parametrize(
    "path", ["golden/00.rgb.gz", "artifacts/_mine/model.pte", "LICENSES/cvs", "golden/Thumbs.db", "x.scc"]
)
def test_names_that_android_s_packaging_drops_are_refused(path: str) -> None:
    with pytest.raises(UsageError, match=re.escape(repr(path))):
        android.check_assets(["manifest.json", path])


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "--app android takes signed bundles alone"),
        (["--sign", "KEY", "--target", "coreml"], "cannot load target 'coreml'; it loads executorch, onnxruntime"),
        (["--sign", "KEY", "--delivery", "post"], "unknown delivery 'post' for --app android; known: play-ai-pack"),
    ],
    ids=["unsigned", "target", "delivery"],
)
def test_what_cannot_be_is_said_before_anything_runs(
    args: list[str], message: str, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    private, _ = signature.make_keys(tmp_path / "keys")
    monkeypatch.chdir(tmp_path)
    asked = [str(private) if word == "KEY" else word for word in args]
    assert call(app, ["bundle", "--app", "android", *asked]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert [p.name for p in tmp_path.iterdir()] == ["keys"]
