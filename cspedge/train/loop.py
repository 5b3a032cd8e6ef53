"""`cspedge train`: an fp32 reference from images, on timm's own parts, on CUDA where there is one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from cspedge.data.images import labels_for, load
from cspedge.errors import CspedgeError, UsageError
from cspedge.models.preprocess import resolve
from cspedge.threads import torch_threads
from cspedge.train import evaluation
from cspedge.train.batches import Augment, Source
from cspedge.train.cache import RAM_BYTES, Cache, Pixels
from cspedge.train.checkpoint import Run, described, device_kind, device_name, versions, write_model, write_provenance
from cspedge.train.curve import write_curve
from cspedge.train.dataset import TrainData, check_counts, check_images
from cspedge.train.fit import Progress, Trainer
from cspedge.train.recipe import Recipe
from cspedge.train.seeds import seeded
from cspedge.train.start import Start, create
from cspedge.train.work import check_out, publish, read_state, work_folder, write_state
from cspedge.types import ImageSet, Preprocess

if TYPE_CHECKING:
    import torch

# Raised where the trajectory changes: an interrupted training of other code must not go on as if nothing had happened.
TRAJECTORY = 1


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What does not change the weights (`device`, `threads` and `augment` do; they are kept with them).

    workers: loader processes, None: none on a CPU, up to four for CUDA; threads: torch's, None: as they are set (on a
    busy machine one is several times faster than two); device: torch's name, None: CUDA where there is one;
    augment: None: on the device for CUDA, else timm's transforms; cache_bytes: memory that AUTO may take;
    save_every_s: seconds between states within an epoch; eval_every: epochs between looks at top-1, 0 for none.
    """

    workers: int | None = None
    threads: int | None = None
    device: str | None = None
    augment: Augment | None = None
    cache: Cache = Cache.AUTO
    cache_bytes: int = RAM_BYTES
    save_every_s: float = 300.0
    eval_every: int = 0


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """A trained reference on disk and its accuracy on the held-out images, fractions of 1."""

    path: Path
    architecture: str
    device: str
    n_train: int
    n_val: int
    top1: float
    top1_ci95: tuple[float, float]
    top5: float
    macro_top1: float
    images_per_s: float
    wall_s: float
    resumed: int
    weights_sha256: str


