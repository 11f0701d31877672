"""Losses of classes: negative log-likelihood, cross entropy, binary cross entropy."""

from __future__ import annotations

from graphflow.autocasting import in_float32, refused_on_cuda
from graphflow.checks import need_floating, need_tensor
from graphflow.dispatch import apply
from graphflow.eager_functions import SEVERAL, as_a_whole
from graphflow.errors import DTypeError, GraphFlowError, IndexRangeError, ShapeError
from graphflow.functions.elementwise import (
    add,
    clamp,
    div,
    log,
    log1p,
    logical_and,
    mul,
    neg,
    sub,
    where,
)
from graphflow.functions.reductions import all as all_of
from graphflow.functions.reductions import log_softmax, reduce, sum
from graphflow.functions.shaping import squeeze, unsqueeze
from graphflow.ir import types as T
from graphflow.mode import mode
from graphflow.nn.functional.activation import logsigmoid
from graphflow.nn.functional.linear import linear
from graphflow.nn.functional.reduction import chosen, reduced, same_shape
from graphflow.promotion import cast
from graphflow.tensor import Tensor

__all__ = [
    "binary_cross_entropy", "binary_cross_entropy_with_logits", "cross_entropy",
    "linear_cross_entropy", "nll_loss",
]  # fmt: skip


