"""Weights with orthonormal rows or columns.

Lezcano-Casado and Martínez-Rubio 2019, "Cheap Orthogonal Constraints in Neural Networks"
(exponential and Cayley maps); Lezcano-Casado 2019, "Trivializations for Gradient-Based
Optimization on Manifolds" (the base point).
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

from graphflow.autograd.modes import no_grad
from graphflow.errors import TraceError
from graphflow.functions.arithmetic import allclose
from graphflow.functions.complex_numbers import adjoint, sgn
from graphflow.functions.creation import empty, eye, from_numpy
from graphflow.functions.diagonals import diagonal, tril
from graphflow.functions.elementwise import add, div, mul, sub
from graphflow.functions.products import matmul
from graphflow.functions.reductions import sum as total
from graphflow.functions.shaping import cat, transpose, unsqueeze
from graphflow.linalg import householder_product, matrix_exp, qr, solve
from graphflow.mode import mode
from graphflow.nn.module import Module
from graphflow.nn.utils.parametrize import register_parametrization
from graphflow.number_formats import finfo
from graphflow.promotion import cast
from graphflow.rng import randn
from graphflow.tensor import Tensor

M = TypeVar("M", bound=Module)
MAPS = ("matrix_exp", "cayley", "householder")


class _Orthogonal(Module):
    """[…, n, k] of any numbers to one whose columns (rows, if n < k) are orthonormal."""

    base: Tensor | None

    def __init__(self, weight: Tensor, map: str, trivialize: bool) -> None:
        super().__init__()
        self.shape, self.orthogonal_map = weight.shape, map
        self.trivialize = trivialize
        if trivialize:
            self.register_buffer("base", None)

    def forward(self, X: Tensor) -> Tensor:
        wide = X.shape[-2] < X.shape[-1]
        if wide:
            X = transpose(X, -2, -1)
        q = self._reflected(X) if self.orthogonal_map == "householder" else self._rotated(X)
        if self.trivialize and self.base is not None:
            q = matmul(self.base, q)
        return transpose(q, -2, -1) if wide else q

    def _rotated(self, x: Tensor) -> Tensor:
        """The first columns of a rotation made from the skew matrix below the diagonal."""
        n, k = x.shape[-2:]
        x = tril(x)
        if n != k:
            x = cat([x, x.new_zeros((*x.shape[:-1], n - k))], -1)
        skew = sub(x, adjoint(x))
        if self.orthogonal_map == "matrix_exp":
            q = matrix_exp(skew)
        else:
            unit, half = _unit(n, x), mul(skew, 0.5)
            q = solve(sub(unit, half), add(unit, half))
        return q[..., :k] if n != k else q

    def _reflected(self, x: Tensor) -> Tensor:
        """A product of reflections at what is below the diagonal, with the signs on it."""
        a = tril(x, -1)
        tau = div(2.0, add(total(mul(a, a), -2), 1.0))
        signs = cast(sgn(diagonal(x.detach(), 0, -2, -1)), x.dtype)
        return mul(householder_product(a, tau), unsqueeze(signs, -2))

    def right_inverse(self, Q: Tensor) -> Tensor:
        if Q.shape != self.shape:
            raise ValueError(
                f"Expected a matrix or batch of matrices of shape {tuple(self.shape)}. "
                f"Got a tensor of shape {tuple(Q.shape)}."
            )
        wide = Q.shape[-2] < Q.shape[-1]
        q = transpose(Q, -2, -1) if wide else Q
        if not self.trivialize:
            if self.orthogonal_map != "householder":
                raise NotImplementedError(
                    "It is not possible to assign to the matrix exponential or the Cayley "
                    "parametrizations when use_trivialization=False."
                )
            x = _reflections_of(q)
            return transpose(x, -2, -1) if wide else x
        n, k = q.shape[-2:]
        if n != k:
            q = cat([q, randn((*q.shape[:-2], n, n - k), dtype=q.dtype, device=q.device)], -1)
        self.base = q.clone() if n == k and is_orthogonal(q) else made_orthogonal(q)
        rows = mul(_unit(max(n, k), Q), -1.0)[: Q.shape[-2], : Q.shape[-1]]
        return rows.expand(tuple(Q.shape)).clone()  # type: ignore[no-any-return]


def _unit(n: int, like: Tensor) -> Tensor:
    return eye(n, dtype=like.dtype, device=like.device)


def is_orthogonal(q: Tensor) -> bool:
    """Whether the columns of [..., n, k] are orthonormal, up to the dtype's rounding."""
    n, k = q.shape[-2:]
    eps = 10 * n * finfo(q.dtype).eps
    unit = _unit(k, q).expand((*q.shape[:-2], k, k))
    return bool(allclose(matmul(adjoint(q), q), unit, atol=eps))


def made_orthogonal(a: Tensor) -> Tensor:
    """The orthogonal factor of ``a`` whose triangular one has a positive diagonal."""
    q, r = qr(a)
    return mul(q, unsqueeze(sgn(diagonal(r, 0, -2, -1)), -2))


def _reflections_of(q: Tensor) -> Tensor:
    """What :meth:`_Orthogonal._reflected` makes ``q`` of."""
    if mode.tracer is not None:
        raise TraceError("assign an orthogonal weight outside of the compiled function")
    with no_grad():
        array = np.asarray(q.detach().cpu().numpy())
    raw, tau = np.linalg.qr(array, mode="raw")
    x = np.array(np.swapaxes(raw, -1, -2)).astype(array.dtype)
    lines = np.einsum("...ii->...i", x[..., : x.shape[-1], :])
    signs = np.where(lines < 0, -1.0, 1.0)
    # A reflection at nothing (tau 0) is the unit here, and minus it in the product above.
    lines[...] = np.where(tau == 0, -signs, signs)
    made = empty(x.shape, dtype=q.dtype, device=q.device)
    return made.copy_(from_numpy(x))  # type: ignore[no-any-return]


def orthogonal(
    module: M, name: str = "weight", orthogonal_map: str | None = None, *,
    use_trivialization: bool = True,
) -> M:  # fmt: skip
    """The matrix ``name``, or batch of matrices, always has orthonormal columns (or rows).

    ``orthogonal_map`` is how it is made: "matrix_exp" (usual for square and complex ones),
    "cayley" or "householder".  With ``use_trivialization`` it is relative to a base point,
    the value assigned last.
    """
    weight: Any = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise ValueError(f"Module '{module}' has no parameter or buffer with name '{name}'")
    if weight.ndim < 2:
        raise ValueError(
            f"Expected a matrix or batch of matrices. Got a tensor of {weight.ndim} dimensions."
        )
    if orthogonal_map is None:
        square = weight.shape[-2] == weight.shape[-1] or weight.dtype.is_complex
        orthogonal_map = "matrix_exp" if square else "householder"
    if orthogonal_map not in MAPS:
        raise ValueError(f"orthogonal_map has to be one of {', '.join(MAPS)}: {orthogonal_map}")
    if orthogonal_map == "householder" and weight.dtype.is_complex:
        raise ValueError("The householder parametrization does not support complex tensors.")
    made = _Orthogonal(weight, orthogonal_map, use_trivialization)
    register_parametrization(module, name, made, unsafe=True)
    return module
