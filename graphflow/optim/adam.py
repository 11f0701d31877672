"""Adam and its kin: AdamW, Adamax, NAdam, RAdam."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from graphflow.functions.elementwise import abs, add, maximum, mul, sqrt, where
from graphflow.ir.types import float64
from graphflow.optim.optimizer import Optimizer
from graphflow.optim.param_group import ParamGroup, check_number, check_option, execution
from graphflow.promotion import cast
from graphflow.tensor import Tensor


class Moments(Optimizer):
    """Running means of the gradient and of its square: what the family shares.

    ``options`` are further options of a group, as they are.
    """

    def __init__(
        self, params: Iterable[Any], lr: Any, betas: tuple[Any, Any], eps: float,
        weight_decay: float, **options: Any,
    ) -> None:  # fmt: skip
        check_number("learning rate", lr)
        check_number("epsilon value", eps)
        check_number("weight_decay value", weight_decay)
        check_option("betas", betas)
        own = {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**own, **options})

    def betas(self, group: ParamGroup) -> tuple[Any, Any]:
        """The two rates of decay."""
        return self.hyper(group, "betas", 0), self.hyper(group, "betas", 1)

    def first_moment(
        self, slots: dict[str, Any], parameter: Tensor, gradient: Tensor, beta: Any,
        rows: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """m = beta m + (1 - beta) g, where ``rows`` is true if it is given."""
        return self._mean(slots, "exp_avg", parameter, gradient, beta, rows)

    def second_moment(
        self, slots: dict[str, Any], parameter: Tensor, gradient: Tensor, beta: Any,
        rows: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """v = beta v + (1 - beta) g², where ``rows`` is true if it is given."""
        return self._mean(slots, "exp_avg_sq", parameter, gradient * gradient, beta, rows)

    def _mean(
        self, slots: dict[str, Any], name: str, parameter: Tensor, value: Tensor, beta: Any,
        rows: Tensor | None,
    ) -> Tensor:  # fmt: skip
        mean = self.slot(slots, name, parameter)
        moved = mean * beta + value * (1.0 - beta)
        mean.copy_(moved if rows is None else where(rows, moved, mean))
        return mean


class Adam(Moments):
    """m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g²;
    p = p - lr * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps).

    Kingma and Ba (2015).  ``weight_decay`` adds that multiple of the parameter to its
    gradient; ``amsgrad`` divides by the largest v so far (Reddi et al. 2018).
    """

    def __init__(
        self, params: Iterable[Any], lr: Any = 1e-3, betas: tuple[Any, Any] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 0.0, amsgrad: bool = False, *,
        foreach: bool | None = None, maximize: bool = False, capturable: bool = False,
        differentiable: bool = False, fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(
            params, lr, betas, eps, weight_decay, amsgrad=amsgrad, maximize=maximize,
            decoupled_weight_decay=decoupled_weight_decay,
            **execution(foreach=foreach, capturable=capturable, differentiable=differentiable,
                        fused=fused),
        )  # fmt: skip

    def update(
        self, parameter: Tensor, gradient: Tensor, group: ParamGroup, slots: dict[str, Any]
    ) -> None:
        """One parameter's step."""
        gradient = self.directed(parameter, gradient, group)
        first, second = self.betas(group)
        steps = self.counted(slots, parameter)
        mean = self.first_moment(slots, parameter, gradient, first)
        square = self.second_moment(slots, parameter, gradient, second)
        if self.switch(group, "amsgrad"):
            largest = self.slot(slots, "max_exp_avg_sq", parameter)
            largest.copy_(maximum(largest, square))
            square = largest
        left = self.hyper(group, "lr") / (1.0 - first**steps)
        right = sqrt(1.0 - second**steps)
        parameter.sub_(mean / (sqrt(square) / right + self.hyper(group, "eps")) * left)


class AdamW(Adam):
    """Adam with decoupled weight decay: p = p * (1 - lr * weight_decay) first.

    Loshchilov and Hutter (2019).
    """

    def __init__(
        self, params: Iterable[Any], lr: Any = 1e-3, betas: tuple[Any, Any] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 1e-2, amsgrad: bool = False, *,
        maximize: bool = False, foreach: bool | None = None, capturable: bool = False,
        differentiable: bool = False, fused: bool | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            params, lr, betas, eps, weight_decay, amsgrad, foreach=foreach, maximize=maximize,
            capturable=capturable, differentiable=differentiable, fused=fused,
            decoupled_weight_decay=True,
        )  # fmt: skip


