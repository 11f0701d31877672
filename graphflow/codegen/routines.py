"""Operations that a library computes as a whole: steps without a kernel.

The library takes operands and results as they lie, if the elements of the last axis lie together
and every line begins at a multiple of 16 bytes; what lies otherwise is copied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from graphflow.codegen.control import RegionEmitter
from graphflow.codegen.layout import Layout, contiguous
from graphflow.codegen.library import Routine, Strided
from graphflow.codegen.schedule import Address, LibraryCall, Provenance, Step
from graphflow.codegen.units import Unit
from graphflow.ir.binding import type_at
from graphflow.ir.node import Node
from graphflow.ir.types import TensorType, TupleType

ALIGNED = 16
"""Bytes: a line's first element is at a multiple of so many."""


def routine_of(node: Node, deterministic: bool, sizes: Mapping[str, int]) -> Routine:
    """What a library would be asked for ``node``, whose operands and results are row-major, at
    these sizes of symbolic dimensions."""
    types = [*(n.tensor_type for n in node.inputs), *_results(node)]
    layouts = [contiguous(0, type_at(type, sizes)) for type in types]
    return _routine(node, layouts, deterministic)


def _results(node: Node) -> list[TensorType]:
    items = node.type.items if isinstance(node.type, TupleType) else (node.type,)
    return [item for item in items if isinstance(item, TensorType)]


def _routine(node: Node, layouts: Sequence[Layout], deterministic: bool) -> Routine:
    arrays = (Strided(x.type.dtype.short, x.shape, x.strides) for x in layouts)
    return Routine(node.op.name, tuple(arrays), tuple(node.attrs.items()), deterministic)


def routine_steps(
    emitter: RegionEmitter, unit: Unit, operands: Sequence[Layout], results: Sequence[Layout]
) -> list[Step]:
    """The library's call, after copies of operands that do not lie as it takes them."""
    assert unit.node is not None
    node, steps, places = unit.node, list[Step](), list[Layout]()
    for layout in operands:
        if not is_taken(layout):
            copy = emitter.context.temporary(layout.type)
            steps += emitter.copied(layout, copy)
            layout = copy
        places.append(layout)
    layouts = [*places, *results]
    moved = sum(prod(x.shape) * x.type.dtype.itemsize for x in layouts)
    call = LibraryCall(
        routine=_routine(node, layouts, emitter.context.backend.numerics.deterministic),
        arguments=tuple(Address(x.buffer, x.offset * x.type.dtype.itemsize) for x in layouts),
        reads=frozenset(x.buffer for x in places),
        writes=frozenset(x.buffer for x in results),
        bytes=moved,
        provenance=Provenance(
            f"{node.op.name} -> {node.type}", unit.locations, emitter.position[node]
        ),
    )
    return [*steps, call]


def is_taken(layout: Layout) -> bool:
    """Whether a library takes what lies so; see the module's text."""
    size = layout.type.dtype.itemsize
    if layout.offset * size % ALIGNED:
        return False
    if layout.is_contiguous:
        return True
    *outer, last = zip(layout.shape, layout.strides, strict=True)
    lines = all(n == 1 or (step and step * size % ALIGNED == 0) for n, step in outer)
    return lines and last[1] == 1
