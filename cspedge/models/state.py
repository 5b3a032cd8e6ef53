"""Weights files as tables of named tensors, read without executing code, and fitted to a model strictly."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cspedge.errors import InputError
from cspedge.models import mmpretrain

if TYPE_CHECKING:
    import torch
    from torch import nn

    from cspedge.models.source import ModelSource

# Averaged weights first, as timm's `load_state_dict` prefers them. `ema` is what several training scripts write.
WRAPPERS = ("state_dict_ema", "model_ema", "ema", "state_dict", "model")
# torch.compile and DistributedDataParallel, in either order, as timm's `clean_state_dict` removes them.
PREFIXES = ("_orig_mod.", "module.", "_orig_mod.")
# A trainer's own module holds the network as `model` (Lightning), so every name begins with it.
TRAINER_PREFIX = "model."
# What training scripts, timm's among them, put beside the tensors. Each is read as `mmpretrain.Ignored`.
_METADATA = (
    "argparse.Namespace",
    "pathlib.Path",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "pathlib._local.PosixPath",
    "pathlib._local.WindowsPath",
    "types.SimpleNamespace",
)
_MANY = 6


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """Reads tensors by name from safetensors, or from a PyTorch file with `weights_only=True`, never a full pickle.

    Wrappers (`WRAPPERS`, one in another too) and prefixes (`PREFIXES`; `model.` where every name has it) are taken off.
    Arguments, metrics and paths that training scripts store are skipped unread. Raises InputError.
    """
    import torch

    state = _unwrapped(_read(path))
    if not isinstance(state, dict) or not state or not all(isinstance(k, str) for k in state):
        raise _no_table(path)
    named = {_bare(k): v for k, v in state.items()}
    if len(named) < len(state):
        raise InputError(
            f"weights file {path.name!r} holds the same tensor names with and without the prefix 'module.'; "
            "save one model's state_dict"
        )
    named.pop("n_averaged", None)  # the counter of torch.optim.swa_utils.AveragedModel
    if named and all(k.startswith(TRAINER_PREFIX) for k in named):
        named = {k.removeprefix(TRAINER_PREFIX): v for k, v in named.items()}
    if not named or not all(isinstance(v, torch.Tensor) for v in named.values()):
        raise _no_table(path)
    return named


def fit(model: nn.Module, state: Mapping[str, torch.Tensor], source: ModelSource) -> None:
    """Puts the weights into the model. Raises InputError for any missing, left-over, misshapen or non-finite tensor."""
    own = model.state_dict()
    in_file = {k: mmpretrain.parameter_name(k, source.checkpoint) if source.checkpoint else k for k in own}
    problems = misfits({in_file[k]: v for k, v in own.items()}, state)
    if problems:
        more = f" and {len(problems) - _MANY} more" if len(problems) > _MANY else ""
        better = None if source.checkpoint else sibling(state)
        advice = (
            f"these are the weights of {better}: give that name as MODEL"
            if better and better != source.architecture
            else "give the weights of this architecture and class count"
        )
        raise InputError(
            f"weights file {source.weights.name!r} does not fit {source.architecture}: "
            f"{'; '.join(problems[:_MANY])}{more}; {advice}"
        )
    refuse_non_finite(state, source.weights.name)
    found = {k: state[name].to(own[k].dtype) for k, name in in_file.items() if name in state}
    model.load_state_dict(found, strict=False)


def sibling(state: Mapping[str, torch.Tensor]) -> str | None:
    """The first-class architecture whose tensors have just these names and shapes (of any class count), or None."""
    import timm
    import torch

    from cspedge.models.catalog import FIRST_CLASS

    for architecture in dict.fromkeys(name.partition(".")[0] for name in FIRST_CLASS):
        classes = class_count(state, architecture)
        if classes is None:
            continue
        with torch.device("meta"):
            table = timm.create_model(architecture, num_classes=classes).state_dict()
        if not misfits(table, state):
            return architecture
    return None


def class_count(state: Mapping[str, torch.Tensor], name: str) -> int | None:
    """The class count that the weights of timm model `name` carry, from its classifier's bias or weight."""
    import timm

    cfg = timm.get_pretrained_cfg(name, allow_unregistered=True)
    classifier = getattr(cfg, "classifier", None)
    for leaf in ("bias", "weight"):
        tensor = state.get(f"{classifier}.{leaf}")
        if tensor is not None and tensor.ndim > 0:
            return int(tensor.shape[0])
    return None


def misfits(
    wanted: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor], optional: Collection[str] = ()
) -> list[str]:
    """What of `state` is missing, left over or of another shape than `wanted`; tensors in `optional` may be absent."""
    optional = {k for k in wanted if k.endswith("num_batches_tracked")} | set(optional)
    problems = [f"missing {k}" for k in wanted if k not in state and k not in optional]
    problems += [f"left over {k}" for k in state if k not in wanted]
    problems += [
        f"{k} is {list(state[k].shape)}, not {list(v.shape)}"
        for k, v in wanted.items()
        if k in state and state[k].shape != v.shape
    ]
    return problems


def refuse_non_finite(state: Mapping[str, torch.Tensor], file: str) -> None:
    """InputError naming tensors of the weights file that hold NaN or infinite values."""
    import torch

    bad = [k for k, v in state.items() if v.is_floating_point() and not bool(torch.isfinite(v).all())]
    if bad:
        more = f" and {len(bad) - 4} more" if len(bad) > 4 else ""
        raise InputError(
            f"weights file {file!r} has NaN or infinite values in {', '.join(bad[:4])}{more}; "
            "take a checkpoint from before the training diverged"
        )


def _read(path: Path) -> Any:
    import torch

    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        allowed = [*mmpretrain.metadata(), *((mmpretrain.Ignored, name) for name in _METADATA)]
        with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols; what cannot be read is an error
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # safetensors, zipfile and pickle raise many types; all mean an unusable file
        raise InputError(f"weights file {path.name!r} cannot be read as tensors: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """One clause about the cause, without torch's advice to load the file unsafely."""
    text = str(error).strip()
    named = re.search(r"(?:Unsupported global: GLOBAL|Unsupported class|Unsupported operand) (\S+)", text)
    if named:
        return (
            f"it is a pickle that names {named[1]!r}, and nothing of a weights file is ever executed; "
            "save the model's state_dict, best as safetensors"
        )
    first = text.splitlines()[0][:160] if text else type(error).__name__
    if first.startswith("Weights only load failed"):
        first = "it is a pickle of more than tensors"
    return f"{first}; it is truncated, or holds more than tensors; save the model's state_dict again as safetensors"


def _unwrapped(state: Any) -> Any:
    for _ in WRAPPERS:  # one wrapper may hold another, no deeper than there are names
        if not isinstance(state, dict):
            break
        inner = next((state[k] for k in WRAPPERS if isinstance(state.get(k), dict)), None)
        if inner is None:
            break
        state = inner
    return state


def _bare(name: str) -> str:
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _no_table(path: Path) -> InputError:
    return InputError(f"weights file {path.name!r} holds no table of named tensors; save the model's state_dict")
