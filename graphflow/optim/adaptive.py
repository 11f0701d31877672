"""Optimisers that scale every parameter's step by the gradients seen so far."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from graphflow.functions.elementwise import clamp, mul, sign, sqrt, where
from graphflow.optim.optimizer import Optimizer
from graphflow.optim.param_group import ParamGroup, check_number, execution
from graphflow.tensor import Tensor


class Adagrad(Optimizer):
    """s = s + g²;  p = p - lr / (1 + (t - 1) lr_decay) * g / (sqrt(s) + eps).

    Duchi, Hazan and Singer (2011).
    """

    def __init__(
        self, params: Iterable[Any], lr: Any = 1e-2, lr_decay: float = 0.0,
        weight_decay: float = 0.0, initial_accumulator_value: float = 0.0, eps: float = 1e-10,
        foreach: bool | None = None, *, maximize: bool = False, differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:  # fmt: skip
        check_number("learning rate", lr)
        check_number("lr_decay value", lr_decay)
        check_number("weight_decay value", weight_decay)
        check_number("initial_accumulator_value value", initial_accumulator_value)
        check_number("epsilon value", eps)
        defaults = {
            "lr": lr, "lr_decay": lr_decay, "eps": eps, "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value, "maximize": maximize,
            **execution(foreach=foreach, differentiable=differentiable, fused=fused),
        }  # fmt: skip
        super().__init__(params, defaults)

    def update(
        self, parameter: Tensor, gradient: Tensor, group: ParamGroup, slots: dict[str, Any]
    ) -> None:
        """One parameter's step."""
        gradient = self.directed(parameter, gradient, group)
        steps = self.counted(slots, parameter)
        rate = self.hyper(group, "lr") / (1.0 + (steps - 1.0) * self.hyper(group, "lr_decay"))
        first = group.plain("initial_accumulator_value")
        total = self.slot(slots, "sum", parameter, first)
        total.add_(gradient * gradient)
        parameter.sub_(mul(gradient / (sqrt(total) + self.hyper(group, "eps")), rate))


class Adadelta(Optimizer):
    """Steps in the units of the parameters (Zeiler 2012)."""

    def __init__(
        self, params: Iterable[Any], lr: Any = 1.0, rho: float = 0.9, eps: float = 1e-6,
        weight_decay: float = 0.0, foreach: bool | None = None, *, capturable: bool = False,
        maximize: bool = False, differentiable: bool = False,
    ) -> None:  # fmt: skip
        check_number("learning rate", lr)
        check_number("epsilon value", eps)
        check_number("weight_decay value", weight_decay)
        if not 0 <= rho <= 1:
            raise ValueError(f"Invalid rho value: {rho}; it must be in [0, 1]")
        defaults = {
            "lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay, "maximize": maximize,
            **execution(foreach=foreach, capturable=capturable, differentiable=differentiable),
        }  # fmt: skip
        super().__init__(params, defaults)

    def update(
        self, parameter: Tensor, gradient: Tensor, group: ParamGroup, slots: dict[str, Any]
    ) -> None:
        """One parameter's step."""
        gradient = self.directed(parameter, gradient, group)
        rho, eps = self.hyper(group, "rho"), self.hyper(group, "eps")
        self.count(slots, parameter)
        square = self.slot(slots, "square_avg", parameter)
        moved = self.slot(slots, "acc_delta", parameter)
        square.copy_(square * rho + gradient * gradient * (1.0 - rho))
        delta = sqrt(moved + eps) / sqrt(square + eps) * gradient
        moved.copy_(moved * rho + delta * delta * (1.0 - rho))
        parameter.sub_(mul(delta, self.hyper(group, "lr")))


class RMSprop(Optimizer):
    """s = alpha s + (1 - alpha) g²;  p = p - lr * g / (sqrt(s) + eps)  (Hinton 2012).

    ``centered`` takes the square of the mean gradient off s (Graves 2013);
    ``momentum`` accumulates the steps.
    """

    def __init__(
        self, params: Iterable[Any], lr: Any = 1e-2, alpha: float = 0.99, eps: float = 1e-8,
        weight_decay: float = 0.0, momentum: float = 0.0, centered: bool = False,
        capturable: bool = False, foreach: bool | None = None, maximize: bool = False,
        differentiable: bool = False,
    ) -> None:  # fmt: skip
        checked = {
            "learning rate": lr, "epsilon value": eps, "weight_decay value": weight_decay,
            "momentum value": momentum, "alpha value": alpha,
        }  # fmt: skip
        for name, value in checked.items():
            check_number(name, value)
        defaults = {
            "lr": lr, "momentum": momentum, "alpha": alpha, "eps": eps, "centered": centered,
            "weight_decay": weight_decay, "maximize": maximize,
            **execution(foreach=foreach, capturable=capturable, differentiable=differentiable),
        }  # fmt: skip
        super().__init__(params, defaults)

    def update(
        self, parameter: Tensor, gradient: Tensor, group: ParamGroup, slots: dict[str, Any]
    ) -> None:
        """One parameter's step."""
        gradient = self.directed(parameter, gradient, group)
        alpha = self.hyper(group, "alpha")
        self.count(slots, parameter)
        square = self.slot(slots, "square_avg", parameter)
        square.copy_(square * alpha + gradient * gradient * (1.0 - alpha))
        spread: Tensor = square
        if self.switch(group, "centered"):
            mean = self.slot(slots, "grad_avg", parameter)
            mean.copy_(mean * alpha + gradient * (1.0 - alpha))
            spread = square - mean * mean
        move = gradient / (sqrt(spread) + self.hyper(group, "eps"))
        if self.switch(group, "momentum"):
            buffer = self.slot(slots, "momentum_buffer", parameter)
            buffer.copy_(buffer * self.hyper(group, "momentum") + move)
            move = buffer
        parameter.sub_(mul(move, self.hyper(group, "lr")))


class Rprop(Optimizer):
    """Steps that grow while a gradient keeps its sign and shrink when it turns.

    Riedmiller and Braun (1993).
    """

    def __init__(
        self, params: Iterable[Any], lr: Any = 1e-2, etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50.0), *, capturable: bool = False,
        foreach: bool | None = None, maximize: bool = False, differentiable: bool = False,
    ) -> None:  # fmt: skip
        check_number("learning rate", lr)
        if not 0 < etas[0] < 1 < etas[1]:
            raise ValueError(f"Invalid eta values: {etas}; one in (0, 1), one above 1")
        defaults = {
            "lr": lr, "etas": tuple(map(float, etas)),
            "step_sizes": tuple(map(float, step_sizes)), "maximize": maximize,
            **execution(foreach=foreach, capturable=capturable, differentiable=differentiable),
        }  # fmt: skip
        super().__init__(params, defaults)

    def update(
        self, parameter: Tensor, gradient: Tensor, group: ParamGroup, slots: dict[str, Any]
    ) -> None:
        """One parameter's step."""
        gradient = self.directed(parameter, gradient, group)
        self.count(slots, parameter)
        last = self.slot(slots, "prev", parameter)
        size = self.slot(slots, "step_size", parameter, group.plain("lr"))
        agreement = gradient * last
        shrink, grow = self.hyper(group, "etas", 0), self.hyper(group, "etas", 1)
        smaller = where(agreement < 0, mul(size, shrink), size)
        low, high = self.hyper(group, "step_sizes", 0), self.hyper(group, "step_sizes", 1)
        size.copy_(clamp(where(agreement > 0, mul(size, grow), smaller), low, high))
        gradient = where(agreement < 0, 0.0, gradient)
        parameter.sub_(mul(sign(gradient), size))
        last.copy_(gradient)
