"""Products of vectors and matrices: all of them end in the one contraction, ``matmul``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from graphflow.autocasting import in_lower_precision, in_widest
from graphflow.checks import need_tensor
from graphflow.dispatch import apply
from graphflow.errors import DTypeError, ShapeError
from graphflow.functions.elementwise import add, mul
from graphflow.functions.reductions import normal_dim
from graphflow.functions.reductions import sum as total
from graphflow.functions.shaping import permute, reshape, squeeze, unsqueeze
from graphflow.ir import types as T
from graphflow.promotion import as_operand, cast, is_one

if TYPE_CHECKING:
    from graphflow.tensor import Tensor

__all__ = [
    "addbmm", "addmm", "addmv", "addr", "baddbmm", "bmm", "chain_matmul", "dot", "ger", "inner",
    "matmul", "mm", "mv", "outer", "tensordot", "vdot",
]  # fmt: skip
METHODS = """
addbmm addmm addmv addr baddbmm bmm dot ger inner matmul mm mv outer vdot
""".split()
IN_PLACE = """
addbmm addmm addmv addr baddbmm
""".split()


def _same_dtype(name: str, *tensors: Tensor) -> None:
    first = need_tensor(name, tensors[0])
    for other in tensors[1:]:
        if need_tensor(name, other, "other").dtype is not first.dtype:
            raise DTypeError(
                f"{name} needs operands of one dtype, got {first.dtype.name} and "
                f"{other.dtype.name}; convert one, for example other.to({first.dtype!r})"
            )


def _need_rank(name: str, rank: int, *tensors: Tensor) -> None:
    for i, tensor in enumerate(tensors):
        if need_tensor(name, tensor).ndim != rank:
            raise ShapeError(
                f"{name}: operand {i} must have {rank} dimension{'s' * (rank > 1)}, "
                f"its shape is {list(tensor.shape)}"
            )


def _product(a: Tensor, b: Tensor) -> Tensor:
    """The primitive, for batches of matrices of one dtype."""
    if a.dtype is T.bool_:
        raise DTypeError("a matrix product of bool tensors is not defined; convert to integers")
    return apply("matmul", a, b)


@in_lower_precision
def matmul(input: Tensor, other: Tensor) -> Tensor:
    """Matrix product: vectors, matrices and batches of them, which broadcast.

    (n)·(n) is a number, (m,n)·(n) and (n)·(n,k) vectors, (…,m,n)·(…,n,k) matrices.
    """
    _same_dtype("matmul", input, other)
    if input.ndim == 0 or other.ndim == 0:
        raise ShapeError(
            "matmul: both operands need at least 1 dimension; they have "
            f"{input.ndim} and {other.ndim}"
        )
    row, column = input.ndim == 1, other.ndim == 1
    if input.shape[-1] != other.shape[0 if column else -2]:
        raise ShapeError(
            f"matmul: shapes {list(input.shape)} and {list(other.shape)} do not multiply: "
            f"{input.shape[-1]} columns do not meet {other.shape[0 if column else -2]} rows"
        )
    out = _product(unsqueeze(input, 0) if row else input, unsqueeze(other, 1) if column else other)
    if row:
        out = squeeze(out, -2)
    return squeeze(out, -1) if column else out


def _of_rank(name: str, summary: str, left: int, right: int) -> Any:
    @in_lower_precision
    def function(input: Tensor, other: Tensor) -> Tensor:
        _need_rank(name, left, input)
        _need_rank(name, right, other)
        _same_dtype(name, input, other)
        if left == 3 and input.shape[0] != other.shape[0]:
            raise ShapeError(
                f"{name}: batches of {input.shape[0]} and {other.shape[0]} matrices do not meet"
            )
        return matmul(input, other)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = summary
    return function


mm = _of_rank("mm", "Product of two matrices.", 2, 2)
bmm = _of_rank("bmm", "Products of the matrices of two batches of one length.", 3, 3)


def mv(input: Tensor, vec: Tensor) -> Tensor:
    """Matrix times vector."""
    _need_rank("mv", 2, input)
    _need_rank("mv", 1, vec)
    return matmul(input, vec)


@in_widest
def dot(input: Tensor, tensor: Tensor) -> Tensor:
    """Sum of products of two vectors."""
    _need_rank("dot", 1, input, tensor)
    return matmul(input, tensor)


@in_widest
def vdot(input: Tensor, other: Tensor) -> Tensor:
    """Sum of products of the conjugate of one vector and another."""
    _need_rank("vdot", 1, input, other)
    return matmul(apply("conj", input) if input.dtype.is_complex else input, other)


def outer(input: Tensor, vec2: Tensor) -> Tensor:
    """Every element of one vector times every element of another."""
    _need_rank("outer", 1, input, vec2)
    return mul(unsqueeze(input, 1), vec2)


@in_widest
def inner(input: Tensor, other: Tensor) -> Tensor:
    """Sums of products over the last dimension of both."""
    if input.ndim == 0 or other.ndim == 0:
        return mul(input, other)
    _same_dtype("inner", input, other)
    if input.shape[-1] != other.shape[-1]:
        raise ShapeError(
            f"inner: the last dimensions of {list(input.shape)} and {list(other.shape)} differ"
        )
    return tensordot(input, other, dims=([-1], [-1]))


def _combined(input: Tensor, product: Tensor, beta: Any, alpha: Any, name: str) -> Tensor:
    """``beta * input + alpha * product``; with ``beta`` 0 the input is not looked at."""
    _same_dtype(name, product, input)
    if not (product.dtype.is_floating_point or product.dtype.is_complex):
        for factor, what in ((beta, "beta"), (alpha, "alpha")):
            if isinstance(factor, float):
                raise DTypeError(f"{name}: {what} must be an integer for integer tensors")
    shape = tuple(product.shape)
    if len(input.shape) > len(shape) or any(
        d not in (1, s) for d, s in zip(input.shape[::-1], shape[::-1])
    ):
        raise ShapeError(
            f"{name}: input of shape {list(input.shape)} does not expand to {list(shape)}"
        )
    if not is_one(alpha):
        product = mul(product, as_operand(alpha, product.dtype))
    if isinstance(beta, (int, float)) and beta == 0:
        return product
    if not is_one(beta):
        input = mul(input, as_operand(beta, input.dtype))
    return add(product, input)


@in_lower_precision
def addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """``beta * input + alpha * (mat1 @ mat2)`` of matrices."""
    _need_rank("addmm", 2, mat1, mat2)
    return _combined(input, mm(mat1, mat2), beta, alpha, "addmm")


@in_lower_precision
def addmv(input: Tensor, mat: Tensor, vec: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """``beta * input + alpha * (mat @ vec)``."""
    return _combined(input, mv(mat, vec), beta, alpha, "addmv")


@in_lower_precision
def addr(input: Tensor, vec1: Tensor, vec2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """``beta * input + alpha * outer(vec1, vec2)``."""
    product = outer(vec1, vec2)
    from graphflow.promotion import promote_types

    dtype = promote_types(product.dtype, input.dtype)
    return _combined(cast(input, dtype), cast(product, dtype), beta, alpha, "addr")


@in_lower_precision
def addbmm(
    input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1
) -> Tensor:
    """``beta * input + alpha * (sum of all batch1[i] @ batch2[i])``."""
    _need_rank("addbmm", 3, batch1, batch2)
    product = total(bmm(batch1, batch2), 0, dtype=batch1.dtype)
    return _combined(input, product, beta, alpha, "addbmm")


@in_lower_precision
def baddbmm(
    input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1
) -> Tensor:
    """``beta * input + alpha * (batch1 @ batch2)`` of batches of matrices."""
    return _combined(input, bmm(batch1, batch2), beta, alpha, "baddbmm")


@in_widest
def tensordot(a: Tensor, b: Tensor, dims: Any = 2) -> Tensor:
    """Sums of products over several dimensions.

    ``dims``: how many of the last ones of ``a`` and first ones of ``b``, or two lists of them.
    """
    left, right = _contracted(a, b, dims)
    _same_dtype("tensordot", a, b)
    a_kept = [d for d in range(a.ndim) if d not in left]
    b_kept = [d for d in range(b.ndim) if d not in right]
    for i, j in zip(left, right):
        if 1 in (a.shape[i], b.shape[j]) and a.shape[i] != b.shape[j]:  # an extent of 1 repeats
            a, b = (
                total(x, d, keepdim=True, dtype=x.dtype) for x, d in ((a, i), (b, j))
            )  # fmt: skip
        if a.shape[i] != b.shape[j]:
            raise ShapeError(
                f"tensordot: dimension {i} of {list(a.shape)} does not meet dimension {j} of "
                f"{list(b.shape)}"
            )
    rows = [a.shape[d] for d in a_kept]
    columns = [b.shape[d] for d in b_kept]
    depth = _count([a.shape[d] for d in left])
    first = reshape(permute(a, *a_kept, *left), _count(rows), depth)
    second = reshape(permute(b, *right, *b_kept), depth, _count(columns))
    return reshape(_product(first, second), (*rows, *columns))


def _contracted(a: Tensor, b: Tensor, dims: Any) -> tuple[list[int], list[int]]:
    from graphflow.tensor import Tensor

    if isinstance(dims, Tensor):
        dims = dims.tolist()
    if isinstance(dims, int):
        if not 0 <= dims <= min(a.ndim, b.ndim):
            raise ShapeError(
                f"tensordot: expects 0 <= dims <= {min(a.ndim, b.ndim)} for tensors of "
                f"{a.ndim} and {b.ndim} dimensions, not {dims}"
            )
        return list(range(a.ndim - dims, a.ndim)), list(range(dims))
    left, right = ([d] if isinstance(d, int) else list(d) for d in dims)
    if len(left) != len(right):
        raise ShapeError(f"tensordot: both dimension lists must be as long, not {dims}")
    found = [normal_dim(d, a.ndim) for d in left], [normal_dim(d, b.ndim) for d in right]
    if any(len(set(part)) != len(part) for part in found):
        raise ShapeError(f"tensordot: a dimension appears twice in {dims}")
    return found


def _count(extents: Sequence[int]) -> int:
    product = 1
    for extent in extents:
        product *= extent
    return product


@in_lower_precision
def chain_matmul(*matrices: Any) -> Tensor:
    """Product of several matrices, in the cheapest order."""
    from graphflow.linalg import multi_dot

    given = matrices[0] if len(matrices) == 1 and isinstance(matrices[0], (list, tuple)) else None
    found = list(given if given is not None else matrices)
    for matrix in found:
        _need_rank("chain_matmul", 2, matrix)
    return found[0] if len(found) == 1 else multi_dot(found)


ger = outer
