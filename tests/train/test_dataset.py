"""Data for training: folders, archives, and everything that is refused before any training."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cspedge.cli.app import app, call
from cspedge.data import digits, write_digits
from cspedge.errors import InputError, UsageError
from cspedge.train import Recipe, TrainData, TrainResult, train_data

Run = Callable[..., TrainResult]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All digits as a folder with `train` and `val`."""
    folder = tmp_path_factory.mktemp("digits") / "two"
    write_digits(folder)
    return folder


def test_train_data_takes_digits_two_folders_or_one(written: Path) -> None:
    two, built_in = train_data(written), train_data("digits")
    assert (two.train.digests, two.val.digests) == (built_in.train.digests, built_in.val.digests)
    one = train_data(written / "val")
    assert one.name == "val"
    assert (len(one.train), len(one.val)) == (360, 90)
    assert not set(one.train.digests) & set(one.val.digests)


@pytest.mark.parametrize("kind", ["zip", "gztar"])
def test_train_data_takes_archives(kind: str, written: Path, tmp_path: Path) -> None:
    expected = train_data(written)
    for base in ("two", None) if kind == "zip" else ("two",):  # with its top folder, and without
        path = shutil.make_archive(str(tmp_path / "all"), kind, written.parent if base else written, base)
        found = train_data(path)
        assert found.name == "all"
        assert found.train.digests == expected.train.digests
        assert (found.val.names, found.val.class_of) == (expected.val.names, expected.val.class_of)
    one = shutil.make_archive(str(tmp_path / "one"), kind, written / "val")
    assert train_data(one).train.digests == train_data(written / "val").train.digests
    assert train_data(Path(found.train.members.archive.path) / "val").train.digests == train_data(one).train.digests


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """`train` and `val` with three images of the digits 0 and 1 each."""
    images = {part: digits(part) for part in ("train", "val")}
    for part, found in images.items():
        for name in "01":
            folder = tmp_path / "data" / part / name
            folder.mkdir(parents=True)
            chosen = [i for i, label in enumerate(found.class_of) if label == name][:3]
            for k, index in enumerate(chosen):
                (folder / f"{k}.png").write_bytes(found.read(index))
    return tmp_path / "data"


def empty_class(data: Path) -> None:
    (data / "train" / "2").mkdir()


def lacking_class(data: Path) -> None:
    shutil.copytree(data / "val" / "1", data / "val" / "7")
    shutil.rmtree(data / "val" / "1")


def two_labels(data: Path) -> None:
    shutil.copy(data / "train" / "0" / "0.png", data / "train" / "1" / "same.png")


def one_class(data: Path) -> None:
    shutil.rmtree(data / "train" / "1")


def shared_image(data: Path) -> None:
    shutil.copy(data / "train" / "0" / "0.png", data / "val" / "0" / "same.png")


def no_class(data: Path) -> None:
    for part in ("train", "val"):
        for path in sorted((data / part).rglob("*.png")):
            path.rename(data / part / f"{path.parent.name}-{path.name}")
        shutil.rmtree(data / part / "0")
        shutil.rmtree(data / part / "1")


@pytest.mark.parametrize("archived", [False, True])
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (empty_class, "the class folder '2' of 'train' has no training image; add images"),
        (lacking_class, "the class folder '7' of 'val' is not in 'train'; every class"),
        (two_labels, "the images '0/0.png' and '1/same.png' are the same, and their labels differ; remove one"),
        (one_class, "needs two or more class folders; it has 1"),
        (shared_image, r"training \('train'\) and validation \('val'\) share 1 images .*; take them out of one$"),
        (no_class, "needs two or more class folders; it has 0"),
    ],
)
def test_data_that_cannot_be_trained_on(
    spoil: Callable[[Path], None], words: str, archived: bool, small: Path, tmp_path: Path
) -> None:
    spoil(small)
    source = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", small)) if archived else small
    with pytest.raises(InputError, match=words):
        train_data(source)


def test_overlap_can_be_allowed(small: Path) -> None:
    shared_image(small)
    assert len(train_data(small, allow_overlap=True).val) == 7


