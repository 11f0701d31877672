"""What is timed, in the words that PyTorch and GraphFlow share."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from benchmarks.images import Images
from benchmarks.systems import convolutional, networks, perceptrons
from benchmarks.workloads import Network, Training


def program(framework: ModuleType, workload: Training | Network | Images) -> tuple[Any, Any]:
    """The model with its first parameters, and its optimiser (None for scores)."""
    if isinstance(workload, Training):
        return perceptrons.program(framework, workload)
    if isinstance(workload, Images):
        return convolutional.program(framework, workload)
    return networks.program(framework, workload)


def timed(
    framework: ModuleType,
    workload: Training | Network | Images,
    model: Callable[..., Any],
    optimizer: Any,
    update: Any = None,
) -> Callable[..., Any]:
    """A training step, or the scores, as a function of a batch.

    ``update`` stands in for ``optimizer.step``, where that is compiled apart.
    """
    F = framework.nn.functional
    loss_of = F.mse_loss if getattr(workload, "loss", "") == "mse" else F.cross_entropy

    def scores(inputs: Any, targets: Any) -> Any:
        with framework.no_grad():
            return model(inputs)

    def step(inputs: Any, targets: Any) -> Any:
        optimizer.zero_grad()
        loss = loss_of(model(inputs), targets)
        loss.backward()
        (update or optimizer.step)()
        return loss

    return scores if optimizer is None else step
