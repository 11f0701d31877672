"""Batch normalisation folded into the layer before it, for evaluation."""

from __future__ import annotations

import copy
from typing import Any

from graphflow.autograd.modes import no_grad
from graphflow.functions.creation import zeros_like
from graphflow.functions.elementwise import rsqrt
from graphflow.nn.parameter import Parameter
from graphflow.tensor import Tensor


def fuse_conv_bn_weights(
    conv_w: Tensor, conv_b: Tensor | None, bn_rm: Tensor, bn_rv: Tensor, bn_eps: float,
    bn_w: Tensor | None, bn_b: Tensor | None, transpose: bool = False,
) -> tuple[Parameter, Parameter]:  # fmt: skip
    """Weight and bias of the convolution that does both."""
    with no_grad():
        scale = rsqrt(bn_rv + bn_eps)
        if bn_w is not None:
            scale = scale * bn_w
        shape = [1] * conv_w.ndim
        shape[1 if transpose else 0] = -1
        bias = zeros_like(bn_rm) if conv_b is None else conv_b.detach()
        shift = (bias - bn_rm) * scale
        weight = conv_w.detach() * scale.reshape(shape)
        made = shift if bn_b is None else shift + bn_b.detach()
    return Parameter(weight, conv_w.requires_grad), Parameter(made, conv_w.requires_grad)


def fuse_conv_bn_eval(conv: Any, bn: Any, transpose: bool = False) -> Any:
    """A copy of ``conv`` that does what ``bn(conv(x))`` does in evaluation mode."""
    if conv.training or bn.training:
        raise ValueError("fuse_conv_bn_eval: both modules must be in evaluation mode")
    fused = copy.deepcopy(conv)
    fused.weight, fused.bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias,
        transpose,
    )  # fmt: skip
    return fused


def fuse_linear_bn_weights(
    linear_w: Tensor, linear_b: Tensor | None, bn_rm: Tensor, bn_rv: Tensor, bn_eps: float,
    bn_w: Tensor | None, bn_b: Tensor | None,
) -> tuple[Parameter, Parameter]:  # fmt: skip
    """Weight and bias of the linear layer that does both."""
    return fuse_conv_bn_weights(linear_w, linear_b, bn_rm, bn_rv, bn_eps, bn_w, bn_b)


def fuse_linear_bn_eval(linear: Any, bn: Any) -> Any:
    """A copy of ``linear`` that does what ``bn(linear(x))`` does in evaluation mode.

    The normalisation must have as many features as the layer's outputs, or one.
    """
    if linear.training or bn.training:
        raise ValueError("fuse_linear_bn_eval: both modules must be in evaluation mode")
    if bn.num_features not in (linear.out_features, 1):
        raise ValueError(
            "To fuse, linear.out_features == bn.num_features or bn.num_features == 1, not "
            f"{linear.out_features} and {bn.num_features}"
        )
    fused = copy.deepcopy(linear)
    statistics = (bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias)
    fused.weight, fused.bias = fuse_linear_bn_weights(linear.weight, linear.bias, *statistics)
    return fused
