"""The Android project's sources: grammar, types, manifest, catalog, modules, pins."""

from __future__ import annotations

import re
import tomllib
import xml.etree.ElementTree as ET
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from cspedge.bundle.apps.sources import app_sources

ROOT = Path(__file__).resolve().parents[2]
ANDROID = ROOT / "apps" / "android"
KOTLIN = [p for p in ANDROID.rglob("*.kt*") if p.suffix in {".kt", ".kts"} and "build" not in p.parts]
SCRIPTS = [p for p in KOTLIN if p.suffix == ".kts"]
RUNTIME = ANDROID / "models" / "src" / "main" / "kotlin" / "cspedge" / "models" / "ExecuTorchRuntime.kt"
NAMESPACE = "{http://schemas.android.com/apk/res/android}"
TOOLS = "{http://schemas.android.com/tools}"


@pytest.fixture(scope="module")
def catalog() -> dict[str, Any]:
    return tomllib.loads((ANDROID / "gradle" / "libs.versions.toml").read_text())


@pytest.mark.parametrize("path", sorted(KOTLIN), ids=lambda path: path.relative_to(ANDROID).as_posix())
def test_every_source_and_script_parses_and_asserts_nothing_away(path: Path, kotlin_syntax: Any) -> None:
    assert kotlin_syntax.problems(path) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda text: text.rstrip().removesuffix("}"), "lacks something"),
        (lambda text: text.replace("fun ", "fnu ", 1), "does not parse"),
        (lambda text: text.replace("path.toString()", "path!!.toString()"), "asserts with !!"),
    ],
)
def test_the_grammar_notices_a_broken_source(kotlin_syntax: Any, tmp_path: Path, change: Any, problem: str) -> None:
    broken = tmp_path / "Broken.kt"
    broken.write_text(change(RUNTIME.read_text()))
    assert any(problem in found for found in kotlin_syntax.problems(broken))


def test_the_app_s_types_hold_with_either_delivery(toolchains: Any) -> None:
    """Against this repository's own declarations of the Android API that it uses: our side of every call."""
    toolchains.kotlin_classes("pack", toolchains.kotlin_folders("app", "pack"), *toolchains.android_classes())


def test_the_type_check_notices_a_wrong_call_and_what_android_8_lacks(toolchains: Any, tmp_path: Path) -> None:
    text = RUNTIME.read_text().replace("module.loadMethod(METHOD)", "module.loadMethod(1)")
    broken = tmp_path / "Broken.kt"
    broken.write_text(f"{text}\nprivate val later = Path.of(METHOD)\n")
    with pytest.raises(AssertionError) as failed:
        toolchains.kotlin_classes("broken", [broken], *toolchains.android_classes())
    assert "argument type mismatch" in str(failed.value)
    assert "unresolved reference 'of'" in str(failed.value)


def test_the_app_asks_for_the_camera_and_nothing_else() -> None:
    manifests = sorted(ANDROID.rglob("AndroidManifest.xml"))
    assert manifests == [ANDROID / "app" / "src" / "main" / "AndroidManifest.xml"]
    root = ET.parse(manifests[0]).getroot()
    asked, removed = [], []
    for permission in root.iter("uses-permission"):
        name = permission.attrib[f"{NAMESPACE}name"]
        (removed if permission.get(f"{TOOLS}node") == "remove" else asked).append(name)
    assert asked == ["android.permission.CAMERA"]
    assert removed == ["android.permission.INTERNET"], "a library's manifest could bring it in"
    assert [tag for tag in ("service", "receiver", "provider") if root.find(f".//{tag}") is not None] == []


def test_every_resource_is_xml_and_every_reference_has_its_resource() -> None:
    resources, names = ANDROID / "app" / "src" / "main" / "res", set()
    for path in resources.rglob("*.xml"):
        root = ET.parse(path).getroot()
        names |= {f"string/{entry.attrib['name']}" for entry in root.iter("string")}
        names.add(f"{path.parent.name}/{path.stem}")
    manifest = (ANDROID / "app" / "src" / "main" / "AndroidManifest.xml").read_text()
    asked = set(re.findall(r'"@(?!android:)([a-z]+/\w+)"', manifest))
    for path in KOTLIN:
        asked |= {"/".join(found) for found in re.findall(r"\bR\.(string|xml)\.(\w+)", path.read_text())}
    assert asked
    assert asked <= names


