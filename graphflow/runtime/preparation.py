"""What is made ready while a program is being scheduled: memory for its arena, its kernels."""

from __future__ import annotations

from collections.abc import Iterable

from graphflow import flags
from graphflow.codegen.schedule import KernelSource
from graphflow.runtime.cache import COMPANIONS, Batch
from graphflow.runtime.executor import executor_kernels
from graphflow.runtime.resident import Reserve


class Preparation:
    """A ``reserve`` for an arena of about ``expected`` bytes, and a ``batch`` of kernels.

    :meth:`close` it when the program is loaded, or will never be.
    """

    def __init__(self, expected: int) -> None:
        self.reserve = Reserve(expected)
        self.batch = Batch(companions)

    def ask(self, kernels: Iterable[KernelSource]) -> None:
        """Have these kernels looked up or compiled."""
        if not flags.DISABLE_JIT.value:
            self.batch.ask(kernels)

    def close(self) -> None:
        """Stop what is under way."""
        self.batch.close()


def companions() -> list[KernelSource]:
    """What a program will ask for next, or eager code asked for in vain."""
    return [*executor_kernels(), *(kernel for wanted in COMPANIONS for kernel in wanted())]
