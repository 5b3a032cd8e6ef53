"""Whole or not at all, whatever the disk says."""

from __future__ import annotations

import errno
import json
import math
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

import cspedge.atomic
from cspedge import atomic
from cspedge.errors import WorkspaceError

CHILD = Path(__file__).with_name("store_child.py")


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def make_tree(folder: Path) -> Path:
    (folder / "sub").mkdir(parents=True)
    (folder / "empty").mkdir()
    (folder / "a.bin").write_bytes(b"\x00\xff")
    (folder / "sub" / "b.txt").write_text("b")
    return folder


def test_writes_make_parents_and_replace(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.json"
    atomic.write_json(path, {"b": 1, "a": "é"})
    assert path.read_bytes() == '{\n  "a": "é",\n  "b": 1\n}\n'.encode()
    atomic.write_text(path, "line\r\n")
    assert path.read_bytes() == b"line\r\n"
    atomic.write_bytes(path, b"")
    assert path.read_bytes() == b""
    assert names(tmp_path) == ["new", "new/folder", "new/folder/a.json"]


def test_the_mode_is_that_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("a")
    atomic.write_text(tmp_path / "written", "a")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "written")}
    assert len(modes) == 1


def test_nan_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        atomic.write_json(tmp_path / "new" / "a.json", {"p50_ms": math.nan})
    assert names(tmp_path) == []


def test_a_file_goes_to_disk_before_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, os.replace

    def see_fsync(descriptor: int) -> None:
        steps.append("fsync folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "fsync file")
        fsync(descriptor)

    def see_replace(source: Path, target: Path) -> None:
        steps.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", see_fsync)
    monkeypatch.setattr(os, "replace", see_replace)
    atomic.write_text(tmp_path / "a.txt", "a")
    assert steps == ["fsync file", "rename", "fsync folder"]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EROFS, "the file system is read-only"),
        (errno.EACCES, "permission is denied"),
        (errno.EPERM, "the operation is not permitted"),
        (errno.ENOTDIR, "a part of the path is a file"),
        (errno.EIO, "input/output error"),
    ],
)
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_each_refusal_is_a_sentence_and_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, reason: str, step: str
) -> None:
    path = tmp_path / "a.txt"
    atomic.write_text(path, "old")

    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, step, refuse)
        with pytest.raises(WorkspaceError, match=reason) as caught:
            atomic.write_text(path, "new")
    assert str(caught.value).startswith(f"cannot write {str(path)!r}: ")
    assert "; " in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value.__cause__, OSError)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_errors_of_another_kind_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        atomic.write_text(tmp_path / "a.txt", "a")
    assert names(tmp_path) == []
    with pytest.raises(OSError, match="Too many open files"), atomic.translate_errors(tmp_path):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


@pytest.mark.skipif(sys.platform == "win32", reason="resource limits are POSIX")
def test_a_write_broken_off_half_way_leaves_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(cspedge.atomic.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, str(CHILD), "limited", str(tmp_path)], env=environment, capture_output=True, check=True
    )
    assert json.loads(done.stdout).startswith(f"cannot write {str(tmp_path / 'a.bin')!r}: the file is larger than")
    assert names(tmp_path) == []


def test_what_is_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a")
    (tmp_path / "folder").mkdir()
    make_tree(tmp_path / "source")
    before = names(tmp_path)
    with pytest.raises(WorkspaceError, match="a file is in the way of a folder; move that file away"):
        atomic.write_text(tmp_path / "file" / "a.txt", "a")
    with pytest.raises(WorkspaceError, match=r"cannot write '.*/file': a file is in the way of a folder"):
        atomic.write_text(tmp_path / "file" / "deep" / "a.txt", "a")
    with pytest.raises(WorkspaceError, match="a folder is in the way of a file"):
        atomic.write_text(tmp_path / "folder", "a")
    with pytest.raises(WorkspaceError, match="a part of the path is a file"):
        atomic.replace_tree(tmp_path / "source", tmp_path / "file")
    with pytest.raises(WorkspaceError, match="a file is in the way"), atomic.staging(tmp_path / "file"):
        pytest.fail("there is no folder to work in")
    assert names(tmp_path) == before
    with pytest.raises(WorkspaceError, match="the name is too long"):
        atomic.write_text(tmp_path / ("a" * 300), "a")


def test_staging_is_removed_on_any_exit(tmp_path: Path) -> None:
    with atomic.staging(tmp_path / "tmp") as one, atomic.staging(tmp_path / "tmp") as two:
        assert one != two
        assert one.parent == two.parent == tmp_path / "tmp"
        make_tree(one / "tree")
    assert names(tmp_path) == ["tmp"]

    def interrupted() -> None:
        with atomic.staging(tmp_path) as folder:
            make_tree(folder / "tree")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with atomic.staging(tmp_path) as folder:
        folder.rename(tmp_path / "kept")  # published
    assert names(tmp_path) == ["kept", "tmp"]


