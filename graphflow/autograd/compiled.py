"""Histories of outputs of compiled functions: backward is a program of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np

from graphflow.autograd.history import ALONE, Edge, edge_of, serials
from graphflow.autograd.several import Collector, attach
from graphflow.cell import Cell, copy_of
from graphflow.device import CPU
from graphflow.errors import ChangedInPlaceError, GraphFlowError
from graphflow.ir.types import TensorType
from graphflow.mode import mode
from graphflow.tensor import Tensor

if TYPE_CHECKING:
    from graphflow.partition import Backward

Given: TypeAlias = "tuple[tuple[Any, ...], Mapping[str, Any]]"
"""Arguments of a call, and its keyword arguments."""
Run: TypeAlias = Callable[[Sequence[Tensor], Sequence[Cell], Sequence[Tensor]], Sequence[Tensor]]
"""From cotangents, what the call has saved, and arguments, to gradients."""
Again: TypeAlias = Callable[[Given, Sequence[Any]], Sequence[Tensor]]
"""From what a call was given, and the leaves of that, to its results that have a history, made
again by the function's operations."""


class CallHistory:
    """What the histories of all calls of one program share.

    ``cells`` is the memory that the function reaches by itself, ``again`` for second derivatives,
    where it may run once more.
    """

    __slots__ = ("_fixed", "_overlaps", "again", "backward", "cells", "run", "types")

    def __init__(
        self, backward: Backward, cells: Sequence[Cell], run: Run, again: Again | None
    ) -> None:
        self.backward, self.cells, self.run, self.again = backward, cells, run, again
        self.types: tuple[TensorType, ...] = ()
        """Of the results that have a history, once there are some."""
        self._overlaps: list[tuple[int, int]] = []
        self._fixed = [
            Edge(None, leaf) if i < 0 and leaf.grad_fn is None else None
            for leaf, i in zip(backward.leaves, backward.leaf_arguments, strict=True)
        ]

    def record(
        self, outputs: Sequence[Cell], live: Sequence[Tensor], leaves: Sequence[Any], given: Given,
        shown: Sequence[Any] | None = None,
    ) -> None:  # fmt: skip
        """Give the results ``live`` of a call their history, whose backward is a program.

        ``shown`` is what the program was given for the arguments ``leaves``, if something else.
        """
        if not self.types:
            self.types = tuple(t._type_now() for t in live)
            self._overlaps = _overlaps([outputs[n] for n in self.backward.saved], live)
        repeats = self.again is not None and mode.autocast is None
        node = CompiledNode(
            self, outputs, live, leaves, given if repeats else None, shown or leaves
        )
        attach(live, node)

    def versions(self, leaves: Sequence[Any]) -> list[tuple[Cell, int]]:
        """The versions of all that the function read."""
        found = [(cell, cell.version) for cell in self.cells]
        cells = [leaf._cell for leaf in leaves if isinstance(leaf, Tensor)]
        return found + [(cell, cell.version) for cell in cells]

    def shared(self, live: Sequence[Tensor]) -> list[tuple[int, Cell, int]]:
        """Which of what is saved lies in the memory of which result, and the version of that."""
        return [(i, live[j]._cell, live[j]._cell.version) for i, j in self._overlaps]

    def edges(self, leaves: Sequence[Any]) -> tuple[Edge | None, ...]:
        """Where gradients go; leaves that the function reaches by itself stay what they are."""
        if mode.part is not None:
            return tuple(map(edge_of, self.targets(leaves)))
        numbers = self.backward.leaf_arguments
        return tuple([
            fixed or edge_of(leaf if i < 0 else leaves[i])
            for fixed, leaf, i in zip(self._fixed, self.backward.leaves, numbers)
        ])  # fmt: skip

    def targets(self, leaves: Sequence[Any]) -> list[Tensor]:
        """What results are differentiated by."""
        pairs = zip(self.backward.leaves, self.backward.leaf_arguments, strict=True)
        return [leaf if i < 0 else leaves[i] for leaf, i in pairs]


