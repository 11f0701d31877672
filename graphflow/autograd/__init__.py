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
        "detect_anomaly": "graphflow.autograd.anomaly:detect_anomaly",
        "is_anomaly_enabled": "graphflow.autograd.anomaly:is_anomaly_enabled",
        "set_detect_anomaly": "graphflow.autograd.anomaly:set_detect_anomaly",
        "GradcheckError": "graphflow.autograd.gradcheck:GradcheckError",
        "anomaly_mode": "graphflow.autograd.anomaly_mode",
        "functional": "graphflow.autograd.functional",
        "grad_mode": "graphflow.autograd.grad_mode",
        "graph": "graphflow.autograd.graph",
        "profiler": "graphflow.autograd.profiler",
        "gradcheck": "graphflow.autograd.gradcheck:gradcheck",
        "gradgradcheck": "graphflow.autograd.gradcheck:gradgradcheck",
    },
)

__all__ = [
    "Function", "GradcheckError", "Variable", "backward", "detect_anomaly", "enable_grad",
    "functional", "grad", "gradcheck", "gradgradcheck", "graph", "inference_mode",
    "is_anomaly_enabled", "is_grad_enabled", "is_inference_mode_enabled", "no_grad",
    "set_detect_anomaly", "set_grad_enabled",
]  # fmt: skip
