"""All parameters as one vector, and back."""

from __future__ import annotations

from collections.abc import Iterable

from graphflow.autograd.modes import no_grad
from graphflow.checks import need_tensor
from graphflow.errors import ShapeError
from graphflow.functions.shaping import cat
from graphflow.tensor import Tensor


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """The parameters' elements one after the other; gradients flow through it."""
    return cat([p.reshape(-1) for p in parameters])


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Write the elements of ``vec`` into the parameters, in order."""
    need_tensor("vector_to_parameters", vec, "vec")
    held = list(parameters)
    if sum(p.numel() for p in held) > vec.numel():
        raise ShapeError(f"vector_to_parameters: {vec.numel()} elements are too few")
    start = 0
    with no_grad():
        for parameter in held:
            end = start + parameter.numel()
            parameter.copy_(vec[start:end].reshape(tuple(parameter.shape)))
            start = end
