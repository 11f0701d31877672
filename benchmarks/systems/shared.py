"""What is timed, in the words that PyTorch and GraphFlow share; only the models differ."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from benchmarks.images import Images
from benchmarks.systems import convolutional, networks
from benchmarks.workloads import Network


def program(framework: ModuleType, workload: Network | Images) -> tuple[Any, Any]:
    """The model with its first parameters, and its optimiser (None for scores)."""
    if isinstance(workload, Images):
        return convolutional.program(framework, workload)
    return networks.program(framework, workload)


def timed(
    framework: ModuleType, model: Callable[..., Any], optimizer: Any, update: Any = None
) -> Callable[..., Any]:
    """A training step, or the scores, as a function of a batch.

    ``update`` stands in for ``optimizer.step``, where that is compiled apart.
    """
    cross_entropy = framework.nn.functional.cross_entropy

    def scores(inputs: Any, targets: Any) -> Any:
        with framework.no_grad():
            return model(inputs)

    def step(inputs: Any, targets: Any) -> Any:
        optimizer.zero_grad()
        loss = cross_entropy(model(inputs), targets)
        loss.backward()
        (update or optimizer.step)()
        return loss

    return scores if optimizer is None else step
