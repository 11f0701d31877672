"""The workloads as GraphFlow code; the static form is the same functions, compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import graphflow as gf
import graphflow.nn.functional as F
from benchmarks.changes import changes_of
from benchmarks.systems import Prepared, shared
from benchmarks.workloads import Array, Expression, Training, Workload
from graphflow import nn, optim

EXPRESSIONS: dict[str, Callable[..., Any]] = {
    "mish": lambda x: x * gf.tanh(F.softplus(x)) * 0.5 + 1,
    "softmax": lambda x: F.softmax(x * 0.125, -1),
    "layernorm": lambda x, w, b: F.gelu(F.layer_norm(x, (x.shape[-1],), w, b)),
    "matmul": lambda a, b: a @ b,
}


class MLP(nn.Module):
    """Linear layers with a ReLU between them."""

    def __init__(self, parameters: list[tuple[Array, Array]]) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(*weight.shape) for weight, _ in parameters])
        with gf.no_grad():
            for layer, (weight, bias) in zip(self.layers, parameters, strict=True):
                layer.weight.copy_(gf.tensor(weight.T.copy()))
                layer.bias.copy_(gf.tensor(bias))

    def forward(self, x: Any) -> Any:
        """The output of the last layer, halved for evaluation so that the mode shows."""
        for layer in list(self.layers)[:-1]:
            x = F.relu(layer(x))
        x = self.layers[len(self.layers) - 1](x)
        return x if self.training else x * 0.5


def expression(workload: Expression) -> tuple[Callable[..., Any], list[Any]]:
    """What is timed, and its arguments."""
    return EXPRESSIONS[workload.kind], [gf.tensor(a) for a in workload.inputs()]


def training_step(workload: Training) -> tuple[Callable[..., Any], MLP, optim.SGD]:
    """One SGD step as a function of inputs and targets, its model and its optimiser."""
    model = MLP(workload.parameters())
    optimizer = optim.SGD(model.parameters(), lr=workload.lr, momentum=workload.momentum)
    loss_of = F.cross_entropy if workload.loss == "cross_entropy" else F.mse_loss

    def step(inputs: Any, targets: Any) -> Any:
        optimizer.zero_grad()
        loss = loss_of(model(inputs), targets)
        loss.backward()
        optimizer.step()
        return loss

    return step, model, optimizer


def prepare(
    workload: Workload, threads: int, mode: Callable[..., Any] = lambda function: function
) -> Prepared:
    """The workload, as ``mode`` makes it: by default eager."""
    gf.set_num_threads(threads)
    changes: tuple[Callable[[], Any], ...] = ()
    if isinstance(workload, Expression):
        function, arguments = expression(workload)
    elif isinstance(workload, Training):
        function, model, optimizer = training_step(workload)
        arguments = [gf.tensor(a) for a in workload.data()]
        changes = changes_of(gf, model, optimizer)
    else:
        function = shared.timed(gf, *shared.program(gf, workload))
        arguments = [gf.tensor(a) for a in workload.data()]
    run = mode(function)
    return Prepared(lambda: run(*arguments), lambda result: result.detach().numpy(), changes)
