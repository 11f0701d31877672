"""What a trainer calls on its way."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphflow.training.trainer import Trainer


class Callback:
    """Base of callbacks: every method may be left out.

    One that has ``state_dict`` and ``load_state_dict`` is saved with the run.  On several ranks
    callbacks are called on each of them.
    """

    def on_fit_start(self, trainer: Trainer) -> None:
        """Before the first step, after an earlier run's state was restored."""

    def on_epoch_start(self, trainer: Trainer) -> None:
        """Before the first batch of an epoch, or of the rest of one."""

    def on_step_end(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        """After an update; ``metrics`` are those of its batch."""

    def on_epoch_end(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        """After an epoch and its validation, before the checkpoint is saved."""

    def on_fit_end(self, trainer: Trainer) -> None:
        """After the last epoch."""


class EarlyStopping(Callback):
    """Ends training once ``monitor`` has not improved for ``patience`` epochs in a row.

    ``mode``: ``"min"`` or ``"max"``, whichever is better; an improvement is one by more than
    ``min_delta``.  NaN never is.  By itself: ``if stopping.update(loss): break``.
    """

    def __init__(
        self, monitor: str = "val_loss", patience: int = 3, mode: str = "min",
        min_delta: float = 0.0,
    ) -> None:  # fmt: skip
        if mode not in ("min", "max"):
            raise ValueError(f"mode should be 'min' or 'max', got {mode!r}")
        if patience < 1:
            raise ValueError(f"patience should be at least 1 epoch, got {patience!r}")
        self.monitor, self.patience = monitor, patience
        self.mode, self.min_delta = mode, abs(min_delta)
        self.best = math.inf if mode == "min" else -math.inf
        self.waited = 0

    def update(self, value: float) -> bool:
        """Take note of an epoch's value; whether it is time to stop."""
        gain = self.best - value if self.mode == "min" else value - self.best
        if gain > self.min_delta:
            self.best, self.waited = float(value), 0
        else:
            self.waited += 1
        return self.waited >= self.patience

    def on_fit_start(self, trainer: Trainer) -> None:
        """A run that had stopped stays so, unless ``patience`` is longer now."""
        if self.waited >= self.patience:
            trainer.should_stop = True

    def on_epoch_end(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        """Compare, and stop the trainer."""
        if self.update(trainer.monitored(metrics, self.monitor)):
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        """The best value, and for how many epochs there was none better."""
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.best, self.waited = state_dict["best"], state_dict["waited"]
