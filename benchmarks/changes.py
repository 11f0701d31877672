"""Changes a training program must notice at its next call, in words PyTorch and GraphFlow share."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

STEPS = 2
"""Calls after each change: the one that must notice it, and one that shows its effect."""


def changes_of(framework: ModuleType, model: Any, optimizer: Any) -> tuple[Callable[[], Any], ...]:
    """A learning rate, a mode, a frozen and a replaced parameter, each put into effect by a call.

    ``framework`` is ``torch`` or ``graphflow``.  The first change puts parameters and
    momentum back to where they are now, however many steps were timed in between.
    """
    initial = [parameter.detach().clone() for parameter in model.parameters()]
    first, last = model.layers[0], model.layers[-1]

    def reset() -> None:
        with framework.no_grad():
            for parameter, value in zip(model.parameters(), initial, strict=True):
                parameter.copy_(value)
            for slots in optimizer.state.values():
                for slot in slots.values():
                    if slot is not None:
                        slot.zero_()

    def slower() -> None:
        optimizer.param_groups[0]["lr"] *= 0.5

    def replace() -> None:
        last.weight = framework.nn.Parameter(framework.full(tuple(last.weight.shape), 0.01))

    return (
        reset,
        slower,
        model.eval,
        model.train,
        lambda: first.weight.requires_grad_(False),
        lambda: first.weight.requires_grad_(True),
        replace,
    )
