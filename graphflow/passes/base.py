"""What a pass is: a frozen record with ``run(graph) -> graph``."""

from __future__ import annotations

import abc
from dataclasses import dataclass, fields
from typing import ClassVar

from graphflow.ir.graph import Graph


@dataclass(frozen=True)
class Pass(abc.ABC):
    """One rewriting of graphs.

    Fields are its options.  A pass keeps what the graph computes (within the
    rounding its docstring allows), its inputs and their order, and the user's
    locations; it takes near-linear time.  It returns the very graph it was
    given when there is nothing to do, and finds nothing to do in what it has returned.
    """

    name: ClassVar[str]
    """As printed in ``stages()`` and dumps."""
    stage: ClassVar[str | None] = None
    """The stage of :func:`graphflow.ir.verify.verify` that the result is legal at."""

    @abc.abstractmethod
    def run(self, graph: Graph) -> Graph:
        """The rewritten graph."""

    def __str__(self) -> str:
        """``name{option=value}``, options that have their default left out."""
        chosen = [
            f"{f.name}={getattr(self, f.name)}"
            for f in fields(self)
            if getattr(self, f.name) != f.default
        ]
        return f"{self.name}{{{', '.join(chosen)}}}" if chosen else self.name
