"""L-BFGS: a quasi-Newton method of limited memory, for full-batch problems.

It decides by the values it computes how often to ask for the loss, so it runs
eagerly; the loss itself may be a compiled function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from graphflow.autograd.modes import in_grad_mode, no_grad
from graphflow.errors import TraceError
from graphflow.functions.complex_numbers import view_as_real
from graphflow.functions.creation import from_numpy, zeros_like
from graphflow.mode import mode
from graphflow.optim.line_search import Point, strong_wolfe
from graphflow.optim.optimizer import Optimizer
from graphflow.optim.param_group import check_number
from graphflow.tensor import Tensor

Vector = Any  # a NumPy vector of all parameters' elements; of complex ones, of their parts


class LBFGS(Optimizer):
    """Directions from the last ``history_size`` changes of parameters and gradients.

    Nocedal and Wright, "Numerical Optimization" (2006), algorithm 7.5; ``line_search_fn``
    None takes steps of ``lr``, "strong_wolfe" searches along the direction.
    """

    def __init__(
        self, params: Iterable[Any], lr: Any = 1.0, max_iter: int = 20,
        max_eval: int | None = None, tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9, history_size: int = 100,
        line_search_fn: str | None = None,
    ) -> None:  # fmt: skip
        check_number("learning rate", lr)
        defaults = {
            "lr": lr, "max_iter": max_iter,
            "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval,
            "tolerance_grad": tolerance_grad, "tolerance_change": tolerance_change,
            "history_size": history_size, "line_search_fn": line_search_fn,
        }  # fmt: skip
        super().__init__(params, defaults)
        if len(self.param_groups) != 1:
            raise ValueError("LBFGS does not have options of parameter groups: give one group")
        if line_search_fn not in (None, "strong_wolfe"):
            raise ValueError(f"line_search_fn must be 'strong_wolfe' or None: {line_search_fn!r}")

    def _run(self, closure: Callable[[], Any] | None) -> Any:
        if closure is None:
            raise TypeError("LBFGS.step needs a closure that computes the loss and its gradient")
        if mode.tracer is not None:
            raise TraceError(
                "LBFGS decides by values how often to ask for the loss: compile the loss inside "
                "the closure, and call step() outside"
            )
        return _Descent(self, closure).run()

    def add_param_group(self, param_group: Any) -> None:
        """One group only."""
        if self.param_groups:
            raise ValueError("LBFGS does not have options of parameter groups: give one group")
        super().add_param_group(param_group)


class _Descent:
    """One call of ``step``: up to ``max_iter`` iterations."""

    def __init__(self, optimizer: LBFGS, closure: Callable[[], Any]) -> None:
        self.options = optimizer.param_groups[0]
        self.parameters: list[Tensor] = self.options["params"]
        self.closure = closure
        self.state = optimizer.state.setdefault(self.parameters[0], {})
        self.state.setdefault("func_evals", 0)
        self.state.setdefault("n_iter", 0)
        self.evaluations = 0

    def run(self) -> Any:
        """Go down; the loss before that."""
        answer = self._evaluate()
        loss, gradient = float(answer), self._gradient()
        if self._flat(gradient):
            return answer
        for iteration in range(1, self.options["max_iter"] + 1):
            self.state["n_iter"] += 1
            direction = self._direction(gradient)
            slope = float(gradient @ direction)
            self.state["prev_flat_grad"] = from_numpy(gradient.copy())
            self.state["prev_loss"], before = loss, loss
            self.state["d"] = from_numpy(direction)
            length = float(self.options["lr"])
            if self.state["n_iter"] == 1:
                length *= min(1.0, 1.0 / float(np.abs(gradient).sum()))
            self.state["t"] = length
            if slope > -self.options["tolerance_change"]:
                break
            last = iteration == self.options["max_iter"]
            here = self._move(Point(0.0, loss, gradient, slope), direction, length, last)
            loss, gradient = here.loss, here.gradient
            self.state["t"] = here.place
            if last or self._finished(here, direction, before):
                break
        return answer

    def _move(self, start: Point, direction: Vector, length: float, last: bool) -> Point:
        """Go along the direction; where that ends."""
        origin = [_real(p.detach()).clone() for p in self.parameters]
        if self.options["line_search_fn"] is None:
            self._place(origin, direction, length)
            if last:  # nobody asks for the loss there
                return start._replace(place=length)
            return Point(length, float(self._evaluate()), self._gradient(), 0.0)

        def probe(place: float) -> Point:
            self._place(origin, direction, place)
            loss, gradient = float(self._evaluate()), self._gradient()
            return Point(place, loss, gradient, float(gradient @ direction))

        most = self.options["max_eval"] - self.evaluations
        size = float(np.abs(direction).max())
        found = strong_wolfe(probe, start, length, size, most, self.options["tolerance_change"])
        self._place(origin, direction, found.place)
        return found

    def _finished(self, here: Point, direction: Vector, before: float) -> bool:
        small = self.options["tolerance_change"]
        return (
            self.evaluations >= self.options["max_eval"]
            or self._flat(here.gradient)
            or float(np.abs(direction * here.place).max()) <= small
            or abs(here.loss - before) < small
        )

    def _flat(self, gradient: Vector) -> bool:
        return bool(float(np.abs(gradient).max()) <= self.options["tolerance_grad"])

    def _direction(self, gradient: Vector) -> Vector:
        """Minus the inverse Hessian, as far as it is remembered, times the gradient."""
        state = self.state
        if state["n_iter"] == 1:
            state.update(old_dirs=[], old_stps=[], ro=[], H_diag=1.0)
            return -gradient
        change = gradient - np.asarray(state["prev_flat_grad"])
        step = np.asarray(state["d"]) * gradient.dtype.type(state["t"])
        curvature = float(change @ step)
        if curvature > 1e-10:
            for name, value in (("old_dirs", from_numpy(change)), ("old_stps", from_numpy(step)),
                                ("ro", 1.0 / curvature)):  # fmt: skip
                state[name] = [*state[name], value][-self.options["history_size"] :]
            state["H_diag"] = curvature / float(change @ change)
        changes, steps = ([np.asarray(v) for v in state[n]] for n in ("old_dirs", "old_stps"))
        inverse = [float(r) for r in state["ro"]]
        rest, shares = -gradient, [0.0] * len(steps)
        for i in reversed(range(len(steps))):
            shares[i] = float(steps[i] @ rest) * inverse[i]
            rest = rest - rest.dtype.type(shares[i]) * changes[i]
        rest = rest * rest.dtype.type(float(state["H_diag"]))
        for i in range(len(steps)):
            back = float(changes[i] @ rest) * inverse[i]
            rest = rest + rest.dtype.type(shares[i] - back) * steps[i]
        return rest

    def _evaluate(self) -> Any:
        self.evaluations += 1
        self.state["func_evals"] += 1
        return in_grad_mode(True, self.closure)

    def _gradient(self) -> Vector:
        found = [zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
        return np.concatenate([np.ravel(_real(gradient.detach())) for gradient in found])

    def _place(self, origin: list[Tensor], direction: Vector, length: float) -> None:
        """The parameters at ``origin + length * direction``."""
        start = 0
        with no_grad():
            for parameter, first in zip(self.parameters, origin, strict=True):
                end = start + first.numel()
                part = direction[start:end].reshape(tuple(first.shape))
                _real(parameter).copy_(first + from_numpy(part * direction.dtype.type(length)))
                start = end


def _real(tensor: Tensor) -> Tensor:
    """Complex numbers as pairs of real ones; real ones as they are."""
    return view_as_real(tensor) if tensor.dtype.is_complex else tensor
