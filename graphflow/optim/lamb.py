"""LAMB: Adam's direction, scaled layer by layer for large batches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from graphflow.functions.elementwise import logical_and, mul, neg, sqrt, where
from graphflow.functions.reductions import sum
from graphflow.optim.adam import Moments
from graphflow.optim.param_group import ParamGroup
from graphflow.tensor import Tensor


class LAMB(Moments):
    """r = m̂ / (sqrt(v̂) + eps) + weight_decay p;  p = p - lr * |p| / |r| * r.

    m̂ and v̂ are Adam's corrected moments; where a norm is 0 the ratio is 1.
    You et al., "Large Batch Optimization for Deep Learning" (ICLR 2020), algorithm 2.
    """

    def __init__(
        self, params: Iterable[Any], lr: Any = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6, weight_decay: float = 0.0, *, maximize: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(params, lr, betas, eps, weight_decay, maximize=maximize)

    def update(
        self, parameter: Tensor, gradient: Tensor, group: ParamGroup, slots: dict[str, Any]
    ) -> None:
        """One parameter's step."""
        if self.switch(group, "maximize"):
            gradient = neg(gradient)
        first, second = self.betas(group)
        steps = self.counted(slots, parameter)
        mean = self.first_moment(slots, parameter, gradient, first)
        square = self.second_moment(slots, parameter, gradient, second)
        left, right = 1.0 / (1.0 - first**steps), sqrt(1.0 - second**steps)
        move = mul(mean, left) / (sqrt(square) / right + self.hyper(group, "eps"))
        if self.switch(group, "weight_decay"):
            move = move + parameter * self.hyper(group, "weight_decay")
        size, length = sqrt(sum(parameter * parameter)), sqrt(sum(move * move))
        both = logical_and(size > 0, length > 0)
        ratio = where(both, size / where(both, length, 1.0), 1.0)
        parameter.sub_(mul(move, ratio) * self.hyper(group, "lr"))
