"""Automatic differentiation: modes, ``grad``, ``backward``, custom functions."""

from graphflow.autograd.engine import backward, grad
from graphflow.autograd.function import Function
from graphflow.autograd.gradcheck import GradcheckError, gradcheck, gradgradcheck
from graphflow.autograd.history import enable_grad, is_grad_enabled, no_grad, set_grad_enabled
from graphflow.autograd.variable import Variable

__all__ = [
    "Function", "GradcheckError", "Variable", "backward", "enable_grad", "grad", "gradcheck",
    "gradgradcheck", "is_grad_enabled", "no_grad", "set_grad_enabled",
]  # fmt: skip
