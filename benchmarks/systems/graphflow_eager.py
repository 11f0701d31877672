"""The workloads as GraphFlow code; the static form is the same functions, compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import graphflow as gf
import graphflow.nn.functional as F
from benchmarks.changes import changes_of
from benchmarks.convolutions import Convolution
from benchmarks.systems import Prepared, graphflow_convolutions, shared
from benchmarks.workloads import Expression, Training, Workload

EXPRESSIONS: dict[str, Callable[..., Any]] = {
    "mish": lambda x: x * gf.tanh(F.softplus(x)) * 0.5 + 1,
    "softmax": lambda x: F.softmax(x * 0.125, -1),
    "layernorm": lambda x, w, b: F.gelu(F.layer_norm(x, (x.shape[-1],), w, b)),
    "matmul": lambda a, b: a @ b,
}


def expression(workload: Expression) -> tuple[Callable[..., Any], list[Any]]:
    """What is timed, and its arguments."""
    return EXPRESSIONS[workload.kind], [gf.tensor(a) for a in workload.inputs()]


def prepare(
    workload: Workload, threads: int, mode: Callable[..., Any] = lambda function: function
) -> Prepared:
    """The workload, as ``mode`` makes it: by default eager."""
    gf.set_num_threads(threads)
    changes: tuple[Callable[[], Any], ...] = ()
    if isinstance(workload, Expression):
        function, arguments = expression(workload)
    elif isinstance(workload, Convolution):
        function = graphflow_convolutions.function_of(workload)
        arguments = [gf.tensor(a) for a in workload.arrays()]
    else:
        model, optimizer = shared.program(gf, workload)
        function = shared.timed(gf, workload, model, optimizer)
        arguments = [gf.tensor(a) for a in workload.data()]
        if isinstance(workload, Training):
            changes = changes_of(gf, model, optimizer)
    run = mode(function)
    return Prepared(lambda: run(*arguments), lambda result: result.detach().numpy(), changes)
