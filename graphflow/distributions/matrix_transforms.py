"""Numbers without bounds to factors and matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence

from graphflow.distributions import constraints
from graphflow.distributions.transform import Transform
from graphflow.functions.creation import eye, tensor
from graphflow.functions.cumulative import cumprod, cumsum
from graphflow.functions.diagonals import tril
from graphflow.functions.elementwise import tanh, where
from graphflow.functions.shaping import cat
from graphflow.functions.trigonometry import atanh
from graphflow.linalg import cholesky
from graphflow.nn.functional.activation import softplus
from graphflow.number_formats import finfo
from graphflow.tensor import Tensor


def _on_diagonal(x: Tensor, diagonal: Tensor) -> Tensor:
    """The strict lower triangle of ``x`` [..., n, n], with ``diagonal`` [..., n]."""
    unit = eye(x.shape[-1], dtype=x.dtype, device=x.device)
    return tril(x, -1) + diagonal.unsqueeze(-1) * unit


class LowerCholeskyTransform(Transform):
    """Square matrices to lower triangular ones with a positive diagonal, by ``exp`` of it."""

    domain, codomain = constraints.independent(constraints.real, 2), constraints.lower_cholesky

    def _call(self, x: Tensor) -> Tensor:
        return _on_diagonal(x, x.diagonal(dim1=-2, dim2=-1).exp())

    def _inverse(self, y: Tensor) -> Tensor:
        return _on_diagonal(y, y.diagonal(dim1=-2, dim2=-1).log())


class PositiveDefiniteTransform(Transform):
    """Square matrices to positive-definite ones: ``L Lᵀ`` of :class:`LowerCholeskyTransform`."""

    domain, codomain = constraints.independent(constraints.real, 2), constraints.positive_definite

    def _call(self, x: Tensor) -> Tensor:
        factor = LowerCholeskyTransform()(x)
        return factor @ factor.mT

    def _inverse(self, y: Tensor) -> Tensor:
        return LowerCholeskyTransform()._inverse(cholesky(y))


class CorrCholeskyTransform(Transform):
    """n (n - 1) / 2 numbers to a Cholesky factor [n, n] of a matrix of correlations.

    ``tanh`` of a number is a partial correlation z[i, j], and row i has z[i, j] times the root
    of what its square leaves of 1 in the columns before j (D. Lewandowski, D. Kurowicka and
    H. Joe, "Generating random correlation matrices based on vines and extended onion method",
    2009).
    """

    domain, codomain = constraints.real_vector, constraints.corr_cholesky

    def _call(self, x: Tensor) -> Tensor:
        (_, size) = self.forward_shape(x.shape[-1:])
        places = [[i * (i - 1) // 2 + j if j < i else 0 for j in range(size)] for i in range(size)]
        below = tensor([[j < i for j in range(size)] for i in range(size)], device=x.device)
        picked = tanh(x)[..., tensor(places, device=x.device)]
        share = where(below, picked, 0.0)
        unit = eye(size, dtype=x.dtype, device=x.device)
        # 1 - z^2 can be 0 in rounding, where the root has no slope.
        left = cumprod((1 - share.square()).clamp(min=finfo(x.dtype).tiny).sqrt(), -1)
        before = cat([left[..., :1] * 0 + 1, left[..., :-1]], -1)
        return (share + unit) * before

    def _inverse(self, y: Tensor) -> Tensor:
        left = (1 - cumsum(y.square(), -1)).clamp(min=finfo(y.dtype).tiny).sqrt()
        before = cat([left[..., :1] * 0 + 1, left[..., :-1]], -1)
        return atanh(_strictly_below(y / before))

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Of each z its slope, and what is left for it in its row."""
        square = _strictly_below(cumsum(y.square(), -1) - y.square())
        slope = 2 * (math.log(2.0) - x - softplus(-2 * x))
        return (slope + 0.5 * (-square).log1p()).sum(-1)

    def forward_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """A matrix instead of a vector."""
        if not shape:
            raise ValueError("CorrCholeskyTransform: needs at least 1 axis")
        size = round(0.5 + math.sqrt(0.25 + 2 * shape[-1]))
        if size * (size - 1) // 2 != shape[-1]:
            raise ValueError(f"CorrCholeskyTransform: {shape[-1]} is not n (n - 1) / 2")
        return (*shape[:-1], size, size)

    def inverse_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """A vector instead of a matrix."""
        if len(shape) < 2 or shape[-1] != shape[-2]:
            raise ValueError(f"CorrCholeskyTransform: no square matrices: {tuple(shape)}")
        return (*shape[:-2], shape[-1] * (shape[-1] - 1) // 2)


def _strictly_below(x: Tensor) -> Tensor:
    """What is below the diagonal of [..., n, n], row by row: [..., n (n - 1) / 2]."""
    size = x.shape[-1]
    places = [i * size + j for i in range(size) for j in range(i)]
    flat = x.reshape(*x.shape[:-2], size * size)
    return flat[..., tensor(places, device=x.device).long()]
