"""Normalisation."""

from __future__ import annotations

from typing import Any

from graphflow.onnx.operators.table import F, dtype_of, gf, operator
from graphflow.promotion import cast
from graphflow.tensor import Tensor


@operator("BatchNormalization")
def batch_normalization(
    X: Tensor, scale: Tensor, B: Tensor, input_mean: Tensor, input_var: Tensor, *,
    epsilon: float = 1e-5, momentum: float = 0.9, training_mode: int = 0, spatial: int = 1,
    outputs: int = 1,
) -> Any:  # fmt: skip
    """Normalisation of channels by given statistics, or in training by the batch's."""
    if not training_mode:
        return F.batch_norm(X, input_mean, input_var, scale, B, eps=epsilon)
    axes = (0, *range(2, X.ndim))
    mean = gf.mean(X, axes)
    variance = gf.var(X, axes, correction=0)
    made = F.batch_norm(X, mean, variance, scale, B, eps=epsilon)
    running = [
        gf.add(gf.mul(old, momentum), gf.mul(new.to(old.dtype), 1 - momentum))
        for old, new in ((input_mean, mean), (input_var, variance))
    ]
    return (made, *running)[:outputs]


@operator("InstanceNormalization")
def instance_normalization(
    input: Tensor, scale: Tensor, B: Tensor, *, epsilon: float = 1e-5
) -> Any:
    """Normalisation of every channel of every sample."""
    return F.instance_norm(input, weight=scale, bias=B, eps=epsilon)


@operator("LayerNormalization")
def layer_normalization(
    X: Tensor, Scale: Tensor, B: Tensor | None = None, *, axis: int = -1, epsilon: float = 1e-5,
    stash_type: int = 1, outputs: int = 1,
) -> Any:  # fmt: skip
    """Normalisation over the axes from ``axis`` on; also the mean and 1 / deviation."""
    first = axis % X.ndim
    shape = tuple(X.shape[first:])
    if outputs == 1 and tuple(Scale.shape) == shape and (B is None or tuple(B.shape) == shape):
        return F.layer_norm(X, shape, Scale, B, epsilon)
    axes = tuple(range(first, X.ndim))
    x = cast(X, dtype_of(stash_type)) if stash_type == 1 and X.dtype.itemsize == 2 else X
    mean = gf.mean(x, axes, keepdim=True)
    centred = gf.sub(x, mean)
    inverse = gf.rsqrt(gf.add(gf.mean(gf.mul(centred, centred), axes, keepdim=True), epsilon))
    made = gf.mul(cast(gf.mul(centred, inverse), X.dtype), Scale)
    made = made if B is None else gf.add(made, B)
    return (made, mean, inverse)[:outputs]


@operator("RMSNormalization")
def rms_normalization(
    X: Tensor, scale: Tensor, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Any:
    """The operand over its root mean square over the axes from ``axis`` on."""
    first = axis % X.ndim
    shape = tuple(X.shape[first:])
    if tuple(scale.shape) == shape:
        return F.rms_norm(X, shape, scale, epsilon)
    return gf.mul(F.rms_norm(X, shape, None, epsilon), scale)


@operator("GroupNormalization")
def group_normalization(
    X: Tensor, scale: Tensor, bias: Tensor, *, num_groups: int, epsilon: float = 1e-5,
    stash_type: int = 1, opset: int,
) -> Any:  # fmt: skip
    """Normalisation of groups of channels (before version 21: a scale a group)."""
    if opset >= 21 or scale.shape[0] == X.shape[1]:
        return F.group_norm(X, num_groups, scale, bias, epsilon)
    shape = (1, num_groups, 1, *[1] * (X.ndim - 2))
    made = F.group_norm(X, num_groups, None, None, epsilon)
    split = made.reshape(X.shape[0], num_groups, X.shape[1] // num_groups, *X.shape[2:])
    return gf.add(gf.mul(split, scale.reshape(shape)), bias.reshape(shape)).reshape(tuple(X.shape))


@operator("LRN")
def local_response(
    X: Tensor, *, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0, size: int
) -> Any:
    """Normalisation by the squares of neighbouring channels."""
    low = (size - 1) // 2
    squares = F.pad(gf.mul(X, X), (*[0, 0] * (X.ndim - 2), low, size - 1 - low))
    total = gf.narrow(squares, 1, 0, X.shape[1])
    for shift in range(1, size):
        total = gf.add(total, gf.narrow(squares, 1, shift, X.shape[1]))
    return gf.div(X, gf.pow(gf.add(gf.mul(total, alpha / size), bias), beta))


@operator("MeanVarianceNormalization")
def mean_variance(X: Tensor, *, axes: Any = (0, 2, 3)) -> Any:
    """(x - mean) / deviation over some axes."""
    dims = tuple(axes)
    centred = gf.sub(X, gf.mean(X, dims, keepdim=True))
    deviation = gf.sqrt(gf.mean(gf.mul(centred, centred), dims, keepdim=True))
    return gf.div(centred, gf.add(deviation, 1e-9))
