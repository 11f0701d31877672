"""The workloads as PyTorch code, run eagerly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.changes import changes_of
from benchmarks.systems import Prepared, networks
from benchmarks.workloads import Expression, Training, Workload

EXPRESSIONS: dict[str, Callable[..., Any]] = {
    "mish": lambda x: x * torch.tanh(F.softplus(x)) * 0.5 + 1,
    "softmax": lambda x: torch.softmax(x * 0.125, -1),
    "layernorm": lambda x, w, b: F.gelu(F.layer_norm(x, (x.shape[-1],), w, b)),
    "matmul": lambda a, b: a @ b,
}


class MLP(nn.Module):
    """Linear layers with a ReLU between them."""

    def __init__(self, workload: Training) -> None:
        super().__init__()
        parameters = workload.parameters()
        self.layers = nn.ModuleList([nn.Linear(*weight.shape) for weight, _ in parameters])
        with torch.no_grad():
            for layer, (weight, bias) in zip(self.layers, parameters, strict=True):
                layer.weight.copy_(torch.from_numpy(weight.T.copy()))
                layer.bias.copy_(torch.from_numpy(bias))

    def forward(self, x: Any) -> Any:
        """The output of the last layer, halved for evaluation so that the mode shows."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        x = self.layers[-1](x)
        return x if self.training else x * 0.5


def prepare(workload: Workload, threads: int) -> Prepared:
    """The workload, run eagerly."""
    torch.set_num_threads(threads)
    if isinstance(workload, Expression):
        inputs = [torch.from_numpy(a) for a in workload.inputs()]
        function = EXPRESSIONS[workload.kind]
        return Prepared(lambda: function(*inputs), lambda result: result.numpy())
    if isinstance(workload, Training):
        return _training(workload)
    step = networks.training_step(torch, workload)
    inputs = [torch.from_numpy(a) for a in workload.data()]
    return Prepared(lambda: step(*inputs), lambda loss: loss.detach().numpy())


def _training(workload: Training) -> Prepared:
    model = MLP(workload)
    optimizer = torch.optim.SGD(model.parameters(), lr=workload.lr, momentum=workload.momentum)
    loss_of = F.cross_entropy if workload.loss == "cross_entropy" else F.mse_loss
    inputs, targets = (torch.from_numpy(a) for a in workload.data())

    def step() -> Any:
        optimizer.zero_grad()
        loss = loss_of(model(inputs), targets)
        loss.backward()
        optimizer.step()
        return loss

    changes = changes_of(torch, model, optimizer)
    return Prepared(step, lambda loss: loss.detach().numpy(), changes)
