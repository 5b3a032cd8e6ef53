"""Where a model's weights come from, found (and fetched, if need be) but not loaded: enough for a cache key.

MODEL is a timm name (`lcnet_050.ra2_in1k`), a `local-dir:PATH` in timm's hub layout, an `mmpretrain:NAME` with a
weights file, or nothing: the built-in.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cspedge.digest import sha256_file, sha256_json
from cspedge.errors import InputError, UsageError, unknown
from cspedge.models import hub, mmpretrain

LOCAL = "local-dir:"
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
# `.pth.tar` is what timm's training script writes.
WEIGHT_ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".pth.tar")
CONFIG_KEYS = ("architecture", "num_classes")


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """A model that was named, with the digest of what it names.

    name: what reports call it; architecture: timm's entry point; weights: the file; published: whether it is timm's
    own, from the hub; config: the parsed config.json of a local folder, or None; checkpoint: which of mmpretrain's it
    is, or None; labels: class names that the user gave, or None; digest: of all these files' contents.
    """

    name: str
    architecture: str
    folder: Path | None
    weights: Path
    config: dict[str, Any] | None
    digest: str
    weights_sha256: str
    published: bool = False
    checkpoint: mmpretrain.Checkpoint | None = None
    labels: tuple[str, ...] | None = None


def resolve(model: str | None, weights: str | None = None, labels: str | None = None) -> ModelSource:
    """Finds what `model` names; a timm name's published weights are fetched where the cache lacks them.

    labels: a UTF-8 file with one class name a line, in the order of the classifier's outputs. Raises UsageError for an
    unknown name, InputError for missing or bad files.
    """
    source = _find(model, weights)
    if labels is None:
        return source
    names = _read_labels(labels)
    return replace(source, labels=names, digest=sha256_json({"source": source.digest, "labels": names}))


def check_name(model: str | None) -> None:
    """Raises UsageError for a name that nobody knows; looks at no file and asks no network."""
    if model is None or model.startswith(LOCAL):
        return
    if model.startswith(mmpretrain.PREFIX):
        if model.removeprefix(mmpretrain.PREFIX) not in mmpretrain.CHECKPOINTS:
            raise unknown("model", model, mmpretrain.names())
        return
    _check_timm_name(model)


def _find(model: str | None, weights: str | None) -> ModelSource:
    if model is None:
        from cspedge._builtin import builtin_path

        return _from_folder(builtin_path(), weights)
    if model.startswith(LOCAL):
        return _from_folder(Path(model.removeprefix(LOCAL)).expanduser(), weights)
    if model.startswith(mmpretrain.PREFIX):
        return _from_mmpretrain(model, weights)
    return _from_name(model, weights)


def _weights_file(weights: str) -> Path:
    path = Path(weights).expanduser()
    if not path.is_file():
        raise InputError(f"weights file {weights!r} does not exist; give a .safetensors, .pth or .bin file")
    if not path.name.endswith(WEIGHT_ENDINGS):
        raise InputError(
            f"weights file {weights!r} has the ending {path.suffix!r}; allowed: {', '.join(WEIGHT_ENDINGS)}"
        )
    return path


def _read_labels(file: str) -> tuple[str, ...]:
    try:
        lines = Path(file).expanduser().read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise InputError(
            f"labels file {file!r} cannot be read ({error.strerror or error}); give a text file, one label a line"
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"labels file {file!r} is not UTF-8 text; save it as UTF-8, one label a line") from error
    names = tuple(line.strip() for line in lines)
    if not names:
        raise InputError(f"labels file {file!r} is empty; write one label a line")
    if "" in names:
        raise InputError(f"line {names.index('') + 1} of labels file {file!r} is empty; each class needs its label")
    twice = next((n for n in names if names.count(n) > 1), None)
    if twice is not None:
        first, second = [i + 1 for i, n in enumerate(names) if n == twice][:2]
        raise InputError(
            f"labels file {file!r} has {twice!r} in lines {first} and {second}; each class needs its own label"
        )
    return names


def _from_folder(folder: Path, weights: str | None) -> ModelSource:
    if not folder.is_dir():
        raise InputError(f"model folder {str(folder)!r} does not exist; local-dir: takes a folder in timm's hub layout")
    config_file = folder / "config.json"
    if not config_file.is_file():
        raise InputError(
            f"model folder {str(folder)!r} has no config.json; save it with timm's save_for_hf or `cspedge train`"
        )
    config = _read_config(config_file)
    found = (
        _weights_file(weights) if weights else next((folder / f for f in WEIGHT_FILES if (folder / f).is_file()), None)
    )
    if found is None:
        raise InputError(
            f"model folder {str(folder)!r} has none of {', '.join(WEIGHT_FILES)}; put them there or give --weights"
        )
    digest = sha256_file(found)
    return ModelSource(
        name=folder.resolve().name,
        architecture=str(config["architecture"]),
        folder=folder,
        weights=found,
        config=config,
        digest=sha256_json({"weights": digest, "config": config, "provenance": _digest(folder / "provenance.json")}),
        weights_sha256=digest,
    )


def _digest(file: Path) -> str | None:
    """Of a file that need not be there: what a report says of the training comes from it."""
    return sha256_file(file) if file.is_file() else None


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise InputError(f"{str(path)!r} is not readable JSON ({error}); it should be timm's config.json") from error
    missing = [k for k in CONFIG_KEYS if not isinstance(config, dict) or k not in config]
    if missing:
        raise InputError(f"{str(path)!r} lacks {missing[0]!r}; timm's config.json names {' and '.join(CONFIG_KEYS)}")
    return config  # type: ignore[no-any-return]


def _check_timm_name(model: str) -> None:
    import timm

    architecture = model.partition(".")[0]
    if "/" in model or ":" in model:
        raise UsageError(
            f"unknown model {model!r}; give a timm name (see `cspedge models`), local-dir:PATH or mmpretrain:NAME"
        )
    if not timm.is_model(architecture):
        import difflib

        from cspedge.models.catalog import FIRST_CLASS

        near = difflib.get_close_matches(architecture, timm.list_models(), n=4, cutoff=0.5)
        known = ", ".join(near or FIRST_CLASS)
        raise UsageError(f"unknown model {model!r}; known: {known}; or local-dir:PATH for a folder of your own")
    tags = timm.list_pretrained(f"{architecture}*")
    if "." in model and model not in tags:
        mine = [t for t in tags if t.partition(".")[0] == architecture]
        raise UsageError(f"unknown tag in {model!r}; timm knows {', '.join(mine) or 'no weights'} for {architecture}")


def _from_name(model: str, weights: str | None) -> ModelSource:
    import timm

    _check_timm_name(model)
    architecture = model.partition(".")[0]
    file = _weights_file(weights) if weights else hub.weights_file(model)
    digest = sha256_file(file)
    return ModelSource(
        name=model,
        architecture=architecture,
        folder=None,
        weights=file,
        config=None,
        digest=sha256_json({"weights": digest, "name": model, "timm": timm.__version__}),
        weights_sha256=digest,
        published=weights is None,
    )


def _from_mmpretrain(model: str, weights: str | None) -> ModelSource:
    import timm

    checkpoint = mmpretrain.find(model, weights)
    file = _weights_file(str(weights))
    digest = sha256_file(file)
    return ModelSource(
        name=checkpoint.name,
        architecture=checkpoint.architecture,
        folder=None,
        weights=file,
        config=None,
        digest=sha256_json({"weights": digest, "mmpretrain": asdict(checkpoint), "timm": timm.__version__}),
        weights_sha256=digest,
        checkpoint=checkpoint,
    )
