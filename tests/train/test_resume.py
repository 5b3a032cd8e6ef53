"""A training that is killed goes on where it was, and ends in the same bytes."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cspedge.errors import CspedgeError, UsageError, WorkspaceError
from cspedge.train import Augment, Progress, Recipe, TrainData, TrainResult, loop, recipe, train_data
from cspedge.train.work import KEY, STATE, folder_for, read_state, work_folder, write_state

CHILD = Path(__file__).with_name("train_child.py")
Run = Callable[..., TrainResult]
TOML = """
img_size = 32
epochs = 3
batch_size = 20
mixup = 0.2
drop_rate = 0.2
hflip = 0.5
color_jitter = 0.2
optimizer = "rmsproptf"
lr = 1e-3
warmup_epochs = 1
"""


class Stopped(Exception):
    """Stands for whatever ends a process between two steps."""


def stop_at(epoch: int, step: int) -> Callable[[Progress], None]:
    def look(at: Progress) -> None:
        if (at.epoch, at.step) == (epoch, step):
            raise Stopped

    return look


@pytest.fixture
def longer(short: Recipe) -> Recipe:
    return dataclasses.replace(short, epochs=3)


@pytest.fixture
def folders(few: TrainData, tmp_path: Path) -> Path:
    """The few digits as files."""
    for part, images in (("train", few.train), ("val", few.val)):
        for index, name in enumerate(images.names):
            path = tmp_path / "digits" / part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(images.read(index))
    return tmp_path / "digits"


def kill_at(line: str, arguments: list[str]) -> list[str]:
    """Starts the child and kills it (SIGKILL, by its own id) when it has printed this line; the lines it printed."""
    lines: list[str] = []
    with subprocess.Popen([sys.executable, str(CHILD), *arguments], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for printed in child.stdout:
            lines.append(printed.strip())
            if lines[-1] == line:
                child.kill()
                break
    assert child.returncode == -9, lines
    return lines


def test_sigkill_twice_changes_nothing(run: Run, folders: Path, tmp_path: Path) -> None:
    toml = tmp_path / "short.toml"
    toml.write_text(TOML)
    data = train_data(folders)
    whole = run(tmp_path / "whole", change=recipe(str(toml)), data=data)
    arguments = [str(folders), str(tmp_path / "killed"), str(toml)]
    first = kill_at("1 2", arguments)  # within the first epoch
    assert first == ["1 1", "1 2"]
    assert {path.name for path in tmp_path.iterdir()} == {"digits", "short.toml", "whole", ".killed.training"}
    second = kill_at("2 3", arguments)  # while the state of the second epoch's end is written, or right after
    assert second[0] in {"1 2", "1 3"}  # it went on from the first step or the second, and did not begin again
    notes: list[str] = []
    done = run(tmp_path / "killed", change=recipe(str(toml)), data=data, note=notes.append)
    assert notes[0].startswith("taking up the interrupted training after step ")
    assert done.resumed == 2
    for name in ("config.json", "model.safetensors", "learning-curve.svg"):
        assert (done.path / name).read_bytes() == (whole.path / name).read_bytes(), name
    assert json.loads((done.path / "provenance.json").read_text())["resumed"] == 2
    assert not folder_for(done.path).exists()


@pytest.mark.parametrize("augment", Augment)
def test_an_interruption_changes_nothing(augment: Augment, run: Run, longer: Recipe, tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", change=longer, augment=augment)
    again = {"change": longer, "save_every_s": 0.0, "augment": augment}
    for place in ((1, 3), (3, 2)):  # before the state of an epoch's end is written, and within an epoch
        with pytest.raises(Stopped):
            run(tmp_path / "out", progress=stop_at(*place), **again)
    done = run(tmp_path / "out", **again)
    assert done.resumed == 2
    assert done.weights_sha256 == whole.weights_sha256
    losses = [[e["loss"] for e in json.loads((d.path / "history.json").read_text())] for d in (done, whole)]
    assert losses[0] == losses[1]


def test_the_very_end_can_be_interrupted(run: Run, longer: Recipe, tmp_path: Path, monkeypatch: Any) -> None:
    def stop(*_: Any) -> None:
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(loop, "publish", stop)  # every step is done, and nothing stands at --out yet
        with pytest.raises(Stopped):
            run(tmp_path / "out", change=longer)
    assert not (tmp_path / "out").exists()
    done = run(tmp_path / "out", change=longer)
    assert (done.resumed, done.weights_sha256) == (1, run(tmp_path / "whole", change=longer).weights_sha256)


@pytest.fixture
def stopped(run: Run, longer: Recipe, tmp_path: Path) -> Path:
    """The `--out` of a training that was interrupted after its first epoch."""
    out = tmp_path / "out"
    with pytest.raises(Stopped):
        run(out, change=longer, progress=stop_at(2, 2))
    return out


def test_another_training_does_not_go_on(
    stopped: Path, run: Run, longer: Recipe, few: TrainData, tmp_path: Path
) -> None:
    words = r"an interrupted training lies in '.*\.out\.training' and differs from this one in {}; repeat its command"
    with pytest.raises(UsageError, match=words.format("recipe.lr, recipe.seed")):
        run(stopped, change=dataclasses.replace(longer, lr=1e-4, seed=3))
    fewer = dataclasses.replace(few, train=few.train.subset(range(1, 60)))
    with pytest.raises(UsageError, match=words.format("train.n, train.sha256")):
        run(stopped, change=longer, data=fewer)
    with pytest.raises(UsageError, match=words.format("model")):
        run(stopped, change=longer, model="lcnet_050")
    assert (folder_for(stopped) / STATE).is_file()
    begun = run(stopped, change=dataclasses.replace(longer, seed=3), overwrite=True)
    assert begun.resumed == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_overwrite_goes_on_with_its_own(stopped: Path, run: Run, longer: Recipe) -> None:
    assert run(stopped, change=longer, overwrite=True).resumed == 1


def test_damage_is_noticed_and_nothing_is_lost(stopped: Path, run: Run, longer: Recipe) -> None:
    path = folder_for(stopped) / STATE
    good = path.read_bytes()
    bad = bytearray(good)
    bad[len(bad) // 2] ^= 1
    path.write_bytes(bad)
    with pytest.raises(WorkspaceError, match=r"the interrupted training '.*state.pt' is damaged; delete its folder"):
        run(stopped, change=longer)
    path.write_bytes(good)
    key = (folder_for(stopped) / KEY).read_text()
    (folder_for(stopped) / KEY).write_text(key[:20])
    with pytest.raises(WorkspaceError, match=r"run.json' is damaged"):
        run(stopped, change=longer)
    (folder_for(stopped) / KEY).write_text(key)
    assert run(stopped, change=longer).resumed == 1


def test_two_processes_do_not_share_an_out(tmp_path: Path) -> None:
    with (
        work_folder(tmp_path / "out", {"a": 1}, overwrite=False),
        pytest.raises(UsageError, match=r"another process is training into '.*out\.training'"),
        work_folder(tmp_path / "out", {"a": 1}, overwrite=False),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def leave(out: Path, error: Exception, state: dict[str, Any]) -> None:
    """A work folder in which a state is written, and left with an error."""
    with work_folder(out, {"a": 1}, overwrite=False) as folder:
        write_state(folder, state)
        raise error


def test_nothing_is_kept_before_the_first_state(run: Run, longer: Recipe, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        run(tmp_path / "out", change=longer, progress=stop_at(1, 2))
    assert list(tmp_path.iterdir()) == []


def test_a_state_is_kept_where_an_old_training_fails(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(CspedgeError):
        leave(out, CspedgeError("diverged"), {"step": 1})
    assert not folder_for(out).exists()
    with pytest.raises(Stopped):
        leave(out, Stopped(), {"step": 2})
    with pytest.raises(CspedgeError):
        leave(out, CspedgeError("the disk with the images is not there"), {"step": 3})
    assert read_state(folder_for(out)) == {"step": 3}
