"""Schedules made of schedules: one after the other, or all at once."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from graphflow.optim.lr_scheduler.base import LRScheduler, check_optimizer, set_option
from graphflow.optim.optimizer import Optimizer


class _Combined(LRScheduler):
    """Holds schedules of one optimiser."""

    _schedulers: list[Any]

    def _hold(self, optimizer: Optimizer, schedulers: Sequence[Any]) -> None:
        if not schedulers:
            raise ValueError("expected at least one scheduler")
        for i, scheduler in enumerate(schedulers):
            if scheduler.optimizer is not optimizer:
                raise ValueError(f"scheduler {i} belongs to another optimizer")
        self.optimizer, self._schedulers = check_optimizer(optimizer), list(schedulers)

    def state_dict(self) -> dict[str, Any]:
        """The states of all schedules."""
        return {**super().state_dict(), "_schedulers": [s.state_dict() for s in self._schedulers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a saved state."""
        super().load_state_dict({k: v for k, v in state_dict.items() if k != "_schedulers"})
        for scheduler, state in zip(self._schedulers, state_dict["_schedulers"], strict=True):
            scheduler.load_state_dict(state)


class ChainedScheduler(_Combined):
    """Steps several schedules together."""

    def __init__(self, schedulers: Sequence[Any], optimizer: Optimizer | None = None) -> None:
        if not schedulers:
            raise ValueError("expected at least one scheduler")
        self._hold(optimizer or schedulers[0].optimizer, schedulers)
        self._last_lr = self.rates()

    def step(self, epoch: Any = None) -> None:
        """Go to the next epoch of each."""
        for scheduler in self._schedulers:
            scheduler.step()
        self._last_lr = self.rates()


class SequentialLR(_Combined):
    """One schedule after the other; ``milestones[i]`` is the epoch where number i + 1 begins."""

    def __init__(
        self, optimizer: Optimizer, schedulers: list[Any], milestones: list[int],
        last_epoch: int = -1,
    ) -> None:  # fmt: skip
        self._hold(optimizer, schedulers)
        if len(milestones) != len(schedulers) - 1:
            raise ValueError(
                f"{len(schedulers)} schedulers need {len(schedulers) - 1} milestones, "
                f"not {len(milestones)}"
            )
        self._milestones, self.last_epoch = milestones, last_epoch + 1
        # Every schedule made its first step when it was made; only the first one's counts.
        for group in optimizer.param_groups:
            set_option(group, "lr", group["initial_lr"])
        _undo(self)
        first = self._schedulers[bisect_right(milestones, 0)]
        first._initial_step()
        self._last_lr = first.get_last_lr()

    def step(self, epoch: Any = None) -> None:
        """Go to the next epoch of the schedule whose turn it is."""
        self.last_epoch += 1
        turn = bisect_right(self._milestones, self.last_epoch)
        scheduler = self._schedulers[turn]
        if turn > 0 and self._milestones[turn - 1] == self.last_epoch:
            scheduler._go_to(0)
        else:
            scheduler.step()
        self._last_lr = scheduler.get_last_lr()


def _undo(scheduler: Any) -> None:
    """Take back the first step of a schedule, or of all that it is made of."""
    if hasattr(scheduler, "_schedulers"):
        for part in scheduler._schedulers:
            _undo(part)
    else:
        scheduler.last_epoch -= 1
