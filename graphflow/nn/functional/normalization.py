"""Normalisation.  Means and variances are taken in float32 for half precision, as in PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphflow.autocasting import in_float32
from graphflow.autograd.modes import no_grad
from graphflow.checks import need_floating, need_tensor
from graphflow.dispatch import apply, assign
from graphflow.errors import ShapeError
from graphflow.formulas import applied
from graphflow.functions.elementwise import add, clamp, div, mul, pow, rsqrt, sub
from graphflow.functions.norms import norm
from graphflow.functions.reductions import count, mean, normal_dims
from graphflow.functions.shaping import cut
from graphflow.ir import types as T
from graphflow.ir.op import Builder
from graphflow.ir.ops.standardise import mean_over
from graphflow.promotion import cast
from graphflow.tensor import Tensor

__all__ = [
    "batch_norm", "group_norm", "instance_norm", "layer_norm", "local_response_norm",
    "normalize", "rms_norm",
]  # fmt: skip


def _wide(x: Tensor) -> Tensor:
    """In float32 if it is a half."""
    return cast(x, T.float32) if x.dtype.itemsize == 2 else x


def _standardised(x: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
    """(x - mean) / sqrt(var + eps) over ``dims``."""
    return apply("standardise", x, axes=normal_dims(dims, x.ndim), eps=float(eps))


def _moved(b: Builder, settings: tuple[Any, ...], x: Any, *others: Any) -> list[Any]:
    """Running statistics, a step towards the mean and the variance of ``x``.

    ``others`` are those of the two that are ``given``, and the step and what it leaves of the old
    values if ``momentum`` is no number.  With ``samples`` every sample has statistics of its own,
    whose means over the batch count.
    """
    axes, given, samples, momentum, unbiased = settings
    running, steps = others[: sum(given)], others[sum(given) :]
    step, rest = steps or (momentum, 1.0 - momentum)
    centre = mean_over(b, x, axes)
    centred = b.sub(x, centre)
    variance = mean_over(b, b.mul(centred, centred), axes)
    if samples:
        centre, variance = mean_over(b, centre, (0,)), mean_over(b, variance, (0,))
    now = [value for value, there in zip((centre, b.mul(variance, unbiased)), given) if there]
    moved = []
    for value, old in zip(now, running):
        new = b.reshape(value, shape=tuple(old.shape))
        if new.dtype is not old.dtype:
            new = b.cast(new, dtype=old.dtype)
        moved.append(b.add(b.mul(old, rest), b.mul(new, step)))
    return moved


def _move(
    x: Tensor,
    axes: tuple[int, ...],
    running: tuple[Tensor | None, Tensor | None],
    momentum: Any,
    samples: bool = False,
) -> None:
    """Let the ``running`` mean and variance take a step towards those of ``x`` over ``axes``."""
    given = [old for old in running if old is not None]
    if not given or not (seen := count(x, axes)):  # an empty batch says nothing
        return
    steps: tuple[Tensor, ...] = ()
    if isinstance(momentum, Tensor):
        steps = cast(momentum, given[0].dtype), cast(1.0 - momentum, given[0].dtype)
        momentum = None
    unbiased = seen / max(1, seen - 1)
    if isinstance(unbiased, Tensor):  # of symbolic sizes
        unbiased = cast(unbiased, x.dtype)
    there = tuple([old is not None for old in running])
    settings = normal_dims(axes, x.ndim), there, samples, momentum, unbiased
    with no_grad():
        for old, new in zip(given, applied(_moved, settings, x, *given, *steps)):
            assign(old, new)


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None, shape: Sequence[int]) -> Tensor:
    """``x * weight + bias``, both in the given shape."""
    if weight is not None:
        x = mul(x, weight.reshape(tuple(shape)))
    return x if bias is None else add(x, bias.reshape(tuple(shape)))


def _over(name: str, input: Tensor, normalized_shape: Any) -> tuple[int, ...]:
    """The last dimensions, checked to be those of ``normalized_shape``."""
    need_floating(name, need_tensor(name, input))
    extents = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not extents or tuple(input.shape[-len(extents) :]) != extents:
        raise ShapeError(
            f"{name} over {list(extents)} does not fit an input of shape {list(input.shape)}"
        )
    return tuple(range(-len(extents), 0))


@in_float32
def layer_norm(
    input: Tensor, normalized_shape: Any, weight: Tensor | None = None, bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """(x - mean) / sqrt(var + eps) over the last dimensions, then scale and shift."""
    dims = _over("layer_norm", input, normalized_shape)
    for what, x in (("weight", weight), ("bias", bias)):
        if x is not None and x.shape != input.shape[dims[0] :]:
            raise ShapeError(
                f"layer_norm: {what} of shape {list(x.shape)} must have the normalised shape "
                f"{list(input.shape[dims[0] :])}"
            )
    out = _standardised(_wide(input), dims, eps)
    if weight is not None:
        out = mul(out, weight)
    return cast(out if bias is None else add(out, bias), input.dtype)


@in_float32
def rms_norm(
    input: Tensor, normalized_shape: Any, weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """x / sqrt(mean(x²) + eps) over the last dimensions, then scale (Zhang and Sennrich 2019).

    ``eps`` is the smallest step at 1 of the dtype (float32's for halves) unless given.
    """
    dims = _over("rms_norm", input, normalized_shape)
    x = _wide(input)
    small = float(np.finfo(x.dtype.numpy).eps) if eps is None else eps
    out = mul(x, rsqrt(add(mean(mul(x, x), dims, keepdim=True), small)))
    return cast(out if weight is None else mul(out, weight), input.dtype)


def _more_than_one(name: str, shape: Sequence[int], kept: Sequence[int]) -> None:
    """Refuse statistics over a single value."""
    values = 1
    for axis, extent in enumerate(shape):
        values *= 1 if axis in kept else extent
    if values == 1:
        raise ValueError(
            f"{name}: expected more than 1 value per channel when training, got input size "
            f"{list(shape)}"
        )


def _channel_shape(x: Tensor) -> tuple[int, ...]:
    return (1, -1, *[1] * (x.ndim - 2))


def batch_norm(
    input: Tensor, running_mean: Tensor | None, running_var: Tensor | None,
    weight: Tensor | None = None, bias: Tensor | None = None, training: bool = False,
    momentum: Any = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """Normalisation over all dimensions but 1 (Ioffe and Szegedy 2015).

    While training, statistics are the batch's and the running ones (given as
    tensors, or None) move towards them by ``momentum``; else those are used.
    """
    need_floating("batch_norm", need_tensor("batch_norm", input))
    if input.ndim < 2:
        if input.ndim and not input.numel():
            return input.clone()  # type: ignore[no-any-return]
        raise ShapeError(f"batch_norm: expected at least 2 dimensions, got {list(input.shape)}")
    for what, given in (("running_mean", running_mean), ("running_var", running_var),
                        ("weight", weight), ("bias", bias)):  # fmt: skip
        if given is not None and given.numel() != input.shape[1]:
            raise ShapeError(
                f"batch_norm: {what} should contain {input.shape[1]} elements, not {given.numel()}"
            )
    shape, x = _channel_shape(input), _wide(input)
    if training:
        _more_than_one("batch_norm", input.shape, (1,))
        if isinstance(eps, (int, float)) and eps <= 0:
            raise ValueError(f"batch_norm: eps must be greater than 0, not {eps}")
        dims = (0, *range(2, input.ndim))
        out = _standardised(x, dims, eps)
        _move(x, dims, (running_mean, running_var), momentum)
    elif running_mean is None or running_var is None:
        raise ValueError("batch_norm: expected running_mean and running_var when not training")
    else:
        spread = rsqrt(add(running_var.reshape(shape), eps))
        out = mul(sub(x, running_mean.reshape(shape)), spread)
    return cast(_affine(out, weight, bias, shape), input.dtype)


def instance_norm(
    input: Tensor, running_mean: Tensor | None = None, running_var: Tensor | None = None,
    weight: Tensor | None = None, bias: Tensor | None = None, use_input_stats: bool = True,
    momentum: Any = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """Normalisation of every channel of every sample (Ulyanov et al. 2016)."""
    need_floating("instance_norm", need_tensor("instance_norm", input))
    if not use_input_stats:
        return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    if input.ndim < 3:
        raise ShapeError(f"instance_norm: expected at least 3 dimensions, got {list(input.shape)}")
    _more_than_one("instance_norm", input.shape, (0, 1))
    dims = tuple(range(2, input.ndim))
    x = _wide(input)
    out = _standardised(x, dims, eps)
    _move(x, dims, (running_mean, running_var), momentum, samples=True)
    return cast(_affine(out, weight, bias, _channel_shape(input)), input.dtype)


@in_float32
def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """Normalisation of every group of channels of every sample (Wu and He 2018)."""
    need_floating("group_norm", need_tensor("group_norm", input))
    if input.ndim < 2:
        raise ShapeError(f"group_norm: expected at least 2 dimensions, got {list(input.shape)}")
    samples, channels = input.shape[:2]
    if num_groups <= 0 or channels % num_groups:
        raise ShapeError(f"group_norm: {num_groups} groups do not divide {channels} channels")
    for what, given in (("weight", weight), ("bias", bias)):
        if given is not None and tuple(given.shape) != (channels,):
            raise ShapeError(f"group_norm: {what} must hold one number for each of {channels}")
    if not input.numel():
        return _affine(mul(input, 1.0), weight, bias, _channel_shape(input))
    rows = _wide(input).reshape(samples, num_groups, -1)
    out = _standardised(rows, (2,), eps).reshape(tuple(input.shape))
    return cast(_affine(out, weight, bias, _channel_shape(input)), input.dtype)


def local_response_norm(
    input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Tensor:
    """x / (k + alpha * mean of squares of ``size`` channels around) ** beta.

    Krizhevsky et al. (2012); channels beyond the edge count as 0.
    """
    if need_tensor("local_response_norm", input).ndim < 3:
        raise ShapeError(
            f"local_response_norm: expected at least 3 dimensions, got {list(input.shape)}"
        )
    if not input.numel():
        return input
    rest = [(0, 0)] * (input.ndim - 2)
    around = ((0, 0), (size // 2, (size - 1) // 2), *rest)
    squares = apply("pad", mul(input, input), **_pad_attributes(around))
    channels = input.shape[1]
    total = cut(squares, 1, 0, channels, 1)
    for shift in range(1, size):
        total = add(total, cut(squares, 1, shift, shift + channels, 1))
    return div(input, pow(add(mul(div(total, size), alpha), k), beta))


def _pad_attributes(around: Sequence[tuple[int, int]]) -> dict[str, Any]:
    return {"low": tuple(a for a, _ in around), "high": tuple(b for _, b in around), "value": 0.0}


@in_float32
def normalize(
    input: Tensor, p: float = 2.0, dim: Any = 1, eps: float = 1e-12, out: Tensor | None = None
) -> Tensor:
    """``input`` over its p-norm along ``dim`` (not below ``eps``)."""
    made = div(input, clamp(norm(input, p, dim, keepdim=True), min=eps))
    return made if out is None else out.copy_(made)
