"""The fp32 reference: a trained classifier with its normalisation inside, ready to run and to export."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cspedge.errors import InputError, unknown
from cspedge.models import mmpretrain
from cspedge.models.heads import Compute, params_of, with_head
from cspedge.models.source import LOCAL, ModelSource, resolve
from cspedge.types import Head, Output, Preprocess

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class ReferenceInfo:
    """What a report and a manifest say about the reference; plain data, stored beside the results."""

    name: str
    architecture: str
    head: str
    weights_sha256: str
    params: int
    num_classes: int
    labels: tuple[str, ...]
    outputs: tuple[Output, ...]
    preprocess: Preprocess
    trained_on: dict[str, Any] | None

    @property
    def file_stem(self) -> str:
        """How files of this model and head are called, before the precision."""
        return self.name if self.head == Head.LOGITS else f"{self.name}.{self.head}"


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A loaded reference.

    module: eval mode, float32 [n, 3, H, W] RGB in [0, 1] -> float32 [n, *shape] of `info.outputs`, a tuple of them
    for the head `features`.
    """

    info: ReferenceInfo
    module: nn.Module


def load_reference(
    model: str | None = None,
    *,
    weights: str | None = None,
    head: Head | str = Head.LOGITS,
    img_size: int | None = None,
) -> Reference:
    """Loads a classifier without executing code from its files.

    model: a timm name, `local-dir:PATH`, `mmpretrain:NAME`, or None for the built-in digits model; weights: a file
    that replaces the model's own; head: what it gives; img_size: pixels on a side instead of the model's own input
    size, as timm overrides it. Raises UsageError for an unknown name or head, InputError for weights that are missing,
    damaged, of another architecture, or not finite.
    """
    if head not in set(Head):
        raise unknown("head", head, tuple(Head))
    return load(resolve(model, weights), head=Head(head), img_size=img_size)


def load(source: ModelSource, *, head: Head = Head.LOGITS, img_size: int | None = None) -> Reference:
    """`load_reference` for a source that was resolved before."""
    import timm

    from cspedge.digest import sha256_bytes
    from cspedge.models.preprocess import resolve as resolve_preprocess

    name = f"{LOCAL}{source.folder}" if source.folder is not None else source.name
    if source.checkpoint is not None:  # its own name is none of timm's
        name = source.architecture
    options: dict[str, Any] = {}
    if source.weights is None:
        model = _from_hub(name)
    else:
        options = {"num_classes": source.config["num_classes"]} if source.config else {}
        state = read_state(source.weights)
        classes = None if source.config else _classes_of(state, name)
        if classes is not None:
            options["num_classes"] = classes
        if source.checkpoint is not None:
            options["pretrained_cfg"] = mmpretrain.pretrained_cfg(source.checkpoint)
        model = timm.create_model(name, pretrained=False, **options)
        _load_state(model, state, source)
    model.eval()
    traits: Any = model  # timm sets these on every model; nn.Module's type does not know them
    preprocess = resolve_preprocess(traits.pretrained_cfg, img_size=img_size)
    network, compute, outputs = with_head(
        model, head, lambda more: timm.create_model(name, **options, **more), preprocess.input_size
    )
    classes = int(traits.num_classes)
    digest = source.weights_sha256 or sha256_bytes(
        b"".join(k.encode() + v.detach().contiguous().numpy().tobytes() for k, v in sorted(model.state_dict().items()))
    )
    info = ReferenceInfo(
        name=source.name,
        architecture=source.architecture,
        head=str(head),
        weights_sha256=digest,
        params=params_of(network, head),
        num_classes=classes,
        labels=_labels(source, model, classes),
        outputs=outputs,
        preprocess=preprocess,
        trained_on=_provenance(source),
    )
    return Reference(info=info, module=_normalised(network, compute, preprocess))


def _normalised(model: nn.Module, compute: Compute, preprocess: Preprocess) -> nn.Module:
    """The model behind its own normalisation; names of inner modules keep the prefix `model.`."""
    import torch
    from torch import nn

    class Normalised(nn.Module):
        mean: torch.Tensor
        factor: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.model = model
            self.register_buffer("mean", torch.tensor(preprocess.mean).view(1, 3, 1, 1))
            self.register_buffer("factor", 1.0 / torch.tensor(preprocess.std).view(1, 3, 1, 1))

        def forward(self, image: torch.Tensor) -> Any:
            return compute(self.model, (image - self.mean) * self.factor)

    return Normalised().eval()