class CompiledNode(Collector):
    """One call of a compiled function: collects cotangents, then runs the backward program."""

    __slots__ = (
        "arguments", "before", "given", "history", "leaves", "lent", "saved", "shared", "watched",
    )  # fmt: skip

    passes_on: ClassVar[int] = ALONE

    def __init__(
        self, history: CallHistory, outputs: Sequence[Cell], live: Sequence[Tensor],
        leaves: Sequence[Any], given: Given | None, shown: Sequence[Any],
    ) -> None:  # fmt: skip
        # Small functions wait for this, so nothing is done by the classes above, which are for
        # operations with operands.
        self.op, self.attrs, self.module = None, {}, ""
        self.edges = history.edges(leaves)
        self.inputs = self.versions = ()
        self.serial = next(serials)
        self.hooks = self.retain = self.out = None
        self.released = False
        self.arrived = {}
        backward = history.backward
        self.history: CallHistory | None = history
        self.saved = [outputs[n] for n in backward.saved]
        self.shared = history.shared(live)
        self.arguments = [Tensor._of(shown[i]._cell, shown[i]._chain) for i in backward.arguments]
        self.watched = [(cell, cell.version) for cell in backward.watched]
        self.watched += [(x._cell, x._cell.version) for x in self.arguments]
        self.leaves, self.given, self.lent = leaves, given, mode.lent
        self.before = [] if given is None else history.versions(leaves)

    def cotangents(self, builder: Any, ct: Tensor, create_graph: bool) -> list[Tensor | None]:
        """The gradients of the leaves, from the backward program; each has memory of its own."""
        if self.history is not None and self.history.backward.refusal:
            raise ChangedInPlaceError(self.history.backward.refusal)
        if create_graph and self.given is None:
            raise GraphFlowError(
                "create_graph=True has to run a compiled function again, operation by operation, "
                "which one that draws random numbers, or changes or prints something, does not "
                "bear; call autograd.grad inside the compiled function instead"
            )
        history = self.history
        if history is None:
            raise GraphFlowError(
                "backward through a compiled call a second time, after its saved values were "
                "freed; pass retain_graph=True to the first backward()"
            )
        check_unchanged(self.watched)
        there, types = set(self.arrived), history.types
        if len(there) == len(types):
            cts = [self.arrived.pop(i) for i in range(len(types))]
        else:
            cts = self._with_zeros(types)
        if create_graph:
            return self._recorded(history, cts, there)
        check_unchanged([(cell, version) for _, cell, version in self.shared])
        return [
            made if outputs & there else None
            for made, outputs in zip(
                history.run(cts, self.saved, self.arguments), history.backward.reached, strict=True
            )
        ]

    def _with_zeros(self, types: Sequence[TensorType]) -> list[Tensor]:
        """The cotangents; zeros for results that none has arrived for."""
        from graphflow.dispatch import full

        device = next((ct.device for ct in self.arrived.values()), CPU)
        return [
            self.arrived.pop(i) if i in self.arrived else full(t.static_shape, 0, t.dtype, device)
            for i, t in enumerate(types)
        ]

    def keep_from(self, cell: Cell) -> None:
        """Have copies of what is saved in ``cell``, a result that is about to be changed."""
        for i, other, version in self.shared:
            if other is cell and cell.version == version:
                self.saved[i] = Cell(copy_of(self.saved[i].value))
        self.shared = [entry for entry in self.shared if entry[1] is not cell]

    def _recorded(
        self, history: CallHistory, cts: Sequence[Tensor], there: set[int]
    ) -> list[Tensor | None]:
        """The gradients with a history, by the function's own operations, of what is there."""
        from graphflow.autograd.engine import grad

        assert history.again is not None
        assert self.given is not None
        check_unchanged(self.before)
        with ExitStack() as members:
            for put in self.lent:
                members.enter_context(put())
            outs = history.again(self.given, self.leaves)
        arguments = history.targets(self.leaves)
        by_edge = {_end(edge_of(argument)): argument for argument in arguments}
        wanted = [by_edge[_end(edge)] for edge in self.edges]
        reached, given = [outs[i] for i in there], [cts[i] for i in there]
        return list(grad(reached, wanted, given, create_graph=True, allow_unused=True))

    def release(self) -> None:
        """Let go of the saved values."""
        super().release()
        self.history = self.given = None
        self.lent = ()
        self.leaves, self.before, self.saved, self.arguments = (), [], [], []
        self.shared, self.watched = [], []


def _overlaps(saved: Sequence[Cell], live: Sequence[Tensor]) -> list[tuple[int, int]]:
    """Which of what is saved lies in the memory of which result: the same for all calls."""
    roots: dict[int, list[int]] = {}
    for j, t in enumerate(live):
        roots.setdefault(id(_root(t._cell.value)), []).append(j)
    return [(i, j) for i, cell in enumerate(saved) for j in roots.get(id(_root(cell.value)), ())]


def _root(array: Any) -> Any:
    """What has the memory that ``array`` shows."""
    if array.__class__ is not np.ndarray:
        return array.block
    return array if array.base is None else array.base


def check_unchanged(watched: Sequence[tuple[Cell, int]]) -> None:
    """Raise an error if one of these cells has another version than this."""
    if any(cell.version != version for cell, version in watched):
        raise ChangedInPlaceError(
            "a tensor needed for the gradient of a compiled function was modified by an "
            "in-place operation after the call; clone() it first"
        )


def _end(edge: Edge | None) -> Any:
    """Where an edge leads, to be compared by identity."""
    return None if edge is None else edge.node or edge.leaf
