"""What operations on matrices refuse, and small helpers they share."""

from __future__ import annotations

from typing import Any

from graphflow.checks import need_tensor
from graphflow.device import beside_operands
from graphflow.errors import DTypeError, GraphFlowError, ShapeError
from graphflow.functions.complex_numbers import conj
from graphflow.functions.shaping import broadcast_to, transpose
from graphflow.ir.types import broadcast_shapes
from graphflow.tensor import Tensor


def need_matrix(name: str, value: Any, what: str = "A") -> Tensor:
    """A tensor of float32, float64 or complex matrices."""
    tensor = need_tensor(name, value, what)
    if tensor.ndim < 2:
        raise ShapeError(
            f"{name}: The input tensor {what} must have at least 2 dimensions, "
            f"not shape {list(tensor.shape)}"
        )
    need_exact(name, tensor)
    return tensor


def need_exact(name: str, tensor: Tensor) -> None:
    """Refuse half precision and integers."""
    if not (tensor.dtype.is_floating_point or tensor.dtype.is_complex):
        raise DTypeError(
            f"{name}: Expected a floating point or complex tensor as input. Got {tensor.dtype.name}"
        )
    if tensor.dtype.itemsize < 4:
        raise DTypeError(f"{name}: Low precision dtypes not supported. Got {tensor.dtype.name}")


def need_square(name: str, value: Any, what: str = "A") -> Tensor:
    """A tensor of square matrices."""
    tensor = need_matrix(name, value, what)
    if tensor.shape[-1] != tensor.shape[-2]:
        raise ShapeError(
            f"{name}: {what} must be batches of square matrices, but they are "
            f"{tensor.shape[-2]} by {tensor.shape[-1]} matrices"
        )
    return tensor


def need_one_dtype(name: str, *tensors: Tensor) -> None:
    """Refuse operands of different dtypes."""
    first = tensors[0].dtype
    for tensor in tensors[1:]:
        if tensor.dtype is not first:
            raise GraphFlowError(
                f"{name}: Expected all tensors to have one dtype, got {first.name} and "
                f"{tensor.dtype.name}"
            )


def adjoint(x: Tensor) -> Tensor:
    """The conjugate transpose."""
    return conj(transpose(x, -2, -1))


def batched(*tensors: Tensor) -> list[Tensor]:
    """The matrices with their batch dimensions expanded to the common ones."""
    shape: Any = broadcast_shapes(*(tuple(t.shape[:-2]) for t in tensors))
    return [broadcast_to(t, (*shape, *t.shape[-2:])) for t in tensors]


@beside_operands
def identity(size: int, like: Tensor) -> Tensor:
    """The unit matrix in the dtype of ``like``."""
    from graphflow.functions.creation import eye

    return eye(size, dtype=like.dtype)
