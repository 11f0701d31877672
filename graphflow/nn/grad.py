"""Gradients of convolutions by what was convolved, from that of the result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphflow.autograd.engine import grad
from graphflow.autograd.modes import enable_grad
from graphflow.functions.creation import zeros
from graphflow.nn.functional import conv1d, conv2d, conv3d
from graphflow.tensor import Tensor

Extents = int | Sequence[int]


def _pair(
    convolution: Callable[..., Tensor], dims: int
) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    def by_input(
        input_size: Sequence[int], weight: Tensor, grad_output: Tensor, stride: Extents = 1,
        padding: Extents = 0, dilation: Extents = 1, groups: int = 1,
    ) -> Tensor:  # fmt: skip
        given = _zeros(input_size, grad_output)
        with enable_grad():
            out = convolution(given, weight, None, stride, padding, dilation, groups)
        return _slope(out, given, grad_output)

    def by_weight(
        input: Tensor, weight_size: Sequence[int], grad_output: Tensor, stride: Extents = 1,
        padding: Extents = 0, dilation: Extents = 1, groups: int = 1,
    ) -> Tensor:  # fmt: skip
        given = _zeros(weight_size, grad_output)
        with enable_grad():
            out = convolution(input, given, None, stride, padding, dilation, groups)
        return _slope(out, given, grad_output)

    for function, what in ((by_input, "input"), (by_weight, "weight")):
        function.__name__ = function.__qualname__ = f"conv{dims}d_{what}"
        function.__doc__ = (
            f"The gradient by the {what} of ``conv{dims}d``, whose result has ``grad_output``."
        )
    return by_input, by_weight


def _zeros(size: Sequence[int], like: Tensor) -> Tensor:
    made: Tensor = zeros(tuple(size), dtype=like.dtype, device=like.device)
    return made.requires_grad_()


def _slope(out: Tensor, given: Tensor, grad_output: Tensor) -> Tensor:
    slope: Any = grad(out, given, grad_output)[0]
    return slope  # type: ignore[no-any-return]


conv1d_input, conv1d_weight = _pair(conv1d, 1)
conv2d_input, conv2d_weight = _pair(conv2d, 2)
conv3d_input, conv3d_weight = _pair(conv3d, 3)
