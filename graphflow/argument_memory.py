"""Memory that a traced function sees in more than one way: by several arguments, or by an
argument and from outside.

An argument that is a view has memory of its own in a program.  Where the function writes to what
others show too, it works on all of that memory instead, of which the argument shows a part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from graphflow.cell import Cell, Chain
from graphflow.errors import TraceError
from graphflow.tensor import Tensor

if TYPE_CHECKING:
    from graphflow.trace import Tracer


def shared_cells(leaves: Sequence[Any]) -> frozenset[Cell]:
    """Memory that more than one argument shows: the program works on all of it."""
    counts = Counter(leaf._cell for leaf in leaves if isinstance(leaf, Tensor))
    return frozenset(cell for cell, count in counts.items() if count > 1)


def found_out(
    tracer: Tracer, leaves: Sequence[Any], mutable: frozenset[int], sized: Collection[int]
) -> tuple[frozenset[int], frozenset[Cell]] | None:
    """The arguments that are written to, and the memory to work on as a whole; None if the trace
    began with that.  ``sized`` arguments, with symbolic dimensions, can be neither."""
    written = mutable | tracer.written_arguments()
    seen = {
        index: leaf._cell
        for index, leaf in enumerate(leaves)
        if isinstance(leaf, Tensor) and leaf._chain and leaf.grad_fn is None
        if leaf._cell in tracer.captured and (leaf._cell in tracer.touched or index in written)
    }
    if written == mutable and tracer.shared.issuperset(seen.values()):
        return None
    if not (written | seen.keys()).isdisjoint(sized):
        raise TraceError("an argument that is written to has fixed dimensions")
    return written, tracer.shared.union(seen.values())


def view_of_one(leaf: Tensor, arguments: Sequence[Any]) -> tuple[int, Chain] | None:
    """The argument that ``leaf`` is a view of, and the steps from there; None if it shows other
    parts of the memory than each of them does."""
    found: tuple[int, Chain] | None = None
    for index, argument in enumerate(arguments):
        if isinstance(argument, Tensor) and argument._cell is leaf._cell:
            begun = len(argument._chain)
            closer = found is None or len(leaf._chain) - begun < len(found[1])
            if closer and leaf._chain[:begun] == argument._chain:
                found = index, leaf._chain[begun:]
    return found
