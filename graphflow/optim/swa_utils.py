"""Averages of weights over training (Izmailov et al. 2018), and their schedule."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from graphflow.autograd.modes import no_grad
from graphflow.functions.creation import tensor
from graphflow.functions.elementwise import where
from graphflow.ir.types import int64
from graphflow.mode import mode
from graphflow.nn.module import Module
from graphflow.nn.modules.batchnorm import _BatchNorm
from graphflow.optim.lr_scheduler.base import LRScheduler
from graphflow.optim.lr_scheduler.cycles import per_group
from graphflow.optim.optimizer import Optimizer
from graphflow.tensor import Tensor

__all__ = [
    "SWALR", "AveragedModel", "get_ema_avg_fn", "get_ema_multi_avg_fn", "get_swa_avg_fn",
    "get_swa_multi_avg_fn", "update_bn",
]  # fmt: skip

Average = Callable[[Tensor, Tensor, Any], Tensor]
"""From an average, a new value, and how many were averaged so far, to the next average."""
MultiAverage = Callable[[Sequence[Tensor], Sequence[Tensor], Any], None]
"""The same for lists, whose averages are changed in place."""
Pair = tuple[Tensor, Tensor]


def get_swa_avg_fn() -> Average:
    """The plain average of all models seen."""
    return lambda average, now, number: average + (now - average) / (number + 1)


def get_ema_avg_fn(decay: float = 0.999) -> Average:
    """An average that forgets at the rate ``decay``."""
    if not 0 <= decay <= 1:
        raise ValueError(f"decay must be in [0, 1], not {decay}")
    return lambda average, now, number: average * decay + now * (1.0 - decay)


def get_swa_multi_avg_fn() -> MultiAverage:
    """The plain average of all models seen, for all parameters at once."""
    return _for_each(get_swa_avg_fn())


def get_ema_multi_avg_fn(decay: float = 0.999) -> MultiAverage:
    """An average that forgets at the rate ``decay``, for all parameters at once."""
    return _for_each(get_ema_avg_fn(decay))


def _for_each(average_of: Average) -> MultiAverage:
    @no_grad()
    def update(
        averaged_params: Sequence[Tensor], current_params: Sequence[Tensor], num_averaged: Any
    ) -> None:
        for average, now in zip(averaged_params, current_params, strict=True):
            average.copy_(average_of(average.detach(), now.detach(), num_averaged))

    return update


class AveragedModel(Module):
    """A copy of ``model`` (``.module``) whose parameters are averages of its over time.

    ``avg_fn(average, now, n_averaged)`` gives the next average of one parameter;
    ``multi_avg_fn(averages, now, n_averaged)`` changes those of one device and dtype in place.
    Without either the average is the plain one.  ``use_buffers``: buffers are averaged, too, whole
    numbers rounded towards zero; else the copy has the model's.
    """

    n_averaged: Any

    def __init__(
        self, model: Module, device: Any = None, avg_fn: Average | None = None,
        multi_avg_fn: MultiAverage | None = None, use_buffers: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        if avg_fn is not None and multi_avg_fn is not None:
            raise ValueError("give avg_fn or multi_avg_fn, not both")
        self.module = copy.deepcopy(model)
        if device is not None:
            self.module = self.module.to(device)
        self.register_buffer("n_averaged", tensor(0, dtype=int64, device=device))
        self.avg_fn: Any = avg_fn
        self.multi_avg_fn: Any = multi_avg_fn
        self.use_buffers = use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The averaged model's answer."""
        return self.module(*args, **kwargs)

    def update_parameters(self, model: Module) -> None:
        """Take the parameters of ``model`` into the average."""
        pairs = _pairs(self.module.parameters(), model.parameters())
        buffers = _pairs(self.module.buffers(), model.buffers())
        with no_grad():
            if self.use_buffers:
                pairs, buffers = pairs + buffers, []
            if mode.tracer is not None:  # whether it is the first time is known later
                self._average(pairs)
                first = self.n_averaged == 0
                _copy([(average, where(first, now, average)) for average, now in pairs])
            elif self.n_averaged.item() == 0:
                _copy(pairs)
            else:
                self._average(pairs)
            _copy(buffers)
            self.n_averaged.add_(1)

    def _average(self, pairs: Sequence[Pair]) -> None:
        update = self.multi_avg_fn or _for_each(self.avg_fn or get_swa_avg_fn())
        groups: dict[Any, list[Pair]] = {}
        for average, now in pairs:
            groups.setdefault((average.device, average.dtype), []).append((average, now))
        for (device, _), group in groups.items():
            averages, current = map(list, zip(*group, strict=True))
            update(averages, current, self.n_averaged.to(device))


def _pairs(averages: Iterable[Tensor], current: Iterable[Tensor]) -> list[Pair]:
    return [(a.detach(), b.detach().to(a.device)) for a, b in zip(averages, current, strict=True)]


def _copy(pairs: Iterable[Pair]) -> None:
    for average, now in pairs:
        average.copy_(now)


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
