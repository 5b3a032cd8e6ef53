"""Fine-tuning: what weights may give, and what does not fit."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from cspedge._builtin import builtin_path
from cspedge.errors import InputError, UsageError
from cspedge.train import RECIPES, Recipe, TrainData, TrainResult
from cspedge.train.start import Start, create

DIGITS = tuple("0123456789")
HEAD = ("classifier.weight", "classifier.bias")
Run = Callable[..., TrainResult]
State = dict[str, torch.Tensor]


def begin(short: Recipe, weights: str, model: str = "lcnet_035", labels: tuple[str, ...] = DIGITS) -> Start:
    return create(model, short, labels, weights)


@pytest.fixture(scope="module")
def state() -> State:
    torch.manual_seed(1)
    return timm.create_model("lcnet_035", num_classes=7).state_dict()


def test_a_folder_gives_everything_where_the_classes_are_the_same(short: Recipe) -> None:
    folder = builtin_path()
    start = begin(short, f"local-dir:{folder}", "lcnet_050")
    saved = timm.create_model(f"local-dir:{folder}", pretrained=True).state_dict()
    assert all(torch.equal(value, saved[key]) for key, value in start.net.state_dict().items())
    provenance = json.loads((folder / "provenance.json").read_text())
    assert (start.name, start.sha256, start.fresh) == (folder.name, provenance["weights_sha256"], ())


@pytest.mark.parametrize("labels", [tuple("abcdefghij"), ("cat", "dog")])  # other names, and other counts
def test_the_classifier_is_fresh_where_the_classes_are_others(short: Recipe, labels: tuple[str, ...]) -> None:
    start = begin(short, f"local-dir:{builtin_path()}", "lcnet_050", labels)
    saved = timm.create_model(f"local-dir:{builtin_path()}", pretrained=True).state_dict()
    assert start.fresh == HEAD
    found = start.net.state_dict()
    assert found["classifier.weight"].shape == (len(labels), saved["classifier.weight"].shape[1])
    assert all(torch.equal(found[key], saved[key]) for key in saved if key not in HEAD)


@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
def test_a_file_is_read_as_tensors(ending: str, state: State, short: Recipe, tmp_path: Path) -> None:
    path = tmp_path / f"mine{ending}"
    if ending == ".pth":
        torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}, "epoch": 3}, path)
    else:
        save_file(state, path)
    start = begin(short, str(path))
    assert (start.name, start.fresh) == (path.name, HEAD)
    assert torch.equal(start.net.conv_stem.weight, state["conv_stem.weight"])
    headless = {key: value for key, value in state.items() if key not in HEAD}
    torch.save(headless, tmp_path / "headless.pth")
    assert begin(short, str(tmp_path / "headless.pth")).fresh == HEAD


class Payload:
    """A pickle that would run code."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("raise SystemExit('ran')",)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("missing", "'mine.pth' do not fit lcnet_035: missing conv_stem.weight; only the classifier may differ"),
        ("left over", "left over blocks.9.weight"),
        ("shape", r"conv_stem.weight is \[3, 3, 3, 3\], not \["),
        ("nan", "NaN or infinite values in conv_stem.weight"),
        ("code", "cannot be read as tensors"),
        ("other", "missing blocks.*lcnet_035|do not fit lcnet_035"),
    ],
)
def test_weights_that_do_not_fit(change: str, words: str, state: State, short: Recipe, tmp_path: Path) -> None:
    changed: Any = dict(state)
    if change == "missing":
        del changed["conv_stem.weight"]
    elif change == "left over":
        changed["blocks.9.weight"] = torch.zeros(1)
    elif change == "shape":
        changed["conv_stem.weight"] = torch.zeros(3, 3, 3, 3)
    elif change == "nan":
        changed["conv_stem.weight"] = torch.full_like(changed["conv_stem.weight"], torch.nan)
    elif change == "code":
        changed = {"state_dict": Payload()}
    else:
        changed = timm.create_model("lcnet_050").state_dict()
    torch.save(changed, tmp_path / "mine.pth")
    with pytest.raises(InputError, match=words):
        begin(short, str(tmp_path / "mine.pth"))


@pytest.mark.parametrize(
    ("weights", "error", "words"),
    [
        ("none.pth", InputError, "weights file 'none.pth' does not exist"),
        ("local-dir:none", InputError, "model folder 'none' does not exist"),
        (f"local-dir:{builtin_path()}", InputError, "are of lcnet_050, and lcnet_035 is trained; give weights of"),
        ("lcnet_050.imagenet", UsageError, r"unknown tag in 'lcnet_050.imagenet'; timm knows lcnet_050.ra2_in1k"),
        ("imagenet", UsageError, "unknown model 'imagenet'"),
    ],
)
def test_weights_that_are_not_there(weights: str, error: type[Exception], words: str, short: Recipe) -> None:
    with pytest.raises(error, match=words):
        begin(short, weights)


@pytest.mark.parametrize("weights", ["pretrained", "lcnet_050.ra2_in1k"])
def test_weights_that_cannot_be_fetched(weights: str, short: Recipe, monkeypatch: Any, tmp_path: Path) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"'lcnet_050.*not cached here and cannot be fetched"):
        begin(short, weights, "lcnet_050")


def test_what_a_network_cannot_be_or_take(short: Recipe) -> None:
    with pytest.raises(UsageError, match=r"unknown architecture 'lcnet_05'; known: .*lcnet_050"):
        create("lcnet_05", short, DIGITS)
    with pytest.raises(UsageError, match=r"'vgg11' cannot be built with drop_path_rate 0.1: .*set what it lacks to 0"):
        create("vgg11", dataclasses.replace(short, drop_path_rate=0.1), DIGITS)
    with pytest.raises(InputError, match=r"inception_v4 cannot take an input of 32 x 32 \(.*--img-size"):
        create("inception_v4", short, DIGITS)


def test_fine_tuning_starts_where_the_weights_are(run: Run, few: TrainData, tmp_path: Path) -> None:
    """One step at a rate of next to nothing keeps what the built-in model knows; from scratch it knows nothing."""
    change = dataclasses.replace(
        RECIPES["finetune"], img_size=64, epochs=1, batch_size=20, lr=1e-9, interpolation="bilinear", crop_pct=1.0
    )
    notes: list[str] = []
    weights = f"local-dir:{builtin_path()}"
    tuned = run(tmp_path / "tuned", change=change, model="lcnet_050", weights=weights, note=notes.append)
    scratch = run(tmp_path / "scratch", change=change, model="lcnet_050")
    assert tuned.top1 >= 0.8 > 0.5 > scratch.top1
    assert notes == []
    provenance = json.loads((tuned.path / "provenance.json").read_text())
    assert provenance["start"]["name"] == builtin_path().name
    assert len(provenance["start"]["sha256"]) == 64
    words = []
    named = dataclasses.replace(few, train=renamed(few.train), val=renamed(few.val))
    run(tmp_path / "named", change=change, model="lcnet_050", data=named, weights=weights, note=words.append)
    assert words == [f"of {builtin_path().name!r} everything is taken but {', '.join(HEAD)}: the classes are others"]


def renamed(images: Any) -> Any:
    names = {name: f"digit {name}" for name in images.class_names}
    class_of = tuple(names[name] for name in images.class_of)
    return dataclasses.replace(images, class_names=tuple(sorted(names.values())), class_of=class_of)
