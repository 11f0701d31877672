"""Gradients kept within bounds; works in compiled steps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from graphflow.autograd.modes import in_grad_mode
from graphflow.eager_functions import as_a_whole
from graphflow.errors import GraphFlowError
from graphflow.functions.creation import tensor
from graphflow.functions.elementwise import clamp, isfinite, mul
from graphflow.functions.norms import norm
from graphflow.functions.shaping import stack
from graphflow.mode import mode
from graphflow.promotion import cast
from graphflow.tensor import Tensor


def _gradients(parameters: Any) -> list[Tensor]:
    given: Iterable[Tensor] = [parameters] if isinstance(parameters, Tensor) else parameters
    return [p.grad for p in given if p.grad is not None]


def get_total_norm(
    tensors: Any, norm_type: float = 2.0, error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:  # fmt: skip
    """The norm of all tensors as if they were one vector."""
    held = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    if not held:
        return tensor(0.0)
    total = _together([t.detach() for t in held], float(norm_type))
    if error_if_nonfinite and mode.tracer is None and not isfinite(total).item():
        raise GraphFlowError(
            f"the total norm of order {norm_type} is not finite, so it cannot be clipped; pass "
            "error_if_nonfinite=False to go on"
        )
    return total


@as_a_whole()
def _together(tensors: list[Tensor], order: float) -> Tensor:
    return norm(stack([norm(t, order) for t in tensors]), order)


def clip_grads_with_norm_(
    parameters: Any, max_norm: float, total_norm: Tensor, foreach: bool | None = None
) -> None:
    """Scale the gradients by max_norm / total_norm, if that is below 1."""
    in_grad_mode(False, _scale, _gradients(parameters), total_norm, max_norm)


@as_a_whole()
def _scale(gradients: list[Tensor], total: Tensor, most: float) -> None:
    factor = clamp(most / (total + 1e-6), max=1.0)
    for gradient in gradients:
        gradient.copy_(mul(gradient, cast(factor, gradient.dtype)))


def clip_grad_norm_(
    parameters: Any, max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:  # fmt: skip
    """Scale the gradients so that their norm together is at most ``max_norm``.

    Returns the norm before that.
    """
    held = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    order = float(norm_type)
    total = in_grad_mode(False, get_total_norm, _gradients(held), order, error_if_nonfinite)
    clip_grads_with_norm_(held, max_norm, total)
    return total


clip_grad_norm = clip_grad_norm_


def clip_grad_value_(parameters: Any, clip_value: float, foreach: bool | None = None) -> None:
    """Limit every element of the gradients to [-clip_value, clip_value]."""
    in_grad_mode(False, _limit, _gradients(parameters), clip_value)


@as_a_whole()
def _limit(gradients: list[Tensor], most: float) -> None:
    for gradient in gradients:
        gradient.copy_(clamp(gradient, min=-most, max=most))
