"""The training loop: steps, averages of the weights, and a state from which the same trajectory goes on."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

from cspedge.errors import CspedgeError
from cspedge.train.batches import Source, batches
from cspedge.train.curve import Epoch
from cspedge.train.recipe import Recipe

if TYPE_CHECKING:
    import torch

_LOOK_EVERY = 20  # steps between looks at the loss on CUDA, where each look waits for the device


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a training stands. loss: mean of the epoch so far; eta_s: seconds; top1: at an epoch's end, if taken."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    lr: float
    images_per_s: float
    eta_s: float
    top1: float | None = None


class Trainer:
    """A network in training. `step` is the number of steps done, `history` the epochs done."""

    def __init__(self, net: Any, source: Source) -> None:
        import torch
        from timm.optim import create_optimizer_v2
        from timm.scheduler import create_scheduler_v2
        from timm.utils import ModelEmaV3

        recipe = source.recipe
        self.net, self.source, self.recipe = net, source, recipe
        self.step, self.history, self.seconds, self._total, self._epoch_s = 0, list[Epoch](), 0.0, 0.0, 0.0
        self.mix, self.loss_of = _loss(recipe, net.num_classes)
        options = {} if recipe.opt_eps is None else {"eps": recipe.opt_eps}
        self.optimizer = create_optimizer_v2(
            net,
            opt=recipe.optimizer,
            lr=recipe.lr,
            weight_decay=recipe.weight_decay,
            momentum=recipe.momentum,
            **options,
        )
        # A function of the step alone (no plateau, no noise), so that a state needs nothing of it.
        self.scheduler, _ = create_scheduler_v2(
            self.optimizer,
            sched=recipe.schedule,
            num_epochs=recipe.epochs,
            decay_epochs=recipe.decay_epochs,
            decay_rate=recipe.decay_rate,
            warmup_epochs=min(recipe.warmup_epochs, recipe.epochs - 1),
            warmup_lr=recipe.lr / 100 if recipe.warmup_lr is None else recipe.warmup_lr,
            step_on_epochs=False,
            updates_per_epoch=source.steps,
        )
        self.average = ModelEmaV3(net, decay=recipe.ema_decay, use_warmup=True) if recipe.ema_decay else None
        self.amp = source.place.type == "cuda" and torch.cuda.is_bf16_supported()
        net.train().to(memory_format=torch.channels_last)

    @property
    def trained(self) -> Any:
        """The average of the weights, or the last ones where `ema_decay` is 0."""
        return self.net if self.average is None else self.average.module

    @property
    def precision(self) -> str:
        return "bf16" if self.amp else "fp32"

    def run(
        self,
        *,
        save: Callable[[], None],
        save_every_s: float,
        evaluate: Callable[[Any], float] | None = None,
        eval_every: int = 0,
        progress: Callable[[Progress], None] | None = None,
    ) -> None:
        """Trains from `step` to the end. `save()` is called after epochs, and `save_every_s` seconds after the last.

        `evaluate(network)` gives the top-1 of every `eval_every`-th epoch (0: none); it decides nothing. Raises
        CspedgeError where the loss is not finite.
        """
        steps, begin = self.source.steps, self.step
        started = self._mark = saved = perf_counter()
        pending: list[torch.Tensor] = []
        look = _LOOK_EVERY if self.source.place.type == "cuda" else 1
        with self._deterministic():
            for inputs, labels in batches(self.source, begin):
                pending.append(self._advance(inputs, labels))
                ends = self.step % steps == 0
                due = perf_counter() - saved > save_every_s
                if not ends and not due and len(pending) < look:
                    continue
                self._look(pending)
                where = self._where(begin, started)
                if ends:
                    where = self._close(where, evaluate if eval_every and where.epoch % eval_every == 0 else None)
                if progress is not None:
                    progress(where)
                if ends or due:
                    save()
                    saved = perf_counter()

    def _advance(self, pixels: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        import torch

        inputs, wanted = self.mix(pixels, labels)
        with torch.autocast(self.source.place.type, dtype=torch.bfloat16, enabled=self.amp):
            loss = self.loss_of(self.net(inputs), wanted)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.step += 1
        self.scheduler.step_update(self.step)
        if self.average is not None:
            self.average.update(self.net, step=self.step)
        found: torch.Tensor = loss.detach()
        return found

    def _look(self, pending: list[torch.Tensor]) -> None:
        """Adds up the losses of the last steps, and the time they took."""
        for at, loss in enumerate(pending, self.step - len(pending) + 1):
            value = float(loss)
            if not math.isfinite(value):
                raise CspedgeError(f"training diverged in step {at} (loss {value}); lower lr (now {self.recipe.lr})")
            self._total += value
        pending.clear()
        now = perf_counter()
        self._epoch_s += now - self._mark
        self.seconds += now - self._mark
        self._mark = now

    def _where(self, begin: int, started: float) -> Progress:
        done = self.step - begin
        pace = (perf_counter() - started) / done
        steps = self.source.steps
        within = (self.step - 1) % steps + 1
        return Progress(
            epoch=(self.step - 1) // steps + 1,
            epochs=self.recipe.epochs,
            step=within,
            steps=steps,
            loss=self._total / within,
            lr=float(self.optimizer.param_groups[0]["lr"]),
            images_per_s=within * self.recipe.batch_size / max(self._epoch_s, 1e-9),
            eta_s=pace * (steps * self.recipe.epochs - self.step),
        )

    def _close(self, where: Progress, evaluate: Callable[[Any], float] | None) -> Progress:
        """Ends an epoch: its line in the history."""
        from dataclasses import replace

        where = replace(where, top1=None if evaluate is None else round(evaluate(self.trained), 6))
        self.history.append(
            Epoch(
                epoch=where.epoch,
                loss=round(where.loss, 6),
                lr=where.lr,
                seconds=round(self._epoch_s, 3),
                images_per_s=round(where.images_per_s, 1),
                top1=where.top1,
            )
        )
        self._total = self._epoch_s = 0.0
        self._mark = perf_counter()  # the evaluation's time is not the training's
        return where

    def _deterministic(self) -> AbstractContextManager[None]:
        """cuDNN may choose another algorithm in every run; resuming needs the same one."""
        import torch

        if self.source.place.type != "cuda":
            return nullcontext()
        found: AbstractContextManager[None] = torch.backends.cudnn.flags(enabled=True, deterministic=True)
        return found

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on, and the history: tensors and plain values."""
        return {
            "step": self.step,
            "net": self.net.state_dict(),
            "average": None if self.average is None else self.average.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generators": _generators(),
            "history": [asdict(epoch) for epoch in self.history],
            "total": self._total,
            "epoch_s": self._epoch_s,
            "seconds": self.seconds,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Takes up a `state`, generators included."""
        self.net.load_state_dict(state["net"])
        if self.average is not None:
            self.average.module.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]
        self.history = [Epoch(**epoch) for epoch in state["history"]]
        self._total, self._epoch_s = state["total"], state["epoch_s"]
        _set_generators(state["generators"])


def _generators() -> dict[str, Any]:
    import numpy as np
    import torch

    kind, words, position, has_gauss, gauss = np.random.get_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    numpy = [kind, torch.from_numpy(np.asarray(words).astype(np.int64)), int(position), int(has_gauss), float(gauss)]
    return {"python": random.getstate(), "numpy": numpy, "torch": torch.get_rng_state(), "cuda": cuda}


def _set_generators(state: dict[str, Any]) -> None:
    import numpy as np
    import torch

    kind, words, position, has_gauss, gauss = state["numpy"]
    random.setstate(state["python"])
    np.random.set_state((kind, words.numpy().astype(np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])


def _loss(recipe: Recipe, num_classes: int) -> tuple[Callable[[Any, Any], tuple[Any, Any]], Callable[[Any, Any], Any]]:
    import torch
    from timm.data import Mixup
    from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy

    if recipe.mixup:
        mix = Mixup(mixup_alpha=recipe.mixup, label_smoothing=recipe.label_smoothing, num_classes=num_classes)
        return mix, SoftTargetCrossEntropy()
    if recipe.label_smoothing:
        return _unmixed, LabelSmoothingCrossEntropy(recipe.label_smoothing)
    return _unmixed, torch.nn.CrossEntropyLoss()


def _unmixed(inputs: Any, targets: Any) -> tuple[Any, Any]:
    return inputs, targets
