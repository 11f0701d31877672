"""What a fused graph's kernels read and write, in the order in which they will run.

The memory plan follows from the order, and the order is found when a graph is scheduled; so
:mod:`graphflow.codegen.outlook` draws up the outline, and passes that weigh memory read it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeAlias

import numpy as np

from graphflow.ir.graph import Graph
from graphflow.ir.node import Node
from graphflow.records import dataclass, field

Profile: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"


@dataclass(slots=True)
class Task:
    """One kernel's work: ``body`` over the nodes ``reads``, whose memory is ``operands``.

    Operands and results are numbers of values.  ``repeatable``: running those parts of it again
    that cannot fail does nothing but make results again.
    """

    kind: str
    body: Graph
    reads: Sequence[Node]
    operands: Sequence[int]
    results: Sequence[int]
    repeatable: bool


@dataclass(slots=True)
class Outline:
    """The tasks in order and the values they make; positions count tasks.

    ``sizes`` are bytes of the arena (0 for what has memory of its own), ``uses`` the positions
    that read a value, ascending, ``begins`` and ``ends`` the first and last position at which
    it takes room (a value that takes a dying operand's place begins when that is gone).
    ``held`` values are read where they are: they have no node, or a copy of them is made.
    """

    tasks: list[Task] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    nodes: list[Node | None] = field(default_factory=list)
    makers: list[int] = field(default_factory=list)
    uses: list[list[int]] = field(default_factory=list)
    begins: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    held: Collection[int] = ()

    def profile(self) -> Profile:
        """Bytes in use at every position."""
        change = np.zeros(len(self.tasks) + 2, np.int64)
        for size, begin, end in zip(self.sizes, self.begins, self.ends, strict=True):
            if size and end >= begin >= 0:
                change[begin] += size
                change[end + 1] -= size
        total: Profile = np.cumsum(change)[: len(self.tasks)]
        return total

    @property
    def peak(self) -> int:
        """The most bytes in use at once."""
        return int(self.profile().max(initial=0))


Look: TypeAlias = Callable[[Graph], Outline]
"""How a pass finds the outline of a graph."""
