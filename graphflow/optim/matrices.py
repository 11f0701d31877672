"""Optimisers that know that parameters are matrices."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from graphflow.functions.elementwise import add, clamp, div, mul, neg, rsqrt, sqrt, square, sub
from graphflow.functions.norms import norm
from graphflow.functions.products import matmul
from graphflow.functions.reductions import mean
from graphflow.ir import types as T
from graphflow.number_formats import finfo
from graphflow.optim.equal_updates import SlotRequest
from graphflow.optim.optimizer import Optimizer
from graphflow.optim.param_group import ParamGroup, check_number, execution
from graphflow.promotion import cast
from graphflow.tensor import Tensor


class Adafactor(Optimizer):
    """Second moments of matrices by their rows and columns alone (Shazeer and Stern 2018).

    A step is as long as ``min(lr, 1 / sqrt(t))`` times the parameter's root mean square, at
    least ``eps[1]``; a direction whose root mean square is above ``d`` is shortened to it.
    """

    takes_complex = False

    def __init__(
        self, params: Iterable[Any], lr: Any = 1e-2, beta2_decay: float = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3), d: float = 1.0, weight_decay: float = 0.0,
        *, foreach: bool | None = None, maximize: bool = False,
    ) -> None:  # fmt: skip
        check_number("learning rate", lr)
        check_number("weight_decay value", weight_decay)
        check_number("clipping threshold d", d, 1.0)
        for entry in eps:
            if entry is not None:
                check_number("epsilon value", entry)
        if beta2_decay > 0:
            raise ValueError(f"beta2_decay should be <= 0 but is: {beta2_decay}")
        defaults = {
            "lr": lr, "beta2_decay": beta2_decay, "eps": eps, "d": d,
            "weight_decay": weight_decay, "maximize": maximize, **execution(foreach=foreach),
        }  # fmt: skip
        del defaults["differentiable"]
        super().__init__(params, defaults)

    def update(
        self, parameter: Tensor, gradient: Tensor, group: ParamGroup, slots: dict[str, Any]
    ) -> None:
        """One parameter's step."""
        if self.switch(group, "maximize"):
            gradient = neg(gradient)
        steps, lr = self.counted(slots, parameter), self.hyper(group, "lr")
        fresh = steps ** self.hyper(group, "beta2_decay")
        size = clamp(cast(_root_mean_square(parameter), T.float64), min=self.hyper(group, "eps", 1))
        rate = mul(size, clamp(rsqrt(steps), max=lr))
        if self.switch(group, "weight_decay"):
            parameter.mul_(1.0 - lr * self.hyper(group, "weight_decay"))
        given = group.plain("eps")[0]
        least = finfo(parameter.dtype).eps if given is None else self.hyper(group, "eps", 0)
        estimate = self._estimate(parameter, gradient, slots, fresh, least)
        direction = mul(rsqrt(clamp(estimate, min=least * least)), gradient)
        far = div(cast(_root_mean_square(direction), T.float64), self.hyper(group, "d"))
        parameter.sub_(mul(direction, div(rate, clamp(far, min=1.0))))

    def _estimate(
        self, parameter: Tensor, gradient: Tensor, slots: dict[str, Any], fresh: Any, least: Any
    ) -> Tensor:
        """The second moments, after those of ``gradient`` are mixed in."""
        if gradient.ndim < 2:
            moments = self.slot(slots, "variance", parameter)
            _mix(moments, square(gradient), fresh)
            return moments
        shape = tuple(parameter.shape)
        asked = (("row_var", -1, (*shape[:-1], 1)), ("col_var", -2, (*shape[:-2], 1, shape[-1])))
        rows, columns = (
            self.slot_for(slots, SlotRequest(name, part, 0.0), parameter) for name, _, part in asked
        )
        for held, (_, axis, _) in zip((rows, columns), asked):
            _mix(held, mean(square(gradient), axis, keepdim=True), fresh)
        return div(matmul(rows, columns), clamp(mean(rows, -2, keepdim=True), min=least))


def _mix(held: Tensor, new: Tensor, weight: Any) -> None:
    held.add_(mul(sub(new, held), weight))


