"""The store: content decides, damage shows, processes may die or race at any moment."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cspedge.store
from cspedge import atomic
from cspedge.digest import pretty_json, sha256_json
from cspedge.errors import InputError, WorkspaceError
from cspedge.store import State, Store, StoredObject

CHILD = Path(__file__).with_name("store_child.py")
KEY = "0123456789abcdef" * 4
INPUTS: dict[str, object] = {"weights": "a" * 64, "options": {"bits": 8}}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory where there is one: a killed process loses nothing it wrote, and fsync is free there."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else None) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def child() -> ModuleType:
    spec = importlib.util.spec_from_file_location("store_child", CHILD)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def start(*arguments: object, prefix: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(cspedge.store.__file__).parents[1])}
    command = [*prefix, sys.executable, str(CHILD), *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def answer(process: subprocess.Popen[str]) -> Any:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


def build(folder: Path) -> dict[str, object]:
    (folder / "model.bin").write_bytes(bytes(range(256)))
    (folder / "empty").write_bytes(b"")
    (folder / "sub" / "deep").mkdir(parents=True)
    (folder / "sub" / "deep" / "names.txt").write_text("é\n", encoding="utf-8")
    return {"params": 7, "scale": 0.1}


def build_link(folder: Path) -> dict[str, object]:
    (folder / "link").symlink_to("/etc/hostname")
    return {}


def put(store: Store) -> StoredObject:
    return store.stage("quantize", 3, INPUTS, build).object


def tree(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if not path.is_dir())


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in tree(folder)}


# --- what goes in comes out


def test_what_was_stored_is_found_again(store: Store) -> None:
    result = store.stage("quantize", 3, INPUTS, build)
    assert not result.cached
    again = store.stage("quantize", 3, INPUTS, lambda folder: pytest.fail("built twice"))
    assert again.cached
    found = again.object
    assert found == result.object == Store(store.root).get(store.key("quantize", 3, INPUTS))
    assert (found.stage, found.inputs, found.bytes) == ("quantize", INPUTS, 256 + 3)
    assert found.meta == {"params": 7, "scale": 0.1, "seconds": found.seconds}
    assert contents(found.path) == {
        "empty": b"",
        "model.bin": bytes(range(256)),
        "sub/deep/names.txt": "é\n".encode(),
    }
    assert found.file("sub/deep/names.txt").read_text(encoding="utf-8") == "é\n"
    assert found.file("sub").is_dir()
    with pytest.raises(KeyError, match=r"holds no 'other', only \['empty'"):
        found.file("other")


def test_an_object_may_hold_no_files(store: Store) -> None:
    stored = store.stage("check", 1, {}, lambda folder: {"passed": True}).object
    assert store.get(stored.key) == stored
    assert stored.files == {}


def test_the_layout_is_the_one_documented(store: Store) -> None:
    key = put(store).key
    assert tree(store.root) == [
        f"objects/{key[:2]}/{key}/{name}"
        for name in ("files/empty", "files/model.bin", "files/sub/deep/names.txt", "manifest.json")
    ]
    manifest = json.loads((store.root / "objects" / key[:2] / key / "manifest.json").read_bytes())
    digest = manifest.pop("sha256")
    assert digest == sha256_json(manifest)
    assert manifest.keys() == {"schema", "key", "stage", "inputs", "files", "meta"}
    assert str(store.root) not in json.dumps(manifest)


def test_put_copies_and_leaves_the_source_alone(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    build(source)
    (source / "nothing").mkdir()
    before = contents(source)
    stored = store.put(KEY, "lower", INPUTS, source, {"opset": 17})
    assert contents(source) == contents(stored.path) == before
    assert not (stored.path / "nothing").exists()
    assert store.get(KEY) == stored
    assert stored.seconds is None


def test_the_first_object_stands(store: Store, tmp_path: Path) -> None:
    for text in ("first", "second"):
        (tmp_path / text).mkdir()
        (tmp_path / text / "a.txt").write_text(text)
    first = store.put(KEY, "lower", {}, tmp_path / "first", {})
    assert store.put(KEY, "lower", {}, tmp_path / "second", {}) == first
    assert first.file("a.txt").read_text() == "first"


def test_time_does_not_change_what_a_result_is(tmp_path: Path) -> None:
    def slow(folder: Path) -> dict[str, object]:
        time.sleep(0.02)
        return build(folder)

    quick, late = (Store(tmp_path / name).stage("s", 1, {}, call).object for name, call in (("a", build), ("b", slow)))
    assert quick.seconds != late.seconds
    assert quick.digest == late.digest


@pytest.mark.parametrize("change", ["file", "name", "meta", "stage"])
def test_everything_else_does(tmp_path: Path, change: str) -> None:
    def other(folder: Path) -> dict[str, object]:
        meta = build(folder)
        if change == "file":
            (folder / "model.bin").write_bytes(b"other")
        elif change == "name":
            (folder / "model.bin").rename(folder / "model2.bin")
        elif change == "meta":
            meta["params"] = 8
        return meta

    one = Store(tmp_path / "a").stage("s", 1, {}, build).object
    two = Store(tmp_path / "b").stage("t" if change == "stage" else "s", 1, {}, other).object
    assert one.digest != two.digest


def test_a_failed_build_leaves_nothing(store: Store) -> None:
    def fail(folder: Path) -> dict[str, object]:
        build(folder)
        raise InputError("an image is broken")

    with pytest.raises(InputError, match="an image is broken"):
        store.stage("quantize", 3, INPUTS, fail)
    assert tree(store.root) == []
    assert list((store.root / "tmp").iterdir()) == []
    assert not store.stage("quantize", 3, INPUTS, build).cached


def test_what_cannot_be_stored_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="neither a file nor a folder"):
        store.stage("s", 1, {}, build_link)
    with pytest.raises(ValueError, match="cannot hold a file named"):
        store.stage("s", 1, {}, lambda folder: {"n": (folder / "a\\b").write_text("a")})
    with pytest.raises(ValueError, match="not JSON compliant"):
        store.stage("s", 1, {}, lambda folder: {"loss": math.nan})
    with pytest.raises(TypeError, match=r"meta\.table has the name 1"):
        store.stage("s", 1, {}, lambda folder: {"table": {1: 2}})
    for key in ("../../etc", "A" * 64, "a" * 63, "a" * 64 + "\n"):
        with pytest.raises(ValueError, match="64 hexadecimal digits"):
            store.get(key)
    with pytest.raises(ValueError, match="a reference is named"):
        store.ref("../run", [])
    assert tree(tmp_path) == []


# --- keys

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)


def changed(value: Any) -> Iterator[Any]:
    """Copies of a JSON value with exactly one thing in it changed."""
    if isinstance(value, dict):
        for name, item in value.items():
            rest = {other: kept for other, kept in value.items() if other != name}
            yield rest
            if name + "'" not in value:
                yield {**rest, name + "'": item}
            for instead in changed(item):
                yield {**value, name: instead}
        yield {**value, "".join(value) + "+": None}
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield value[:index] + value[index + 1 :]
            for instead in changed(item):
                yield [*value[:index], instead, *value[index + 1 :]]
        yield [*value, 0]
        if repr(value[::-1]) != repr(value):
            yield value[::-1]
    elif isinstance(value, bool):
        yield not value
        yield int(value)
    elif isinstance(value, float):
        yield math.nextafter(value, 0.0 if value else 1.0)
        yield str(value)
    elif isinstance(value, int):
        yield value + 1
        yield str(value)
    elif isinstance(value, str):
        yield value + " "
        yield [value]
    else:
        yield "null"
        yield 0


@settings(max_examples=150, deadline=None)
@given(inputs=st.dictionaries(st.text(), VALUES, max_size=4), stage=st.text(), version=st.integers())
def test_each_input_alone_changes_the_key(inputs: dict[str, Any], stage: str, version: int) -> None:
    try:
        key = Store.key(stage, version, inputs)
    except UnicodeEncodeError:  # lone surrogates are not text that UTF-8 could hold
        return
    assert Store.key(stage, version, json.loads(json.dumps(dict(reversed(inputs.items()))))) == key
    others = [Store.key(stage + "x", version, inputs), Store.key(stage, version + 1, inputs)]
    others += [Store.key(stage, version, other) for other in changed(inputs)]
    assert key not in others
    assert all(len(other) == 64 for other in others)


def test_inputs_that_json_would_confuse_are_refused() -> None:
    with pytest.raises(TypeError, match=r"inputs\.axis has the name 1, which is not a string"):
        Store.key("s", 1, {"axis": [{1: "a"}]})
    with pytest.raises(ValueError, match="not JSON compliant"):
        Store.key("s", 1, {"scale": math.inf})


# --- damage


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object], *, seal: bool = True) -> None:
    """Changes the manifest; with `seal` its own digest is right again."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    change(manifest)
    if seal:
        manifest["sha256"] = sha256_json({name: value for name, value in manifest.items() if name != "sha256"})
    (folder / "manifest.json").write_bytes(pretty_json(manifest).encode())


