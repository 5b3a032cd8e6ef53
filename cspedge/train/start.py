"""The network that training starts from: fresh, or with weights from a file, a checkpoint folder or timm's hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cspedge.errors import InputError, UsageError, unknown
from cspedge.models.input_size import check
from cspedge.models.source import LOCAL, WEIGHT_ENDINGS, resolve
from cspedge.models.state import misfits, read_state, refuse_non_finite
from cspedge.train.recipe import Recipe

if TYPE_CHECKING:
    import torch

PRETRAINED = "pretrained"


@dataclass(frozen=True, kw_only=True)
class Start:
    """What training starts from.

    net: a timm model on the CPU whose `pretrained_cfg` has the mean and std to train with; name, sha256: of the
    weights, None for fresh ones; fresh: the tensors that the weights did not give.
    """

    net: Any
    name: str | None = None
    sha256: str | None = None
    fresh: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Weights:
    name: str
    state: dict[str, torch.Tensor]
    sha256: str
    labels: tuple[str, ...] = ()
    cfg: dict[str, Any] | None = None
    architecture: str | None = None


def create(model: str, recipe: Recipe, labels: tuple[str, ...], weights: str | None = None) -> Start:
    """A timm architecture for these classes, with fresh weights or those of `weights`.

    weights: a .safetensors, .pth, .pt or .bin file, `local-dir:PATH`, a timm name with its tag, or `pretrained` (those
    of `model`). The classifier starts fresh where the classes differ, in number or in name; everything else must fit.
    A folder's or a tag's mean and std are kept. Raises UsageError for unknown names, InputError for sizes that the
    network cannot take and for weights that cannot be read or do not fit (what does not is listed).
    """
    net = _network(model, recipe, len(labels))
    if weights is None:
        start = Start(net=net)
    else:
        found = _find(weights, model)
        start = Start(net=net, name=found.name, sha256=found.sha256, fresh=_fill(net, found, labels))
    check(net.eval(), model, (3, recipe.img_size, recipe.img_size))
    return start


def _network(model: str, recipe: Recipe, num_classes: int) -> Any:
    import difflib

    import timm

    if not timm.is_model(model):
        close = difflib.get_close_matches(model.split(".")[0], timm.list_models(), n=5, cutoff=0.4)
        raise unknown("architecture", model, close or timm.list_models("lcnet*"))
    fixed = timm.get_pretrained_cfg(model)
    options: dict[str, Any] = {"img_size": recipe.img_size} if fixed is not None and fixed.fixed_input_size else {}
    options |= {key: getattr(recipe, key) for key in ("drop_rate", "drop_path_rate") if getattr(recipe, key)}
    try:
        return timm.create_model(model, pretrained=False, num_classes=num_classes, in_chans=3, **options)
    except (TypeError, ValueError, AssertionError) as error:
        given = ", ".join(f"{key} {value}" for key, value in options.items()) or "no options"
        raise UsageError(f"{model!r} cannot be built with {given}: {error}; set what it lacks to 0") from error


def _find(weights: str, model: str) -> _Weights:
    import timm

    name = model if weights == PRETRAINED else weights
    path = Path(weights).expanduser()
    if (
        weights != PRETRAINED
        and not weights.startswith(LOCAL)
        and (path.name.endswith(WEIGHT_ENDINGS) or path.is_file())
    ):
        source = resolve(model, weights)  # says what is wrong with the path or its ending
        return _Weights(name=source.weights.name, state=read_state(source.weights), sha256=source.weights_sha256)
    source = resolve(name)
    config = source.config or {"pretrained_cfg": timm.get_pretrained_cfg(name).to_dict()}
    return _Weights(
        name=source.name,
        state=read_state(source.weights),
        sha256=source.weights_sha256,
        labels=tuple(map(str, config.get("label_names") or ())),
        cfg=config.get("pretrained_cfg"),
        architecture=source.architecture,
    )


def _fill(net: Any, weights: _Weights, labels: tuple[str, ...]) -> tuple[str, ...]:
    """Loads the weights into `net`; the names of the classifier's tensors where they start fresh."""

    architecture = str(net.pretrained_cfg["architecture"])
    if weights.architecture not in (None, architecture):
        raise InputError(
            f"the weights {weights.name!r} are of {weights.architecture}, and {architecture} is trained; "
            f"give weights of {architecture}, or train {weights.architecture}"
        )
    wanted = net.state_dict()
    heads = net.pretrained_cfg.get("classifier") or ()
    heads = (heads,) if isinstance(heads, str) else tuple(heads)
    head = [key for key in wanted if key.rpartition(".")[0] in heads]
    other = any(key in weights.state and weights.state[key].shape != wanted[key].shape for key in head)
    renamed = bool(weights.labels) and weights.labels != labels
    fresh = tuple(head) if other or renamed or not any(key in weights.state for key in head) else ()
    state = {key: value for key, value in weights.state.items() if key not in fresh}
    problems = misfits(wanted, state, optional=fresh)
    if problems:
        more = f" and {len(problems) - 6} more" if len(problems) > 6 else ""
        raise InputError(
            f"the weights {weights.name!r} do not fit {architecture}: {'; '.join(problems[:6])}{more}; "
            "only the classifier may differ"
        )
    refuse_non_finite(state, weights.name)
    net.load_state_dict({key: value.to(wanted[key].dtype) for key, value in state.items()}, strict=False)
    if weights.cfg is not None:
        net.pretrained_cfg.update({key: weights.cfg[key] for key in ("mean", "std") if key in weights.cfg})
    return fresh
