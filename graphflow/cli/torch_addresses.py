"""Modules of PyTorch's that are one with their package here.

``from torch.distributions.normal import Normal`` finds ``Normal`` in
``graphflow.distributions``: scripts import from such addresses, where PyTorch has a file for
each class.
"""

from __future__ import annotations

_FILES = {
    "distributions": """
        bernoulli beta binomial cauchy chi2 continuous_bernoulli dirichlet exponential
        fishersnedecor gamma generalized_pareto geometric gumbel half_cauchy half_normal
        inverse_gamma kumaraswamy laplace lkj_cholesky log_normal logistic_normal
        lowrank_multivariate_normal mixture_same_family multinomial negative_binomial normal
        one_hot_categorical pareto poisson relaxed_bernoulli relaxed_categorical studentT
        transformed_distribution uniform von_mises weibull wishart
    """,
    "optim": "adadelta adafactor adagrad adamax adamw asgd nadam radam rmsprop rprop",
    "nn.modules": "channelshuffle flatten fold pixelshuffle",
    "utils.data": "_utils _utils.collate",
    "utils.tensorboard": "writer",
    "": "functional",
}

PACKAGE_OF = {
    f"{package}.{file}" if package else file: package
    for package, files in _FILES.items()
    for file in files.split()
}
"""By PyTorch's address below ``torch``: the package below ``graphflow`` that has its names."""
