"""Random variables by the names of ``torch.distributions``: samples, densities, entropies.

Everything is made of ordinary functions, so a log-probability differentiates and compiles
like any other value, and ``rsample`` carries gradients to the parameters.
"""

from graphflow.distributions.categorical import (
    Categorical,
    OneHotCategorical,
    OneHotCategoricalStraightThrough,
)
from graphflow.distributions.composed import (
    MixtureSameFamily,
    RelaxedBernoulli,
    RelaxedOneHotCategorical,
    TransformedDistribution,
)
from graphflow.distributions.counts import (
    Binomial,
    Geometric,
    Multinomial,
    NegativeBinomial,
    Poisson,
)
from graphflow.distributions.distribution import Distribution
from graphflow.distributions.divergence import kl_divergence, register_kl
from graphflow.distributions.gamma_family import (
    Beta,
    Chi2,
    Dirichlet,
    Gamma,
    InverseGamma,
    StudentT,
)
from graphflow.distributions.independent import Independent
from graphflow.distributions.more_univariate import (
    Cauchy,
    Gumbel,
    HalfCauchy,
    HalfNormal,
    Pareto,
    Weibull,
)
from graphflow.distributions.multivariate_normal import MultivariateNormal
from graphflow.distributions.transforms import (
    AbsTransform,
    AffineTransform,
    ComposeTransform,
    ExpTransform,
    PowerTransform,
    SigmoidTransform,
    SoftmaxTransform,
    SoftplusTransform,
    StickBreakingTransform,
    TanhTransform,
    Transform,
    identity_transform,
)
from graphflow.distributions.univariate import (
    Bernoulli,
    Exponential,
    Laplace,
    LogNormal,
    Normal,
    Uniform,
)

__all__ = [
    "AbsTransform",
    "AffineTransform",
    "Bernoulli",
    "Beta",
    "Binomial",
    "Categorical",
    "Cauchy",
    "Chi2",
    "ComposeTransform",
    "Dirichlet",
    "Distribution",
    "ExpTransform",
    "Exponential",
    "Gamma",
    "Geometric",
    "Gumbel",
    "HalfCauchy",
    "HalfNormal",
    "Independent",
    "InverseGamma",
    "Laplace",
    "LogNormal",
    "MixtureSameFamily",
    "Multinomial",
    "MultivariateNormal",
    "NegativeBinomial",
    "Normal",
    "OneHotCategorical",
    "OneHotCategoricalStraightThrough",
    "Pareto",
    "Poisson",
    "PowerTransform",
    "RelaxedBernoulli",
    "RelaxedOneHotCategorical",
    "SigmoidTransform",
    "SoftmaxTransform",
    "SoftplusTransform",
    "StickBreakingTransform",
    "StudentT",
    "TanhTransform",
    "Transform",
    "TransformedDistribution",
    "Uniform",
    "Weibull",
    "identity_transform",
    "kl_divergence",
    "register_kl",
]
