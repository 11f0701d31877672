"""A program of a compiled function for one kind of call, with what it assumed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphflow.assigned import FoundMember
from graphflow.capture import Capture
from graphflow.cell import CAPTURED, Cell, layout_of
from graphflow.dynamic import Family
from graphflow.found_gradients import FoundGradient, cells_of
from graphflow.guards import Guard, same_value
from graphflow.ir.node import attrs_key
from graphflow.mode import mode, structure
from graphflow.program import Program
from graphflow.reads import Read
from graphflow.signature import groups_by_memory, spec_of
from graphflow.tensor import Tensor

if TYPE_CHECKING:
    from graphflow.autograd.compiled import CallHistory
    from graphflow.backward_program import BackwardProgram


class Entry:
    """A program, what it assumed, and when that was last checked.

    ``simple`` entries have a quick path: arguments are leaves, results are fresh
    tensors, views of such or plain values, and nothing is aliased.
    ``owned`` are the cells that the program reaches by itself: arguments over them need a closer
    look.  ``written`` are those of arguments that it writes to, in the trace.
    ``history`` gives results a history that leaves the function, if they have one.
    ``kept`` is memory in which the program leaves gradients.
    """

    __slots__ = (
        "aliased", "backward", "capture", "family", "grad", "history", "inputs", "kept", "owned",
        "program", "quick", "reads", "same", "simple", "specs", "uses_grads", "values", "version",
        "written",
    )  # fmt: skip

    def __init__(
        self,
        captured: Capture,
        program: Program,
        leaves: Sequence[Any],
        family: Family | None = None,
    ) -> None:
        self.capture = captured
        self.family = family
        self.quick: Callable[[tuple[Any, ...]], Any] | None = None
        self.program = program
        self.backward: BackwardProgram | None = None
        self.reads = captured.reads
        self.version = self.values = -1
        self.grad = mode.grad
        self.inputs = captured.leaves
        self.specs = tuple(spec_of(leaf) for leaf in leaves)
        self.owned = frozenset(captured.cells) | captured.named
        left = (value._cell for _, value in captured.grads if isinstance(value, Tensor))
        self.kept = self.owned.intersection(left) - captured.named
        self.written = {captured.cells[position] for _, position in captured.mutable}
        for cell in self.owned:
            cell.layout = CAPTURED
        self.aliased = self.captured_arguments(leaves)
        self.history: CallHistory | None = None
        self.uses_grads = captured.uses_grads
        groups = groups_by_memory(leaves)
        self.same = tuple((group[0], i) for group in groups for i in group[1:])
        self.simple = (
            not (captured.mutable or captured.argument_grads or self.aliased)
            and not (captured.members or (captured.backward and program.portable))
            and not any(isinstance(f, FoundMember) for f in captured.found)
            and not any(leaves[i]._chain for group in groups for i in group)
            and program.simple
            and mode.autocast is None  # a quick call tells programs by their arguments
            and all(r.kind in ("new", "value") for r in captured.results)
        )

    def word(self, arg: Any, spec: tuple[Any, Any, Any], words: list[int | float]) -> bool:
        """Append the address or value of an argument; False unless it is what ``spec`` says.

        Row-major memory is remembered as such: next time one comparison will do.
        """
        dtype = spec[0]
        if dtype is None:
            return arg.__class__ is spec[1] and bool(arg == spec[2])
        if dtype is float:
            if arg.__class__ is float:
                words.append(arg)
            return arg.__class__ is float
        if arg.__class__ is not Tensor:
            return False
        array, cell = arg._array, arg._cell
        if array.__class__ is not np.ndarray or cell in self.owned:
            return False
        if array.dtype is not dtype or array.shape != spec[1] or arg._requires_grad != spec[2]:
            return False
        if not array.flags.c_contiguous:
            return False
        if arg._chain:
            words.append(int(array.__array_interface__["data"][0]))
            return True
        words.append(cell.address)
        if cell.layout is None:
            cell.layout = layout_of(dtype, spec[1])
        return True

    def captured_arguments(self, leaves: Sequence[Any]) -> tuple[tuple[int, Cell, Any], ...]:
        """The arguments that the function also reaches from outside, and what they show of it."""
        owned = self.owned
        if self.capture.found:
            owned |= cells_of(self.capture.found)
        return tuple(
            (i, leaf._cell, tuple((step.op.name, attrs_key(step.attrs)) for step in leaf._chain))
            for i, leaf in enumerate(leaves)
            if isinstance(leaf, Tensor) and leaf._cell in owned
        )

    def told_apart(self, before: Entry, leaves: Sequence[Any]) -> None:
        """Learn which written arguments are reached as arguments only.

        One trace cannot tell whether a tensor that it was given is also reached in a way that
        leaves no name.  ``before`` is of the same world but was given others: what it does not
        reach, as a state of its graph or a gradient, is not reached otherwise.
        """
        if before.broken() is None:
            reached = {*before.capture.cells, *cells_of(before.capture.found), *self.capture.named}
            self.owned -= self.written - reached
            self.aliased = self.captured_arguments(leaves)

    def broken(self) -> Read | Guard | None:
        """The first assumption that no longer holds."""
        for read in self.reads:
            if not same_value(read.now(), read.value):
                return read
        if self.settled():
            return None
        guards = self.capture.guards
        if self.capture.found:
            guards += (Guard(self._lie_apart, True, "gradients in memory of their own"),)
        return next((guard for guard in guards if not guard.holds()), None)

    def _lie_apart(self) -> bool:
        """Whether no two gradients that are found are one, nor anything else that is captured."""
        found, cells = self.capture.found, self.capture.cells
        held = [f.now()._cell for f in found if isinstance(f, FoundGradient)]
        theirs = self.kept.union(cells[f.position] for f in found)
        return len(set(held)) == len(held) and theirs.issuperset(self.owned.intersection(held))

    def settled(self) -> bool:
        """True while nothing that a guard looks at has changed since the last run."""
        return self.version == (structure.version if self.uses_grads else structure.solid)

    def gradients(self) -> tuple[list[tuple[int, Any]], list[tuple[Tensor, Any]], bool]:
        """What is found, by positions in the graph's state, what ``.grad`` of leaves becomes, and
        whether some of that was copied.

        A gradient that the program itself has left lies where it will write the next one.
        """
        captured, copies = self.capture, dict[int, Any]()

        def now(found: FoundGradient | FoundMember) -> Any:
            held = found.now()
            if not isinstance(held, Tensor) or held._cell not in self.kept:
                return held
            if id(held) not in copies:
                copies[id(held)] = held.detach().clone()
            return copies[id(held)]

        bound = [(f.position, now(f)) for f in captured.found]
        ends = [(p, now(g) if isinstance(g, FoundGradient) else g) for p, g in captured.grads]
        return bound, ends, bool(copies)

    def settle(self, gradients: Iterable[tuple[Tensor, Any]], copied: bool) -> None:
        """Give every leaf the ``.grad`` and ``requires_grad`` that the program leaves behind.

        Copied gradients are to be copied at the next call, too.
        """
        switches = self.capture.switches
        for tensor, flag in switches:
            tensor.requires_grad_(flag)
        moved = False
        for leaf, value in gradients:
            moved |= leaf._grad is not value
            leaf._grad = value
        if moved:
            # What appeared may be what this very program assumed was not there.
            structure.regrade()
            self.version = -1
        elif copied or switches:
            self.version = -1
        else:
            self.version = structure.version if self.uses_grads else structure.solid
