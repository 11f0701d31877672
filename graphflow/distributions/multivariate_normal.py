"""The normal distribution of vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from graphflow.distributions import constraints
from graphflow.distributions.distribution import Distribution
from graphflow.functions.joining import broadcast_shapes
from graphflow.linalg import cholesky, solve_triangular
from graphflow.rng import randn
from graphflow.tensor import Tensor


class MultivariateNormal(Distribution):
    """Vectors [n] of mean ``loc`` [..., n] and a covariance given in one of three ways:
    ``covariance_matrix``, its inverse ``precision_matrix``, or its lower Cholesky factor
    ``scale_tril``, each [..., n, n]."""

    has_rsample = True
    parameters = ("loc", "scale_tril")
    arg_constraints: ClassVar = {
        "loc": constraints.real_vector,
        "covariance_matrix": constraints.positive_definite,
        "precision_matrix": constraints.positive_definite,
        "scale_tril": constraints.lower_cholesky,
    }
    support = constraints.real_vector

    def __init__(
        self, loc: Tensor, covariance_matrix: Tensor | None = None,
        precision_matrix: Tensor | None = None, scale_tril: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:  # fmt: skip
        if loc.ndim < 1:
            raise ValueError("MultivariateNormal: loc should have at least 1 dimension")
        scale_tril = as_scale_tril(
            "MultivariateNormal", covariance_matrix, precision_matrix, scale_tril
        )
        batch = broadcast_shapes(loc.shape[:-1], scale_tril.shape[:-2])
        self.loc = loc.expand((*batch, loc.shape[-1]))
        self.scale_tril = scale_tril.expand((*batch, *scale_tril.shape[-2:]))
        super().__init__(batch, loc.shape[-1:], validate_args)

    @property
    def covariance_matrix(self) -> Tensor:
        """[..., n, n]."""
        return self.scale_tril @ self.scale_tril.mT

    @property
    def precision_matrix(self) -> Tensor:
        """The inverse of the covariance [..., n, n]."""
        return self.covariance_matrix.inverse()

    @property
    def mean(self) -> Tensor:
        """``loc``."""
        return self.loc

    @property
    def mode(self) -> Tensor:
        """``loc``."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """The diagonal of the covariance [..., n]."""
        return self.scale_tril.square().sum(-1)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """``loc + scale_tril @ e`` of standard normal ``e``."""
        shape = self._extended_shape(sample_shape)
        unit = randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        return self.loc + (self.scale_tril @ unit.unsqueeze(-1)).squeeze(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        self._check_value(value)
        away = squared_distance(self.scale_tril, value - self.loc)
        size = self._event_shape[0]
        return -0.5 * (size * math.log(2 * math.pi) + away) - half_log_determinant(self.scale_tril)

    def entropy(self) -> Tensor:
        """``n (1 + log(2 pi)) / 2``, and half the logarithm of the determinant."""
        size = self._event_shape[0]
        half = half_log_determinant(self.scale_tril)
        return 0.5 * size * (1.0 + math.log(2 * math.pi)) + half


def as_scale_tril(
    name: str, covariance: Tensor | None, precision: Tensor | None, scale_tril: Tensor | None
) -> Tensor:
    """The lower Cholesky factor of a covariance [..., n, n] that is given in one of three ways."""
    given = [m for m in (covariance, precision, scale_tril) if m is not None]
    if len(given) != 1:
        raise ValueError(
            f"{name}: exactly one of covariance_matrix, precision_matrix and scale_tril should be "
            f"given, not {len(given)}"
        )
    if given[0].ndim < 2:
        raise ValueError(
            f"{name}: the matrix should have at least 2 dimensions, not shape "
            f"{tuple(given[0].shape)}"
        )
    if scale_tril is not None:
        return scale_tril
    factor = cholesky(given[0])
    return factor if precision is None else _inverted(factor)


def half_log_determinant(factor: Tensor) -> Tensor:
    """Half of log(det(L Lᵀ)) of Cholesky factors L [..., n, n]."""
    return factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def squared_distance(factor: Tensor, away: Tensor) -> Tensor:
    """xᵀ (L Lᵀ)⁻¹ x of vectors x [..., n] and Cholesky factors L [..., n, n] (Mahalanobis)."""
    batch = broadcast_shapes(factor.shape[:-2], away.shape[:-1])
    columns = away.expand((*batch, away.shape[-1])).unsqueeze(-1)
    solved = solve_triangular(factor.expand((*batch, *factor.shape[-2:])), columns, upper=False)
    return solved.squeeze(-1).square().sum(-1)


def _inverted(factor: Tensor) -> Tensor:
    """The lower Cholesky factor of (L Lᵀ)⁻¹: of the reversed factor's inverse."""
    return cholesky((factor @ factor.mT).inverse())