def replace_by_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("not a folder")


def replace_by_link(folder: Path) -> None:
    elsewhere = folder.parents[2] / "elsewhere"
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)


def empty_folder(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def replace_manifest_by_folder(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").mkdir()


def replace_file_by_fifo(folder: Path) -> None:
    (folder / "files" / "empty").unlink()
    os.mkfifo(folder / "files" / "empty")


def link_file(folder: Path) -> None:
    file = folder / "files" / "model.bin"
    twin = folder.parents[2] / "twin.bin"
    file.rename(twin)
    file.symlink_to(twin)  # the same bytes, and still damage: what is linked to can change


def flip(path: Path, offset: int, mask: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= mask
    path.write_bytes(data)


def move(manifest: dict[str, Any], name: str) -> None:
    manifest["files"][name] = manifest["files"].pop("model.bin")


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "changed byte": (lambda o: flip(o / "files/model.bin", 100), "does not have its SHA-256"),
    "truncated": (lambda o: (o / "files/model.bin").write_bytes(bytes(100)), "has 100 bytes, not 256"),
    "emptied": (lambda o: (o / "files/model.bin").write_bytes(b""), "has 0 bytes, not 256"),
    "longer": (lambda o: (o / "files/empty").write_bytes(b"1"), "has 1 bytes, not 0"),
    "missing file": (lambda o: (o / "files/model.bin").unlink(), "'files/model.bin' is missing"),
    "missing empty file": (lambda o: (o / "files/empty").unlink(), "'files/empty' is missing"),
    "extra file": (lambda o: (o / "files/sub/cache.blob").write_bytes(b"x"), "is not in the manifest"),
    "extra file beside": (lambda o: (o / "done").write_bytes(b""), "'done' is not in the manifest"),
    "extra folder": (lambda o: (o / "files/__pycache__").mkdir(), "is not in the manifest"),
    "no files": (lambda o: shutil.rmtree(o / "files"), "is missing"),
    "no manifest": (lambda o: (o / "manifest.json").unlink(), "manifest.json is missing"),
    "empty folder": (empty_folder, "manifest.json is missing"),
    "empty manifest": (lambda o: (o / "manifest.json").write_bytes(b""), "is not JSON"),
    "binary manifest": (lambda o: (o / "manifest.json").write_bytes(b"\xff\xfe\x00"), "is not JSON"),
    "nested manifest": (lambda o: (o / "manifest.json").write_bytes(b"[" * 100_000), "is not JSON"),
    "list as manifest": (lambda o: (o / "manifest.json").write_bytes(b"[]"), "does not have the fields"),
    "folder as manifest": (replace_manifest_by_folder, "manifest.json is missing"),
    "fifo as file": (replace_file_by_fifo, "neither a file nor a folder"),
    "linked file": (link_file, "neither a file nor a folder"),
    "linked object": (replace_by_link, "the object is not a folder"),
    "file as object": (replace_by_file, "the object is not a folder"),
    "other key": (lambda o: rewrite(o, lambda m: m.update(key="f" * 64)), "has the key 'ffff"),
    "other schema": (lambda o: rewrite(o, lambda m: m.update(schema=2)), "has schema 2, not 1"),
    "other field": (lambda o: rewrite(o, lambda m: m.update(more=1)), "does not have the fields"),
    "changed meta": (lambda o: rewrite(o, lambda m: m["meta"].update(params=9), seal=False), "its own SHA-256"),
    "changed time": (lambda o: rewrite(o, lambda m: m["meta"].update(seconds=9.5), seal=False), "its own SHA-256"),
    "white space": (
        lambda o: (o / "manifest.json").write_bytes((o / "manifest.json").read_bytes() + b" "),
        "its own SHA-256",
    ),
    "nan": (lambda o: (o / "manifest.json").write_text(_with_nan(o)), "not JSON compliant"),
    "wrong type": (lambda o: rewrite(o, lambda m: m.update(files=[])), "a field of the wrong type"),
    "wrong entry": (lambda o: rewrite(o, lambda m: m["files"].update(empty=None)), "a field of the wrong type"),
    "absolute path": (lambda o: rewrite(o, lambda m: move(m, "/etc/hostname")), "a path outside the object"),
    "path above": (lambda o: rewrite(o, lambda m: move(m, "../manifest.json")), "a path outside the object"),
    "hidden path above": (lambda o: rewrite(o, lambda m: move(m, "sub/../../x")), "a path outside the object"),
    "drive": (lambda o: rewrite(o, lambda m: move(m, "C:x")), "a path outside the object"),
    "backslash": (lambda o: rewrite(o, lambda m: move(m, "..\\x")), "a path outside the object"),
}


def _with_nan(folder: Path) -> str:
    return (folder / "manifest.json").read_text().replace('"params": 7', '"params": NaN')


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_quarantined_and_rebuilt(store: Store, kind: str) -> None:
    damage, reason = DAMAGE[kind]
    sound = put(store)
    damage(sound.path.parent)
    assert store.get(sound.key) is None
    assert not os.path.lexists(sound.path.parent)
    (place,) = (store.root / "quarantine").iterdir()
    assert place.name.startswith(f"{sound.key}-")
    assert os.path.lexists(place / "object")
    assert reason in (place / "reason.txt").read_text()
    rebuilt = store.stage("quantize", 3, INPUTS, build)
    assert not rebuilt.cached
    assert rebuilt.object.digest == sound.digest
    assert store.get(sound.key) == rebuilt.object


def test_put_replaces_a_damaged_object(store: Store, tmp_path: Path) -> None:
    sound = put(store)
    source = tmp_path / "source"
    shutil.copytree(sound.path, source)
    flip(sound.file("model.bin"), 0)
    stored = store.put(sound.key, "quantize", INPUTS, source, {"params": 7, "scale": 0.1})
    assert stored.digest == sound.digest
    assert store.get(sound.key) == stored
    assert len(list((store.root / "quarantine").iterdir())) == 1


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["manifest.json", "files/model.bin", "files/sub/deep/names.txt"]),
    place=st.floats(0.0, 1.0, exclude_max=True),
    mask=st.integers(1, 255),
)
def test_no_changed_byte_passes(memory: Path, name: str, place: float, mask: int) -> None:
    store = Store(memory)
    stored = put(store)  # again where the example before has sent it to quarantine
    home = stored.path.parent
    flip(home / name, int(place * (home / name).stat().st_size), mask)
    assert store.get(stored.key) is None
    assert not home.exists()


