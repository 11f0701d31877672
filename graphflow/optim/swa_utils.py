"""Averages of weights over training (Izmailov et al. 2018), and their schedule."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from typing import Any

from graphflow.autograd.modes import no_grad
from graphflow.functions.creation import tensor
from graphflow.ir.types import int64
from graphflow.nn.module import Module
from graphflow.nn.modules.batchnorm import _BatchNorm
from graphflow.optim.lr_scheduler.base import LRScheduler
from graphflow.optim.lr_scheduler.cycles import per_group
from graphflow.optim.optimizer import Optimizer
from graphflow.tensor import Tensor

__all__ = ["SWALR", "AveragedModel", "get_ema_avg_fn", "get_swa_avg_fn", "update_bn"]


def get_swa_avg_fn() -> Callable[[Any, Any, Any], Any]:
    """The plain average of all models seen."""
    return lambda average, now, number: average + (now - average) / (number + 1)


def get_ema_avg_fn(decay: float = 0.999) -> Callable[[Any, Any, Any], Any]:
    """An average that forgets at the rate ``decay``."""
    if not 0 <= decay <= 1:
        raise ValueError(f"decay must be in [0, 1], not {decay}")
    return lambda average, now, number: average * decay + now * (1.0 - decay)


class AveragedModel(Module):
    """A copy of ``model`` (``.module``) whose parameters are averages of its over time."""

    n_averaged: Any

    def __init__(
        self, model: Module, device: Any = None, avg_fn: Callable[..., Any] | None = None,
        multi_avg_fn: Callable[..., None] | None = None, use_buffers: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        if avg_fn is not None and multi_avg_fn is not None:
            raise ValueError("give avg_fn or multi_avg_fn, not both")
        self.module = copy.deepcopy(model)
        self.register_buffer("n_averaged", tensor(0, dtype=int64))
        self.avg_fn: Any = avg_fn or get_swa_avg_fn()
        self.multi_avg_fn: Any = multi_avg_fn
        self.use_buffers = use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The averaged model's answer."""
        return self.module(*args, **kwargs)

    def update_parameters(self, model: Module) -> None:
        """Take the parameters of ``model`` into the average; buffers are copied."""
        pairs: list[tuple[Tensor, Tensor]] = list(
            zip(self.module.parameters(), model.parameters(), strict=True)
        )
        buffers = list(zip(self.module.buffers(), model.buffers(), strict=True))
        with no_grad():
            if self.use_buffers:
                pairs += [b for b in buffers if b[0].dtype.is_floating_point]
                buffers = [b for b in buffers if not b[0].dtype.is_floating_point]
            first = self.n_averaged.item() == 0
            if not first and self.multi_avg_fn is not None:
                self.multi_avg_fn([a for a, _ in pairs], [b for _, b in pairs], self.n_averaged)
            else:
                for average, now in pairs:
                    value = now.detach()
                    if not first:
                        value = self.avg_fn(average.detach(), value, self.n_averaged)
                    average.copy_(value)
            for average, now in buffers:
                average.copy_(now.detach())
            self.n_averaged.add_(1)


def update_bn(loader: Iterable[Any], model: Module, device: Any = None) -> None:
    """The running statistics of batch norms anew: averages over the batches of ``loader``."""
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    if not layers:
        return
    momenta = [m.momentum for m in layers]
    was_training = model.training
    model.train()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None
    with no_grad():
        for batch in loader:
            model(batch[0] if isinstance(batch, (list, tuple)) else batch)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    model.train(was_training)


class SWALR(LRScheduler):
    """From the rate in use to ``swa_lr`` in ``anneal_epochs``, then constant."""

    def __init__(
        self, optimizer: Optimizer, swa_lr: Any, anneal_epochs: int = 10,
        anneal_strategy: str = "cos", last_epoch: int = -1,
    ) -> None:  # fmt: skip
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f"anneal_strategy must be 'cos' or 'linear', not {anneal_strategy!r}")
        for group, rate in zip(
            optimizer.param_groups, per_group("swa_lr", swa_lr, optimizer), strict=True
        ):
            group["swa_lr"] = rate
        self.anneal_epochs, self._strategy = anneal_epochs, anneal_strategy
        super().__init__(optimizer, last_epoch)

    def _share(self, epoch: int) -> float:
        """How far the rate has come at ``epoch``: 0 to 1."""
        t = max(0.0, min(1.0, epoch / max(1, self.anneal_epochs)))
        return (1 - math.cos(math.pi * t)) / 2 if self._strategy == "cos" else t

    def get_lr(self) -> list[Any]:
        """The rate in use, a step nearer."""
        if self.anneal_epochs == 0:
            return [group["swa_lr"] for group in self.optimizer.param_groups]
        before, now = self._share(self._step_count - 2), self._share(self._step_count - 1)
        found = []
        for group in self.optimizer.param_groups:
            first = group["lr"]
            if before < 1:
                first = (group["lr"] - before * group["swa_lr"]) / (1 - before)
            found.append(group["swa_lr"] * now + first * (1 - now))
        return found