def test_every_module_is_there_and_every_catalog_entry_is_used(catalog: dict[str, Any], kotlin_syntax: Any) -> None:
    modules = kotlin_syntax.calls(ANDROID / "settings.gradle.kts", "include")
    assert sorted(modules) == [":app", ":core", ":models", ":pack"]
    for module in modules:
        assert (ANDROID / module.removeprefix(":") / "build.gradle.kts").is_file()
    used = set().union(*(kotlin_syntax.chains(path, "libs") for path in SCRIPTS))
    libraries = {name.replace("-", ".") for name in catalog["libraries"]}
    plugins = {f"plugins.{name.replace('-', '.')}" for name in catalog["plugins"]}
    assert used == libraries | plugins
    entries = [*catalog["libraries"].values(), *catalog["plugins"].values()]
    assert {entry["version"]["ref"] for entry in entries if "version" in entry} == set(catalog["versions"])


def test_each_project_that_a_module_uses_is_a_module(kotlin_syntax: Any) -> None:
    modules = set(kotlin_syntax.calls(ANDROID / "settings.gradle.kts", "include"))
    used = {name for path in SCRIPTS for name in kotlin_syntax.calls(path, "project")}
    assert used == {":core", ":models"}
    assert used < modules


@pytest.mark.parametrize("runtime", ["executorch", "onnxruntime"])
def test_the_runtimes_are_those_of_the_exporter(catalog: dict[str, Any], runtime: str) -> None:
    assert catalog["versions"][runtime] == version(runtime).partition("+")[0]
    assert catalog["libraries"][f"{runtime}-android"]["version"]["ref"] == runtime


def test_kotlin_is_of_the_version_that_compiles_it_here(catalog: dict[str, Any], toolchains: Any) -> None:
    library = toolchains.kotlin_jars()[1].name
    assert library.startswith(f"kotlin-stdlib-{catalog['versions']['kotlin']}")


def test_gradle_is_pinned_by_its_digest() -> None:
    text = (ANDROID / "gradle" / "wrapper" / "gradle-wrapper.properties").read_text()
    fields = dict(line.split("=", 1) for line in text.splitlines())
    assert re.fullmatch(
        r"https\\://services\.gradle\.org/distributions/gradle-8\.\d+\.\d+-bin\.zip", fields["distributionUrl"]
    )
    assert re.fullmatch("[0-9a-f]{64}", fields["distributionSha256Sum"])
    assert fields["validateDistributionUrl"] == "true"


def test_nothing_speaks_to_the_network() -> None:
    """Play's delivery is Play's own; the app's code has no client of any kind."""
    for path in KOTLIN:
        found = re.findall(r"\bjava\.net\.\w+|\bHttpURLConnection\b|\bSocket\b|okhttp|retrofit", path.read_text())
        assert found == [], path.name


def test_every_module_is_for_android_8_and_later() -> None:
    found = {}
    for path in SCRIPTS:
        for name, value in re.findall(r"^\s*(minSdk|targetSdk|compileSdk) = (\d+)$", path.read_text(), re.MULTILINE):
            found.setdefault(name, set()).add(int(value))
    assert found == {"minSdk": {26}, "targetSdk": {36}, "compileSdk": {36}}


def test_the_wheel_carries_every_source() -> None:
    """pyproject.toml names them one by one, so that nothing that a build left comes along."""
    tables = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]
    carried = set()
    for source, place in tables["wheel"]["force-include"].items():
        if source.startswith("apps/android/"):
            assert place == f"cspedge/_data/{source}"
            path = ROOT / source
            found = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
            carried |= {p.relative_to(ANDROID).as_posix() for p in found}
    assert carried == app_sources("android").keys() - {"kotlin-requirements.txt"}
