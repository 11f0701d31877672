"""Layers and losses as functions: ``import graphflow.nn.functional as F``."""

from __future__ import annotations

import math
from typing import Any

from graphflow.checks import need_floating, need_tensor
from graphflow.dispatch import apply
from graphflow.elementwise import (
    abs,
    add,
    clamp,
    div,
    erf,
    exp,
    log,
    log1p,
    lt,
    mul,
    neg,
    pow,
    relu,
    rsqrt,
    sigmoid,
    sub,
    tanh,
    where,
)
from graphflow.errors import DTypeError, GraphFlowError, IndexRangeError, ShapeError
from graphflow.ir import types as T
from graphflow.manipulation import one_hot
from graphflow.mode import mode
from graphflow.promotion import as_operand, cast
from graphflow.reductions import log_softmax, logsumexp, mean, reduce, softmax, sum
from graphflow.rng import default_generator
from graphflow.shaping import matmul, squeeze, t, unsqueeze
from graphflow.tensor import Tensor

__all__ = [
    "binary_cross_entropy", "binary_cross_entropy_with_logits", "cross_entropy", "dropout", "elu",
    "gelu", "l1_loss", "layer_norm", "leaky_relu", "linear", "log_softmax", "logsigmoid",
    "logsumexp", "mish", "mse_loss", "nll_loss", "normalize", "one_hot", "relu", "sigmoid",
    "silu", "smooth_l1_loss", "softmax", "softplus", "tanh",
]  # fmt: skip


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``input @ weight.T + bias``; input [..., in], weight [out, in], bias [out]."""
    need_tensor("linear", input)
    if input.ndim == 0 or input.shape[-1] != weight.shape[-1]:
        raise ShapeError(
            f"linear: input of shape {list(input.shape)} does not fit a weight of shape "
            f"{list(weight.shape)}: the last dimension must be {weight.shape[-1]}"
        )
    if input.dtype is not weight.dtype:
        raise DTypeError(
            f"linear: the input is {input.dtype.name}, the weight {weight.dtype.name}; "
            f"convert one, for example input.to({weight.dtype!r})"
        )
    lead = tuple(input.shape[:-1])
    # One flat product: its weight gradient is one product, too, not a sum over a batch of them.
    rows = input if input.ndim <= 2 else input.reshape(-1, input.shape[-1])
    out = matmul(rows, t(weight))
    if bias is not None:
        out = apply("add", out, bias)
    return out if input.ndim <= 2 else out.reshape((*lead, weight.shape[0]))


# ---- activations -------------------------------------------------------------------


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + exp(beta * x)) / beta; the identity above ``threshold``."""
    scaled = input if beta == 1 else mul(input, beta)
    safe = where(scaled > threshold, 0.0, scaled)
    soft = log1p(exp(safe))
    return where(scaled > threshold, input, soft if beta == 1 else div(soft, beta))


def mish(input: Tensor) -> Tensor:
    """x * tanh(softplus(x))."""
    return mul(input, tanh(softplus(input)))


def silu(input: Tensor) -> Tensor:
    """x * sigmoid(x)."""
    return mul(input, sigmoid(input))


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """x * Phi(x), Phi the normal distribution function; "tanh" approximates it."""
    if approximate == "tanh":
        inner = mul(add(input, mul(pow(input, 3), 0.044715)), math.sqrt(2.0 / math.pi))
        return mul(mul(input, 0.5), add(tanh(inner), 1.0))
    if approximate != "none":
        raise ValueError(f"gelu: approximate must be 'none' or 'tanh', not {approximate!r}")
    return mul(mul(input, 0.5), add(erf(mul(input, math.sqrt(0.5))), 1.0))


def leaky_relu(input: Tensor, negative_slope: float = 0.01) -> Tensor:
    """x above 0, ``negative_slope`` * x below."""
    return where(input > 0, input, mul(input, negative_slope))


def elu(input: Tensor, alpha: float = 1.0) -> Tensor:
    """x above 0, alpha * (exp(x) - 1) below."""
    low = where(input > 0, 0.0, input)
    return where(input > 0, input, mul(apply("expm1", low), alpha))


def logsigmoid(input: Tensor) -> Tensor:
    """log(sigmoid(x)), without the underflow."""
    return sub(apply("minimum", input, as_operand(0, input.dtype)), log1p(exp(neg(abs(input)))))


def dropout(input: Tensor, p: Any = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zero each element at probability ``p`` and scale the rest by 1 / (1 - p)."""
    need_tensor("dropout", input)
    if isinstance(p, (int, float)) and not 0 <= p <= 1:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
    if not training or (isinstance(p, (int, float)) and p == 0):
        return input
    unit = default_generator.draw().uniform(tuple(input.shape), T.float32)
    keep = lt(unit, 1.0 - p)
    if isinstance(p, (int, float)):
        scale: Any = 0.0 if p == 1 else 1.0 / (1.0 - p)
    else:
        scale = where(p < 1.0, 1.0 / (1.0 - p), 0.0)
    out = where(keep, mul(input, scale), 0.0)
    return input.copy_(out) if inplace else out


def layer_norm(
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """(x - mean) / sqrt(var + eps) over the last dimensions, then scale and shift."""
    extents = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if tuple(input.shape[-len(extents) :]) != extents:
        raise ShapeError(
            f"layer_norm over {list(extents)} does not fit an input of shape {list(input.shape)}"
        )
    dims = tuple(range(-len(extents), 0))
    centred = sub(input, mean(input, dims, keepdim=True))
    variance = mean(mul(centred, centred), dims, keepdim=True)
    out = mul(centred, rsqrt(add(variance, eps)))
    if weight is not None:
        out = mul(out, weight)
    return out if bias is None else add(out, bias)


def normalize(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
    """``input`` over its p-norm along ``dim`` (not below ``eps``)."""
    from graphflow.reductions import norm

    return div(input, clamp(norm(input, p, dim, keepdim=True), min=eps))


# ---- losses ------------------------------------------------------------------------


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


def run_time_scalar(module: Any, name: str) -> Any:
    """A module's float attribute: itself eagerly, a run-time scalar of a program in a trace."""
    tracer = mode.tracer
    if tracer is None:
        return getattr(module, name)
    return tracer.scalar((id(module), name), lambda: getattr(module, name), name)
