"""Gradients that a traced function finds in ``.grad``: state whose memory may be another each time.

Eager ``backward()`` leaves a new tensor in ``.grad`` of every parameter.  A compiled
function that reads it (``opt.step()`` by itself) works on whatever lies there when it
is called, as long as that has the type the program was made for.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from graphflow.cell import Cell
from graphflow.ir.node import Node
from graphflow.records import dataclass
from graphflow.tensor import Tensor

if TYPE_CHECKING:
    from graphflow.assigned import FoundMember
    from graphflow.trace import Tracer


@dataclass(frozen=True, slots=True)
class FoundGradient:
    """The ``.grad`` of ``leaf``: state number ``position`` of the graph, if that reads it."""

    position: int
    leaf: Tensor

    def now(self) -> Any:
        """What lies there."""
        return self.leaf._grad


def found_gradients(tracer: Tracer, returned: Iterable[Any]) -> tuple[FoundGradient, ...]:
    """The gradients that are looked up at each call; assumes what must hold of them.

    ``returned`` are the outer tensors and cells that the function gives back.  What is
    returned, shown by another leaf's gradient in the end, reached by another name or shared by
    several leaves has to stay the very tensor it was.
    """
    given = {value._cell if isinstance(value, Tensor) else value for value in returned}
    ends = [value for _, value in tracer.grads.values() if isinstance(value, Tensor)]
    given |= {value._cell for value in ends if found_at(tracer, value) is None}
    positions = {cell: position for position, cell in enumerate(tracer.captured)}
    found = []
    for cell, pairs in tracer.found_grads.items():
        fixed = len(pairs) > 1 or cell in given or cell in tracer.named or cell in tracer.input_leaf
        for leaf, held in pairs:
            what = f"the gradient of {tracer.label(leaf)}"
            strided = not held._eager().flags.c_contiguous
            if fixed or strided or held._chain or held.grad_fn is not None:
                tracer.guard(partial(getattr, leaf, "_grad"), held, what)
                continue
            tracer.guard(partial(gradient_kind, leaf), gradient_kind(leaf), what)
            if cell in positions:
                found.append(FoundGradient(positions[cell], leaf))
    return tuple(found)


def found_at(tracer: Tracer, value: Any) -> Tensor | None:
    """The leaf of which ``value`` is the gradient that the trace found, if it is one."""
    if not isinstance(value, Tensor):
        return None
    pairs = tracer.found_grads.get(value._cell, ())
    return next((leaf for leaf, held in pairs if held is value), None)


def is_constant(node: Node) -> bool:
    """Whether a value, such as that of a gradient set to zero, follows from nothing else."""
    while len(node.inputs) == 1:
        node = node.inputs[0]
    return not node.inputs and "name" not in node.attrs  # as inputs and state have


def gradient_kind(leaf: Tensor) -> tuple[str, bool] | None:
    """What a program assumes of ``leaf.grad``: its type, and that it has no history."""
    held = leaf._grad
    if not isinstance(held, Tensor):
        return None
    return str(held._type_now()), held._requires_grad


def cells_of(found: Iterable[FoundGradient | FoundMember]) -> frozenset[Cell]:
    """The memory in which what is found lies now."""
    held = (f.now() for f in found)
    return frozenset(tensor._cell for tensor in held if isinstance(tensor, Tensor))
