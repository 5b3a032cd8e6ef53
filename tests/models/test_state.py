"""Weights files: every wrapping that training scripts write, no code executed, and a strict fit."""

from __future__ import annotations

import argparse
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.optim import create_optimizer_v2
from timm.utils import CheckpointSaver, ModelEmaV3, NativeScaler
from torch import nn

from cspedge.errors import InputError
from cspedge.models.reference import load_reference
from cspedge.models.state import read_state, sibling

State = dict[str, torch.Tensor]


def small(architecture: str = "lcnet_050", classes: int = 5) -> State:
    return timm.create_model(architecture, num_classes=classes).state_dict()


@pytest.fixture(scope="module")
def state() -> State:
    return small()


def prefixed(state: State, prefix: str) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def saved(thing: Any, folder: Path) -> Path:
    file = folder / "weights.pth"
    torch.save(thing, file)
    return file


def assert_same(found: State, expected: State) -> None:
    assert sorted(found) == sorted(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "state_dict_ema", "model_ema", "ema"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model."])
def test_wrappers_and_prefixes(wrapper: str | None, prefix: str, state: State, tmp_path: Path) -> None:
    named = prefixed(state, prefix)
    file = saved({wrapper: named, "epoch": 3} if wrapper else named, tmp_path)
    assert_same(read_state(file), state)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s, other: {"state_dict": other, "state_dict_ema": s},
        lambda s, other: {"model": other, "model_ema": s},
        lambda s, other: {"state_dict": s, "state_dict_ema": None, "model_ema": None},
        lambda s, other: {"model": {"state_dict": s}, "optimizer": {"state": {}}},
        lambda s, other: {"model_ema": {"n_averaged": torch.tensor(7), **prefixed(s, "module.")}},
    ],
    ids=["ema-first", "model-ema-first", "no-ema", "nested", "averaged"],
)
def test_which_weights_are_taken(wrap: Callable[[State, State], Any], state: State, tmp_path: Path) -> None:
    other = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    assert_same(read_state(saved(wrap(state, other), tmp_path)), state)


def test_safetensors_of_a_wrapped_model(state: State, tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    save_file(prefixed(state, "module."), file)
    assert_same(read_state(file), state)


def test_a_trainers_prefix_beside_other_parameters_is_left(state: State, tmp_path: Path) -> None:
    both = {**prefixed(state, "model."), "criterion.weight": torch.ones(3)}
    with pytest.raises(InputError, match=r"does not fit lcnet_050: missing conv_stem\.weight"):
        load_reference("lcnet_050", weights=str(saved(both, tmp_path)))


def test_one_name_twice(state: State, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"with and without the prefix 'module\.'"):
        read_state(saved({**state, **prefixed(state, "module.")}, tmp_path))


@pytest.mark.parametrize("content", [{"epoch": 3}, {}, [1, 2], torch.ones(3), {"state_dict": {"a": 1}}, {3: 4}])
def test_what_holds_no_tensors_by_name(content: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no table of named tensors"):
        read_state(saved(content, tmp_path))


def test_timms_training_checkpoints(tmp_path: Path) -> None:
    """As timm's train.py writes them: arguments, optimizer, scaler, NumPy metrics and averaged weights included."""
    model = timm.create_model("lcnet_050", num_classes=5)
    optimizer = create_optimizer_v2(model, "rmsproptf", lr=0.1)
    ema = ModelEmaV3(model, decay=0.5)
    model(torch.rand(2, 3, 32, 32)).sum().backward()
    optimizer.step()
    ema.update(model, step=5)
    args = argparse.Namespace(model="lcnet_050", lr=np.float64(0.1), data_dir=tmp_path, more=SimpleNamespace(seed=3))
    saver = CheckpointSaver(
        model, optimizer, args, ema, NativeScaler("cpu"), checkpoint_dir=str(tmp_path), recovery_dir=str(tmp_path)
    )
    saver.save_checkpoint(1, metric=np.float64(54.3))
    file = tmp_path / "last.pth.tar"
    with pytest.raises(pickle.UnpicklingError):
        torch.load(file, weights_only=True)
    found = read_state(file)
    assert_same(found, ema.module.state_dict())
    assert not torch.equal(found["classifier.bias"], model.state_dict()["classifier.bias"])
    assert load_reference("lcnet_050", weights=str(file)).info.num_classes == 5


class Hostile:
    """A pickle that calls whatever it likes."""

    def __init__(self, call: Callable[..., Any], *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call, self.arguments


HOSTILE: dict[str, Callable[[str], Any]] = {
    "system": lambda command: Hostile(os.system, command),
    "eval": lambda command: Hostile(eval, f"__import__('os').system({command!r})"),
    "exec": lambda command: Hostile(exec, f"import os; os.system({command!r})"),
    "load": lambda command: Hostile(torch.load, command),
    "module": lambda command: nn.Linear(2, 2),
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("place", ["whole", "beside", "args"])
@pytest.mark.parametrize("form", ["zip", "legacy", "plain"])
def test_hostile_pickles_are_refused(kind: str, place: str, form: str, state: State, tmp_path: Path) -> None:
    made = tmp_path / "made"
    evil = HOSTILE[kind](f"touch {made}")
    content = {
        "whole": evil,
        "beside": {"state_dict": state, "optimizer": evil},
        "args": {"state_dict": state, "args": argparse.Namespace(lr=evil)},
    }[place]
    file = tmp_path / "weights.pth"
    if form == "plain":
        file.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(InputError, match="cannot be read as tensors") as caught:
        read_state(file)
    assert "weights_only" not in str(caught.value), "torch's advice to load it unsafely is not passed on"
    assert not made.exists()


def test_metadata_that_is_skipped_gives_no_way_to_code(state: State, tmp_path: Path) -> None:
    """`getattr` of the metadata list makes an inert value: what it seems to fetch cannot be called."""
    made = tmp_path / "made"
    crafted = pickle.dumps({"a": 1}, protocol=2)[:-1] + (
        b"0cbuiltins\ngetattr\n(cposix\nsystem\nS'__call__'\ntR(S'touch " + str(made).encode() + b"'\ntR."
    )
    file = tmp_path / "weights.pth"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", crafted)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    with pytest.raises(InputError, match="cannot be read as tensors"):
        read_state(file)
    assert not made.exists()


def test_a_torchscript_archive_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/constants.pkl", pickle.dumps(()))
        archive.writestr("archive/data.pkl", pickle.dumps({}))
    with pytest.raises(InputError, match="cannot be read as tensors"):
        read_state(file)


@pytest.mark.parametrize(
    ("given", "architecture"),
    [("lcnet_075", "lcnet_050"), ("lcnet_035", "lcnet_150"), ("cspresnet50", "cspresnext50")],
)
@pytest.mark.parametrize("classes", [5, 1000])
def test_a_siblings_checkpoint_says_whose_it_is(given: str, architecture: str, classes: int, tmp_path: Path) -> None:
    file = saved(small(given, classes), tmp_path)
    words = f"does not fit {architecture}: .*; these are the weights of {given}: give that name as MODEL"
    with pytest.raises(InputError, match=words):
        load_reference(architecture, weights=str(file))


def test_weights_of_nobody_we_know(state: State, tmp_path: Path) -> None:
    resnet = small("resnet18")
    assert sibling(resnet) is None
    assert sibling(state) == "lcnet_050"
    with pytest.raises(InputError, match="give the weights of this architecture and class count"):
        load_reference("lcnet_050", weights=str(saved(resnet, tmp_path)))
