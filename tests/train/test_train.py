"""Training on real digits for one epoch, the recipes, and the checkpoint that comes with the package."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file

from cspedge._builtin import builtin_path
from cspedge.data import digits, labels_for, load, write_digits
from cspedge.digest import pretty_json, sha256_bytes, sha256_file
from cspedge.errors import CspedgeError, InputError, UsageError, WorkspaceError
from cspedge.models.preprocess import resolve, to_float
from cspedge.train import RECIPES, Optimizer, Recipe, TrainData, TrainResult, recipe, train, train_data
from cspedge.train.checkpoint import described

SHORT = dataclasses.replace(RECIPES["digits"], img_size=32, epochs=1, batch_size=20)
CFG32 = {"input_size": (3, 32, 32), "crop_pct": 1.0, "interpolation": "bilinear"}
FILES = {"config.json", "model.safetensors", "provenance.json"}


def few(count: int = 60) -> TrainData:
    """The first digits of every class."""
    part = {}
    for split, n in (("train", count), ("val", 20)):
        images = digits(split)
        by_class = [[i for i, c in enumerate(images.class_of) if c == name] for name in images.class_names]
        part[split] = images.subset([i for turn in zip(*by_class, strict=False) for i in turn][:n])
    return TrainData(name="few", train=part["train"], val=part["val"])


def run(out: Path, *, change: Recipe = SHORT, data: TrainData | None = None, workers: int = 0) -> TrainResult:
    return train("lcnet_050", data or few(), recipe=change, out=out, workers=workers, threads=1, device="cpu")


def logits(folder: Path, images: np.ndarray) -> np.ndarray:
    """What timm itself makes of the folder, in strict fp32 on the CPU."""
    net = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    cfg = net.pretrained_cfg
    mean, std = (torch.tensor(cfg[k]).view(1, 3, 1, 1) for k in ("mean", "std"))
    with torch.inference_mode():
        return net((torch.from_numpy(to_float(images)) - mean) / std).numpy()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    return run(tmp_path_factory.mktemp("train") / "deep" / "model")


def test_a_checkpoint_is_whole_and_loads_in_timm(trained: TrainResult) -> None:
    assert {path.name for path in trained.path.iterdir()} == FILES
    assert [path.name for path in trained.path.parent.iterdir()] == ["model"]  # no temporary folder stays
    config = json.loads((trained.path / "config.json").read_text())
    assert (config["architecture"], config["num_classes"]) == ("lcnet_050", 10)
    assert config["label_names"] == list("0123456789")
    assert config["pretrained_cfg"]["input_size"] == [3, 32, 32]
    assert config["pretrained_cfg"]["interpolation"] == "bilinear"
    assert config["pretrained_cfg"]["tag"] == "few"
    net = timm.create_model(f"local-dir:{trained.path}", pretrained=True).eval()
    saved = load_file(trained.path / "model.safetensors")
    assert {name: value.dtype for name, value in saved.items()} == {
        name: value.dtype for name, value in net.state_dict().items()
    }
    by_hand = timm.create_model("lcnet_050", num_classes=10).eval()
    by_hand.load_state_dict(saved, strict=True)
    x = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(net(x), by_hand(x), rtol=0, atol=0)


def test_provenance_says_what_was_done_and_nothing_of_where(trained: TrainResult) -> None:
    text = (trained.path / "provenance.json").read_text()
    provenance = json.loads(text)
    assert provenance["weights_sha256"] == trained.weights_sha256 == sha256_file(trained.path / "model.safetensors")
    assert Recipe.from_dict(provenance["recipe"], where="provenance") == SHORT
    assert provenance["train"]["n"] == 60
    assert provenance["fp32"]["val"]["n"] == 20
    assert provenance["device"] == "cpu"
    assert "/" not in provenance["data"]
    assert str(trained.path.parent) not in text
    assert text == pretty_json(provenance)


def test_the_metrics_are_those_of_the_saved_file(trained: TrainResult) -> None:
    val = few().val
    wanted = labels_for(val, val.class_names, num_classes=10)
    found = logits(trained.path, load(val, None, resolve(CFG32), labels=wanted).images)
    assert trained.top1 == pytest.approx(float((found.argmax(1) == wanted).mean()), abs=1e-6)
    assert 0 <= trained.top1 <= trained.top5 <= 1


def test_the_same_seed_gives_the_same_bytes(trained: TrainResult, tmp_path: Path) -> None:
    state = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    again = run(tmp_path / "again", workers=1)  # loader processes change nothing
    assert torch.equal(state[0], torch.random.get_rng_state())
    assert (state[1] == np.random.get_state()[1]).all()
    for name in FILES:
        assert (again.path / name).read_bytes() == (trained.path / name).read_bytes(), name
    other = run(tmp_path / "other", change=dataclasses.replace(SHORT, seed=1))
    assert other.weights_sha256 != trained.weights_sha256


def test_every_option_trains(tmp_path: Path) -> None:
    change = dataclasses.replace(
        SHORT,
        optimizer=Optimizer.RMSPROPTF,
        mixup=0.0,
        label_smoothing=0.0,
        ema_decay=0.0,
        auto_augment="rand-m5-mstd0.5",
        hflip=0.5,
        epochs=2,
    )
    seen: list[tuple[int, int]] = []
    train(
        "lcnet_050",
        few(),
        recipe=change,
        out=tmp_path / "out",
        threads=1,
        device="cpu",
        progress=lambda epoch, epochs, loss: seen.append((epoch, epochs)) if loss > 0 else None,
    )
    assert seen == [(1, 2), (2, 2)]


def test_an_existing_folder_is_kept(trained: TrainResult, tmp_path: Path) -> None:
    keep = tmp_path / "keep"
    keep.mkdir()
    (keep / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"keep' exists already; .*--overwrite"):
        run(keep)
    with pytest.raises(UsageError, match="is no checkpoint folder"):
        train("lcnet_050", few(), recipe=SHORT, out=keep, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["keep"]
    old = tmp_path / "old"
    old.mkdir()
    (old / "config.json").write_text("{}")
    train("lcnet_050", few(), recipe=SHORT, out=old, overwrite=True, threads=1, device="cpu")
    assert {path.name for path in old.iterdir()} == FILES
    assert (old / "model.safetensors").read_bytes() == (trained.path / "model.safetensors").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keep", "old"]


def test_failures_leave_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown architecture 'lcnet_05'; known: .*lcnet_050"):
        train("lcnet_05", few(), recipe=SHORT, out=tmp_path / "out")
    with pytest.raises(CspedgeError, match=r"training diverged in step \d+ .*lower lr"):
        run(tmp_path / "out", change=dataclasses.replace(SHORT, lr=1e30, epochs=20, batch_size=4, warmup_epochs=0))
    images = few().train
    assert images.blobs is not None
    half = images.blobs[0][:60]
    broken = dataclasses.replace(
        images, blobs=(half, *images.blobs[1:]), digests=(sha256_bytes(half), *images.digests[1:])
    )
    for workers in (0, 1):
        with pytest.raises(InputError, match=r"^the training image '0/\d+.png' cannot be decoded .*remove it$"):
            run(tmp_path / "out", data=TrainData(name="few", train=broken, val=few().val), workers=workers)
    none = few().val.subset([])
    with pytest.raises(InputError, match="'few' has 60 training and 0 validation images"):
        run(tmp_path / "out", data=TrainData(name="few", train=few().train, val=none))
    assert few().val.blobs is not None
    unreadable = dataclasses.replace(few().val, blobs=(half, *few().val.blobs[1:]))
    with pytest.raises(InputError, match=r"1 of 20 images of 'digits/val' .* has changed"):
        run(tmp_path / "out", data=TrainData(name="few", train=few().train, val=unreadable))
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkspaceError, match=r"cannot write beside .*--out"):
        run(tmp_path / "file" / "out")


# --- data ---


def test_train_data_takes_digits_two_folders_or_one(tmp_path: Path) -> None:
    write_digits(tmp_path / "two")
    two = train_data(tmp_path / "two")
    built_in = train_data("digits")
    assert (two.train.digests, two.val.digests) == (built_in.train.digests, built_in.val.digests)
    one = train_data(tmp_path / "two" / "val")
    assert one.name == "val"
    assert (len(one.train), len(one.val)) == (360, 90)
    assert not set(one.train.digests) & set(one.val.digests)


def test_train_data_that_cannot_be_trained_on(tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    (flat / "a.png").write_bytes(digits("val").read(0))
    with pytest.raises(InputError, match="two or more class folders; it has 0"):
        train_data(flat)
    for split in ("train", "val"):
        for name in "01":
            (tmp_path / "both" / split / name).mkdir(parents=True)
            (tmp_path / "both" / split / name / "a.png").write_bytes(digits("val").read(int(name)))
    with pytest.raises(InputError, match="share 2 images"):
        train_data(tmp_path / "both")
    assert len(train_data(tmp_path / "both", allow_overlap=True).val) == 2


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
    ],
)
def test_recipes_that_are_refused(values: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Recipe.from_dict(values, where="my.toml")
    with pytest.raises(UsageError, match="unknown training recipe 'digit'; known: default, digits"):
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
