"""What the current thread is doing: recording gradients, tracing a program.

Also the *structure version*: one counter that everything bumps which could
make a compiled program's assumptions wrong (a module changed its mode, a
parameter was replaced, ``requires_grad`` flipped, an optimiser's group was
edited).  A compiled call compares one integer; only when it moved are the
program's guards looked at one by one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from graphflow.autocasting import Precision
    from graphflow.autograd.graph import saved_tensors_hooks
    from graphflow.autograd.parts import Shares
    from graphflow.debugging.nonfinite import nan_guard
    from graphflow.device import Device
    from graphflow.trace import Tracer


P = ParamSpec("P")
R = TypeVar("R")


class Mode(threading.local):
    """Per-thread modes.  ``grad``: record for backward.  ``tracer``: the trace under way.
    ``guard``: what looks at the results of operations and programs.
    ``autocast``: the precision that operations choose for themselves.
    ``place``: the device of tensors that are made without naming one (None: the CPU).
    ``packing``: the hooks that eager operations give what they save for their gradients to.
    ``part``: histories that leaves have in the part of a batch that is being computed.
    ``one_by_one``: modules that were compiled in place run their operations.
    ``lent``: what puts the members back that modules are called with (``functional_call``)."""

    grad: bool = True
    tracer: Tracer | None = None
    guard: nan_guard | None = None
    autocast: Precision | None = None
    place: Device | None = None
    packing: saved_tensors_hooks | None = None
    part: Shares | None = None
    one_by_one: bool = False
    lent: tuple[Callable[[], AbstractContextManager[None]], ...] = ()

    def note(self) -> None:
        """Note whether this thread's modes are unusual: to be called after one has become so.

        And after it has become what it was, or calls stay a little slower.  Ctrl-C can come at
        the begin and the end of every call, but not before an assignment that a ``finally``
        begins with: so modes are plain attributes, put back first and noted then.
        """
        special = self.tracer is not None or self.guard is not None or self.autocast is not None
        if special or not self.grad:
            structure.unusual.add(threading.get_ident())
        else:
            structure.unusual.discard(threading.get_ident())


class StructureVersion:
    """The counter; ``structure.version`` only ever grows."""

    __slots__ = ("solid", "unusual", "values", "version")

    def __init__(self) -> None:
        self.unusual: set[int] = set()
        """Threads that trace, guard, cast or record no gradients: none saves a look at ``mode``."""
        self.version = 0
        self.solid = 0
        self.values = 0

    def bump(self) -> None:
        """Say that something a program may have assumed has changed."""
        self.version += 1
        self.solid += 1

    def regrade(self) -> None:
        """Say that some ``.grad`` was assigned: of interest to programs that use or leave one."""
        self.version += 1

    def revalue(self) -> None:
        """Say that a run-time scalar has another value: programs read theirs again."""
        self.values += 1


structure = StructureVersion()

mode = Mode()


def operation_by_operation(function: Callable[P, R]) -> Callable[P, R]:
    """``function`` as it runs if modules in it that were compiled in place are not."""

    @wraps(function)
    def plain(*args: P.args, **kwargs: P.kwargs) -> R:
        before = mode.one_by_one
        try:
            mode.one_by_one = True
            return function(*args, **kwargs)
        finally:
            mode.one_by_one = before

    return plain
