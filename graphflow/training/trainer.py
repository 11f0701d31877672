"""A light trainer: epochs of a compiled step, and what people do between them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from operator import length_hint
from pathlib import Path
from typing import Any

from graphflow import distributed
from graphflow.amp.autocast_mode import autocast
from graphflow.api import compile as compiled_form
from graphflow.autograd.modes import no_grad
from graphflow.errors import GraphFlowError
from graphflow.functions.shaping import cat
from graphflow.nn.module import Module
from graphflow.nn.parallel import DistributedDataParallel
from graphflow.nn.utils import clip_grad_norm_
from graphflow.optim.lr_scheduler import ReduceLROnPlateau
from graphflow.optim.optimizer import Optimizer
from graphflow.tensor import Tensor
from graphflow.training.batches import ResumableLoader, shared_out
from graphflow.training.callbacks import Callback
from graphflow.training.checkpoints import Checkpoint, CheckpointManager
from graphflow.training.ranks import place
from graphflow.training.record import Means, Record
from graphflow.utils.data import DataLoader
from graphflow.utils.progress import Progress

VALIDATION, TEST = "val_", "test_"


class Trainer:
    """Trains ``model`` by ``optimizer``; every step is one compiled program.

    ``loss(output, target)`` is made small; ``metrics``: functions of the same two by name, means
    of which are reported beside it.  Where a batch is something else than a pair of input and
    target, override :meth:`compute`.

    ``scheduler`` steps once an epoch, or with ``schedule="step"`` once an update; one that waits
    for a plateau is given ``monitor``.  ``clip_norm``: the largest norm of the gradients together.
    ``accumulate``: an update follows the mean gradient of so many batches (of those that are left,
    at the end of an epoch), as if they were one.
    ``precision``: the dtype of :class:`autocast`; ``scaler``: a ``GradScaler``.  ``compiled=False``
    runs eagerly, with the same numbers.

    ``folder``: where checkpoints go, one an epoch (and one every ``save_every`` updates): the
    newest ``keep`` and the best by ``monitor`` (``mode``: ``"min"`` or ``"max"``) stay.
    ``callbacks``: see :class:`Callback`.  ``loggers``: anything with ``log(metrics, step)``, or a
    ``SummaryWriter``; they get the metrics of every epoch (and of every ``log_every``-th update).
    ``progress``: show a bar an epoch.

    Started by ``graphflow launch`` it trains on all ranks: gradients are averaged, loaders are
    shared out, metrics are those of all ranks, and rank 0 does the talking.
    """

    def __init__(
        self, model: Module, optimizer: Optimizer, loss: Callable[..., Tensor] | None = None, *,
        metrics: Mapping[str, Callable[..., Tensor]] | None = None, scheduler: Any = None,
        schedule: str = "epoch", accumulate: int = 1, clip_norm: float | None = None,
        precision: Any = None, scaler: Any = None, compiled: bool = True,
        callbacks: Iterable[Callback] = (), loggers: Iterable[Any] = (),
        log_every: int | None = None, progress: bool = True,
        folder: str | os.PathLike[str] | None = None, save_every: int | None = None,
        keep: int = 2, monitor: str = "val_loss", mode: str = "min",
    ) -> None:  # fmt: skip
        if schedule not in ("epoch", "step"):
            raise ValueError(f"schedule should be 'epoch' or 'step', got {schedule!r}")
        if schedule == "step" and isinstance(scheduler, ReduceLROnPlateau):
            raise ValueError("a schedule that waits for a plateau steps once an epoch")
        if accumulate < 1:
            raise ValueError(f"accumulate should be at least 1 batch, got {accumulate!r}")
        self.model, self.optimizer, self.loss = model, optimizer, loss
        self.metrics = dict(metrics or {})
        self.scheduler, self.schedule, self.accumulate = scheduler, schedule, accumulate
        self.clip_norm, self.precision, self.scaler = clip_norm, precision, scaler
        self.callbacks, self.loggers, self.log_every = list(callbacks), list(loggers), log_every
        self.folder = None if folder is None else Path(folder)
        self.save_every, self.keep, self.monitor, self.mode = save_every, keep, monitor, mode
        self.should_stop = False
        self.record = Record()
        if int(os.environ.get("WORLD_SIZE", "1") or 1) > 1 and not distributed.is_initialized():
            distributed.init_process_group()
        self.rank, self.ranks = place()
        self.progress = progress and self.rank == 0
        self._trained: Module = model
        if self.ranks > 1:
            self._trained = DistributedDataParallel(model, check_finite=scaler is None)
        steps = (self._add_gradients, self._update, self._measure, self._output)
        made = [compiled_form(step) for step in steps] if compiled else list(steps)
        self._run_gradients, self._run_update, self._run_measure, self._run_output = made

    # ---- what a step computes ---------------------------------------------------------------

    def compute(self, model: Module, *batch: Any) -> dict[str, Tensor]:
        """The loss and other metrics of a batch, by name; ``"loss"`` is made small."""
        if self.loss is None or len(batch) != 2:
            raise GraphFlowError(
                f"a batch has {len(batch)} parts and the loss is {self.loss}; pass loss= for "
                "batches of input and target, or override Trainer.compute(model, *batch)"
            )
        output, target = model(batch[0]), batch[1]
        found = {"loss": self.loss(output, target)}
        for name, metric in self.metrics.items():
            found[name] = metric(output.detach(), target)
        return found

    def _precision(self) -> Any:
        if self.precision is None:
            return contextlib.nullcontext()
        return autocast(self._device().type, self.precision)

    def _device(self) -> Any:
        return next(self.model.parameters()).device

    def _add_gradients(self, batches: int, first: bool, *batch: Any) -> dict[str, Tensor]:
        """One batch of those that an update is made of."""
        if first:
            self.optimizer.zero_grad()
        with self._precision():
            found = self.compute(self._trained, *batch)
        loss = found["loss"] if batches == 1 else found["loss"] / batches
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()
        return {name: value.detach() for name, value in found.items()}

    def _update(self, batches: int, *batch: Any) -> dict[str, Tensor]:
        """The last of them, and the update."""
        found = self._add_gradients(batches, batches == 1, *batch)
        if self.clip_norm is not None:
            if self.scaler is not None:
                self.scaler.unscale_(self.optimizer)
            clip_grad_norm_(self.model.parameters(), self.clip_norm)
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        return found

    def _measure(self, *batch: Any) -> dict[str, Tensor]:
        with no_grad(), self._precision():
            return self.compute(self.model, *batch)

    def _output(self, given: Any) -> Any:
        with no_grad(), self._precision():
            return self.model(given)

    # ---- training ---------------------------------------------------------------------------

    def fit(
        self, train: DataLoader[Any], validation: DataLoader[Any] | None = None, *,
        epochs: int = 10, resume: bool = True,
    ) -> list[dict[str, float]]:  # fmt: skip
        """Train until ``epochs`` are done or a callback stops it; the metrics of every epoch.

        With ``resume`` a run goes on from the newest checkpoint in ``folder``, if there is one, in
        the middle of an epoch if need be.  Its metrics are among the result.
        """
        batches = ResumableLoader(shared_out(train, padded=True))
        self.should_stop = False
        with contextlib.ExitStack() as stack:
            manager = None
            if self.folder is not None:
                manager = stack.enter_context(self._checkpoints(batches))
                if resume:
                    manager.restore()
            self._tell("on_fit_start")
            while batches.epoch < epochs and not self.should_stop:
                self._epoch(batches, validation, epochs, manager)
            self._tell("on_fit_end")
        return self.record.history

    def _checkpoints(self, batches: ResumableLoader) -> CheckpointManager:
        parts = {
            "model": self.model, "optimizer": self.optimizer, "scheduler": self.scheduler,
            "scaler": self.scaler, "data": batches, "record": self.record,
        }  # fmt: skip
        for number, callback in enumerate(self.callbacks):
            if hasattr(callback, "state_dict"):
                parts[f"callbacks.{number}"] = callback
        held = {name: part for name, part in parts.items() if part is not None}
        return self._manager(held)

    def _manager(self, parts: Mapping[str, Any]) -> CheckpointManager:
        assert self.folder is not None
        options: dict[str, Any] = {"keep": self.keep, "best": self.monitor, "mode": self.mode}
        return CheckpointManager(self.folder, parts, **options)

    def _epoch(
        self, batches: ResumableLoader, validation: DataLoader[Any] | None, epochs: int,
        manager: CheckpointManager | None,
    ) -> None:  # fmt: skip
        self._tell("on_epoch_start")
        number = batches.epoch
        self._train(batches, f"epoch {number + 1}/{epochs}", manager)
        if batches.epoch == number:
            return  # stopped in the middle
        metrics = self.record.means.over_ranks()
        self.record.means = Means()
        if validation is not None:
            metrics.update(self._evaluate(validation, VALIDATION))
        metrics["lr"] = float(self.optimizer.param_groups[0]["lr"])
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(self.monitored(metrics, self.monitor))
        elif self.scheduler is not None and self.schedule == "epoch":
            self.scheduler.step()
        self.record.history.append(metrics)
        self._log(metrics)
        self._tell("on_epoch_end", metrics)
        if manager is not None:
            manager.save(self.record.step, metrics)

    def _train(
        self, batches: ResumableLoader, label: str, manager: CheckpointManager | None
    ) -> None:
        """The batches of an epoch, or of what is left of it."""
        self.model.train()
        record, length = self.record, length_hint(batches, -1)
        bar: Any = batches
        if self.progress:
            bar = Progress(batches, label, begun=batches.batch)
        left = iter(bar)
        while group := list(islice(left, self.accumulate)):
            if self.should_stop:
                break
            found = self._update_by(group)
            record.step += 1
            if self.scheduler is not None and self.schedule == "step":
                self.scheduler.step()
            if self.progress:
                bar.note = "  ".join(f"{n} {v:.4f}" for n, v in record.means.values().items())
            if self.log_every and record.step % self.log_every == 0:
                self._log({f"batch_{name}": value for name, value in found.items()})
            self._tell("on_step_end", found)
            last = batches.batch in (0, length)  # the epoch's own checkpoint comes next
            if manager is not None and self.save_every and not last:
                if record.step % self.save_every == 0:
                    manager.save(record.step)

    def _update_by(self, group: Sequence[Any]) -> dict[str, float]:
        """Update by the mean gradient of some batches; the metrics of the last."""
        count = len(group)
        with self._gradients_stay():
            for number, batch in enumerate(group[:-1]):
                self._numbers(partial(self._run_gradients, count, number == 0), batch)
        return self._numbers(partial(self._run_update, count), group[-1])

    def _gradients_stay(self) -> contextlib.AbstractContextManager[None]:
        """Where ranks do not meet yet."""
        if self.accumulate > 1 and isinstance(self._trained, DistributedDataParallel):
            return self._trained.no_sync()
        return contextlib.nullcontext()

    def _numbers(self, run: Any, batch: Any, means: Means | None = None) -> dict[str, float]:
        """Run a batch; its metrics, which are added to the means."""
        parts = list(batch) if isinstance(batch, (list, tuple)) else [batch]
        device = self._device()
        if device.type != "cpu":
            parts = [part.to(device) if isinstance(part, Tensor) else part for part in parts]
        found = {name: float(value) for name, value in run(*parts).items()}
        sizes = [len(part) for part in parts if isinstance(part, Tensor) and part.ndim]
        (means or self.record.means).add(found, sizes[0] if sizes else 1)
        return found

    def _tell(self, event: str, *arguments: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(self, *arguments)

    def _log(self, metrics: Mapping[str, float]) -> None:
        for logger in self.loggers if self.rank == 0 else ():
            if hasattr(logger, "log"):
                logger.log(metrics, self.record.step)
            else:
                for name, value in metrics.items():
                    logger.add_scalar(name, value, self.record.step)

    def monitored(self, metrics: Mapping[str, float], name: str) -> float:
        """One of the metrics; an error says which there are."""
        if name not in metrics:
            raise GraphFlowError(f"no metric {name!r}; there are {', '.join(metrics)}")
        return metrics[name]

    # ---- evaluation -------------------------------------------------------------------------

    def validate(self, loader: DataLoader[Any]) -> dict[str, float]:
        """Loss and metrics over a loader, as ``val_loss`` …; the model is in evaluation mode."""
        return self._evaluate(loader, VALIDATION)

    def test(self, loader: DataLoader[Any]) -> dict[str, float]:
        """Loss and metrics over a loader, as ``test_loss`` …"""
        return self._evaluate(loader, TEST)

    def _evaluate(self, loader: DataLoader[Any], prefix: str) -> dict[str, float]:
        self.model.eval()
        means = Means()
        for batch in shared_out(loader, padded=False):
            self._numbers(self._run_measure, batch, means)
        return {prefix + name: value for name, value in means.over_ranks().items()}

    def predict(self, loader: Iterable[Any]) -> Tensor:
        """The model's outputs for the first part of every batch, one after another.

        On several ranks each computes all of them.
        """
        self.model.eval()
        outputs: list[Tensor] = []
        run: Any = self._run_output
        for batch in loader:
            given = batch[0] if isinstance(batch, (list, tuple)) else batch
            outputs.append(run(given.to(self._device())))
        return cat(outputs)

    def load_best(self) -> Checkpoint:
        """Give the model the parameters of the best checkpoint in ``folder``; which it is."""
        if self.folder is None:
            raise GraphFlowError("there are no checkpoints without folder=")
        with self._manager({"model": self.model}) as manager:
            best = manager.best()
            if best is None:
                raise GraphFlowError(f"{self.folder} has no checkpoint with {self.monitor!r}")
            manager.restore(best.step, only=["model"])
        return best
