"""Losses."""

from __future__ import annotations

from graphflow.checks import need_floating, need_tensor
from graphflow.dispatch import apply
from graphflow.errors import DTypeError, GraphFlowError, IndexRangeError, ShapeError
from graphflow.functions.elementwise import (
    abs,
    add,
    clamp,
    div,
    log,
    log1p,
    mul,
    neg,
    sub,
    where,
)
from graphflow.functions.reductions import log_softmax, mean, reduce, sum
from graphflow.functions.shaping import squeeze, unsqueeze
from graphflow.ir import types as T
from graphflow.nn.functional.activation import logsigmoid
from graphflow.promotion import cast
from graphflow.tensor import Tensor

__all__ = [
    "binary_cross_entropy", "binary_cross_entropy_with_logits", "cross_entropy", "l1_loss",
    "mse_loss", "nll_loss", "smooth_l1_loss",
]  # fmt: skip


def _reduced(loss: Tensor, reduction: str) -> Tensor:
    if reduction == "mean":
        return mean(loss)
    if reduction == "sum":
        return sum(loss)
    if reduction == "none":
        return loss
    raise ValueError(f"{reduction!r} is not a valid value for reduction: mean, sum or none")


def _same_shape(name: str, input: Tensor, target: Tensor) -> None:
    if need_tensor(name, input).shape != need_tensor(name, target, "target").shape:
        raise ShapeError(
            f"{name}: input of shape {list(input.shape)} and target of shape "
            f"{list(target.shape)} must have the same shape"
        )


def mse_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """Mean of (input - target) squared."""
    difference = sub(need_tensor("mse_loss", input), need_tensor("mse_loss", target, "target"))
    return _reduced(mul(difference, difference), reduction)


def l1_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """Mean of |input - target|."""
    need_tensor("l1_loss", target, "target")
    return _reduced(abs(sub(need_tensor("l1_loss", input), target)), reduction)


def smooth_l1_loss(
    input: Tensor, target: Tensor, reduction: str = "mean", beta: float = 1.0
) -> Tensor:
    """Squared below ``beta``, linear above."""
    difference = abs(sub(input, target))
    if beta == 0:
        return _reduced(difference, reduction)
    small = mul(mul(difference, difference), 0.5 / beta)
    return _reduced(where(difference < beta, small, sub(difference, 0.5 * beta)), reduction)


def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Minus the log-probability of the target class.

    input [N, C] or [C] or [N, C, ...]; target [N], [] or [N, ...] of class
    indices.  A class out of range raises (``ignore_index`` excepted).
    """
    need_floating("nll_loss", need_tensor("nll_loss", input))
    if need_tensor("nll_loss", target, "target").dtype.kind not in ("int", "uint"):
        raise DTypeError(f"nll_loss: the target must hold class indices, not {target.dtype.name}")
    single = input.ndim == 1
    scores = unsqueeze(input, 0) if single else input
    classes = unsqueeze(target, 0) if single else target
    wanted = (scores.shape[0], *scores.shape[2:])
    if tuple(classes.shape) != wanted:
        raise ShapeError(
            f"nll_loss: input of shape {list(input.shape)} needs a target of shape "
            f"{list(wanted)}, got {list(target.shape)}"
        )
    ignored = classes == ignore_index
    index = unsqueeze(cast(where(ignored, 0, classes), T.int64), 1)
    try:
        loss = neg(squeeze(apply("gather", scores, index, axis=1), 1))
    except IndexRangeError as error:
        raise IndexRangeError(
            f"nll_loss: a target is no class: {error} (classes are 0 to {scores.shape[1] - 1}; "
            f"{ignore_index} is ignored)"
        ) from None
    factor = None
    if weight is not None:
        factor = apply("take", weight, squeeze(index, 1), axis=0)
        loss = mul(loss, factor)
    if reduction == "mean":
        return _masked_mean(loss, factor, ignored)
    loss = where(ignored, 0.0, loss)
    return squeeze(loss, 0) if reduction == "none" and single else _reduced(loss, reduction)


def _masked_mean(loss: Tensor, factor: Tensor | None, ignored: Tensor) -> Tensor:
    share = cast(apply("logical_not", ignored), loss.dtype)
    if factor is not None:
        share = mul(share, factor.detach())
    return div(sum(where(ignored, 0.0, loss)), sum(share))


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross entropy of logits against class indices, or class probabilities.

    input [N, C], [C] or [N, C, ...]; a floating target of the input's shape
    holds probabilities, an integer one class indices.
    """
    need_tensor("cross_entropy", target, "target")
    axis = 0 if need_tensor("cross_entropy", input).ndim == 1 else 1
    scores = log_softmax(input, axis)
    if target.dtype.is_floating_point:
        _same_shape("cross_entropy", input, target)
        return _soft_cross_entropy(scores, target, weight, reduction, label_smoothing, axis)
    if label_smoothing == 0.0:
        return nll_loss(scores, target, weight, ignore_index, reduction)
    if weight is not None:
        raise GraphFlowError("label smoothing with class weights needs a probability target")
    sharp = nll_loss(scores, target, None, ignore_index, reduction)
    ignored = target == ignore_index
    flat = where(ignored, 0.0, neg(mean(scores, axis)))
    spread = _masked_mean(flat, None, ignored) if reduction == "mean" else _reduced(flat, reduction)
    return add(mul(sharp, 1 - label_smoothing), mul(spread, label_smoothing))


def _soft_cross_entropy(
    scores: Tensor, target: Tensor, weight: Tensor | None, reduction: str, smoothing: float,
    axis: int,
) -> Tensor:  # fmt: skip
    if smoothing:
        target = add(mul(target, 1 - smoothing), smoothing / scores.shape[axis])
    product = mul(scores, target)
    if weight is not None:
        shape = [1] * scores.ndim
        shape[axis] = -1
        product = mul(product, weight.reshape(shape))
    loss = neg(reduce("reduce_sum", product, axis, False))
    if reduction == "mean":
        return div(sum(loss), max(1, loss.shape.numel()))
    return _reduced(loss, reduction)


def binary_cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """-(t log p + (1 - t) log(1 - p)), the logarithms not below -100."""
    _same_shape("binary_cross_entropy", input, target)
    yes = clamp(log(input), min=-100.0)
    no = clamp(log1p(neg(input)), min=-100.0)
    loss = neg(add(mul(target, yes), mul(sub(1.0, target), no)))
    return _reduced(loss if weight is None else mul(loss, weight), reduction)


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """Binary cross entropy of ``sigmoid(input)``, computed without overflow."""
    _same_shape("binary_cross_entropy_with_logits", input, target)
    if pos_weight is None:
        loss = sub(mul(sub(1.0, target), input), logsigmoid(input))
    else:
        scale = add(mul(sub(pos_weight, 1.0), target), 1.0)
        loss = sub(mul(sub(1.0, target), input), mul(scale, logsigmoid(input)))
    return _reduced(loss if weight is None else mul(loss, weight), reduction)