class Adamax(Moments):
    """u = max(b2 u, |g| + eps);  p = p - lr / (1 - b1^t) * m / u  (Kingma and Ba 2015)."""

    def __init__(
        self, params: Iterable[Any], lr: Any = 2e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 0.0, foreach: bool | None = None, *,
        maximize: bool = False, differentiable: bool = False, capturable: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(
            params, lr, betas, eps, weight_decay, maximize=maximize,
            **execution(foreach=foreach, differentiable=differentiable, capturable=capturable),
        )  # fmt: skip

    def update(
        self, parameter: Tensor, gradient: Tensor, group: ParamGroup, slots: dict[str, Any]
    ) -> None:
        """One parameter's step."""
        gradient = self.directed(parameter, gradient, group)
        first, second = self.betas(group)
        steps = self.counted(slots, parameter)
        mean = self.first_moment(slots, parameter, gradient, first)
        bound = self.slot(slots, "exp_inf", parameter)
        bound.copy_(maximum(bound * second, abs(gradient) + self.hyper(group, "eps")))
        parameter.sub_(mean / bound * (self.hyper(group, "lr") / (1.0 - first**steps)))


class NAdam(Moments):
    """Adam with Nesterov's momentum (Dozat 2016)."""

    def __init__(
        self, params: Iterable[Any], lr: Any = 2e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 0.0, momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False, *, foreach: bool | None = None,
        maximize: bool = False, capturable: bool = False, differentiable: bool = False,
    ) -> None:  # fmt: skip
        check_number("momentum_decay value", momentum_decay)
        super().__init__(
            params, lr, betas, eps, weight_decay, momentum_decay=momentum_decay,
            decoupled_weight_decay=decoupled_weight_decay, maximize=maximize,
            **execution(foreach=foreach, capturable=capturable, differentiable=differentiable),
        )  # fmt: skip

    def update(
        self, parameter: Tensor, gradient: Tensor, group: ParamGroup, slots: dict[str, Any]
    ) -> None:
        """One parameter's step."""
        gradient = self.directed(parameter, gradient, group)
        first, second = self.betas(group)
        rate, decay = self.hyper(group, "lr"), self.hyper(group, "momentum_decay")
        steps = self.counted(slots, parameter)
        now = first * (1.0 - 0.5 * 0.96 ** (steps * decay))
        then = first * (1.0 - 0.5 * 0.96 ** ((steps + 1.0) * decay))
        product = self.number(slots, "mu_product", parameter, 1.0)
        product.copy_(product * now)
        so_far = cast(product, float64)
        mean = self.first_moment(slots, parameter, gradient, first)
        square = self.second_moment(slots, parameter, gradient, second)
        scale = sqrt(square) / sqrt(1.0 - second**steps) + self.hyper(group, "eps")
        left = mul(gradient, rate * (1.0 - now) / (1.0 - so_far))
        right = mul(mean, rate * then / (1.0 - so_far * then))
        parameter.sub_(add(left, right) / scale)


class RAdam(Moments):
    """Adam whose step waits for its variance to be known (Liu et al. 2020)."""

    def __init__(
        self, params: Iterable[Any], lr: Any = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 0.0, decoupled_weight_decay: bool = False, *,
        foreach: bool | None = None, maximize: bool = False, capturable: bool = False,
        differentiable: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(
            params, lr, betas, eps, weight_decay, decoupled_weight_decay=decoupled_weight_decay,
            maximize=maximize,
            **execution(foreach=foreach, capturable=capturable, differentiable=differentiable),
        )  # fmt: skip

    def update(
        self, parameter: Tensor, gradient: Tensor, group: ParamGroup, slots: dict[str, Any]
    ) -> None:
        """One parameter's step."""
        gradient = self.directed(parameter, gradient, group)
        first, second = self.betas(group)
        steps = self.counted(slots, parameter)
        mean = self.first_moment(slots, parameter, gradient, first)
        square = self.second_moment(slots, parameter, gradient, second)
        rest = 1.0 - second**steps
        longest = 2.0 / (1.0 - second) - 1.0
        length = longest - 2.0 * steps * second**steps / rest
        known = length > 5.0
        safe = where(known, length, 6.0)
        share = (safe - 4.0) * (safe - 2.0) * longest
        rectified = sqrt(share / ((longest - 4.0) * (longest - 2.0) * safe) * rest)
        adapted = cast(rectified, square.dtype) / (sqrt(square) + self.hyper(group, "eps"))
        rate = self.hyper(group, "lr") / (1.0 - first**steps)
        parameter.sub_(mul(mean, rate) * where(known, adapted, 1.0))
