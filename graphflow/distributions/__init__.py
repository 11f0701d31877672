"""Random variables by the names of ``torch.distributions``: samples, densities, entropies.

Everything is made of ordinary functions, so a log-probability differentiates and compiles
like any other value, and ``rsample`` carries gradients to the parameters.
"""

from graphflow.distributions.categorical import (
    Categorical,
    OneHotCategorical,
    OneHotCategoricalStraightThrough,
)
from graphflow.distributions.distribution import Distribution
from graphflow.distributions.divergence import kl_divergence, register_kl
from graphflow.distributions.independent import Independent
from graphflow.distributions.multivariate_normal import MultivariateNormal
from graphflow.distributions.univariate import (
    Bernoulli,
    Exponential,
    Laplace,
    LogNormal,
    Normal,
    Uniform,
)

__all__ = [
    "Bernoulli",
    "Categorical",
    "Distribution",
    "Exponential",
    "Independent",
    "Laplace",
    "LogNormal",
    "MultivariateNormal",
    "Normal",
    "OneHotCategorical",
    "OneHotCategoricalStraightThrough",
    "Uniform",
    "kl_divergence",
    "register_kl",
]