def _classes(name: str, input: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Scores [N, C, ...] and classes [N, ...], checked against each other."""
    need_floating(name, need_tensor(name, input))
    if need_tensor(name, target, "target").dtype.kind not in ("int", "uint"):
        raise DTypeError(f"{name}: the target must hold class indices, not {target.dtype.name}")
    single = input.ndim == 1
    scores = unsqueeze(input, 0) if single else input
    classes = unsqueeze(target, 0) if single and target.ndim == 0 else target
    wanted = [scores.shape[0], *scores.shape[2:]] if input.ndim else []
    if input.ndim == 0 or list(classes.shape) != wanted:
        raise ShapeError(
            f"{name}: input of shape {list(input.shape)} needs a target of shape {wanted}, "
            f"got {list(target.shape)}"
        )
    return scores, classes


@in_float32
def nll_loss(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: bool | None = None,
    ignore_index: int = -100, reduce: bool | None = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """Minus the log-probability of the target class.

    input [N, C] or [C] or [N, C, ...]; target [N], [] or [N, ...] of class
    indices.  A class out of range raises (``ignore_index`` excepted).
    """
    how = chosen(reduction, size_average, reduce)
    scores, classes = _classes("nll_loss", input, target)
    ignored: Tensor | None = classes == ignore_index
    if mode.tracer is None and ignored is not None and not ignored._concrete("nll_loss").any():
        ignored = None  # seen before anything is computed for the sake of it
    kept = classes if ignored is None else where(ignored, 0, classes)
    index = unsqueeze(cast(kept, T.int64), 1)
    try:
        loss = neg(squeeze(apply("gather", scores, index, axis=1), 1))
    except IndexRangeError as error:
        raise IndexRangeError(
            f"nll_loss: a target is no class: {error} (classes are 0 to {scores.shape[1] - 1}; "
            f"{ignore_index} is ignored)"
        ) from None
    factor = None
    if weight is not None:
        factor = apply("take", _class_weights("nll_loss", scores, weight), index, axis=0)
        factor = squeeze(factor, 1)
        loss = mul(loss, factor)
    if ignored is None and factor is None:
        return squeeze(loss, 0) if how == "none" and target.ndim == 0 else reduced(loss, how)
    if ignored is None:
        ignored = classes == ignore_index
    if how == "mean":
        return _masked_mean(loss, factor, ignored)
    loss = where(ignored, 0.0, loss)
    return squeeze(loss, 0) if how == "none" and target.ndim == 0 else reduced(loss, how)


def _class_weights(name: str, scores: Tensor, weight: Tensor) -> Tensor:
    if tuple(weight.shape) != (scores.shape[1],):
        raise ShapeError(
            f"{name}: weight must hold one number for each of {scores.shape[1]} classes, "
            f"got shape {list(weight.shape)}"
        )
    if weight.dtype is not scores.dtype:
        raise DTypeError(
            f"{name}: the input is {scores.dtype.name}, the weight {weight.dtype.name}; cast one"
        )
    return weight


def _masked_mean(loss: Tensor, factor: Tensor | None, ignored: Tensor) -> Tensor:
    share = cast(apply("logical_not", ignored), loss.dtype)
    if factor is not None:
        share = mul(share, factor.detach())
    return div(sum(where(ignored, 0.0, loss)), sum(share))


@in_float32
@as_a_whole(SEVERAL)
def cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: bool | None = None,
    ignore_index: int = -100, reduce: bool | None = None, reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:  # fmt: skip
    """Cross entropy of logits against class indices, or class probabilities.

    input [N, C], [C] or [N, C, ...]; a floating target of the input's shape
    holds probabilities, an integer one class indices.
    """
    need_tensor("cross_entropy", target, "target")
    how = chosen(reduction, size_average, reduce)
    if isinstance(label_smoothing, (int, float)) and not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must be between 0 and 1, not {label_smoothing}")
    axis = 0 if need_tensor("cross_entropy", input).ndim == 1 else 1
    scores = log_softmax(input, axis)
    if target.dtype.is_floating_point:
        if input.ndim > 1 and target.ndim == input.ndim - 1:
            raise ShapeError(
                "cross_entropy: a floating target holds class probabilities and must have the "
                f"same shape as the input, {list(input.shape)}, not {list(target.shape)}; class "
                "indices are integers: pass target.long()"
            )
        same_shape("cross_entropy", input, target)
        if ignore_index >= 0:
            raise ValueError("cross_entropy: ignore_index needs a target of class indices")
        return _soft_cross_entropy(scores, target, weight, how, label_smoothing, axis)
    sharp = nll_loss(scores, target, weight, None, ignore_index, None, how)
    if isinstance(label_smoothing, (int, float)) and label_smoothing == 0:
        return sharp
    flat = _uniform_loss(scores, target, weight, ignore_index, how)
    share = label_smoothing / scores.shape[axis]
    return add(mul(sharp, 1 - label_smoothing), mul(flat, share))


def linear_cross_entropy(
    input: Tensor, linear_weight: Tensor, target: Tensor, *, linear_bias: Tensor | None = None,
    weight: Tensor | None = None, reduction: str = "mean", ignore_index: int | None = None,
    label_smoothing: float = 0.0, options: None = None,
) -> Tensor:  # fmt: skip
    """:func:`cross_entropy` of the logits that a linear layer makes of input [N, in] or [in].

    linear_weight [C, ..., in], linear_bias [C, ...]: logits are [N, C, ...].  ``options``, how
    PyTorch splits it, cannot be given.
    """
    if options is not None:
        raise GraphFlowError("linear_cross_entropy: there are no options here; leave them out")
    shape = tuple(linear_weight.shape[:-1])
    if len(shape) > 1 and input.ndim < 2:
        raise ShapeError(
            f"linear_cross_entropy: a weight of shape {list(linear_weight.shape)} takes input "
            f"[N, in], not {list(input.shape)}"
        )
    bias = None if linear_bias is None else linear_bias.reshape(-1)
    logits = linear(input, linear_weight.reshape(-1, linear_weight.shape[-1]), bias)
    logits = logits.reshape((*input.shape[:-1], *shape))
    ignored = -100 if ignore_index is None else ignore_index
    return cross_entropy(
        logits, target, weight, ignore_index=ignored, reduction=reduction,
        label_smoothing=label_smoothing,
    )  # fmt: skip


def _uniform_loss(
    input: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, how: str
) -> Tensor:
    """What label smoothing adds: the losses of all classes, weighted, summed."""
    scores, classes = _classes("cross_entropy", input, target)
    ignored = classes == ignore_index
    factor = None
    if weight is not None:
        scores = mul(scores, weight.reshape(1, -1, *[1] * (scores.ndim - 2)))
        factor = apply("take", weight, cast(where(ignored, 0, classes), T.int64), axis=0)
    loss = neg(reduce("reduce_sum", scores, 1, False))
    if how == "mean":
        return _masked_mean(loss, factor, ignored)
    loss = where(ignored, 0.0, loss)
    return squeeze(loss, 0) if how == "none" and target.ndim == 0 else reduced(loss, how)


def _soft_cross_entropy(
    scores: Tensor, target: Tensor, weight: Tensor | None, how: str, smoothing: float, axis: int
) -> Tensor:
    classes = scores.shape[axis]
    if not isinstance(smoothing, (int, float)) or smoothing:
        target = add(mul(target, 1 - smoothing), smoothing / classes)
    product = mul(scores, target)
    if weight is not None:
        shape = [1] * scores.ndim
        shape[axis] = -1
        product = mul(product, weight.reshape(shape))
    loss = neg(reduce("reduce_sum", product, axis, False))
    return div(sum(loss), loss.shape.numel()) if how == "mean" else reduced(loss, how)


@refused_on_cuda("binary_cross_entropy_with_logits")
def binary_cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: bool | None = None,
    reduce: bool | None = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """-(t log p + (1 - t) log(1 - p)), the logarithms not below -100."""
    how = chosen(reduction, size_average, reduce)
    need_floating("binary_cross_entropy", need_tensor("binary_cross_entropy", input))
    same_shape("binary_cross_entropy", input, target)
    if mode.tracer is None:
        fits = logical_and(input.detach() >= 0, input.detach() <= 1)
        if not all_of(fits).item():
            raise ValueError("binary_cross_entropy: all elements of input must be in [0, 1]")
    return _binary_cross_entropy(input, target, weight, how)


@as_a_whole(SEVERAL)
def _binary_cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None, how: str) -> Tensor:
    yes, no = _log_of_at_least(input), _log_of_at_least(sub(1.0, input), neg(input))
    loss = neg(add(mul(target, yes), mul(sub(1.0, target), no)))
    return reduced(loss if weight is None else mul(loss, weight), how)


def _log_of_at_least(p: Tensor, below_one: Tensor | None = None) -> Tensor:
    """log p (or log1p of p - 1, where that is known better), -100 with slope 0 at p = 0."""
    zero = p <= 0
    if below_one is None:
        value = log(where(zero, 1.0, p))
    else:
        value = log1p(where(zero, 0.0, below_one))
    return where(zero, -100.0, clamp(value, min=-100.0))


@in_float32
@as_a_whole(SEVERAL)
def binary_cross_entropy_with_logits(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: bool | None = None,
    reduce: bool | None = None, reduction: str = "mean", pos_weight: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Binary cross entropy of ``sigmoid(input)``, computed without overflow."""
    how = chosen(reduction, size_average, reduce)
    same_shape("binary_cross_entropy_with_logits", input, target)
    if pos_weight is None:
        loss = sub(mul(sub(1.0, target), input), logsigmoid(input))
    else:
        scale = add(mul(sub(pos_weight, 1.0), target), 1.0)
        loss = sub(mul(sub(1.0, target), input), mul(scale, logsigmoid(input)))
    return reduced(loss if weight is None else mul(loss, weight), how)
