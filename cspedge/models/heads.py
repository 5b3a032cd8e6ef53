"""What a classifier gives: its logits, its feature maps (timm's `features_only`), or its embedding (pre-logits)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cspedge.errors import InputError, UsageError
from cspedge.types import Head, Output

if TYPE_CHECKING:
    import torch
    from torch import nn

Compute = Callable[[Any, Any], Any]


def with_head(
    model: nn.Module, head: Head, build: Callable[[dict[str, Any]], nn.Module], size: tuple[int, int, int]
) -> tuple[nn.Module, Compute, tuple[Output, ...]]:
    """The network behind `head`, how it is called on a batch, and its outputs at input `size` (channels, H, W).

    model: the whole classifier with its weights, in eval mode; build: makes the same architecture by timm with further
    arguments. Raises UsageError where the architecture does not offer the head, InputError where its feature
    extractor would not carry the classifier's weights.
    """
    if head is Head.LOGITS:
        return model, _call, _outputs(model, _call, size, ("logits",))
    if head is Head.EMBEDDING:
        return model, _embed, _outputs(model, _embed, size, ("embedding",))
    network = _features(model, build)
    strides = [int(v) for v in network.feature_info.reduction()]
    names = _level_names(strides, [int(v) for v in network.feature_info.channels()])
    return network, _levels, _outputs(network, _levels, size, names, strides)


def params_of(network: nn.Module, head: Head) -> int:
    """Parameters that the head uses: an embedding needs no classifier."""
    count = sum(p.numel() for p in network.parameters())
    if head is Head.EMBEDDING:
        model: Any = network
        classifier = model.get_classifier()
        parts = classifier if isinstance(classifier, tuple) else (classifier,)
        count -= sum(p.numel() for part in parts for p in part.parameters())
    return count


def _call(model: Any, images: torch.Tensor) -> torch.Tensor:
    return model(images)  # type: ignore[no-any-return]


def _embed(model: Any, images: torch.Tensor) -> torch.Tensor:
    vectors = model.forward_head(model.forward_features(images), pre_logits=True)
    return vectors if vectors.dim() == 2 else vectors.flatten(1)  # type: ignore[no-any-return]


def _levels(model: Any, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return tuple(model(images))


def _features(model: nn.Module, build: Callable[[dict[str, Any]], nn.Module]) -> Any:
    """timm's feature extractor with the classifier's weights, every one of them checked."""
    import torch

    state = model.state_dict()
    builder = logging.getLogger("timm")
    level = builder.level
    try:
        builder.setLevel(logging.ERROR)  # it warns of the classifier's weights, which an extractor has no place for
        network = build({"features_only": True, "pretrained": True, "pretrained_cfg_overlay": {"state_dict": state}})
    except (RuntimeError, AssertionError, AttributeError, TypeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UsageError(
            f"{type(model).__name__} has no feature maps in timm ({reason}); use --head logits or embedding"
        ) from error
    finally:
        builder.setLevel(level)
    # timm either takes a model apart and joins the names with underscores, or wraps it as `model`
    known = {name.replace(".", "_"): tensor for name, tensor in state.items()}
    for name, tensor in network.state_dict().items():
        key = name.replace(".", "_")
        source = known.get(key, known.get(key.removeprefix("model_")))
        if source is None or not torch.equal(source, tensor):
            raise InputError(
                f"timm's feature extractor of {type(model).__name__} does not take over {name!r} from the classifier; "
                "use --head logits or embedding"
            )
    return network.eval()


def _level_names(strides: list[int], channels: list[int]) -> tuple[str, ...]:
    """`features_s8_c64`: unique, and an identifier in every runtime."""
    names: list[str] = []
    for stride, count in zip(strides, channels, strict=True):
        name, number = f"features_s{stride}_c{count}", 1
        while name in names:
            number += 1
            name = f"features_s{stride}_c{count}_{number}"
        names.append(name)
    return tuple(names)


def _outputs(
    network: nn.Module,
    compute: Compute,
    size: tuple[int, int, int],
    names: tuple[str, ...],
    strides: Sequence[int | None] = (None,),
) -> tuple[Output, ...]:
    """Shapes as the network itself gives them for one image."""
    import torch

    try:
        with torch.no_grad():
            found = compute(network, torch.zeros(1, *size))
    except (AttributeError, TypeError) as error:
        raise UsageError(
            f"{type(network).__name__} does not offer {names[0]!r} as timm's models do ({error}); use --head logits"
        ) from error
    tensors = found if isinstance(found, tuple) else (found,)
    return tuple(
        Output(name=name, shape=tuple(tensor.shape[1:]), stride=stride)
        for name, tensor, stride in zip(names, tensors, strides, strict=True)
    )


def outputs_from(values: list[Mapping[str, Any]]) -> tuple[Output, ...]:
    """Outputs again from their plain JSON values."""
    return tuple(Output(name=v["name"], shape=tuple(v["shape"]), stride=v["stride"]) for v in values)
