"""Random variables by the names of ``torch.distributions``: samples, densities, entropies.

Everything is made of ordinary functions, so a log-probability differentiates and compiles
like any other value, and ``rsample`` carries gradients to the parameters.
"""

from graphflow.distributions import constraint_registry, constraints, kl, kl_between, transforms
from graphflow.distributions.bounded import (
    ContinuousBernoulli,
    FisherSnedecor,
    Kumaraswamy,
    VonMises,
)
from graphflow.distributions.categorical import (
    Categorical,
    OneHotCategorical,
    OneHotCategoricalStraightThrough,
)
from graphflow.distributions.composed import (
    LogisticNormal,
    MixtureSameFamily,
    RelaxedBernoulli,
    RelaxedOneHotCategorical,
    TransformedDistribution,
)
from graphflow.distributions.constraint_registry import biject_to, transform_to
from graphflow.distributions.counts import (
    Binomial,
    Geometric,
    Multinomial,
    NegativeBinomial,
    Poisson,
)
from graphflow.distributions.distribution import Distribution
from graphflow.distributions.gamma_family import (
    Beta,
    Chi2,
    Dirichlet,
    Gamma,
    InverseGamma,
    StudentT,
)
from graphflow.distributions.independent import Independent
from graphflow.distributions.kl import kl_divergence, register_kl
from graphflow.distributions.matrices import LKJCholesky, Wishart
from graphflow.distributions.more_univariate import (
    Cauchy,
    GeneralizedPareto,
    Gumbel,
    HalfCauchy,
    HalfNormal,
    Pareto,
    Weibull,
)
from graphflow.distributions.multivariate_normal import (
    LowRankMultivariateNormal,
    MultivariateNormal,
)
from graphflow.distributions.transforms import (
    AbsTransform,
    AffineTransform,
    CatTransform,
    ComposeTransform,
    CorrCholeskyTransform,
    CumulativeDistributionTransform,
    ExpTransform,
    IndependentTransform,
    LowerCholeskyTransform,
    PositiveDefiniteTransform,
    PowerTransform,
    ReshapeTransform,
    SigmoidTransform,
    SoftmaxTransform,
    SoftplusTransform,
    StackTransform,
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
    "CatTransform",
    "Categorical",
    "Cauchy",
    "Chi2",
    "ComposeTransform",
    "ContinuousBernoulli",
    "CorrCholeskyTransform",
    "CumulativeDistributionTransform",
    "Dirichlet",
    "Distribution",
    "ExpTransform",
    "Exponential",
    "FisherSnedecor",
    "Gamma",
    "GeneralizedPareto",
    "Geometric",
    "Gumbel",
    "HalfCauchy",
    "HalfNormal",
    "Independent",
    "IndependentTransform",
    "InverseGamma",
    "Kumaraswamy",
    "LKJCholesky",
    "Laplace",
    "LogNormal",
    "LogisticNormal",
    "LowRankMultivariateNormal",
    "LowerCholeskyTransform",
    "MixtureSameFamily",
    "Multinomial",
    "MultivariateNormal",
    "NegativeBinomial",
    "Normal",
    "OneHotCategorical",
    "OneHotCategoricalStraightThrough",
    "Pareto",
    "Poisson",
    "PositiveDefiniteTransform",
    "PowerTransform",
    "RelaxedBernoulli",
    "RelaxedOneHotCategorical",
    "ReshapeTransform",
    "SigmoidTransform",
    "SoftmaxTransform",
    "SoftplusTransform",
    "StackTransform",
    "StickBreakingTransform",
    "StudentT",
    "TanhTransform",
    "Transform",
    "TransformedDistribution",
    "Uniform",
    "VonMises",
    "Weibull",
    "Wishart",
    "biject_to",
    "constraint_registry",
    "constraints",
    "identity_transform",
    "kl",
    "kl_between",
    "kl_divergence",
    "register_kl",
    "transform_to",
    "transforms",
]
