"""Distributions of matrices: covariances, and factors of correlations.

A. Gupta and D. Nagar, *Matrix Variate Distributions* (1999); D. Lewandowski, D. Kurowicka and
H. Joe, "Generating random correlation matrices based on vines and extended onion method" (2009).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from graphflow.autograd.modes import no_grad
from graphflow.distributions import constraints
from graphflow.distributions.distribution import LOG_PI, Distribution, as_parameters
from graphflow.distributions.multivariate_normal import (
    as_scale_tril,
    half_log_determinant,
)
from graphflow.functions.creation import arange, eye, tensor
from graphflow.functions.diagonals import tril
from graphflow.functions.elementwise import where
from graphflow.functions.joining import broadcast_shapes
from graphflow.functions.rejection import standard_gamma
from graphflow.functions.shaping import cat
from graphflow.functions.special import digamma, lgamma, mvlgamma
from graphflow.linalg import solve_triangular
from graphflow.rng import randn
from graphflow.tensor import Tensor


class Wishart(Distribution):
    """Sums of ``df`` products ``x xᵀ`` of normal vectors x [n] of mean 0, for any df > n - 1.

    Their covariance is given in one of three ways, each [..., n, n]: itself, its inverse
    ``precision_matrix``, or its lower Cholesky factor ``scale_tril``.
    """

    has_rsample = True
    parameters = ("df", "scale_tril")
    arg_constraints: ClassVar = {
        "df": constraints.dependent,
        "covariance_matrix": constraints.positive_definite,
        "precision_matrix": constraints.positive_definite,
        "scale_tril": constraints.lower_cholesky,
    }
    support = constraints.positive_definite

    def __init__(
        self, df: Any, covariance_matrix: Tensor | None = None,
        precision_matrix: Tensor | None = None, scale_tril: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:  # fmt: skip
        factor = as_scale_tril("Wishart", covariance_matrix, precision_matrix, scale_tril)
        if not isinstance(df, Tensor):
            df = tensor(df, dtype=factor.dtype, device=factor.device)
        batch = broadcast_shapes(df.shape, factor.shape[:-2])
        self.df = df.expand(batch)
        self.scale_tril = factor.expand((*batch, *factor.shape[-2:]))
        super().__init__(batch, factor.shape[-2:], validate_args)
        if self._validate_args:
            least = self._event_shape[-1] - 1
            self._require(self.df > least, "df", f"greater than n - 1 = {least}", self.df)

    @property
    def covariance_matrix(self) -> Tensor:
        """[..., n, n]."""
        return self.scale_tril @ self.scale_tril.mT

    @property
    def precision_matrix(self) -> Tensor:
        """The inverse of the covariance [..., n, n]."""
        return self.covariance_matrix.inverse()

    def _scaled(self, factor: Tensor) -> Tensor:
        return factor.unsqueeze(-1).unsqueeze(-1) * self.covariance_matrix

    @property
    def mean(self) -> Tensor:
        """``df`` times the covariance."""
        return self._scaled(self.df)

    @property
    def mode(self) -> Tensor:
        """``df - n - 1`` times the covariance; NaN where that is not positive."""
        factor = self.df - self._event_shape[-1] - 1
        return self._scaled(where(factor > 0, factor, math.nan))

    @property
    def variance(self) -> Tensor:
        """``df (s_ij^2 + s_ii s_jj)`` of a covariance s."""
        s = self.covariance_matrix
        own = s.diagonal(dim1=-2, dim2=-1)
        both = own.unsqueeze(-1) * own.unsqueeze(-2)
        return self.df.unsqueeze(-1).unsqueeze(-1) * (s.square() + both)

    def _degrees(self) -> Tensor:
        """Half of df, df - 1, … df - n + 1 [..., n]."""
        size = self._event_shape[-1]
        number = arange(size, dtype=self.df.dtype, device=self.df.device)
        return 0.5 * (self.df.unsqueeze(-1) - number)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Bartlett's decomposition: normal variables below roots of gamma variables."""
        shape = self._extended_shape(sample_shape)
        unit = eye(shape[-1], dtype=self.df.dtype, device=self.df.device)
        drawn = standard_gamma(self._degrees().expand(shape[:-1]))
        below = tril(randn(shape, dtype=self.df.dtype, device=self.df.device), -1)
        factor = self.scale_tril @ (below + (2 * drawn).sqrt().unsqueeze(-1) * unit)
        return factor @ factor.mT

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        self._check_value(value)
        size, half = self._event_shape[-1], 0.5 * self.df
        batch = broadcast_shapes(value.shape[:-2], self._batch_shape)
        factor = self.scale_tril.expand((*batch, size, size))
        solved = solve_triangular(factor, value.expand((*batch, size, size)), upper=False)
        both = solve_triangular(factor, solved.mT, upper=False)
        trace = both.diagonal(dim1=-2, dim2=-1).sum(-1)
        logs = 0.5 * (self.df - size - 1) * value.slogdet()[1]
        whole = half * size * math.log(2) + mvlgamma(half, size)
        return logs - 0.5 * trace - self.df * half_log_determinant(self.scale_tril) - whole

    def entropy(self) -> Tensor:
        """In nats."""
        size, half = self._event_shape[-1], 0.5 * self.df
        logs = (size + 1) * (half_log_determinant(self.scale_tril) + 0.5 * size * math.log(2))
        slope = digamma(self._degrees()).sum(-1)
        rest = mvlgamma(half, size) - 0.5 * (self.df - size - 1) * slope
        return logs + rest + half * size


