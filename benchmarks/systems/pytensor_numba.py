"""The workloads that PyTensor expresses, compiled by its Numba back end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt

from benchmarks.systems import Prepared
from benchmarks.workloads import Expression, Training, Workload

MODE = "NUMBA"


def _layernorm(x: Any, w: Any, b: Any) -> Any:
    mean = pt.mean(x, -1, keepdims=True)
    variance = pt.mean((x - mean) ** 2, -1, keepdims=True)
    y = (x - mean) / pt.sqrt(variance + np.float32(1e-5)) * w + b
    return np.float32(0.5) * y * (1 + pt.erf(y * np.float32(0.5**0.5)))


EXPRESSIONS: dict[str, Callable[..., Any]] = {
    "mish": lambda x: x * pt.tanh(pt.softplus(x)) * np.float32(0.5) + np.float32(1),
    "softmax": lambda x: pt.special.softmax(x * np.float32(0.125), axis=-1),
    "layernorm": _layernorm,
    "matmul": lambda a, b: a @ b,
}


def prepare(workload: Workload, threads: int) -> Prepared:
    """The workload as one function of shared variables."""
    if isinstance(workload, Expression):
        inputs = [pytensor.shared(a) for a in workload.inputs()]
        function = pytensor.function([], EXPRESSIONS[workload.kind](*inputs), mode=MODE)
        return Prepared(function, np.asarray)
    if not isinstance(workload, Training):
        raise NotImplementedError("networks are not expressed in PyTensor here")
    return Prepared(_training(workload), np.asarray)


def _training(workload: Training) -> Callable[[], Any]:
    parameters = [[pytensor.shared(a) for a in pair] for pair in workload.parameters()]
    inputs, targets = (pytensor.shared(a) for a in workload.data())
    x = inputs
    for weight, bias in parameters[:-1]:
        x = pt.maximum(x @ weight + bias, 0)
    weight, bias = parameters[-1]
    x = x @ weight + bias
    if workload.loss == "mse":
        loss = pt.mean((x - targets) ** 2)
    else:
        scores = pt.special.log_softmax(x, axis=1)
        loss = -pt.mean(scores[pt.arange(workload.batch), targets])
    flat = [p for pair in parameters for p in pair]
    updates = {}
    for parameter, gradient in zip(flat, pt.grad(loss, flat), strict=True):
        if workload.momentum:
            slot = pytensor.shared(np.zeros_like(parameter.get_value()))
            gradient = np.float32(workload.momentum) * slot + gradient
            updates[slot] = gradient
        updates[parameter] = parameter - np.float32(workload.lr) * gradient
    made: Callable[[], Any] = pytensor.function([], loss, updates=updates, mode=MODE)
    return made
