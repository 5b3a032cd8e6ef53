"""Training on real digits for one epoch, the recipes, and the checkpoint that comes with the package."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file

from cspedge._builtin import builtin_path
from cspedge.data import ImageList, digits, labels_for, load
from cspedge.devices.host import describe
from cspedge.digest import pretty_json, sha256_bytes, sha256_file
from cspedge.errors import CspedgeError, InputError, UsageError, WorkspaceError
from cspedge.models.preprocess import resolve, to_float
from cspedge.models.reference import load_reference
from cspedge.train import (
    RECIPES,
    Augment,
    Cache,
    Optimizer,
    Progress,
    Recipe,
    Schedule,
    TrainData,
    TrainResult,
    recipe,
    train_data,
)
from cspedge.train.batches import Source
from cspedge.train.cache import Pixels
from cspedge.train.checkpoint import described
from cspedge.train.dataset import check_images
from cspedge.train.evaluation import metrics
from cspedge.train.fit import Trainer

CFG32 = {"input_size": (3, 32, 32), "crop_pct": 1.0, "interpolation": "bilinear"}
FILES = {"config.json", "model.safetensors", "provenance.json"}
ALL_FILES = FILES | {"history.json", "learning-curve.svg"}
Run = Callable[..., TrainResult]


def logits(folder: Path, images: np.ndarray) -> np.ndarray:
    """What timm itself makes of the folder, in strict fp32 on the CPU."""
    net = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    cfg = net.pretrained_cfg
    mean, std = (torch.tensor(cfg[k]).view(1, 3, 1, 1) for k in ("mean", "std"))
    with torch.inference_mode():
        return net((torch.from_numpy(to_float(images)) - mean) / std).numpy()


@pytest.fixture(scope="module")
def trained(run: Run, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    return run(tmp_path_factory.mktemp("train") / "deep" / "model")


def test_a_checkpoint_is_whole_and_loads_in_timm(trained: TrainResult) -> None:
    assert {path.name for path in trained.path.iterdir()} == ALL_FILES
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in trained.path.iterdir())
    assert [path.name for path in trained.path.parent.iterdir()] == ["model"]  # no work folder stays
    config = json.loads((trained.path / "config.json").read_text())
    assert (config["architecture"], config["num_classes"]) == ("lcnet_035", 10)
    assert config["label_names"] == list("0123456789")
    assert config["pretrained_cfg"]["input_size"] == [3, 32, 32]
    assert config["pretrained_cfg"]["interpolation"] == "bilinear"
    assert config["pretrained_cfg"]["tag"] == "few"
    net = timm.create_model(f"local-dir:{trained.path}", pretrained=True).eval()
    saved = load_file(trained.path / "model.safetensors")
    assert {name: value.dtype for name, value in saved.items()} == {
        name: value.dtype for name, value in net.state_dict().items()
    }
    by_hand = timm.create_model("lcnet_035", num_classes=10).eval()
    by_hand.load_state_dict(saved, strict=True)
    x = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(net(x), by_hand(x), rtol=0, atol=0)


def test_provenance_says_what_was_done_and_nothing_of_where(trained: TrainResult, short: Recipe) -> None:
    text = (trained.path / "provenance.json").read_text()
    provenance = json.loads(text)
    assert provenance["weights_sha256"] == trained.weights_sha256 == sha256_file(trained.path / "model.safetensors")
    assert Recipe.from_dict(provenance["recipe"], where="provenance") == short
    assert provenance["train"]["n"] == 60
    val = provenance["fp32"]["val"]
    assert val["n"] == 20
    for name in ("top1", "top5", "macro_top1"):
        low, high = val[f"{name}_ci95"]
        assert 0 <= low <= val[name] <= high <= 1
    assert (provenance["device"], provenance["precision"], provenance["start"]) == ("cpu", "fp32", None)
    assert provenance["device_name"] == describe().cpu
    assert (provenance["augment"], provenance["cache"], provenance["resumed"]) == ("cpu", "ram", 0)
    assert provenance["wall_s"] > 0
    assert provenance["images_per_s"] > 0
    assert {"cspedge", "timm", "torch", "torchvision"} <= set(provenance["versions"])
    assert "/" not in provenance["data"]
    assert str(trained.path.parent) not in text
    assert text == pretty_json(provenance)


def test_the_reference_shows_where_it_comes_from(trained: TrainResult) -> None:
    info = load_reference(f"local-dir:{trained.path}").info
    assert info.weights_sha256 == trained.weights_sha256
    assert info.trained_on is not None
    assert info.trained_on["fp32"]["val"]["top1"] == trained.top1


def test_the_metrics_are_those_of_the_saved_file(trained: TrainResult, few: TrainData) -> None:
    wanted = labels_for(few.val, few.val.class_names, num_classes=10)
    found = logits(trained.path, load(few.val, None, resolve(CFG32), labels=wanted).images)
    assert trained.top1 == pytest.approx(float((found.argmax(1) == wanted).mean()), abs=1e-6)
    assert 0 <= trained.top1 <= trained.top5 <= 1


def test_intervals_are_those_of_the_textbook() -> None:
    perfect = np.eye(4, dtype=np.float32)[[0, 1, 2, 3, 3, 3]]
    found = metrics(perfect, np.array([0, 1, 2, 3, 3, 0]))
    assert (found["top1"], found["macro_top1"]) == (round(5 / 6, 6), round(3.5 / 4, 6))
    assert found["macro_top1_ci95"] == [0.75, 1.0]  # only class 0 is ever right or wrong


def test_the_same_seed_gives_the_same_bytes(trained: TrainResult, run: Run, short: Recipe, tmp_path: Path) -> None:
    state = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    again = run(tmp_path / "again", workers=1, cache=Cache.DISK)  # neither changes the result
    assert torch.equal(state[0], torch.random.get_rng_state())
    assert (state[1] == np.random.get_state()[1]).all()
    for name in ("config.json", "model.safetensors", "learning-curve.svg"):
        assert (again.path / name).read_bytes() == (trained.path / name).read_bytes(), name
    assert run(tmp_path / "none", cache=Cache.NONE).weights_sha256 == trained.weights_sha256
    other = run(tmp_path / "other", change=dataclasses.replace(short, seed=1))
    assert other.weights_sha256 != trained.weights_sha256


@pytest.mark.parametrize("augment", Augment)
def test_every_option_trains(augment: Augment, run: Run, short: Recipe, tmp_path: Path) -> None:
    change = dataclasses.replace(
        short,
        optimizer=Optimizer.RMSPROPTF,
        opt_eps=1e-3,
        schedule=Schedule.STEP,
        decay_epochs=0.5,
        decay_rate=0.5,
        warmup_epochs=0,
        mixup=0.0,
        label_smoothing=0.0,
        ema_decay=0.0,
        auto_augment="rand-m5-mstd0.5",
        hflip=0.5,
        erase=0.5,
        drop_rate=0.2,
        drop_path_rate=0.1,
        epochs=2,
        lr=1e-3,
    )
    seen: list[Progress] = []
    done = run(tmp_path / "out", change=change, progress=seen.append, eval_every=1, augment=augment)
    assert [(at.epoch, at.step) for at in seen] == [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)]
    assert all(at.loss > 0 and at.eta_s >= 0 and at.images_per_s > 0 for at in seen)
    history = json.loads((done.path / "history.json").read_text())
    assert [epoch["epoch"] for epoch in history] == [1, 2]
    assert history[-1]["lr"] == pytest.approx(1e-3 * 0.5**4)  # two epochs of two halves
    assert history[-1]["top1"] == done.top1  # 20 held-out images are all looked at, and the last weights are kept
    assert "top-1, %" in (done.path / "learning-curve.svg").read_text()


def test_the_named_schedules_are_timms(few: TrainData) -> None:
    """The rate of every epoch's end, as timm's documented formulas give it."""
    cosine = dataclasses.replace(RECIPES["default"], epochs=10, warmup_epochs=2, lr=1.0, batch_size=20)
    step = dataclasses.replace(cosine, schedule=Schedule.STEP, decay_epochs=3.0, decay_rate=0.1, warmup_lr=0.5)
    for change, expected in (
        (cosine, [0.5 * (1 + math.cos(math.pi * e / 10)) for e in range(2, 10)]),
        (step, [0.1 ** (e // 3) for e in range(2, 10)]),
    ):
        trainer = Trainer(timm.create_model("lcnet_035", num_classes=10), small_source(few, change))
        trainer.scheduler.step_update(0)
        assert trainer.optimizer.param_groups[0]["lr"] == (0.5 if change is step else 0.01)
        found = []
        for epoch in range(2, 10):
            trainer.scheduler.step_update(3 * epoch)
            found.append(trainer.optimizer.param_groups[0]["lr"])
        assert found == pytest.approx(expected)


def small_source(few: TrainData, recipe: Recipe) -> Source:
    images = few.train
    labels = labels_for(images, images.class_names, num_classes=10)
    pixels = Pixels(images, check_images(images, 1), recipe)
    cfg = {"mean": (0.5,) * 3, "std": (0.25,) * 3}
    place = torch.device("cpu")
    return Source(pixels=pixels, labels=labels, recipe=recipe, cfg=cfg, workers=0, place=place, augment=Augment.CPU)


def test_an_existing_folder_is_kept(trained: TrainResult, run: Run, tmp_path: Path) -> None:
    keep = tmp_path / "keep"
    keep.mkdir()
    (keep / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"keep' exists already; .*--overwrite"):
        run(keep)
    with pytest.raises(UsageError, match="is no checkpoint folder"):
        run(keep, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["keep"]
    old = tmp_path / "old"
    old.mkdir()
    (old / "config.json").write_text("{}")
    run(old, overwrite=True)
    assert {path.name for path in old.iterdir()} == ALL_FILES
    assert (old / "model.safetensors").read_bytes() == (trained.path / "model.safetensors").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keep", "old"]


def spoiled(images: ImageList, data: bytes, *, whole_header: bool) -> ImageList:
    """The list with a first image whose bytes end early, after or within its header."""
    assert images.blobs is not None
    half = data[: 60 if whole_header else 7]
    return dataclasses.replace(
        images, blobs=(half, *images.blobs[1:]), digests=(sha256_bytes(half), *images.digests[1:])
    )


@pytest.mark.parametrize("whole_header", [True, False])
@pytest.mark.parametrize(("cache", "workers"), [(Cache.AUTO, 0), (Cache.NONE, 0), (Cache.NONE, 1)])
def test_an_unreadable_image_ends_it(
    whole_header: bool, cache: Cache, workers: int, run: Run, few: TrainData, tmp_path: Path
) -> None:
    broken = spoiled(few.train, few.train.read(0), whole_header=whole_header)
    data = dataclasses.replace(few, train=broken)
    words = "cannot be decoded" if whole_header else "is not a readable"
    with pytest.raises(InputError, match=rf"^the training image '0/\d+.png' {words} .*remove it$"):
        run(tmp_path / "out", data=data, workers=workers, cache=cache)
    assert list(tmp_path.iterdir()) == []


def test_failures_leave_nothing_behind(run: Run, few: TrainData, short: Recipe, tmp_path: Path) -> None:
    with pytest.raises(CspedgeError, match=r"training diverged in step \d+ .*lower lr"):
        run(tmp_path / "out", change=dataclasses.replace(short, lr=1e30, epochs=20, batch_size=4, warmup_epochs=0))
    unreadable = spoiled(few.val, few.val.read(0), whole_header=True)
    with pytest.raises(InputError, match=r"1 of 20 images of 'digits/val' .* cannot be decoded"):
        run(tmp_path / "out", data=dataclasses.replace(few, val=unreadable))
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_says_so(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkspaceError, match=r"cannot write .*file"):
        run(tmp_path / "file" / "out")


# --- recipes ---


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_survive_json(name: str) -> None:
    values = json.loads(json.dumps(RECIPES[name].as_dict(), allow_nan=False))
    assert Recipe.from_dict(values, where="test") == recipe(name)


def test_digits_are_never_mirrored() -> None:
    assert recipe("digits").hflip == 0


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"epoch": 3}, "unknown key 'epoch' in my.toml; known: img_size, epochs"),
        ({"epochs": 0}, "epochs is 0 in the training recipe; it is above 0"),
        ({"optimizer": "sgd"}, "a value in my.toml does not fit: 'sgd'"),
        ({"epochs": "many"}, "a value in my.toml does not fit"),
        ({"scale": [0.9, 0.2]}, "range of shares"),
        ({"scale": 0.2}, "does not fit"),
        ({"hflip": 2}, "hflip is 2"),
        ({"mixup": -1}, "0 or more"),
        ({"interpolation": "cubic"}, "unknown interpolation 'cubic'; known: bicubic"),
        ({"schedule": "poly"}, "'poly' is not a valid Schedule"),
        ({"img_size": 64.0}, "img_size is 64.0, which is no int"),
        ({"epochs": True}, "epochs is True, which is no int"),
        ({"lr": float("nan")}, "lr is nan; a finite number is needed"),
        ({"batch_size": 33}, "batch_size is 33 .* mixup pairs images"),
        ({"auto_augment": "augmix-m3"}, "auto_augment is 'augmix-m3' .* 'rand-m7"),
        ({"auto_augment": "rand-mstd"}, "auto_augment is 'rand-mstd'"),
    ],
)
def test_recipes_that_are_refused(values: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Recipe.from_dict(values, where="my.toml")


def test_recipes_come_from_files(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('epochs = 3\nlr = 1e-3\nschedule = "step"\nscale = [0.5, 1]\n')
    expected = dataclasses.replace(recipe("default"), epochs=3, lr=1e-3, schedule=Schedule.STEP, scale=(0.5, 1.0))
    assert recipe(str(path)) == expected
    path.write_text("epoch = 3")
    with pytest.raises(UsageError, match=r"unknown key 'epoch' in '.*mine.toml'; known: "):
        recipe(str(path))
    path.write_text("epochs = ")
    with pytest.raises(UsageError, match="is not TOML"):
        recipe(str(path))
    with pytest.raises(UsageError, match=r"cannot be read \(No such file"):
        recipe(str(tmp_path / "none.toml"))
    with pytest.raises(
        UsageError, match="unknown training recipe 'digit'; known: default, digits, finetune, rmsproptf"
    ):
        recipe("digit")


# --- the checkpoint in the package ---


def test_the_built_in_checkpoint_is_what_its_provenance_says() -> None:
    folder = builtin_path()
    provenance = json.loads((folder / "provenance.json").read_text())
    assert {path.name for path in folder.iterdir()} == FILES
    assert provenance["weights_sha256"] == sha256_file(folder / "model.safetensors")
    assert Recipe.from_dict(provenance["recipe"], where="provenance") == recipe("digits")
    assert (folder / "model.safetensors").stat().st_size < 2_600_000
    val = digits("val")
    wanted = labels_for(val, val.class_names, num_classes=10)
    net_cfg = json.loads((folder / "config.json").read_text())["pretrained_cfg"]
    found = logits(folder, load(val, None, resolve(net_cfg)).images)
    claimed = provenance["fp32"]["val"]
    top1 = float((found.argmax(1) == wanted).mean())
    # one image in 450 may sit on an edge where another CPU's kernels round otherwise
    assert top1 == pytest.approx(claimed["top1"], abs=1.5 / 450)
    assert (claimed["n"], claimed["top1"] >= 0.985) == (450, True)


def test_the_built_in_checkpoint_never_saw_its_validation_images() -> None:
    provenance = json.loads((builtin_path() / "provenance.json").read_text())
    data = train_data("digits")
    assert provenance["train"]["n"] == len(data.train)
    assert not set(data.train.digests) & set(data.val.digests)
    assert provenance["train"] == described(data.train)
    assert provenance["val"] == described(data.val)
