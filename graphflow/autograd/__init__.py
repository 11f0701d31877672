"""Automatic differentiation: modes, ``grad``, ``backward``, custom functions."""

from graphflow.autograd import function as function
from graphflow.autograd.engine import backward, grad
from graphflow.autograd.function import Function
from graphflow.autograd.modes import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_grad_enabled,
)
from graphflow.autograd.variable import Variable
from graphflow.later import importer

__getattr__ = importer(
    globals(),
    {
        "GradcheckError": "graphflow.autograd.gradcheck:GradcheckError",
        "functional": "graphflow.autograd.functional",
        "gradcheck": "graphflow.autograd.gradcheck:gradcheck",
        "gradgradcheck": "graphflow.autograd.gradcheck:gradgradcheck",
    },
)

__all__ = [
    "Function", "GradcheckError", "Variable", "backward", "enable_grad", "functional", "grad",
    "gradcheck", "gradgradcheck", "inference_mode", "is_grad_enabled",
    "is_inference_mode_enabled", "no_grad", "set_grad_enabled",
]  # fmt: skip