def test_a_vanished_object_is_a_miss(store: Store) -> None:
    stored = put(store)
    shutil.rmtree(stored.path.parent)
    assert store.get(stored.key) is None
    assert store.verify() == []
    assert not (store.root / "quarantine").exists()


def test_a_sound_object_that_took_the_damaged_ones_place_stays(store: Store) -> None:
    # Two processes find the same damage; one rebuilds before the other moves what it believes damaged.
    stored = put(store)
    judged = os.lstat(store.root)
    assert store._quarantine(stored.key, judged, "seen before it was rebuilt") is False
    assert store.get(stored.key) == stored
    assert list((store.root / "quarantine").iterdir()) == []


def test_quarantining_what_is_gone_is_no_error(store: Store) -> None:
    assert store._quarantine(KEY, os.lstat("."), "gone") is False
    assert list((store.root / "quarantine").iterdir()) == []


# --- several processes


def test_racing_processes_agree_on_one_object(tmp_path: Path) -> None:
    racers = [start("race", tmp_path, 25) for _ in range(4)]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    (tmp_path / "go").touch()
    answers = [answer(racer) for racer in racers]
    assert all(other == answers[0] for other in answers)
    store = Store(tmp_path / "store")
    verified = store.verify()
    assert len(verified) == 25
    assert {problem for _, problem in verified} == {None}
    assert list((store.root / "tmp").iterdir()) == []
    assert not (store.root / "quarantine").exists()


