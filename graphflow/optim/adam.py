"""Adam and AdamW (Kingma and Ba 2015; Loshchilov and Hutter 2019)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from graphflow.functions.elementwise import sqrt
from graphflow.ir.types import float64
from graphflow.optim.optimizer import Optimizer, ParamGroup, check_number, check_option
from graphflow.promotion import cast
from graphflow.tensor import Tensor


class Adam(Optimizer):
    """m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g²;
    p = p - lr * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps).

    ``weight_decay`` adds that multiple of the parameter to its gradient.
    """

    decoupled = False

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        check_number("learning rate", lr)
        check_number("epsilon value", eps)
        check_number("weight_decay value", weight_decay)
        check_option("betas", betas)
        defaults = {
            "lr": lr, "betas": tuple(betas), "eps": eps,
            "weight_decay": weight_decay, "maximize": maximize,
        }  # fmt: skip
        super().__init__(params, defaults)

    def update(
        self, parameter: Tensor, gradient: Tensor, group: ParamGroup, slots: dict[str, Tensor]
    ) -> None:
        """One parameter's step."""
        rate = self.hyper(group, "lr")
        if self.switch(group, "maximize"):
            gradient = -gradient
        if self.switch(group, "weight_decay"):
            decay = self.hyper(group, "weight_decay")
            if self.decoupled:
                parameter.mul_(1.0 - rate * decay)
            else:
                gradient = gradient + parameter * decay
        first, second = self.hyper(group, "betas", 0), self.hyper(group, "betas", 1)
        count = self.counter(slots, parameter)
        count.add_(1)
        mean, square = (self.slot(slots, n, parameter) for n in ("exp_avg", "exp_avg_sq"))
        mean.copy_(mean * first + gradient * (1.0 - first))
        square.copy_(square * second + gradient * gradient * (1.0 - second))
        # Bias corrections are scalars: in float64, as they are in Python.
        steps = cast(count, float64)
        left = rate / (1.0 - first**steps)
        right = sqrt(1.0 - second**steps)
        parameter.sub_(mean / (sqrt(square) / right + self.hyper(group, "eps")) * left)


class AdamW(Adam):
    """Adam with decoupled weight decay: p = p * (1 - lr * weight_decay) first."""

    decoupled = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, maximize=maximize)
