"""Eager steps of an optimiser as one program, where that is ready.

An update is a dozen operations on each parameter, and eagerly each of them goes through memory by
itself.  Once the same parameters have been updated :data:`OFTEN` times, the step is traced and a
thread compiles it beside the work that goes on; from then on the program is played, which updates
all parameters at once.  So ``opt.step()`` is quick where only the model is compiled, or nothing.

The program stands for this state of the world: where a parameter, its state or an option that
decides what is computed has been replaced, operations run one by one again.  Rates may change from
step to step.  ``gf.use_deterministic_algorithms`` and ``gf.backends.cpu.eager_kernels`` mean here
what they mean for single operations (:mod:`graphflow.eager_kernels`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from operator import is_
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from graphflow import flags
from graphflow.backends import cpu
from graphflow.mode import mode
from graphflow.numerics import compiles_at_once
from graphflow.optim.counts import Counts
from graphflow.tensor import Tensor

if TYPE_CHECKING:
    from graphflow.capture import Capture
    from graphflow.compiled import Compiled
    from graphflow.optim.optimizer import Optimizer

Pairs: TypeAlias = list[tuple[Tensor, Tensor]]
"""Parameters of a group with their gradients."""

OFTEN = 8
"""Steps that no program fits before one is made, which takes a second or less."""
MOST_KINDS, MOST_PROGRAMS = 8, 8
"""Sets of parameters that programs are made for, and how many for each, one after the other."""

_EMPTY: Mapping[str, Any] = {}


class ReadySteps:
    """The programs of one optimiser's steps, by the parameters that had gradients."""

    def __init__(self) -> None:
        self._kinds: dict[Any, _Kind] = {}

    def play(self, optimizer: Optimizer, found: Sequence[Pairs]) -> bool:
        """Whether a program has made the step over the gradients that were found."""
        if mode.tracer is not None or not cpu.eager_kernels or not optimizer.is_known:
            return False
        if mode.guard is not None or mode.autocast is not None or flags.DISABLE_JIT.value:
            return False
        key = tuple([tuple([id(parameter) for parameter, _ in pairs]) for pairs in found])
        kind = self._kinds.get(key)
        if kind is None:
            if not any(key) or len(self._kinds) >= MOST_KINDS:
                return False
            kind = self._kinds[key] = _Kind([[p for p, _ in pairs] for pairs in found])
        return kind.play(optimizer, tuple([gradient for pairs in found for _, gradient in pairs]))

    def __reduce__(self) -> Any:
        """Copies of an optimiser have programs of their own."""
        return ReadySteps, ()


class _Kind:
    """Steps over the same parameters: the program that is there, or on its way."""

    def __init__(self, parameters: list[list[Tensor]]) -> None:
        self._parameters = parameters
        self._program: Compiled | None = None
        self._used: list[Any] = []
        """Groups and state, as the program knows them."""
        self._missed = self._made = 0
        self._waits = False
        """For a program that is being made; forever, if that failed."""

    def play(self, optimizer: Optimizer, gradients: tuple[Tensor, ...]) -> bool:
        """Whether a program made the step; if none did, that counts towards making one."""
        if self._waits:
            return False
        if self._program is not None and self._plays(self._program, optimizer, gradients):
            return True
        self._missed += 1
        often = compiles_at_once() or self._missed >= OFTEN
        if not often or self._made >= MOST_PROGRAMS or not self._is_at_hand(gradients):
            return False
        program = self._prepare(optimizer, gradients)
        return program is not None and self._plays(program, optimizer, gradients)

    def _plays(
        self, program: Compiled, optimizer: Optimizer, gradients: tuple[Tensor, ...]
    ) -> bool:
        used = self._in_use(optimizer)
        if len(used) != len(self._used) or not all(map(is_, used, self._used)):
            return False
        from graphflow.quick import MISS

        return program.attempt(gradients) is not MISS

    def _in_use(self, optimizer: Optimizer) -> list[Any]:
        """Groups and state of now: a program goes on to write to what it was made over."""
        state = optimizer.state
        held = [
            value
            for parameters in self._parameters
            for parameter in parameters
            for value in state.get(parameter, _EMPTY).values()
        ]
        return [*optimizer.param_groups, *held]

    def _is_at_hand(self, gradients: Sequence[Tensor]) -> bool:
        """Whether everything lies in the memory of the processor."""
        tensors = (*gradients, *(p for parameters in self._parameters for p in parameters))
        return all(tensor._eager().__class__ is np.ndarray for tensor in tensors)

    def _prepare(self, optimizer: Optimizer, gradients: tuple[Tensor, ...]) -> Compiled | None:
        """Trace the step and see to its compiling; the program, if that is done already."""
        from graphflow.compiled import Compiled
        from graphflow.eager_kernels import stays_with_numpy

        twin = copy(optimizer)  # which the program may hold without keeping the other alive
        twin._counts, twin._ready_steps = Counts(), ReadySteps()
        parameters = self._parameters

        def step(*gradients: Tensor) -> None:
            left = iter(gradients)
            twin.update_all([[(p, next(left)) for p in held] for held in parameters])

        made = Compiled(step, dynamic=False)
        self._missed, self._made, self._waits = 0, self._made + 1, True
        try:
            made.prepare_beside(gradients, self._see_to)
        except Exception as error:  # whatever it is, operations work without
            stays_with_numpy(f"{type(optimizer).__name__}.step", error)
            return None
        self._program, self._used = made, self._in_use(optimizer)
        return None if self._waits else made

    def _see_to(self, captured: Capture, make: Callable[[], None]) -> None:
        """Have the program made: at once, if the cache has it, else by the thread for that."""
        from graphflow.eager_kernels import compile_beside, is_wanted_now, stays_with_numpy

        def run() -> None:
            try:
                make()
            except Exception as error:
                stays_with_numpy(captured.name, error)
            else:
                self._waits = False

        if is_wanted_now(captured.graph, captured.is_lasting):
            run()
        else:
            compile_beside(run)