class LKJCholesky(Distribution):
    """Lower Cholesky factors [dim, dim] of matrices of correlations.

    These have a density in proportion to ``det^(concentration - 1)``: 1 is the uniform
    distribution, more is nearer the unit matrix.
    """

    parameters = ("concentration",)
    arg_constraints: ClassVar = {"concentration": constraints.positive}
    support = constraints.corr_cholesky

    def __init__(
        self, dim: int, concentration: Any = 1.0, validate_args: bool | None = None
    ) -> None:
        if dim < 2:
            raise ValueError(f"LKJCholesky: dim should be at least 2, not {dim}")
        self.dim = dim
        (self.concentration,) = as_parameters(concentration)
        super().__init__(self.concentration.shape, (dim, dim), validate_args)

    def expand(self, batch_shape: Sequence[int]) -> LKJCholesky:
        """The same with parameters repeated to ``batch_shape``."""
        wide = self.concentration.expand(tuple(batch_shape))
        return LKJCholesky(self.dim, wide, self._validate_args)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """The onion method: rows of random directions, their squared length a beta variable."""
        with no_grad():
            shape = self._extended_shape(sample_shape)
            like: dict[str, Any] = {
                "dtype": self.concentration.dtype,
                "device": self.concentration.device,
            }
            number = arange(1, self.dim, **like)
            away = self.concentration.unsqueeze(-1) + 0.5 * (self.dim - 1 - number)
            rows = (*shape[:-2], self.dim - 1)
            first = standard_gamma((0.5 * number).expand(rows))
            second = standard_gamma(away.expand(rows))
            share = (first / (first + second)).unsqueeze(-1)
            drawn = tril(randn((*rows, self.dim), **like))
            below = drawn / drawn.square().sum(-1, keepdim=True).sqrt() * share.sqrt()
            unit = eye(self.dim, **like)
            top = unit[:1].expand((*shape[:-2], 1, self.dim))
            return cat([top, below + unit[1:] * (1 - share).sqrt()], -2)

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density, over the elements below the diagonal."""
        self._check_value(value)
        a, less = self.concentration, self.dim - 1
        own = value.diagonal(dim1=-2, dim2=-1)[..., 1:]
        number = arange(2, self.dim + 1, dtype=own.dtype, device=own.device)
        order = 2 * (a - 1).unsqueeze(-1) + (self.dim - number)
        top = a + 0.5 * less
        whole = 0.5 * less * LOG_PI + mvlgamma(top - 0.5, less) - less * lgamma(top)
        return (order * own.log()).sum(-1) - whole
