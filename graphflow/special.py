"""Special functions by the names of ``torch.special``."""

from graphflow.functions.arithmetic import exp2
from graphflow.functions.elementwise import erf, expm1, log1p, round
from graphflow.functions.elementwise import sigmoid as expit
from graphflow.functions.reductions import log_softmax, logsumexp, softmax
from graphflow.functions.special import (
    digamma,
    entr,
    erfc,
    erfcx,
    erfinv,
    i0,
    i0e,
    i1,
    i1e,
    log_ndtr,
    logit,
    ndtr,
    ndtri,
    polygamma,
    xlog1py,
    xlogy,
)
from graphflow.functions.special import igamma as gammainc
from graphflow.functions.special import igammac as gammaincc
from graphflow.functions.special import lgamma as gammaln
from graphflow.functions.special import mvlgamma as multigammaln
from graphflow.functions.trigonometry import sinc

psi = digamma
modified_bessel_i0, modified_bessel_i1 = i0, i1

__all__ = [
    "digamma", "entr", "erf", "erfc", "erfcx", "erfinv", "exp2", "expit", "expm1",
    "gammainc", "gammaincc", "gammaln",
    "i0", "i0e", "i1", "i1e", "log1p", "log_ndtr", "log_softmax", "logit", "logsumexp",
    "modified_bessel_i0", "modified_bessel_i1",
    "multigammaln", "ndtr", "ndtri", "polygamma", "psi", "round", "sinc", "softmax", "xlog1py",
    "xlogy",
]  # fmt: skip
