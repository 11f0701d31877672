"""Losses of numbers against numbers, and of distributions against each other."""

from __future__ import annotations

import math
import warnings

from graphflow.autocasting import in_float32
from graphflow.checks import need_tensor
from graphflow.eager_functions import SEVERAL, as_a_whole
from graphflow.errors import ShapeError
from graphflow.functions.elementwise import abs, add, div, eq, exp, log, mul, sub, where
from graphflow.functions.reductions import any as any_of
from graphflow.functions.shaping import unsqueeze
from graphflow.mode import mode
from graphflow.nn.functional.reduction import (
    check_weight,
    chosen,
    reduced,
    warn_of_broadcast,
    weighted,
)
from graphflow.tensor import Tensor

__all__ = [
    "gaussian_nll_loss", "huber_loss", "kl_div", "l1_loss", "mse_loss", "poisson_nll_loss",
    "smooth_l1_loss",
]  # fmt: skip


@in_float32
@as_a_whole(SEVERAL)
def mse_loss(
    input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
    reduction: str = "mean", weight: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Mean of (input - target) squared, weighted by ``weight`` if given."""
    warn_of_broadcast("mse_loss", input, target)
    how = chosen(reduction, size_average, reduce)
    difference = sub(input, target)
    return weighted("mse_loss", mul(difference, difference), input, weight, how)


@in_float32
@as_a_whole(SEVERAL)
def l1_loss(
    input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
    reduction: str = "mean", weight: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Mean of |input - target|, weighted by ``weight`` if given."""
    warn_of_broadcast("l1_loss", input, target)
    how = chosen(reduction, size_average, reduce)
    return weighted("l1_loss", abs(sub(input, target)), input, weight, how)


@in_float32
@as_a_whole(SEVERAL)
def smooth_l1_loss(
    input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
    reduction: str = "mean", beta: float = 1.0,
) -> Tensor:  # fmt: skip
    """Squared over 2 ``beta`` below ``beta``, linear above."""
    warn_of_broadcast("smooth_l1_loss", input, target)
    how = chosen(reduction, size_average, reduce)
    if isinstance(beta, (int, float)) and beta < 0:
        raise ValueError(f"smooth_l1_loss: beta must be at least 0, not {beta}")
    difference = abs(sub(input, target))
    if isinstance(beta, (int, float)) and beta == 0:
        return reduced(difference, how)
    small = mul(mul(difference, difference), 0.5 / beta)
    return reduced(where(difference < beta, small, sub(difference, 0.5 * beta)), how)


@in_float32
@as_a_whole(SEVERAL)
def huber_loss(
    input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0,
    weight: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Half the square below ``delta``, linear above (Huber 1964)."""
    warn_of_broadcast("huber_loss", input, target)
    if isinstance(delta, (int, float)) and delta <= 0:
        raise ValueError(f"huber_loss: delta must be greater than 0, not {delta}")
    difference = abs(sub(input, target))
    small = mul(mul(difference, difference), 0.5)
    loss = where(difference < delta, small, mul(sub(difference, 0.5 * delta), delta))
    if weight is not None:
        check_weight("huber_loss", input, weight)
        loss = mul(loss, weight)
    return reduced(loss, reduction)


def _times_its_log(x: Tensor) -> Tensor:
    """x log x, 0 at 0 (and its slope there taken as 0)."""
    zero = eq(x, 0)
    return mul(x, log(where(zero, 1.0, x)))


@in_float32
@as_a_whole(SEVERAL)
def kl_div(
    input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
    reduction: str = "mean", log_target: bool = False,
) -> Tensor:  # fmt: skip
    """Kullback and Leibler's divergence; ``input`` holds log-probabilities.

    ``reduction="batchmean"`` sums and divides by the extent of dimension 0.
    """
    need_tensor("kl_div", target, "target")
    batch = reduction == "batchmean" and size_average is None and reduce is None
    if reduction == "mean" and size_average is None and reduce is None:
        warnings.warn(
            "kl_div: reduction='mean' divides by the number of elements; the divergence itself "
            "is reduction='batchmean'",
            stacklevel=2,
        )
    how = "sum" if batch else chosen(reduction, size_average, reduce)
    if log_target:
        loss = mul(exp(target), sub(target, input))
    else:
        loss = sub(_times_its_log(target), mul(target, input))
    out = reduced(loss, how)
    return div(out, input.shape[0]) if batch and input.ndim else out


@in_float32
def poisson_nll_loss(
    input: Tensor, target: Tensor, log_input: bool = True, full: bool = False,
    size_average: bool | None = None, eps: float = 1e-8, reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """Minus the log-likelihood of counts ``target`` under Poisson's distribution.

    ``log_input``: the input is the logarithm of the rate.  ``full`` adds Stirling's
    approximation of log(target!) for targets above 1.
    """
    how = chosen(reduction, size_average, reduce)
    if log_input:
        loss = sub(exp(need_tensor("poisson_nll_loss", input)), mul(target, input))
    else:
        loss = sub(input, mul(target, log(add(input, eps))))
    if full:
        large = where(target > 1, target, 1.0)
        half_log = mul(log(mul(large, 2 * math.pi)), 0.5)
        stirling = add(sub(mul(large, log(large)), large), half_log)
        loss = add(loss, where(target > 1, stirling, 0.0))
    return reduced(loss, how)


@in_float32
def gaussian_nll_loss(
    input: Tensor, target: Tensor, var: Tensor | float, full: bool = False, eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """Minus the log-likelihood under a normal distribution of mean ``input``.

    The variance is not taken below ``eps``; its gradient does not see that limit.
    """
    spread = _variances(need_tensor("gaussian_nll_loss", input), var)
    pulled = add(sub(spread, spread.detach()), eps)
    safe = where(spread < eps, pulled, spread)
    difference = sub(input, target)
    loss = mul(add(log(safe), div(mul(difference, difference), safe)), 0.5)
    if full:
        loss = add(loss, 0.5 * math.log(2 * math.pi))
    return reduced(loss, reduction)


def _variances(input: Tensor, var: Tensor | float) -> Tensor:
    """``var`` in a shape that broadcasts against the input."""
    if not isinstance(var, Tensor):
        if var < 0:
            raise ValueError("gaussian_nll_loss: var has negative entries")
        return add(mul(input.detach(), 0.0), var)
    if mode.tracer is None and any_of(var.detach() < 0).item():
        raise ValueError("gaussian_nll_loss: var has negative entries")
    if var.shape == input.shape:
        return var
    if var.shape == input.shape[:-1]:
        return unsqueeze(var, -1)
    differing = [d for e, d in zip(input.shape, var.shape) if e != d]
    if var.ndim == input.ndim and differing == [1]:
        return var
    raise ShapeError(
        f"gaussian_nll_loss: var of shape {list(var.shape)} is of incorrect size for an input of "
        f"shape {list(input.shape)}"
    )
