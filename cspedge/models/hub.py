"""timm's published weights: the file in the hub's cache, or fetched there where there is a network."""

from __future__ import annotations

from pathlib import Path

from cspedge.errors import InputError

# What timm itself looks for, in its order.
FILES = ("model.safetensors", "pytorch_model.bin")
# One attempt. huggingface_hub's own five took 23 seconds a file on a machine without a network (measured, 2.4.0).
TIMEOUT_S = 10.0
_INSTEAD = "give --weights FILE, or local-dir:PATH of a folder with config.json and model.safetensors"


def published(name: str) -> bool:
    """Whether timm publishes weights under this name on the hub."""
    return _place(name) is not None


def cached(name: str) -> Path | None:
    """The weights file of a timm name in the hub's cache, without asking the network."""
    from huggingface_hub import try_to_load_from_cache

    place = _place(name)
    if place is None:
        return None
    repository, revision, files = place
    found = (try_to_load_from_cache(repository, file, revision=revision) for file in files)
    return next((Path(path) for path in found if isinstance(path, str)), None)


def weights_file(name: str) -> Path:
    """The weights file of a timm name: from the cache, else fetched into it.

    Raises InputError where timm publishes none, and where they are neither cached nor to be had.
    """
    place = _place(name)
    if place is None:
        raise InputError(f"timm has the architecture {name!r} but publishes no weights for it; {_INSTEAD}")
    return cached(name) or _fetch(name, *place)


def _place(name: str) -> tuple[str, str | None, tuple[str, ...]] | None:
    """Repository, revision and candidate files."""
    import timm

    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if config is None or not config.hf_hub_id:
        return None
    repository, _, revision = config.hf_hub_id.partition("@")
    return repository, revision or None, (config.hf_hub_filename,) if config.hf_hub_filename else FILES


def _fetch(name: str, repository: str, revision: str | None, files: tuple[str, ...]) -> Path:
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import RemoteEntryNotFoundError

    try:
        for file in files:
            try:
                # Asked first, because the download would try five times before it says that nobody is there.
                get_hf_file_metadata(hf_hub_url(repository, file, revision=revision), timeout=TIMEOUT_S)
            except RemoteEntryNotFoundError:
                continue
            return Path(hf_hub_download(repository, file, revision=revision))
    except Exception as error:  # the hub's, the network's and the file system's errors; all mean: no weights
        raise InputError(
            f"timm publishes weights for {name!r} ({repository} on the Hugging Face hub), but they are not cached here "
            f"and cannot be fetched ({type(error).__name__}); connect to the network once, or {_INSTEAD}"
        ) from error
    raise InputError(f"{repository} on the Hugging Face hub holds none of {', '.join(files)} for {name!r}; {_INSTEAD}")
