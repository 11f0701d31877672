"""Factorisations of symmetric and Hermitian matrices that need not be positive."""

from __future__ import annotations

from graphflow.dispatch import apply, apply_several
from graphflow.errors import GraphFlowError, ShapeError
from graphflow.functions.shaping import broadcast_to
from graphflow.ir import types as T
from graphflow.linalg.checks import batched, need_matrix, need_one_dtype, need_square
from graphflow.records import NamedTuple
from graphflow.tensor import Tensor


class PackedLDL(NamedTuple):
    """L and D in one matrix, and the rows that were swapped, as LAPACK has them."""

    LD: Tensor
    pivots: Tensor


class PackedLDLInfo(NamedTuple):
    """Like :class:`PackedLDL`; ``info`` is the first zero pivot, counted from 1, or 0."""

    LD: Tensor
    pivots: Tensor
    info: Tensor


def ldl_factor(A: Tensor, *, hermitian: bool = False) -> PackedLDL:
    """``A = L D Lᵀ`` (``hermitian``: Lᴴ) up to swaps of rows; D of blocks of one or two rows.

    Only the lower triangle is read; there is no gradient.  LinAlgError if A is singular.
    """
    need_square("linalg.ldl_factor", A)
    packed, pivots, _ = apply_several("ldl_factor", A, hermitian=hermitian, check=True)
    return PackedLDL(packed, pivots)


def ldl_factor_ex(
    A: Tensor, *, hermitian: bool = False, check_errors: bool = False
) -> PackedLDLInfo:
    """:func:`ldl_factor` and where the first pivot is 0, an error only if ``check_errors``."""
    need_square("linalg.ldl_factor_ex", A)
    return PackedLDLInfo(*apply_several("ldl_factor", A, hermitian=hermitian, check=check_errors))


def ldl_solve(LD: Tensor, pivots: Tensor, B: Tensor, *, hermitian: bool = False) -> Tensor:
    """The X with ``A X = B``, from what :func:`ldl_factor` made of A; B has the gradient."""
    name = "linalg.ldl_solve"
    need_square(name, LD, "LD")
    need_matrix(name, B, "B")
    need_one_dtype(name, LD, B)
    if pivots.dtype is not T.int32:
        raise GraphFlowError(f"{name}: pivots must be int32, not {pivots.dtype.name}")
    if tuple(pivots.shape) != tuple(LD.shape[:-1]) or LD.shape[-1] != B.shape[-2]:
        raise ShapeError(
            f"{name}: LD {list(LD.shape)}, pivots {list(pivots.shape)} and B {list(B.shape)} do "
            "not fit"
        )
    factor, right = batched(LD, B)
    swaps = broadcast_to(pivots, tuple(factor.shape[:-1]))
    return apply("ldl_solve", factor, swaps, right, hermitian=hermitian)
