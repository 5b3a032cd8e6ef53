"""The fp32 reference: a trained classifier with its normalisation inside, ready to run and to export."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cspedge.errors import InputError, unknown
from cspedge.models import mmpretrain
from cspedge.models.heads import Compute, params_of, with_head
from cspedge.models.source import LOCAL, ModelSource, resolve
from cspedge.models.state import class_count, fit, read_state
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
    labels: str | None = None,
    head: Head | str = Head.LOGITS,
    img_size: int | None = None,
) -> Reference:
    """Loads a classifier without executing code from its files.

    model: a timm name, `local-dir:PATH`, `mmpretrain:NAME`, or None for the built-in digits model; weights: a file
    that replaces the model's own; labels: a UTF-8 file of class names, one a line; head: what it gives; img_size:
    pixels on a side instead of the model's own input size, as timm overrides it. Raises UsageError for an unknown name
    or head, InputError for weights that are missing, damaged, of another architecture, or not finite, for labels that
    do not fit, and for an input size that the network cannot take.
    """
    if head not in set(Head):
        raise unknown("head", head, tuple(Head))
    return load(resolve(model, weights, labels), head=Head(head), img_size=img_size)


def load(source: ModelSource, *, head: Head = Head.LOGITS, img_size: int | None = None) -> Reference:
    """`load_reference` for a source that was resolved before."""
    import timm

    from cspedge.models.input_size import check
    from cspedge.models.preprocess import resolve as resolve_preprocess

    model, name, options = _build(source)
    model.eval()
    traits: Any = model  # timm sets these on every model; nn.Module's type does not know them
    preprocess = resolve_preprocess(traits.pretrained_cfg, img_size=img_size)
    check(model, source.architecture, preprocess.input_size)
    network, compute, outputs = with_head(
        model, head, lambda more: timm.create_model(name, **options, **more), preprocess.input_size
    )
    classes = int(traits.num_classes)
    info = ReferenceInfo(
        name=source.name,
        architecture=source.architecture,
        head=str(head),
        weights_sha256=source.weights_sha256,
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


def _build(source: ModelSource) -> tuple[nn.Module, str, dict[str, Any]]:
    """The classifier with its weights, and what timm builds its like from: name and arguments."""
    import timm

    name = f"{LOCAL}{source.folder}" if source.folder is not None else source.name
    if source.published:
        return _from_hub(name, source.weights), name, {}
    if source.checkpoint is not None:  # its own name is none of timm's
        name = source.architecture
    state = read_state(source.weights)
    classes = source.config["num_classes"] if source.config else class_count(state, name)
    options: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    if source.checkpoint is not None:
        options["pretrained_cfg"] = mmpretrain.pretrained_cfg(source.checkpoint)
    model: nn.Module = timm.create_model(name, pretrained=False, **options)
    fit(model, state, source)
    return model, name, options


def _from_hub(name: str, file: Path) -> nn.Module:
    """timm's own loading of its published weights, which knows the files' older parameter names."""
    import timm

    try:
        model: nn.Module = timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"file": str(file)})
        return model
    except Exception as error:  # zip, pickle, safetensors and torch raise many types; all mean an unusable file
        first = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
        raise InputError(
            f"the cached weights of {name!r} do not load: {first}; delete them from the Hugging Face cache, so that "
            "they are fetched again, or give --weights FILE"
        ) from error


def _labels(source: ModelSource, model: nn.Module, classes: int) -> tuple[str, ...]:
    if source.labels is not None:
        if len(source.labels) != classes:
            raise InputError(
                f"the labels file has {len(source.labels)} labels but the model has {classes} classes; "
                "give one line for each class, in the order of the classifier's outputs"
            )
        return source.labels
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
