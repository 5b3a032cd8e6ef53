"""What the tests of the store let other processes do: be killed, race, meet a full or read-only disk.

Run as `python store_child.py COMMAND ROOT [ARGUMENT]`; the last line on stdout is one JSON value.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cspedge import atomic
from cspedge.errors import WorkspaceError
from cspedge.store import Store, StoredObject


def first(folder: Path, pause: float = 0.0) -> dict[str, object]:
    (folder / "weights").mkdir()
    for part in range(3):
        time.sleep(pause)
        (folder / "weights" / f"{part}.bin").write_bytes(bytes([part]) * 5000)
    return {"parts": 3}


def second(source: StoredObject, folder: Path, pause: float = 0.0) -> dict[str, object]:
    parts = source.meta["parts"]
    with (folder / "joined.bin").open("wb") as file:
        for part in range(parts):
            time.sleep(pause)
            file.write(source.file(f"weights/{part}.bin").read_bytes())
    return {}


def pipeline(root: Path, pause: float = 0.0) -> dict[str, Any]:
    """Two stages, the second made of the first's bytes, and a report outside of the store."""
    store = Store(root / "store")
    one = store.stage("first", 1, {"n": 3}, lambda folder: first(folder, pause))
    two = store.stage("second", 1, {"first": one.object.digest}, lambda folder: second(one.object, folder, pause))
    store.ref("run", [one.object.key, two.object.key])
    atomic.write_json(root / "out" / "report.json", {"digest": two.object.digest})
    atomic.replace_tree(two.object.path, root / "out" / "artifact")
    return {"digests": [one.object.digest, two.object.digest], "cached": [one.cached, two.cached]}


def kill_at(count: int) -> None:
    """Lets this process die, as by `kill -9`, just before its `count`-th step on the file system."""
    left = count

    def wrap(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return wrapped

    for name in ("fsync", "rename", "replace", "mkdir"):
        setattr(os, name, wrap(getattr(os, name)))
    shutil.copyfile = wrap(shutil.copyfile)


def refusal(call: Callable[[], object]) -> str | None:
    try:
        call()
    except WorkspaceError as error:
        return str(error)
    return None


def tree(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if not path.is_dir())


def race(root: Path, count: str) -> dict[str, str]:
    """Builds the same keys as every other racer, each with bytes of its own."""
    store = Store(root / "store")
    print("ready", flush=True)
    while not (root / "go").exists():
        time.sleep(0.001)

    def build(folder: Path) -> dict[str, object]:
        for part in range(4):
            (folder / f"{part}.txt").write_text(f"{part} of {os.getpid()}\n" * 50)
        return {}

    return {str(index): store.stage("race", 1, {"index": index}, build).object.digest for index in range(int(count))}


def endure(root: Path) -> list[str]:
    """Builds and reads the same result over and over while somebody damages it; the digests it saw."""
    store, seen = Store(root / "store"), set()
    print("ready", flush=True)
    while not (root / "stop").exists():
        seen.add(store.stage("first", 1, {}, first).object.digest)
    return sorted(seen)


def full(root: Path) -> dict[str, Any]:
    """`root` is a file system of 256 kB."""
    store = Store(root / "store")
    kept = store.stage("small", 1, {}, lambda folder: first(folder))
    atomic.write_text(root / "out" / "a.txt", "old")

    def large(folder: Path) -> dict[str, object]:
        (folder / "large.bin").write_bytes(bytes(1_000_000))
        return {}

    def native(folder: Path) -> dict[str, object]:
        try:
            large(folder)
        except OSError:
            raise RuntimeError("Serialization failed") from None  # all that a C++ writer says
        return {}

    source = root.parent / "large"
    source.mkdir(exist_ok=True)
    large(source)
    before = tree(root)
    answers = {
        "write_bytes": refusal(lambda: atomic.write_bytes(root / "out" / "a.txt", bytes(1_000_000))),
        "replace_tree": refusal(lambda: atomic.replace_tree(source, root / "out" / "tree")),
        "build": refusal(lambda: store.stage("large", 1, {}, large)),
        "native": refusal(lambda: store.stage("large", 1, {}, native)),
        "put": refusal(lambda: store.put("a" * 64, "large", {}, source, {})),
    }
    same = tree(root) == before and (root / "out" / "a.txt").read_text() == "old"
    again = store.stage("small", 1, {}, lambda folder: first(folder)).cached
    (root / "filler").open("wb", buffering=0).write(bytes(1_000_000))  # takes what it gets
    free = shutil.disk_usage(root).free
    removed = [item.path for item in store.gc()]
    return {
        "answers": answers,
        "same": same,
        "cached": again,
        "free": free,
        "gc": removed == [f"objects/{kept.object.key[:2]}/{kept.object.key}"],
    }


def readonly(root: Path) -> dict[str, Any]:
    """`root` cannot be written; its store holds a sound `first` and a damaged `second`."""
    store = Store(root / "store")
    sound = store.stage("first", 1, {"n": 3}, first)
    damaged = {"first": sound.object.digest}
    return {
        "cached": sound.cached,
        "bytes": sound.object.file("weights/2.bin").read_bytes() == bytes([2]) * 5000,
        "damaged": store.get(store.key("second", 1, damaged)) is None,
        "ls": [entry.state for entry in store.ls(check=True)],
        "verify": sorted(problem is None for _, problem in store.verify()),
        "answers": {
            "stage": refusal(lambda: store.stage("second", 1, damaged, first)),
            "ref": refusal(lambda: store.ref("run", [])),
            "gc": refusal(store.gc),
            "write_text": refusal(lambda: atomic.write_text(root / "new" / "a.txt", "a")),
            "replace_tree": refusal(lambda: atomic.replace_tree(sound.object.path, root / "tree")),
        },
        "gc": len(store.gc(dry_run=True)),
    }


def limited(root: Path) -> str | None:
    """A write that the system breaks off half way: files may have 10,000 bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
    return refusal(lambda: atomic.write_bytes(root / "a.bin", bytes(50_000)))


def slow(root: Path) -> dict[str, Any]:
    print("ready", flush=True)
    return pipeline(root, pause=0.02)


def crash(root: Path) -> int:
    """Processes killed before their first step, their second, ... each in a folder named by it; how many died."""
    for step in itertools.count(1):
        pid = os.fork()
        if pid == 0:
            kill_at(step)
            pipeline(root / str(step))
            os._exit(0)
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != -signal.SIGKILL:
            return step - 1
    raise AssertionError


if __name__ == "__main__":
    commands: dict[str, Callable[..., Any]] = {
        call.__name__: call for call in (crash, slow, race, endure, full, readonly, limited)
    }
    print(json.dumps(commands[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])))