def _from_hub(name: str) -> nn.Module:
    import timm

    try:
        model: nn.Module = timm.create_model(name, pretrained=True)
        return model
    except Exception as error:  # huggingface_hub raises many types; all mean that the weights cannot be had
        raise InputError(
            f"weights of {name!r} are not in timm's cache and cannot be fetched ({type(error).__name__}); "
            "give --weights FILE, or local-dir:PATH of a folder with config.json and model.safetensors"
        ) from error


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """Reads tensors by name from safetensors, or from a PyTorch file with `weights_only=True`, never a full pickle.

    Wrappers (`state_dict`, `model`, `state_dict_ema`) and `module.` prefixes are taken off. Raises InputError.
    """
    import torch

    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            with torch.serialization.safe_globals(mmpretrain.metadata()):
                state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # safetensors, zipfile and pickle raise many types; all mean an unusable file
        first = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
        raise InputError(
            f"weights file {path.name!r} cannot be read as tensors: {first}; "
            "it is truncated, or a pickle holding more than tensors; save it again as safetensors"
        ) from error
    for key in ("state_dict_ema", "model_ema", "state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
            break
    if not isinstance(state, dict) or not state or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise InputError(f"weights file {path.name!r} holds no table of named tensors; save the model's state_dict")
    return {str(k).removeprefix("module."): v for k, v in state.items()}


def _classes_of(state: dict[str, torch.Tensor], name: str) -> int | None:
    """The class count that the weights of timm model `name` carry, from its classifier's bias or weight."""
    import timm

    cfg = timm.get_pretrained_cfg(name, allow_unregistered=True)
    classifier = getattr(cfg, "classifier", None)
    for leaf in ("bias", "weight"):
        tensor = state.get(f"{classifier}.{leaf}")
        if tensor is not None:
            return int(tensor.shape[0])
    return None


def _load_state(model: nn.Module, state: dict[str, torch.Tensor], source: ModelSource) -> None:
    import torch

    assert source.weights is not None
    own = model.state_dict()
    in_file = {k: mmpretrain.parameter_name(k, source.checkpoint) if source.checkpoint else k for k in own}
    wanted = {in_file[k]: v for k, v in own.items()}
    optional = {k for k in wanted if k.endswith("num_batches_tracked")}
    problems = [f"missing {k}" for k in wanted if k not in state and k not in optional]
    problems += [f"left over {k}" for k in state if k not in wanted]
    problems += [
        f"{k} is {list(state[k].shape)}, not {list(v.shape)}"
        for k, v in wanted.items()
        if k in state and state[k].shape != v.shape
    ]
    if problems:
        more = f" and {len(problems) - 6} more" if len(problems) > 6 else ""
        raise InputError(
            f"weights file {source.weights.name!r} does not fit {source.architecture}: {'; '.join(problems[:6])}{more}"
            "; give the weights of this architecture and class count"
        )
    bad = [k for k, v in state.items() if v.is_floating_point() and not bool(torch.isfinite(v).all())]
    if bad:
        more = f" and {len(bad) - 4} more" if len(bad) > 4 else ""
        raise InputError(
            f"weights file {source.weights.name!r} has NaN or infinite values in {', '.join(bad[:4])}{more}; "
            "take a checkpoint from before the training diverged"
        )
    found = {k: state[name].to(own[k].dtype) for k, name in in_file.items() if name in state}
    model.load_state_dict(found, strict=False)


def _labels(source: ModelSource, model: nn.Module, classes: int) -> tuple[str, ...]:
    if source.config is not None:
        names = source.config.get("label_names") or []
        if names and len(names) != classes:
            raise InputError(
                f"config.json names {len(names)} labels but the model has {classes} classes; make them equal"
            )
        if len(set(names)) != len(names):
            raise InputError("config.json repeats a label name; each class needs its own")
        if names:
            return tuple(str(n) for n in names)
    from timm.data import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset(model)
    if subset:
        info = ImageNetInfo(subset)
        return tuple(info.label_names())
    return ()


def _provenance(source: ModelSource) -> dict[str, Any] | None:
    """What provenance.json beside the weights says, where there is one."""
    import json

    file = source.folder / "provenance.json" if source.folder is not None else None
    if file is None or not file.is_file():
        return None
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file.name} beside the weights is not JSON ({error}); mend it or take it away") from error
    return data if isinstance(data, dict) else None