def test_damage_under_the_feet_of_several_processes(memory: Path, child: ModuleType) -> None:
    store = Store(memory / "store")
    workers = [start("endure", memory) for _ in range(3)]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    generator = random.Random(0)
    victim = store.root / "objects" / store.key("first", 1, {})[:2] / store.key("first", 1, {})
    deadline = time.monotonic() + 60
    while len(_list(store.root / "quarantine")) < 15 and time.monotonic() < deadline:
        with suppress(OSError, IndexError):  # just being moved away
            flip(victim / "files" / "weights" / f"{generator.randrange(3)}.bin", generator.randrange(4000))
        time.sleep(0.02)
    (memory / "stop").touch()
    digests = [answer(worker) for worker in workers]
    assert len(_list(store.root / "quarantine")) >= 15
    final = store.stage("first", 1, {}, child.first).object
    assert digests == [[final.digest]] * 3
    assert store.verify() == [(final.key, None)]


def _list(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.exists() else []


def outcome(root: Path) -> dict[str, Any]:
    """All that must be the same however often the work was interrupted: objects less their time, output."""
    objects = {}
    for entry in Store(root / "store").ls(check=True):
        found = Store(root / "store").get(entry.key)
        assert found is not None
        objects[entry.key] = (found.digest, contents(found.path))
    refs = {path.name: path.read_bytes() for path in (root / "store" / "refs").glob("*.json")}
    return {"objects": objects, "refs": refs, "out": contents(root / "out")}


def sweep(root: Path) -> None:
    """What the next run and `gc` clear away; nothing temporary is left."""
    Store(root / "store").gc()
    atomic.remove_stale(root / "out")
    assert [path for path in root.rglob("*") if path.name.startswith(".tmp-")] == []


def test_killed_before_any_step_the_next_run_ends_with_the_same_bytes(memory: Path, child: ModuleType) -> None:
    child.pipeline(memory / "undisturbed")
    expected = outcome(memory / "undisturbed")
    steps = answer(start("crash", memory / "disturbed"))
    assert steps > 40
    leftovers = 0
    for step in range(1, steps + 1):
        root = memory / "disturbed" / str(step)
        leftovers += any(path.name.startswith(".tmp-") for path in root.rglob("*"))
        child.pipeline(root)
        sweep(root)
        assert outcome(root) == expected, f"killed before step {step}"
    assert leftovers > steps // 2


def test_killed_at_random_moments_the_next_run_continues(tmp_path: Path, child: ModuleType) -> None:
    child.pipeline(tmp_path / "undisturbed")
    generator = random.Random(1)
    root = tmp_path / "disturbed"
    for _ in range(12):
        process = start("slow", root)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(generator.uniform(0.0, 0.2))
        process.kill()
        process.communicate()
        if root.exists():
            sweep(root)
    assert child.pipeline(root)["digests"] == child.pipeline(tmp_path / "undisturbed")["digests"]
    assert child.pipeline(root)["cached"] == [True, True]
    sweep(root)
    assert outcome(root) == outcome(tmp_path / "undisturbed")


def test_gc_spares_what_a_living_process_builds(store: Store, tmp_path: Path) -> None:
    def collect(folder: Path) -> dict[str, object]:
        removed = Store(store.root).gc()
        assert removed == []
        return build(folder)

    assert store.get(store.stage("s", 1, {}, collect).object.key) is not None


# --- disks that refuse


def private_mount(*commands: str) -> tuple[str, ...]:
    """A prefix that mounts in a namespace of its own, and so for the command that follows only."""
    return ("unshare", "-rm", "sh", "-ec", " && ".join([*commands, 'exec "$@"']), "sh")


def mounted(*commands: str) -> tuple[str, ...]:
    prefix = private_mount(*commands)
    if sys.platform != "linux" or shutil.which("unshare") is None:
        pytest.skip("mounting needs Linux and unshare")
    probe = subprocess.run([*prefix, "true"], capture_output=True, text=True, check=False)
    if probe.returncode != 0:
        pytest.skip(f"mounting is not permitted here: {probe.stderr.strip()}")
    return prefix


def test_a_full_disk_is_one_sentence_and_no_half_file(tmp_path: Path) -> None:
    root = tmp_path / "disk"
    root.mkdir()
    result = answer(start("full", root, prefix=mounted(f"mount -t tmpfs -o size=256k none '{root}'")))
    assert result["answers"].keys() == {"write_bytes", "replace_tree", "build", "native", "put"}
    for name, sentence in result["answers"].items():
        assert sentence is not None, name
        assert sentence.startswith(f"cannot write '{root}"), name
        assert sentence.endswith(": the disk is full; free some space or choose a folder on another disk"), name
    assert result["same"]
    assert result["cached"]
    assert result["free"] == 0
    assert result["gc"]


def test_a_read_only_store_serves_reads(tmp_path: Path, child: ModuleType) -> None:
    root = tmp_path / "disk"
    first, second = child.pipeline(root)["digests"]
    store = Store(root / "store")
    (entry,) = [entry for entry in store.ls() if entry.stage == "second"]
    damaged = store.get(entry.key)
    assert damaged is not None
    assert damaged.digest == second != first
    flip(damaged.file("joined.bin"), 10)
    (store.root / "refs" / "run.json").unlink()
    before = contents(root)
    prefix = mounted(f"mount --bind '{root}' '{root}'", f"mount -o remount,ro,bind '{root}'")
    result = answer(start("readonly", root, prefix=prefix))
    assert result["cached"]
    assert result["bytes"]
    assert result["damaged"]
    assert sorted(result["ls"]) == [State.DAMAGED, State.OK]
    assert result["verify"] == [False, True]
    for name, sentence in result["answers"].items():
        assert sentence is not None, name
        assert "the file system is read-only; choose a folder that can be written" in sentence, name
        assert str(root) in sentence, name
    assert result["gc"] == 2
    assert contents(root) == before


@pytest.mark.parametrize("place", ["", "objects", "tmp"])
def test_a_file_where_a_folder_should_be(tmp_path: Path, place: str) -> None:
    path = tmp_path / "store" / place
    path.parent.mkdir(exist_ok=True)
    path.write_text("in the way")
    with pytest.raises(WorkspaceError, match=r"a (part of the path is a file|file is in the way)"):
        put(Store(tmp_path / "store"))
    assert tree(tmp_path) == [path.relative_to(tmp_path).as_posix()]


# --- ls, verify, gc


def test_ls_and_verify(store: Store) -> None:
    assert store.ls() == []
    assert store.verify() == []
    assert store.gc() == []
    one = put(store)
    two = store.stage("lower", 1, {}, build).object
    now = time.time()
    keys = sorted([one.key, two.key])
    assert [entry.key for entry in store.ls()] == keys
    assert {(e.stage, e.bytes, e.files, e.state) for e in store.ls()} == {
        ("quantize", 259, 3, State.UNVERIFIED),
        ("lower", 259, 3, State.UNVERIFIED),
    }
    assert all(abs(entry.created - now) < 60 for entry in store.ls())
    assert {entry.state for entry in store.ls(check=True)} == {State.OK}
    assert store.verify() == [(key, None) for key in keys]

    flip(two.file("model.bin"), 3)
    states = {entry.key: entry.state for entry in store.ls(check=True)}
    assert states == {one.key: State.OK, two.key: State.DAMAGED}
    assert {entry.state for entry in store.ls()} == {State.UNVERIFIED}  # not read, not vouched for
    problems = dict(store.verify())
    assert problems == {one.key: None, two.key: "'files/model.bin' does not have its SHA-256"}
    assert [entry.key for entry in store.ls()] == [one.key]

    (one.path.parent / "manifest.json").write_text("{")
    (entry,) = store.ls()
    assert (entry.stage, entry.state) == (None, State.DAMAGED)


def test_gc_keeps_what_is_referenced(store: Store) -> None:
    kept, named, unused, damaged = (store.stage("s", 1, {"index": index}, build).object for index in range(4))
    flip(damaged.file("model.bin"), 0)
    store.verify()
    store.ref("run", [kept.key, kept.key])
    assert store.referenced() == {kept.key}
    (stray := store.root / "objects" / "notes.txt").write_text("mine")

    planned = store.gc(keep=[named.key], dry_run=True)
    assert {entry.key for entry in store.ls()} == {kept.key, named.key, unused.key}
    removed = store.gc(keep=[named.key])
    assert [(item.path, item.reason) for item in removed] == [(item.path, item.reason) for item in planned]
    assert [item.reason for item in removed] == ["quarantine", "no reference"]
    assert removed[1].path == f"objects/{unused.key[:2]}/{unused.key}"
    assert removed[1].bytes > 259
    assert {entry.key for entry in store.ls()} == {kept.key, named.key}
    assert list((store.root / "quarantine").iterdir()) == []
    assert stray.exists()

    store.ref("run", [])
    assert len(store.gc()) == 2
    assert store.ls() == []


def test_gc_spares_the_young(store: Store) -> None:
    old, young = (store.stage("s", 1, {"index": index}, build).object for index in range(2))
    week_ago = time.time() - 7 * 86_400
    os.utime(old.path.parent, (week_ago, week_ago))
    assert [item.path.rpartition("/")[2] for item in store.gc(older_than_days=5)] == [old.key]
    assert store.get(young.key) is not None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"keys": 3}', '{"keys": ["../x"]}', "\udcff"])
def test_gc_removes_nothing_when_a_reference_is_unreadable(store: Store, text: str) -> None:
    stored = put(store)
    store.ref("run", [stored.key])
    path = store.root / "refs" / "run.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(WorkspaceError, match=r"cannot read the reference '.*run\.json'.*delete it"):
        store.gc()
    assert store.get(stored.key) == stored