def _root_mean_square(x: Tensor) -> Tensor:
    return sqrt(mean(square(x)))


class Muon(Optimizer):
    """Momentum whose matrix is made nearly orthogonal before it is used (Jordan et al. 2024).

    For matrices only.  A quintic polynomial of the matrix, applied ``ns_steps`` times in
    bfloat16, brings all its singular values near 1.  ``adjust_lr_fn``: "original" scales the
    rate of a [A, B] by ``sqrt(max(1, A / B))``, "match_rms_adamw" by ``0.2 sqrt(max(A, B))``.
    """

    takes_complex = False

    def __init__(
        self, params: Iterable[Any], lr: Any = 1e-3, weight_decay: float = 0.1,
        momentum: float = 0.95, nesterov: bool = True,
        ns_coefficients: Sequence[float] = (3.4445, -4.7750, 2.0315), eps: float = 1e-7,
        ns_steps: int = 5, adjust_lr_fn: str | None = None,
    ) -> None:  # fmt: skip
        for name, value in (("learning rate", lr), ("momentum", momentum),
                            ("weight decay", weight_decay), ("eps", eps)):  # fmt: skip
            check_number(name, value)
        if adjust_lr_fn not in (None, "original", "match_rms_adamw"):
            raise ValueError(f"Adjust learning rate function {adjust_lr_fn} is not supported")
        if len(ns_coefficients) != 3 or not 0 <= ns_steps < 100:
            raise ValueError("Muon takes three ns_coefficients and fewer than 100 ns_steps")
        defaults = {
            "lr": lr, "weight_decay": weight_decay, "momentum": momentum, "nesterov": nesterov,
            "ns_coefficients": tuple(map(float, ns_coefficients)), "eps": eps,
            "ns_steps": ns_steps, "adjust_lr_fn": adjust_lr_fn,
        }  # fmt: skip
        super().__init__(params, defaults)

    def add_param_group(self, param_group: Any) -> None:
        """One more group, of matrices."""
        super().add_param_group(param_group)
        for parameter in self.param_groups[-1]["params"]:
            if parameter.ndim != 2:
                self.param_groups.pop()
                raise ValueError(
                    "Muon only supports 2D parameters whereas we found a parameter with size: "
                    f"{tuple(parameter.shape)}"
                )

    def update(
        self, parameter: Tensor, gradient: Tensor, group: ParamGroup, slots: dict[str, Any]
    ) -> None:
        """One parameter's step."""
        momentum, lr = self.hyper(group, "momentum"), self.hyper(group, "lr")
        held = self.slot(slots, "momentum_buffer", parameter)
        _mix(held, gradient, 1.0 - momentum)
        update: Tensor = held
        if self.switch(group, "nesterov"):
            update = add(gradient, mul(sub(held, gradient), momentum))
        coefficients = [self.hyper(group, "ns_coefficients", i) for i in range(3)]
        steps = int(group["ns_steps"])
        direction = nearly_orthogonal(update, coefficients, steps, self.hyper(group, "eps"))
        rows, columns = parameter.shape
        scale = math.sqrt(max(1, rows / columns))
        if group["adjust_lr_fn"] == "match_rms_adamw":
            scale = 0.2 * math.sqrt(max(rows, columns))
        parameter.mul_(1.0 - lr * self.hyper(group, "weight_decay"))
        parameter.sub_(mul(cast(direction, parameter.dtype), lr * scale))


def nearly_orthogonal(x: Tensor, coefficients: Sequence[Any], steps: int, eps: Any) -> Tensor:
    """``u @ v.T`` of the singular vectors of a matrix, singular values near 1, in bfloat16.

    ``x`` becomes ``a x + (b g + c g g) x`` with ``g = x x.T``, ``steps`` times.
    """
    a, b, c = coefficients
    tall = x.shape[0] > x.shape[1]
    found = cast(x, T.bfloat16)
    if tall:
        found = found.T
    found = div(found, clamp(norm(found), min=eps))
    for _ in range(steps):
        gram = matmul(found, found.T)
        mixed = add(mul(gram, b), mul(matmul(gram, gram), c))
        found = add(mul(found, a), matmul(mixed, found))
    return found.T if tall else found
