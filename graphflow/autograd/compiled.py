"""Histories of outputs of compiled functions: backward is a program of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeAlias

import numpy as np

from graphflow.autograd.history import ALONE, Edge, edge_of
from graphflow.autograd.several import Collector
from graphflow.cell import Cell, copy_of
from graphflow.device import CPU
from graphflow.errors import GraphFlowError
from graphflow.tensor import Tensor

Run: TypeAlias = Callable[[Sequence[Tensor], Sequence[Cell]], Sequence[Tensor]]
"""From cotangents, and what the call has saved, to gradients."""


class CompiledNode(Collector):
    """One call of a compiled function: collects cotangents, then runs the backward program."""

    __slots__ = ("again", "reached", "run", "saved", "shared", "types", "watched")

    passes_on: ClassVar[int] = ALONE

    def __init__(
        self,
        leaves: Sequence[Tensor],
        live: Sequence[Tensor],
        watched: Sequence[Cell],
        saved: list[Cell],
        run: Run,
        reached: Sequence[frozenset[int]],
    ) -> None:
        super().__init__(None, tuple(leaves), {})
        self.reached = reached
        self.types = tuple(t._type_now() for t in live)
        self.watched = tuple((cell, cell.version) for cell in watched)
        self.run: Run | None = run
        self.saved = saved
        self.shared = _shared(saved, live)
        self.inputs = ()
        self.again: Callable[[], tuple[Sequence[Tensor], Sequence[Tensor]]] | None = None
        """Gives the results with the histories of the function's operations, and what they are
        differentiated with respect to."""

    def cotangents(self, builder: Any, ct: Tensor, create_graph: bool) -> list[Tensor | None]:
        """The gradients of the leaves, from the backward program; each has memory of its own."""
        if create_graph and self.again is None:
            raise GraphFlowError(
                "create_graph=True has to run a compiled function again, operation by operation, "
                "which one that draws random numbers, or changes or prints something, does not "
                "bear; call autograd.grad inside the compiled function instead"
            )
        if self.run is None:
            raise GraphFlowError(
                "backward through a compiled call a second time, after its saved values were "
                "freed; pass retain_graph=True to the first backward()"
            )
        check_unchanged(self.watched)
        from graphflow.dispatch import full

        device = next((ct.device for ct in self.arrived.values()), CPU)
        there = set(self.arrived)
        cts = [
            self.arrived.pop(i) if i in self.arrived else full(t.static_shape, 0, t.dtype, device)
            for i, t in enumerate(self.types)
        ]
        if create_graph:
            return self._recorded(cts, there)
        check_unchanged([(cell, version) for _, cell, version in self.shared])
        return [
            made if outputs & there else None
            for made, outputs in zip(self.run(cts, self.saved), self.reached, strict=True)
        ]

    def keep_from(self, cell: Cell) -> None:
        """Have copies of what is saved in ``cell``, a result that is about to be changed."""
        for i, other, version in self.shared:
            if other is cell and cell.version == version:
                self.saved[i] = Cell(copy_of(self.saved[i].value))
        self.shared = [entry for entry in self.shared if entry[1] is not cell]

    def _recorded(self, cts: Sequence[Tensor], there: set[int]) -> list[Tensor | None]:
        """The gradients with a history, by the function's own operations, of what is there."""
        from graphflow.autograd.engine import grad

        assert self.again is not None
        outs, arguments = self.again()
        by_edge = {_end(edge_of(argument)): argument for argument in arguments}
        wanted = [by_edge[_end(edge)] for edge in self.edges]
        reached, given = [outs[i] for i in there], [cts[i] for i in there]
        return list(grad(reached, wanted, given, create_graph=True, allow_unused=True))

    def release(self) -> None:
        """Let go of the saved values."""
        super().release()
        self.run = self.again = None
        self.saved, self.shared = [], []


def _shared(saved: Sequence[Cell], live: Sequence[Tensor]) -> list[tuple[int, Cell, int]]:
    """Which of what is saved lies in the memory of which result, and the version of that."""
    roots: dict[int, list[Cell]] = {}
    for t in live:
        roots.setdefault(id(_root(t._cell.value)), []).append(t._cell)
    return [
        (i, shown, shown.version)
        for i, cell in enumerate(saved)
        for shown in roots.get(id(_root(cell.value)), ())
    ]


def _root(array: Any) -> Any:
    """What has the memory that ``array`` shows."""
    if array.__class__ is not np.ndarray:
        return array.block
    return array if array.base is None else array.base


def check_unchanged(watched: Sequence[tuple[Cell, int]]) -> None:
    """Raise an error if one of these cells has another version than this."""
    if any(cell.version != version for cell, version in watched):
        raise GraphFlowError(
            "a tensor needed for the gradient of a compiled function was modified by an "
            "in-place operation after the call; clone() it first"
        )


def _end(edge: Edge | None) -> Any:
    """Where an edge leads, to be compared by identity."""
    return None if edge is None else edge.node or edge.leaf
