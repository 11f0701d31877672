"""The multilayer perceptron in the words that PyTorch and GraphFlow share."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from benchmarks.workloads import Training


def program(framework: ModuleType, workload: Training) -> tuple[Any, Any]:
    """The model with its first parameters and its optimiser."""
    model = perceptron(framework, workload)
    with framework.no_grad():
        for layer, (weight, bias) in zip(model.layers, workload.parameters(), strict=True):
            layer.weight.copy_(framework.from_numpy(weight.T.copy()))
            layer.bias.copy_(framework.from_numpy(bias))
    options = {"lr": workload.lr, "momentum": workload.momentum}
    return model, framework.optim.SGD(model.parameters(), **options)


def perceptron(framework: ModuleType, workload: Training) -> Any:
    """Linear layers with a ReLU between them."""
    nn, F = framework.nn, framework.nn.functional

    class MLP(nn.Module):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            sizes = zip(workload.sizes, workload.sizes[1:], strict=False)
            self.layers = nn.ModuleList([nn.Linear(*pair) for pair in sizes])

        def forward(self, x: Any) -> Any:
            for layer in self.layers[:-1]:
                x = F.relu(layer(x))
            x = self.layers[-1](x)
            return x if self.training else x * 0.5  # so that the mode shows

    return MLP()
