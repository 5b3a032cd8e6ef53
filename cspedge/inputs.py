"""What goes into every artifact, a stored step each: the model, the images, the reference's answers, the encodings.

Each is taken from the store where its key is there, else built and stored. What is heavy (the model, its graph, the
encodings) is passed on as a function that loads it, so that a run in which everything is stored never imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from cspedge import api, objects, stages
from cspedge.config import Recipe, known_placements
from cspedge.errors import InputError
from cspedge.models import source as sources
from cspedge.options import RunOptions, Ui
from cspedge.stages import CODE, StageRow
from cspedge.store import StageResult, Store
from cspedge.types import Head, ImageSet

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import fx

    from cspedge.data.corrupt import Corruption
    from cspedge.data.images import ImageList
    from cspedge.models.reference import Reference, ReferenceInfo
    from cspedge.quantize.placement import QuantizedModel
    from cspedge.store import StoredObject


@dataclass
class Ledger:
    """Which stages ran and which keys they used, in order."""

    store: Store
    ui: Ui
    name: str
    rows: list[StageRow] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    def stage(
        self, task: str, name: str, inputs: Mapping[str, object], build: Callable[[Path], Mapping[str, object]]
    ) -> StoredObject:
        key = self.store.key(name, CODE[name], inputs)
        if key not in self.keys:
            self.keys.append(key)

        def named_build(folder: Path) -> Mapping[str, object]:
            self.store.ref(self.name, self.keys)  # before it is built, so that a gc at the same moment spares it
            self.ui.progress(task)(0, 0)
            return build(folder)

        result: StageResult = self.store.stage(name, CODE[name], inputs, named_build)
        self.rows.append(StageRow(name=task, seconds=round(result.seconds, 3), cached=result.cached))
        self.ui.finished(task, result.seconds, result.cached)
        return result.object


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """The reference's stored description, and ways to get what is heavy only when a stage must really run."""

    stored: StoredObject
    info: ReferenceInfo
    reference: Callable[[], Reference]
    graph: Callable[[], fx.GraphModule]


def load_model(source: sources.ModelSource, options: RunOptions, ledger: Ledger) -> Loaded:
    from cspedge.models.reference import load

    @cache
    def reference() -> Reference:
        return load(source, head=options.head, img_size=options.img_size)

    @cache
    def graph() -> fx.GraphModule:
        from cspedge.quantize.graph import prepare
        from cspedge.threads import torch_threads

        with torch_threads(1):
            info = reference().info
            return prepare(reference().module, info.preprocess.input_size, [o.name for o in info.outputs])

    stored = ledger.stage(
        "reference",
        "reference",
        stages.reference_inputs(source, options.head, options.img_size),
        lambda folder: objects.write_reference(reference().info, folder),
    )
    return Loaded(stored=stored, info=objects.read_reference(stored), reference=reference, graph=graph)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Calibration images as stored; overlap: how many (by content) validation holds too, where that was allowed."""

    stored: StoredObject
    images: ImageSet
    notes: tuple[str, ...]
    overlap: int


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Validation images as stored, and the reference's logits or embeddings on them, float32 [n, d].

    vectors: None for feature maps, which are compared as they come; device: where the reference runs.
    """

    stored: StoredObject
    images: ImageSet
    notes: tuple[str, ...]
    vectors: NDArray[np.float32] | None
    device: str


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """Encodings and integer weights as stored; `model` puts them together with the graph."""

    stored: StoredObject
    model: Callable[[], QuantizedModel]


def load_images(
    task: str,
    images: ImageList,
    indices: tuple[int, ...],
    labels: NDArray[np.int64] | None,
    options: RunOptions,
    loaded: Loaded,
    ledger: Ledger,
    corruption: Corruption | None = None,
) -> tuple[StoredObject, ImageSet, tuple[str, ...]]:
    """corruption: of every image; then remarks are left out, because the images were noted when they were loaded."""

    def build(folder: Path) -> Mapping[str, object]:
        from cspedge.data.corrupt import corrupter
        from cspedge.data.images import load

        remarks: list[tuple[str, str]] = []
        change = None if corruption is None else corrupter(corruption, loaded.info.preprocess)
        found = load(
            images,
            indices,
            loaded.info.preprocess,
            labels=labels,
            max_unreadable=options.max_unreadable,
            progress=ledger.ui.progress(task),
            on_note=lambda name, note: remarks.append((name, note)),
            change=change,
        )
        return objects.write_images(found, remarks, folder)

    chosen_labels = None if labels is None else [int(labels[i]) for i in indices]
    stored = ledger.stage(
        task,
        "images",
        stages.images_inputs(
            images, indices, loaded.info.preprocess, options.max_unreadable, chosen_labels, corruption
        ),
        build,
    )
    found, remarks = objects.read_images(stored)
    if corruption is not None:
        return stored, found, ()
    notes = []
    if found.skipped:
        first = ", ".join(f"{s.name} ({s.reason})" for s in found.skipped[:5])
        notes.append(
            f"{task}: {len(found.skipped)} of {len(indices)} images could not be read and were left out: {first}"
        )
    if remarks:
        first = ", ".join(f"{name} ({note})" for name, note in remarks[:5])
        notes.append(f"{task}: {len(remarks)} images lose depth as in timm's own pipeline: {first}")
    for note in notes:
        ledger.ui.note(note)
    return stored, found, tuple(notes)