def test_one_content_under_two_labels_is_found_before_a_split(small: Path) -> None:
    two_labels(small)
    with pytest.raises(InputError, match="their labels differ"):
        train_data(small / "train")


def test_too_few_images_are_refused(run: Run, few: TrainData, short: Recipe, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'few' has 60 training and 0 validation images"):
        run(tmp_path / "out", data=dataclasses.replace(few, val=few.val.subset([])))
    with pytest.raises(UsageError, match=r"batch_size is 64 and 'few' has 60 training images; give --batch-size 60"):
        run(tmp_path / "out", change=dataclasses.replace(short, batch_size=64))
    assert list(tmp_path.iterdir()) == []


# --- the command ---


def command(data: Path, out: Path, *more: str) -> list[str]:
    settings = ["--img-size", "32", "--batch-size", "4", "--epochs", "1", "--threads", "1", "--device", "cpu"]
    return ["train", "lcnet_035", "--data", str(data), "--out", str(out), *settings, *more]


def test_the_command_trains_from_an_archive(small: Path, tmp_path: Path, capsys: Any) -> None:
    path = shutil.make_archive(str(tmp_path / "packed"), "gztar", small)
    assert call(app, command(Path(path), tmp_path / "model", "--json", "--eval-every", "1")) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert (found["n_train"], found["n_val"], found["resumed"]) == (6, 6, 0)
    assert found["top1_ci95"][0] <= found["top1"] <= found["top1_ci95"][1]
    assert "epoch 1/1  loss" in captured.err
    assert "ETA 0:00:00  top-1" in captured.err


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (["--recipe", "fast"], 2, "unknown training recipe 'fast'; known: default"),
        (["--cache", "tape"], 2, "unknown cache 'tape'; known: auto, disk, none, ram"),
        (["--augment", "gpu"], 2, "unknown place to augment 'gpu'; known: cpu, device"),
        (["--device", "tpu"], 2, "unknown device 'tpu'"),
        (["--device", "meta"], 2, "the device 'meta' is not here"),
        (["--weights", "none.pth"], 3, "'none.pth' does not exist"),
    ],
)
def test_the_command_refuses(more: list[str], code: int, words: str, small: Path, tmp_path: Path, capsys: Any) -> None:
    assert call(app, command(small, tmp_path / "model", *more)) == code
    assert words in " ".join(capsys.readouterr().err.split())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_the_command_looks_at_out_first(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "model").mkdir()
    assert call(app, command(tmp_path / "no data", tmp_path / "model")) == 2
    assert "exists already" in capsys.readouterr().err


def test_photographs_shrink_to_what_the_crops_need(tmp_path: Path, short: Recipe, caltech: Path) -> None:
    from cspedge.data import scan
    from cspedge.train.cache import Cache, Pixels, target_size
    from cspedge.train.dataset import check_images

    images = scan(caltech / "val").subset(range(8))
    sizes = check_images(images, 2)
    assert sizes == [Image.open(caltech / "val" / name).size for name in images.names]
    recipe = dataclasses.replace(short, img_size=64, scale=(0.25, 1.0))
    found = {}
    for kind in (Cache.RAM, Cache.DISK, Cache.NONE):
        pixels = Pixels(images, sizes, recipe)
        pixels.fill(kind, tmp_path, workers=2)
        assert pixels.place is kind
        found[kind] = [pixels.array(i).tobytes() for i in range(8)]
        assert [pixels.image(i).size for i in range(8)] == [target_size(size, recipe) for size in sizes]
    assert found[Cache.RAM] == found[Cache.DISK] == found[Cache.NONE]
    for size in sizes:
        expected = 128 if min(size) ** 2 >= 2 * 128**2 else min(size)  # less than half is kept as it is
        assert min(target_size(size, recipe)) == expected
    assert target_size((400, 200), recipe) == (256, 128)
    assert target_size((400, 180), recipe) == (400, 180)
    auto = Pixels(images, sizes, recipe)
    auto.fill(Cache.AUTO, tmp_path, ram_bytes=auto.nbytes - 1)
    assert auto.place is Cache.DISK
