"""Adam for tables of which a step reads a few rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from graphflow.functions.elementwise import ne, sqrt, where
from graphflow.optim.adam import Moments
from graphflow.optim.param_group import ParamGroup
from graphflow.tensor import Tensor


class SparseAdam(Moments):
    """Adam that leaves rows without a gradient, and their state, as they are.

    Gradients are dense here: a row has none where all of it is 0.
    """

    def __init__(
        self, params: Iterable[Any], lr: Any = 1e-3, betas: tuple[Any, Any] = (0.9, 0.999),
        eps: float = 1e-8, maximize: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(params, lr, betas, eps, 0.0, maximize=maximize)
        for group in (self.defaults, *self.param_groups):
            group.pop("weight_decay", None)

    def update(
        self, parameter: Tensor, gradient: Tensor, group: ParamGroup, slots: dict[str, Any]
    ) -> None:
        """One parameter's step."""
        gradient = self.directed(parameter, gradient, group)
        first, second = self.betas(group)
        steps = self.counted(slots, parameter)
        read: Tensor = ne(gradient, 0)
        if gradient.ndim > 1:
            read = read.any(tuple(range(1, gradient.ndim)), keepdim=True)
        mean = self.first_moment(slots, parameter, gradient, first, read)
        square = self.second_moment(slots, parameter, gradient, second, read)
        rate = self.hyper(group, "lr") * sqrt(1.0 - second**steps) / (1.0 - first**steps)
        move = mean / (sqrt(square) + self.hyper(group, "eps")) * rate
        parameter.sub_(where(read, move, 0.0))