def find_labels(listed: ImageList, info: ReferenceInfo) -> NDArray[np.int64]:
    """int64 [n]; InputError where the folders are not the model's classes."""
    from cspedge.data.images import labels_for

    return labels_for(listed, info.labels, num_classes=info.num_classes)


def calibration_images(
    options: RunOptions,
    recipe: Recipe,
    loaded: Loaded,
    validation: ImageList | None,
    ledger: Ledger,
    *,
    count: int | None = None,
    task: str = "calibration images",
    without: Collection[str] = (),
) -> Calibration:
    """count: more images than the recipe's calibration, where a recipe learns from them; all where there are fewer.

    without: digests of images that are for something else.
    """
    from cspedge.data.images import check_disjoint
    from cspedge.data.sampling import sample

    listed = api.list_images(options.calib, "train")
    if without:
        listed = listed.subset([i for i, digest in enumerate(listed.digests) if digest not in without])
    count = options.calib_images or recipe.images.count if count is None else min(count, len(listed))
    indices = sample(listed, count, seed=options.seed, stratified=recipe.images.sampling == "stratified")
    overlap = 0
    if validation is not None:
        overlap = check_disjoint(listed.subset(indices), validation, allow=options.allow_overlap)
    stored, images, notes = load_images(task, listed, indices, None, options, loaded, ledger)
    if overlap:
        notes = (
            *notes,
            f"{task.removesuffix(' images')} and validation share {overlap} images (allowed by --allow-overlap)",
        )
    return Calibration(stored=stored, images=images, notes=notes, overlap=overlap)


def validation_images(
    options: RunOptions, listed: ImageList, labels: NDArray[np.int64] | None, loaded: Loaded, ledger: Ledger
) -> Validation:
    """All images of the validation list, and the reference's answers on them."""
    everything = tuple(range(len(listed)))
    stored, images, notes = load_images("validation images", listed, everything, labels, options, loaded, ledger)
    vectors, device = None, ""
    if loaded.info.head == Head.FEATURES:
        device = _device_name(device_kind())
    else:
        vectors, device = reference_vectors(loaded, stored, images, options.threads, ledger)
    return Validation(stored=stored, images=images, notes=notes, vectors=vectors, device=device)


def quantize(
    calibration: Calibration, more: Calibration | None, recipe: Recipe, loaded: Loaded, threads: int, ledger: Ledger
) -> Quantized:
    """more: the images a recipe learns from, where they are not the calibration's."""
    placements = known_placements()

    def build(folder: Path) -> Mapping[str, object]:
        from cspedge.quantize.quantizer import quantize as run
        from cspedge.threads import torch_threads

        with torch_threads(threads):
            model = run(
                loaded.graph(),
                loaded.info.preprocess.input_size,
                calibration.images.images,
                recipe.quantizer,
                placements,
                more_images=None if more is None else more.images.images,
                progress=ledger.ui.progress("quantize"),
            )
        return objects.write_quantized(model, folder)

    inputs = stages.quantize_inputs(
        loaded.stored.digest,
        [c.stored.digest for c in (calibration, more) if c is not None],
        recipe.quantizer,
        placements,
        threads,
        device_kind() if recipe.learn.epochs else "cpu",
    )
    stored = ledger.stage("quantize", "quantize", inputs, build)

    @cache
    def model() -> QuantizedModel:
        return objects.read_quantized(stored, loaded.graph(), loaded.info.preprocess.input_size)

    return Quantized(stored=stored, model=model)


def reference_vectors(
    loaded: Loaded, stored_images: StoredObject, images: ImageSet, threads: int, ledger: Ledger, under: str = ""
) -> tuple[NDArray[np.float32], str]:
    """The reference's logits or embeddings, float32 [n, d], and the device they were computed on.

    under: what was done to the images, for the stage's name.
    """

    def build(folder: Path) -> Mapping[str, object]:
        bar = ledger.ui.progress(task)
        try:
            found = api.reference_logits(loaded.reference(), images, threads=threads, progress=bar)
        except InputError as error:
            raise InputError(f"{error}; check the weights and that the images suit the model") from error
        objects.write_array("vectors", found, folder)
        return {"device": _device_name(api.reference_device_kind())}

    task = f"reference {loaded.info.outputs[0].name}{under and f', {under}'}"
    inputs = stages.logits_inputs(loaded.stored.digest, stored_images.digest, device_kind(), threads)
    stored = ledger.stage(task, "logits", inputs, build)
    return objects.read_array("vectors", stored), str(stored.meta["device"])


def device_kind() -> str:
    """`cuda` or `cpu`, told without importing torch, so that a finished workspace is read in a second."""
    return "cuda" if Path("/dev/nvidia0").exists() else "cpu"


def _device_name(kind: str) -> str:
    from cspedge.devices.host import describe

    if kind == "cpu":
        return describe().cpu
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else describe().cpu
