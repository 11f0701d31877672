"""Matrix products."""

from __future__ import annotations

from typing import Any

from graphflow.dispatch import apply
from graphflow.ir import types as T
from graphflow.onnx.operators.table import gf, operator
from graphflow.promotion import cast
from graphflow.tensor import Tensor


@operator("MatMul")
def matmul(A: Tensor, B: Tensor) -> Any:
    """The matrix product, as NumPy's."""
    return gf.matmul(A, B)


@operator("Gemm")
def gemm(
    A: Tensor, B: Tensor, C: Tensor | None = None, *, alpha: float = 1.0, beta: float = 1.0,
    transA: int = 0, transB: int = 0,
) -> Any:  # fmt: skip
    """alpha A B + beta C, A and B transposed on request."""
    made = gf.matmul(A.t() if transA else A, B.t() if transB else B)
    made = made if alpha == 1.0 else gf.mul(made, alpha).to(A.dtype)
    if C is None:
        return made
    return gf.add(made, C if beta == 1.0 else gf.mul(C, beta).to(A.dtype))


@operator("Einsum")
def einsum(*inputs: Tensor, equation: str) -> Any:
    """Sums of products by Einstein's convention."""
    return gf.einsum(equation, *inputs)


@operator("Det")
def det(X: Tensor) -> Any:
    """Determinants."""
    return gf.linalg.det(X)


@operator("MatMulInteger")
def matmul_integer(
    A: Tensor, B: Tensor, a_zero_point: Tensor | None = None, b_zero_point: Tensor | None = None
) -> Any:
    """The product of 8-bit numbers less their zero points, in int32."""
    if a_zero_point is None and b_zero_point is None and A.dtype is B.dtype and A.ndim > 1 < B.ndim:
        return apply("matmul", A, B, dtype=T.int32)
    left, right = cast(A, T.int32), cast(B, T.int32)
    if a_zero_point is not None:
        zero = cast(a_zero_point, T.int32)
        left = gf.sub(left, zero.unsqueeze(-1) if zero.ndim and zero.numel() > 1 else zero)
    if b_zero_point is not None:
        right = gf.sub(right, cast(b_zero_point, T.int32))
    return gf.matmul(left, right)
