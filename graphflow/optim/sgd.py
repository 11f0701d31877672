"""Stochastic gradient descent, and its averaged form."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from graphflow.functions.elementwise import add, clamp, mul, sub
from graphflow.ir.types import float64
from graphflow.optim.optimizer import Optimizer
from graphflow.optim.param_group import ParamGroup, check_number, execution
from graphflow.promotion import cast
from graphflow.tensor import Tensor


class SGD(Optimizer):
    """v = momentum * v + g;  p = p - lr * v  (Nesterov: p - lr * (g + momentum * v)).

    ``weight_decay`` adds that multiple of the parameter to its gradient.
    """

    def __init__(
        self, params: Iterable[Any], lr: Any = 1e-3, momentum: float = 0.0,
        dampening: float = 0.0, weight_decay: float = 0.0, nesterov: bool = False, *,
        maximize: bool = False, foreach: bool | None = None, differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:  # fmt: skip
        check_number("learning rate", lr)
        check_number("momentum value", momentum)
        check_number("weight_decay value", weight_decay)
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")
        defaults = {
            "lr": lr, "momentum": momentum, "dampening": dampening,
            "weight_decay": weight_decay, "nesterov": nesterov, "maximize": maximize,
            **execution(foreach=foreach, differentiable=differentiable, fused=fused),
        }  # fmt: skip
        super().__init__(params, defaults)

    def update(
        self, parameter: Tensor, gradient: Tensor, group: ParamGroup, slots: dict[str, Any]
    ) -> None:
        """One parameter's step."""
        gradient = self.directed(parameter, gradient, group)
        if self.switch(group, "momentum"):
            gradient = self._with_momentum(parameter, gradient, group, slots)
        parameter.sub_(mul(gradient, self.hyper(group, "lr")))

    def _with_momentum(
        self, parameter: Tensor, gradient: Tensor, group: ParamGroup, slots: dict[str, Any]
    ) -> Tensor:
        momentum = self.hyper(group, "momentum")
        damped = gradient
        if self.switch(group, "dampening"):
            # The first update takes the gradient whole; from then on it is damped.
            started = (self.count(slots, parameter) > 1).to(gradient.dtype)
            damped = gradient * (1.0 - started * self.hyper(group, "dampening"))
        velocity = self.slot(slots, "momentum_buffer", parameter)
        velocity.copy_(velocity * momentum + damped)
        if self.switch(group, "nesterov"):
            return add(gradient, velocity * momentum)
        return velocity

    def imply_count(
        self, counts: dict[Tensor, float], slots: dict[str, Any], parameter: Tensor
    ) -> None:
        """PyTorch's states have no count: a velocity says that steps were made."""
        if "momentum_buffer" in slots:
            counts[parameter] = 1.0


class ASGD(Optimizer):
    """Averaged SGD (Polyak and Juditsky 1992): the average of the iterates is state ``ax``."""

    def __init__(
        self, params: Iterable[Any], lr: Any = 1e-2, lambd: float = 1e-4, alpha: float = 0.75,
        t0: float = 1e6, weight_decay: float = 0.0, foreach: bool | None = None,
        maximize: bool = False, differentiable: bool = False, capturable: bool = False,
    ) -> None:  # fmt: skip
        check_number("learning rate", lr)
        check_number("weight_decay value", weight_decay)
        defaults = {
            "lr": lr, "lambd": lambd, "alpha": alpha, "t0": t0, "weight_decay": weight_decay,
            "maximize": maximize,
            **execution(foreach=foreach, differentiable=differentiable, capturable=capturable),
        }  # fmt: skip
        super().__init__(params, defaults)

    def update(
        self, parameter: Tensor, gradient: Tensor, group: ParamGroup, slots: dict[str, Any]
    ) -> None:
        """One parameter's step."""
        rate, fade = self.hyper(group, "lr"), self.hyper(group, "lambd")
        gradient = self.directed(parameter, gradient, group)
        eta = self.number(slots, "eta", parameter, group.plain("lr"))
        share = self.number(slots, "mu", parameter, 1.0)
        steps = self.counted(slots, parameter)
        now = cast(eta, float64)
        parameter.mul_(1.0 - fade * now)
        parameter.sub_(mul(gradient, now))
        average = self.slot(slots, "ax", parameter)
        average.add_(mul(sub(parameter, average), share))
        eta.copy_(rate / (1.0 + fade * rate * steps) ** self.hyper(group, "alpha"))
        share.copy_(1.0 / clamp(steps - self.hyper(group, "t0"), min=1.0))