def test_publish_files_and_folders(tmp_path: Path) -> None:
    with atomic.staging(tmp_path) as folder:
        (folder / "a").write_text("new")
        atomic.publish(folder / "a", tmp_path / "out" / "a.txt")
        make_tree(folder / "tree")
        atomic.publish(folder / "tree", tmp_path / "out" / "tree")
    tree = ["out/tree", "out/tree/a.bin", "out/tree/empty", "out/tree/sub", "out/tree/sub/b.txt"]
    assert names(tmp_path) == ["out", "out/a.txt", *tree]


def test_replace_tree_leaves_an_exact_copy(tmp_path: Path) -> None:
    source = make_tree(tmp_path / "source")
    target = tmp_path / "out" / "model.mlpackage"
    atomic.replace_tree(source, target)
    (target / "stale.bin").write_text("of an earlier run")
    (source / "a.bin").write_bytes(b"changed")
    atomic.replace_tree(source, target)
    assert names(target) == names(source) == ["a.bin", "empty", "sub", "sub/b.txt"]
    assert (target / "a.bin").read_bytes() == b"changed"
    assert names(tmp_path / "out")[0] == "model.mlpackage"
    assert not [name for name in names(tmp_path) if ".tmp-" in name]


def test_replace_tree_that_fails_leaves_the_old_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_tree(tmp_path / "source")
    target = tmp_path / "target"
    target.mkdir()
    (target / "old.txt").write_text("old")
    rename = os.rename

    def refuse_second(from_: Path, to: Path) -> None:
        if Path(from_).name == "tree":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        rename(from_, to)

    monkeypatch.setattr(os, "rename", refuse_second)
    with pytest.raises(WorkspaceError, match="the disk is full"):
        atomic.replace_tree(source, target)
    assert names(target) == ["old.txt"]
    assert not [name for name in names(tmp_path) if ".tmp-" in name]


def test_links_are_not_copied(tmp_path: Path) -> None:
    source = make_tree(tmp_path / "source")
    (source / "sub" / "link").symlink_to("../a.bin")
    before = names(tmp_path)
    with pytest.raises(ValueError, match="'sub/link' is neither a file nor a folder"):
        atomic.replace_tree(source, tmp_path / "target")
    assert names(tmp_path) == before


def ended_process_name() -> str:
    """A temporary name made by a process that has ended since."""
    code = "from cspedge.atomic import temporary_name; print(temporary_name())"
    environment = {**os.environ, "PYTHONPATH": str(Path(cspedge.atomic.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_only_what_dead_processes_left_is_stale(tmp_path: Path) -> None:
    dead, mine = ended_process_name(), atomic.temporary_name()
    assert dead.startswith(".tmp-")
    for name in (dead, mine, "report.json", ".tmp-mine", f"{dead}.txt"):
        (tmp_path / name).write_text("a")
    make_tree(tmp_path / ended_process_name())
    stale = atomic.remove_stale(tmp_path, dry_run=True)
    assert len(stale) == 2
    assert len(names(tmp_path)) > 6
    assert atomic.remove_stale(tmp_path) == stale
    assert names(tmp_path) == sorted([mine, "report.json", ".tmp-mine", f"{dead}.txt"])
    assert atomic.remove_stale(tmp_path / "missing") == []
    with pytest.raises(WorkspaceError, match="cannot read"):
        atomic.remove_stale(tmp_path / "report.json")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="start times of processes come from /proc")
def test_a_pid_given_out_again_does_not_protect(tmp_path: Path) -> None:
    dot, pid, _, machine, unique = atomic.temporary_name().split("-")
    reused = tmp_path / "-".join([dot, pid, "1", machine, unique])
    reused.write_text("a")
    assert atomic.is_temporary(reused)
    assert atomic.is_stale(reused)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="start times of processes come from /proc")
def test_a_zombie_is_dead(tmp_path: Path) -> None:
    code = "from cspedge.atomic import temporary_name; print(temporary_name(), flush=True); input()"
    environment = {**os.environ, "PYTHONPATH": str(Path(cspedge.atomic.__file__).parents[1])}
    with subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        path = tmp_path / process.stdout.readline().strip()
        assert not atomic.is_stale(path)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended and is still in the table
        assert atomic.is_stale(path)


def test_another_machines_leftovers_are_judged_by_age(tmp_path: Path) -> None:
    name = f".tmp-{os.getpid()}-1-00000000-{'0' * 16}"
    folder = make_tree(tmp_path / name)
    assert not atomic.is_stale(folder)
    old = time.time() - 3 * 86_400
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (old, old))
    assert atomic.is_stale(folder)
    os.utime(folder / "sub" / "b.txt")
    assert not atomic.is_stale(folder)


def test_remove_is_content_with_nothing(tmp_path: Path) -> None:
    make_tree(tmp_path / "tree")
    (tmp_path / "link").symlink_to(tmp_path / "tree")
    atomic.remove(tmp_path / "link")
    assert (tmp_path / "tree" / "a.bin").exists()
    atomic.remove(tmp_path / "tree")
    atomic.remove(tmp_path / "tree")
    assert names(tmp_path) == []
