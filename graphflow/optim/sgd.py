"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from graphflow.functions.elementwise import add
from graphflow.optim.optimizer import Optimizer, ParamGroup, check_number
from graphflow.tensor import Tensor


class SGD(Optimizer):
    """v = momentum * v + g;  p = p - lr * v  (Nesterov: p - lr * (g + momentum * v)).

    ``weight_decay`` adds that multiple of the parameter to its gradient.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        check_number("learning rate", lr)
        check_number("momentum value", momentum)
        check_number("weight_decay value", weight_decay)
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")
        defaults = {
            "lr": lr, "momentum": momentum, "dampening": dampening,
            "weight_decay": weight_decay, "nesterov": nesterov, "maximize": maximize,
        }  # fmt: skip
        super().__init__(params, defaults)

    def update(
        self, parameter: Tensor, gradient: Tensor, group: ParamGroup, slots: dict[str, Tensor]
    ) -> None:
        """One parameter's step."""
        if self.switch(group, "maximize"):
            gradient = -gradient
        if self.switch(group, "weight_decay"):
            gradient = gradient + parameter * self.hyper(group, "weight_decay")
        if self.switch(group, "momentum"):
            gradient = self._with_momentum(parameter, gradient, group, slots)
        parameter.sub_(gradient * self.hyper(group, "lr"))

    def _with_momentum(
        self, parameter: Tensor, gradient: Tensor, group: ParamGroup, slots: dict[str, Tensor]
    ) -> Tensor:
        momentum = self.hyper(group, "momentum")
        damped = gradient
        if self.switch(group, "dampening"):
            # The first update takes the gradient whole; from then on it is damped.
            seen = self.counter(slots, parameter)
            started = (seen > 0).to(gradient.dtype)
            damped = gradient * (1.0 - started * self.hyper(group, "dampening"))
            seen.add_(1)
        velocity = self.slot(slots, "momentum_buffer", parameter)
        velocity.copy_(velocity * momentum + damped)
        if self.switch(group, "nesterov"):
            return add(gradient, velocity * momentum)
        return velocity
