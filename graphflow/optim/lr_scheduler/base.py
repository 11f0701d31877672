"""What schedules share.

Schedules are *chainable*: each step computes the new rate from the one in use
(:meth:`LRScheduler.get_lr`), so several may act on one optimiser.  Where there is
one, ``_get_closed_form_lr`` gives the rate at an epoch from the first rate.
"""

from __future__ import annotations

import warnings
from typing import Any

from graphflow.autograd.modes import no_grad
from graphflow.mode import mode
from graphflow.optim.optimizer import Optimizer
from graphflow.tensor import Tensor


def check_optimizer(optimizer: Any) -> Optimizer:
    """``optimizer`` if it is one."""
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")
    return optimizer


def set_option(group: Any, name: str, value: Any) -> None:
    """Set an option of a parameter group; one that is a tensor is written to.

    In a trace the group refuses: epochs are counted when it is traced only.
    """
    held = group[name] if name in group else None
    if isinstance(held, Tensor) and mode.tracer is None:
        with no_grad():
            held.fill_(value)
    else:
        group[name] = value


def _has_stepped(optimizer: Optimizer) -> bool:
    """Whether there was a step; a ``step`` of the user's own need not say so."""
    return optimizer._opt_called or type(optimizer).step is not Optimizer.step


class LRScheduler:
    """Base of schedules: sub-classes define :meth:`get_lr`."""

    _is_initial = False

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self.optimizer = check_optimizer(optimizer)
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                rate = group["lr"]
                group.setdefault("initial_lr", rate.clone() if isinstance(rate, Tensor) else rate)
            elif "initial_lr" not in group:
                raise KeyError(f"resuming a schedule needs 'initial_lr' in parameter group {i}")
        self.base_lrs: list[Any] = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self._initial_step()

    def _initial_step(self) -> None:
        """The step into the first epoch."""
        self._step_count = 0
        self._is_initial = True
        try:
            self.step()
        finally:
            self._is_initial = False

    def rates(self) -> list[Any]:
        """The rate in use of every group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def get_lr(self) -> list[Any]:
        """The rates at ``last_epoch``, from those in use."""
        raise NotImplementedError

    def get_last_lr(self) -> list[Any]:
        """The rates that were set last."""
        return self._last_lr

    def step(self, epoch: Any = None) -> None:
        """Go to the next epoch, or to ``epoch``."""
        if self._step_count == 1 and not _has_stepped(self.optimizer):
            warnings.warn(
                "lr_scheduler.step() is called before optimizer.step(): the first value of the "
                "schedule is skipped. Call optimizer.step() first, then lr_scheduler.step()",
                stacklevel=2,
            )
        self._step_count += 1
        self._go_to(epoch)

    def _go_to(self, epoch: Any) -> None:
        if epoch is None:
            self.last_epoch += 1
            values = self.get_lr()
        else:
            self.last_epoch = epoch
            closed = getattr(self, "_get_closed_form_lr", self.get_lr)
            values = closed()
        for group, value in zip(self.optimizer.param_groups, values, strict=True):
            set_option(group, "lr", value)
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimiser."""
        return {key: value for key, value in self.__dict__.items() if key != "optimizer"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self.__dict__.update(state_dict)


def functions_saved(functions: list[Any]) -> list[dict[str, Any] | None]:
    """What of callables goes into a state: the attributes of objects, nothing of functions."""
    return [None if hasattr(f, "__code__") else dict(f.__dict__) for f in functions]


def restore_functions(functions: list[Any], saved: list[dict[str, Any] | None]) -> None:
    """Give callable objects their attributes back."""
    for function, attributes in zip(functions, saved, strict=True):
        if attributes is not None:
            function.__dict__.update(attributes)
