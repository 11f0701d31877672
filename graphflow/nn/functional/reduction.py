"""What losses share: their reductions, the older spelling of those, checks of shapes."""

from __future__ import annotations

import warnings

from graphflow.checks import need_tensor
from graphflow.errors import ShapeError
from graphflow.functions.elementwise import div, mul
from graphflow.functions.reductions import mean, sum
from graphflow.tensor import Tensor


def chosen(reduction: str, size_average: bool | None, reduce: bool | None) -> str:
    """``reduction``, or what the older arguments ``size_average`` and ``reduce`` say."""
    if size_average is not None or reduce is not None:
        if reduce is False:
            reduction = "none"
        else:
            reduction = "sum" if size_average is False else "mean"
        warnings.warn(
            f"size_average and reduce are deprecated; use reduction={reduction!r}", stacklevel=3
        )
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"{reduction!r} is not a valid value for reduction: mean, sum or none")
    return reduction


def reduced(
    loss: Tensor, reduction: str, size_average: bool | None = None, reduce: bool | None = None
) -> Tensor:
    """The mean, the sum, or the losses themselves."""
    how = chosen(reduction, size_average, reduce)
    if how == "none":
        return loss
    return mean(loss) if how == "mean" else sum(loss)


def weighted(
    name: str, loss: Tensor, input: Tensor, weight: Tensor | None, reduction: str
) -> Tensor:
    """``loss`` times ``weight``; the mean is over the weights' sum."""
    if weight is None:
        return reduced(loss, reduction)
    check_weight(name, input, weight)
    loss = mul(loss, weight)
    return div(sum(loss), sum(weight)) if reduction == "mean" else reduced(loss, reduction)


def check_weight(name: str, input: Tensor, weight: Tensor) -> None:
    """One weight an element of the input."""
    if weight.shape != input.shape:
        raise ShapeError(
            f"{name}: weight of shape {list(weight.shape)} and input of shape "
            f"{list(input.shape)} must have the same size"
        )


def same_shape(name: str, input: Tensor, target: Tensor) -> None:
    """Refuse a target of another shape than the input's."""
    if need_tensor(name, input).shape != need_tensor(name, target, "target").shape:
        raise ShapeError(
            f"{name}: input of shape {list(input.shape)} and target of shape "
            f"{list(target.shape)} must have the same shape"
        )


def warn_of_broadcast(name: str, input: Tensor, target: Tensor) -> None:
    """Say that shapes differ: broadcasting a loss is seldom what was meant."""
    if need_tensor(name, input).shape != need_tensor(name, target, "target").shape:
        warnings.warn(
            f"{name}: a target of shape {list(target.shape)} beside an input of shape "
            f"{list(input.shape)} will be broadcast, which is seldom what was meant",
            stacklevel=3,
        )
