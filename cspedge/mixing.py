"""Which tensors each int8 target keeps in float: the tuning images, and the accuracy loop as a stored stage."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cspedge import api, objects, stages
from cspedge.backends import get_backend
from cspedge.config import Recipe, Target
from cspedge.digest import sha256_json
from cspedge.errors import InputError
from cspedge.inputs import Calibration, Ledger, Loaded, Quantized, find_labels, load_images
from cspedge.options import RunOptions, Ui
from cspedge.types import Head, ImageSet, Kept

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cspedge.data.images import ImageList
    from cspedge.quantize.explain import Explanation
    from cspedge.store import StoredObject

FEWEST = 32


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """Images that decide what stays in float: from the calibration folder, used by neither calibration nor validation.

    images.labels: int64 [n] where the folder's classes are the model's, else None.
    """

    stored: StoredObject
    images: ImageSet
    notes: tuple[str, ...]


def tuning_images(
    options: RunOptions,
    recipe: Recipe,
    loaded: Loaded,
    calibration: Calibration,
    validation: ImageList | None,
    ledger: Ledger,
) -> Tuning | str:
    """Draws the tuning images by their content's digest; fewer than the recipe asks for where the folder has no more.

    A sentence where less than 32 are left: what would be tuned on them would be chance, so all stays in int8.
    """
    from cspedge.data.sampling import sample

    assert recipe.mixed is not None
    listed = api.list_images(options.calib, "train")
    taken = {*calibration.images.digests, *_skipped(calibration, listed)}
    if validation is not None:
        taken |= set(validation.digests)
    first = dict(zip(reversed(listed.digests), reversed(range(len(listed))), strict=True))
    rest = listed.subset(sorted(index for digest, index in first.items() if digest not in taken))
    if len(rest) < FEWEST:
        reason = (
            f"nothing is kept in float: that takes {FEWEST} images which calibration does not use, and of "
            f"{listed.source!r} {len(rest)} are left; add images or calibrate with fewer (--calib-images)"
        )
        ledger.ui.note(reason)
        return reason
    count = min(recipe.mixed.images, len(rest))
    stratified = recipe.images.sampling == "stratified"
    indices = sample(rest, count, seed=options.seed, stratified=stratified)
    stored, images, notes = load_images("tuning images", rest, indices, _labels(rest, loaded), options, loaded, ledger)
    if count < recipe.mixed.images:
        notes = (*notes, f"the accuracy loop tunes on {count} images, all that are left of {listed.source!r}")
        ledger.ui.note(notes[-1])
    return Tuning(stored=stored, images=images, notes=notes)


def _skipped(images: Calibration, listed: ImageList) -> list[str]:
    """Digests of images that were drawn and could not be read: they would not be read here either."""
    names = {skipped.name for skipped in images.images.skipped}
    return [digest for name, digest in zip(listed.names, listed.digests, strict=True) if name in names]


def _labels(listed: ImageList, loaded: Loaded) -> NDArray[np.int64] | None:
    """int64 [n], or None where the folder's classes are not the model's: the loop then bounds the drop."""
    if loaded.info.head != Head.LOGITS:
        return None
    try:
        return find_labels(listed, loaded.info)
    except InputError:
        return None


def keep(
    target: Target,
    recipe: Recipe,
    quantized: Quantized,
    tuning: Tuning,
    loaded: Loaded,
    options: RunOptions,
    ledger: Ledger,
) -> Kept | None:
    """What the target's int8 artifact keeps in float; targets of the same placement and costs share one search.

    Every evaluation is kept in the workspace as it comes: a search that was killed, or gets a larger budget, goes on.
    None where the target's runtime is missing, so that nothing is lowered.
    """
    wanted = recipe.mixed
    assert wanted is not None
    if not get_backend(target.backend).availability().ok:
        return None
    basis = stages.mixed_basis(
        loaded.stored.digest, quantized.stored.digest, tuning.stored.digest, target.placement, options.threads
    )
    task = f"keep in float for {target.name}"

    def build(folder: Path) -> Mapping[str, object]:
        from cspedge.quantize.journal import Journal
        from cspedge.quantize.mixed import search
        from cspedge.quantize.sensitivity import study
        from cspedge.threads import torch_threads

        start, images = time.perf_counter(), tuning.images
        with torch_threads(options.threads):
            found = study(
                quantized.model(),
                target.placement,
                images.images,
                images.labels,
                cost=target.cost,
                max_memory_mb=wanted.max_memory_mb,
            )
            journal = Journal(options.workspace / "journals" / f"{sha256_json(basis)}.json")
            spent = time.perf_counter() - start
            mixed = search(found, wanted, journal, spent=spent, progress=ledger.ui.progress(task))
        return objects.write_mixed(mixed, folder)

    mixed = objects.read_mixed(ledger.stage(task, "mixed", stages.mixed_inputs(basis, target.cost, wanted), build))
    ledger.ui.note(f"{target.name}/int8 {mixed.reason}")
    return Kept(
        tensors=mixed.tensors, layers=mixed.layers, mac_share=mixed.float_macs, met=mixed.met, reason=mixed.reason
    )


def explain(
    target: Target,
    quantized: Quantized,
    images: ImageSet,
    options: RunOptions,
    ui: Ui,
) -> Explanation:
    """Per tensor what was chosen, what it costs in accuracy, and what keeping it in float would cost in time."""
    from cspedge.quantize.explain import explain as rows
    from cspedge.quantize.sensitivity import study
    from cspedge.threads import torch_threads

    task = f"explain {target.name}"
    with torch_threads(options.threads):
        found = study(
            quantized.model(), target.placement, images.images, None, cost=target.cost, progress=ui.progress(task)
        )
        return rows(found, top=16, progress=ui.progress(task))
