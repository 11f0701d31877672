"""The systems that are compared: each makes a :class:`Prepared` of a workload."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.workloads import Array, Workload

# name -> (module, what the table calls it)
SYSTEMS = {
    "static": ("graphflow_static", "GraphFlow"),
    "model": ("graphflow_model", "GraphFlow model"),
    "eager": ("graphflow_eager", "GraphFlow eager"),
    "torch": ("torch_eager", "PyTorch eager"),
    "torch_compile": ("torch_compile", "torch.compile"),
    "jax": ("jax_jit", "JAX jit"),
    "pytensor": ("pytensor_numba", "PyTensor"),
    "ort": ("onnxruntime_session", "ONNX Runtime"),
}

LIBRARIES = {
    "static": "graphflow.nn.functional",
    "model": "graphflow.nn.functional",
    "eager": "graphflow.nn.functional",
    "torch": "torch.nn.functional",
    "torch_compile": "torch.nn.functional",
    "jax": "jax.numpy",
    "pytensor": "pytensor.tensor",
    "ort": "onnxruntime",
}
"""What a program that uses a system imports of it."""
OURS = ("static", "model", "eager")
"""All of a step compiled, only its model, nothing."""
USUAL = ("static", "eager", "torch", "jax")
"""What is measured if nothing is said: PyTensor wants an environment of its own, and
``torch.compile`` takes minutes."""


class Unavailable(RuntimeError):
    """A system cannot run on this machine; the message says what it lacks."""


@dataclass(frozen=True)
class Prepared:
    """A workload ready to run: ``call()`` is what is timed and returns when it is done.

    ``read(result)`` turns what ``call`` returned (a loss, or the output) into an array.
    ``changes`` are what the next call must notice (:mod:`benchmarks.changes`).
    """

    call: Callable[[], Any]
    read: Callable[[Any], Array]
    changes: tuple[Callable[[], Any], ...] = ()


def prepare(system: str, workload: Workload, threads: int) -> Prepared:
    """Import the system and build the workload with it; :class:`Unavailable` if it is not there."""
    try:
        module = importlib.import_module(f"benchmarks.systems.{SYSTEMS[system][0]}")
    except ModuleNotFoundError as error:
        raise Unavailable(f"{error.name} is not installed") from error
    prepared: Prepared = module.prepare(workload, threads)
    return prepared