def train(
    model: str,
    data: TrainData,
    *,
    recipe: Recipe,
    out: Path,
    weights: str | None = None,
    overwrite: bool = False,
    options: TrainOptions | None = None,
    progress: Callable[[Progress], None] | None = None,
    note: Callable[[str], None] | None = None,
) -> TrainResult:
    """Trains a timm architecture on `data.train` and writes a checkpoint folder in timm's hub layout.

    `out` gets `config.json`, `model.safetensors` (fp32), `provenance.json`, `history.json` and `learning-curve.svg`,
    all or nothing; `local-dir:{out}` loads it. weights: what to start from (`cspedge.train.start.create`), None:
    scratch. The weights kept are the last ones (their average with `ema_decay`): `data.val` chooses nothing, and its
    figures are of the saved file, in fp32. On one machine the same recipe, images and thread count give the same bytes
    on a CPU. Until it is done the training lies in a hidden folder beside `out`; called again after an interruption
    with the same arguments, it goes on and ends in the same bytes. `progress` is called after steps, `note` with
    sentences for the user. Raises UsageError for unknown names, an `out` that exists (unless `overwrite`), a size or a
    batch that cannot be, and an interrupted training of other arguments; InputError for labels, images or weights that
    do not fit; WorkspaceError where `out` cannot be written.
    """
    import torch

    begun, options, say = perf_counter(), options or TrainOptions(), note or (lambda text: None)
    check_out(out, overwrite=overwrite)
    check_counts(data, recipe)
    place = _device(options.device)
    augment = options.augment or (Augment.DEVICE if place.type == "cuda" else Augment.CPU)
    names = data.train.class_names
    with seeded(recipe.seed), torch_threads(options.threads):
        start = create(model, recipe, names, weights)
        if start.fresh:
            say(f"of {start.name!r} everything is taken but {', '.join(start.fresh)}: the classes are others")
        key = {
            "model": model,
            "recipe": recipe.as_dict(),
            "start": start.sha256,
            "train": described(data.train) | {"name": data.name},
            "val": described(data.val),
            "threads": torch.get_num_threads(),
            "device": device_kind(place),
            "augment": augment.value,
            "versions": versions(),
            "trajectory": TRAJECTORY,
        }
        with work_folder(out, key, overwrite=overwrite) as folder:
            job = _Job(data=data, start=start, recipe=recipe, place=place, augment=augment, options=options, say=say)
            return job.run(folder, out, begun, progress)


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One training, checked and ready to run in its work folder."""

    data: TrainData
    start: Start
    recipe: Recipe
    place: torch.device
    augment: Augment
    options: TrainOptions
    say: Callable[[str], None]

    def run(self, folder: Path, out: Path, begun: float, progress: Callable[[Progress], None] | None) -> TrainResult:
        contract = _contract(self.start.net.pretrained_cfg, self.recipe)
        val = self._validation(contract)
        pixels = self._pixels(folder)
        trainer = Trainer(self.start.net.to(self.place), self._source(pixels))
        before = read_state(folder)
        if before is not None:
            trainer.restore(before)
            self.say(f"taking up the interrupted training after step {trainer.step} ({len(trainer.history)} epochs)")
        resumed = 0 if before is None else before["resumed"] + 1
        earlier = 0.0 if before is None else before["wall_s"]

        def wall_s() -> float:
            return earlier + perf_counter() - begun

        trainer.run(
            save=lambda: write_state(folder, trainer.state() | {"resumed": resumed, "wall_s": wall_s()}),
            save_every_s=self.options.save_every_s,
            evaluate=lambda net: evaluation.quick_top1(net, val, contract, self.place),
            eval_every=self.options.eval_every,
            progress=progress,
        )
        result = folder / "result"
        result.mkdir(exist_ok=True)
        weights = write_model(trainer.trained, result, self.data.name, self.data.train.class_names, self.recipe)
        metrics = self._evaluated(result, val, contract)
        done = self.recipe.batch_size * trainer.step
        ran = Run(
            device=device_kind(self.place),
            device_name=device_name(self.place),
            precision=trainer.precision,
            augment=self.augment.value,
            cache=pixels.place.value,
            wall_s=wall_s(),
            images_per_s=done / max(trainer.seconds, 1e-9),
            resumed=resumed,
        )
        write_curve(result, trainer.history)
        write_provenance(result, self.start, self.data, self.recipe, ran, metrics, weights)
        publish(result, out)
        return self._result(out, ran, metrics, weights)

    def _validation(self, contract: Preprocess) -> ImageSet:
        """Before training, so that an unreadable validation image does not cost hours."""
        names = self.data.train.class_names
        labels = labels_for(self.data.val, names, num_classes=len(names))
        return load(self.data.val, None, contract, labels=labels, workers=self._workers() or 1)

    def _pixels(self, folder: Path) -> Pixels:
        threads = self._workers() or 1
        pixels = Pixels(self.data.train, check_images(self.data.train, threads), self.recipe)
        pixels.fill(self.options.cache, folder, workers=threads, ram_bytes=self.options.cache_bytes)
        if self.options.cache is Cache.AUTO and pixels.place is Cache.NONE:
            size = f"{pixels.nbytes / 1e9:.1f} GB"
            self.say(f"decoded images would take {size}, too much for memory and disk; they are decoded in every epoch")
        return pixels

    def _source(self, pixels: Pixels) -> Source:
        names = self.data.train.class_names
        return Source(
            pixels=pixels,
            labels=labels_for(self.data.train, names, num_classes=len(names)),
            recipe=self.recipe,
            cfg=self.start.net.pretrained_cfg,
            workers=self._workers(),
            place=self.place,
            augment=self.augment,
        )

    def _workers(self) -> int:
        from cspedge.devices.host import describe

        if self.options.workers is not None:
            return self.options.workers
        return min(4, describe().cores) if self.place.type == "cuda" else 0

    def _evaluated(self, folder: Path, val: ImageSet, contract: Preprocess) -> dict[str, Any]:
        """Accuracy of the saved files in strict fp32; `val` went through the preprocessing of every later stage."""
        import timm

        net = timm.create_model(f"local-dir:{folder}", pretrained=True).eval().to(self.place)
        if val.labels is None or resolve(net.pretrained_cfg) != contract:
            raise CspedgeError(
                f"the saved configuration asks for {resolve(net.pretrained_cfg)}, trained was {contract}"
            )
        return evaluation.metrics(evaluation.logits(net, val.images, contract, self.place), val.labels)

    def _result(self, out: Path, ran: Run, metrics: dict[str, Any], weights: str) -> TrainResult:
        return TrainResult(
            path=out,
            architecture=str(self.start.net.pretrained_cfg["architecture"]),
            device=ran.device,
            n_train=len(self.data.train),
            n_val=metrics["n"],
            top1=metrics["top1"],
            top1_ci95=tuple(metrics["top1_ci95"]),
            top5=metrics["top5"],
            macro_top1=metrics["macro_top1"],
            images_per_s=round(ran.images_per_s, 1),
            wall_s=round(ran.wall_s, 1),
            resumed=ran.resumed,
            weights_sha256=weights,
        )


def _contract(cfg: Any, recipe: Recipe) -> Preprocess:
    size = (3, recipe.img_size, recipe.img_size)
    chosen = {"interpolation": recipe.interpolation, "crop_pct": recipe.crop_pct, "crop_mode": "center"}
    return resolve({"input_size": size, "mean": cfg["mean"], "std": cfg["std"], **chosen})


def _device(name: str | None) -> torch.device:
    import torch

    cuda = torch.cuda.is_available()
    try:
        place = torch.device(name or ("cuda" if cuda else "cpu"))
    except RuntimeError as error:
        raise UsageError(f"unknown device {name!r}; give cpu, cuda or cuda:N") from error
    missing = place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count()
    if place.type not in {"cpu", "cuda"} or missing:
        raise UsageError(f"the device {name!r} is not here; {'cpu and cuda are' if cuda else 'cpu is'}")
    return place


__all__ = ["Progress", "TrainOptions", "TrainResult", "train"]
