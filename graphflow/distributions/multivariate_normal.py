"""Normal distributions of vectors, of any covariance, or of a diagonal and a matrix of low rank.

The latter by Woodbury's identity and the determinant lemma: D. Harville, *Matrix Algebra From a
Statistician's Perspective* (1997), chapter 18.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from graphflow.distributions import constraints
from graphflow.distributions.distribution import Distribution
from graphflow.functions.creation import eye
from graphflow.functions.diagonals import diag_embed
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

    def _half_log_determinant(self) -> Tensor:
        """Half the logarithm of the determinant of the covariance [...]."""
        return half_log_determinant(self.scale_tril)

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        self._check_value(value)
        away = squared_distance(self.scale_tril, value - self.loc)
        size = self._event_shape[0]
        return -0.5 * (size * math.log(2 * math.pi) + away) - self._half_log_determinant()

    def entropy(self) -> Tensor:
        """``n (1 + log(2 pi)) / 2``, and half the logarithm of the determinant."""
        size = self._event_shape[0]
        return 0.5 * size * (1.0 + math.log(2 * math.pi)) + self._half_log_determinant()


class LowRankMultivariateNormal(Distribution):
    """Vectors [n] of mean ``loc`` [..., n] and covariance ``W Wᵀ + D`` of ``cov_factor`` W
    [..., n, r] and the diagonal ``cov_diag`` of D [..., n].

    Densities and draws take time and memory as n r², not n³.
    """

    has_rsample = True
    parameters = ("loc", "cov_factor", "cov_diag")
    arg_constraints: ClassVar = {
        "loc": constraints.real_vector,
        "cov_factor": constraints.independent(constraints.real, 2),
        "cov_diag": constraints.independent(constraints.positive, 1),
    }
    support = constraints.real_vector

    def __init__(
        self, loc: Tensor, cov_factor: Tensor, cov_diag: Tensor, validate_args: bool | None = None
    ) -> None:
        name, given = "LowRankMultivariateNormal", tuple(cov_factor.shape)
        if loc.ndim < 1:
            raise ValueError(f"{name}: loc should have at least 1 dimension")
        size = loc.shape[-1]
        if cov_factor.ndim < 2 or cov_factor.shape[-2] != size:
            raise ValueError(f"{name}: cov_factor should be [..., {size}, rank], not {given}")
        if cov_diag.ndim < 1 or cov_diag.shape[-1] != size:
            raise ValueError(
                f"{name}: cov_diag should be [..., {size}], not {tuple(cov_diag.shape)}"
            )
        batch = broadcast_shapes(loc.shape[:-1], cov_factor.shape[:-2], cov_diag.shape[:-1])
        self.loc, self.cov_diag = loc.expand((*batch, size)), cov_diag.expand((*batch, size))
        self.cov_factor = cov_factor.expand((*batch, *given[-2:]))
        super().__init__(batch, (size,), validate_args)

    def _scaled_factor(self) -> Tensor:
        """Wᵀ D⁻¹ [..., r, n]."""
        return self.cov_factor.mT / self.cov_diag.unsqueeze(-2)

    def _capacitance_tril(self) -> Tensor:
        """The lower Cholesky factor of I + Wᵀ D⁻¹ W [..., r, r]."""
        inner = self._scaled_factor() @ self.cov_factor
        return cholesky(inner + eye(inner.shape[-1], dtype=inner.dtype, device=inner.device))

    def _removed(self) -> Tensor:
        """The matrix A [..., r, n] that makes the precision D⁻¹ - Aᵀ A."""
        return solve_triangular(self._capacitance_tril(), self._scaled_factor(), upper=False)

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
        return self.cov_factor.square().sum(-1) + self.cov_diag

    @property
    def covariance_matrix(self) -> Tensor:
        """[..., n, n]."""
        return self.cov_factor @ self.cov_factor.mT + diag_embed(self.cov_diag)

    @property
    def scale_tril(self) -> Tensor:
        """The lower Cholesky factor of the covariance [..., n, n]."""
        return cholesky(self.covariance_matrix)

    @property
    def precision_matrix(self) -> Tensor:
        """The inverse of the covariance [..., n, n]."""
        removed = self._removed()
        return diag_embed(self.cov_diag.reciprocal()) - removed.mT @ removed

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """``loc + W e + sqrt(D) f`` of standard normal ``e`` and ``f``."""
        shape = self._extended_shape(sample_shape)
        like, rank = self.loc, self.cov_factor.shape[-1]
        few = randn((*shape[:-1], rank), dtype=like.dtype, device=like.device)
        each = randn(shape, dtype=like.dtype, device=like.device)
        together = (self.cov_factor @ few.unsqueeze(-1)).squeeze(-1)
        return self.loc + together + self.cov_diag.sqrt() * each

    def _squared_distance(self, away: Tensor) -> Tensor:
        """xᵀ (W Wᵀ + D)⁻¹ x of vectors x [..., n] (Mahalanobis)."""
        inner = (self._scaled_factor() @ away.unsqueeze(-1)).squeeze(-1)
        alone = (away.square() / self.cov_diag).sum(-1)
        return alone - squared_distance(self._capacitance_tril(), inner)

    def _half_log_determinant(self) -> Tensor:
        """Half the logarithm of the determinant of the covariance [...]."""
        return half_log_determinant(self._capacitance_tril()) + 0.5 * self.cov_diag.log().sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        self._check_value(value)
        away = self._squared_distance(value - self.loc)
        size = self._event_shape[0]
        return -0.5 * (size * math.log(2 * math.pi) + away) - self._half_log_determinant()

    def entropy(self) -> Tensor:
        """``n (1 + log(2 pi)) / 2``, and half the logarithm of the determinant."""
        size = self._event_shape[0]
        return 0.5 * size * (1.0 + math.log(2 * math.pi)) + self._half_log_determinant()


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
