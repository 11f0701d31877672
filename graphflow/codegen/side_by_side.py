"""Values that are written where they are put together, so that nothing copies them there.

What a unit does that only lays its operands side by side (a concatenation) is done when
each of them lies there.  An operand that an elementwise unit or a contraction makes, and that
nobody else reads, is written there by that unit; parts of parts likewise.  Other operands may
be views of it (the borders of a padded image): they are copied from there.
"""

from __future__ import annotations

from math import prod

from graphflow.codegen.contraction.labels import is_matrix_product
from graphflow.codegen.layout import Layout, among_each_other, contiguous, reshaped, row_major
from graphflow.codegen.sizes import is_fixed, whole
from graphflow.codegen.units import Unit, Value, Work
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node
from graphflow.ir.op import Kind
from graphflow.ir.products import labels_of
from graphflow.ir.types import TensorType
from graphflow.passes.dataflow import view_pieces
from graphflow.records import dataclass, replace

Starts = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the value ``whole``: it begins at ``starts`` there, where it has ``type`` (which
    may have more or fewer axes of one element than it has itself)."""

    whole: int
    type: TensorType
    starts: Starts

    def inside(self, outer: Layout, value: Value) -> Layout | None:
        """Where ``value``, which is it, lies in what lies at ``outer``, if strides express that."""
        shape, order = value.type.static_shape, value.order or tuple(range(value.type.rank))
        stored = TensorType(value.type.dtype, tuple(shape[axis] for axis in order))
        found = reshaped(part_of(outer, self.type, self.starts), stored)
        if found is None:
            return None
        strides = dict(zip(order, found.strides, strict=True))
        return replace(found, type=value.type, strides=tuple(strides[a] for a in range(len(shape))))


_MAPS = (Kind.LEAF, Kind.ELEMENTWISE, Kind.VIEW, Kind.GATHER, Kind.GENERATOR)


def put_together(work: Work, bound: set[int], moved: set[int]) -> dict[int, Part]:
    """By value: which part of another value it is.

    Values in ``bound`` need memory of their own, those in ``moved`` share it with others.
    """
    readers: dict[int, int] = {}
    for unit in work.units:
        for operand in unit.operands:
            readers[operand.buffer] = readers.get(operand.buffer, 0) + 1
    found = {}
    for unit in work.units:
        starts = parts_of(unit.body) if unit.kind == "loop" else ()
        if not starts or work.values[unit.results[0]].order or unit.results[0] in moved:
            continue
        parts = {}
        made = contiguous(unit.results[0], work.values[unit.results[0]].type)
        for number, (operand, start) in enumerate(zip(unit.operands, starts, strict=True)):
            value = work.values[operand.buffer]
            others = [
                x for k, x in enumerate(unit.operands) if x.buffer == value.id and k != number
            ]
            alone = readers[value.id] == 1 + len(others) and value.id not in bound | moved
            seen = alone and all(_is_seen(view, value) for view in others)
            part = Part(unit.results[0], operand.type, start)
            fits = seen and _is_whole(operand, value) and part.inside(made, value) is not None
            if fits and _can_place(work, value):
                parts[value.id] = part
        makers = {work.values[operand.buffer].unit for operand in unit.operands}
        at_once = len(parts) == len(starts) and len(makers) == 1
        alike = len({operand.shape for operand in unit.operands}) == 1
        if at_once or not (alike and among_each_other(starts, made)):
            found.update(parts)  # else each would write to every line: copied in one run
    return found


def parts_of(body: Graph) -> tuple[Starts, ...]:
    """Where each operand begins in the result of a body that lays them side by side, else
    nothing."""
    made = body.outputs[0]
    if len(body.outputs) > 1 or made.op.kind is not Kind.VIEW or made.inputs != body.inputs:
        return ()
    shape, *parts = (node.tensor_type.static_shape for node in (made, *made.inputs))
    if len(parts) < 2 or not all(is_fixed(d) and d for part in (shape, *parts) for d in part):
        return ()
    pieces = view_pieces(made)
    if [piece.operand for piece in pieces] != list(range(len(parts))):
        return ()
    if sum(map(prod, parts)) != prod(shape):
        return ()  # they overlap
    found = []
    for piece in pieces:
        names = [tuple(index.terms) for index in piece.index]
        if names != [((f"i{axis}", 1),) for axis in range(len(shape))]:
            return ()
        found.append(tuple(-whole(index.offset) for index in piece.index))
    return tuple(found)


def _is_whole(operand: Layout, value: Value) -> bool:
    """Whether ``operand`` shows all of ``value``, in the order it is stored in."""
    plain = operand.type.dtype is value.type.dtype and not operand.offset
    return plain and operand.is_contiguous and operand.type.numel == value.type.numel


def _is_seen(view: Layout, value: Value) -> bool:
    """Whether ``view`` of ``value`` has strides wherever that lies."""
    plain = not value.order
    return plain and shown_in(view, contiguous(value.id, value.type)) is not None


def shown_in(view: Layout, placed: Layout) -> Layout | None:
    """``view`` of a value in row-major order, of the value as it is ``placed``: if the view takes
    steps along each axis by itself."""
    own = row_major(placed.shape)
    if len(view.strides) != len(own) or view.type.dtype is not placed.type.dtype:
        return None
    offset, left = placed.offset, view.offset
    strides = []
    for axis, step in enumerate(own):
        start, left = divmod(left, step)
        by, rest = divmod(view.strides[axis] if view.shape[axis] != 1 else 0, step)
        end = start + by * (view.shape[axis] - 1)
        if rest or not (0 <= start < placed.shape[axis] and 0 <= end < placed.shape[axis]):
            return None
        offset += start * placed.strides[axis]
        strides.append(by * placed.strides[axis])
    return Layout(placed.buffer, view.type, offset, tuple(strides))


def _can_place(work: Work, value: Value) -> bool:
    """Whether the unit that makes ``value`` may write it to a part of other memory."""
    if value.unit < 0:
        return False
    unit: Unit = work.units[value.unit]
    nodes = unit.body.nodes
    if unit.kind == "contraction":
        return len(unit.results) == 1 and all(_takes_strides(work, node) for node in nodes)
    return unit.kind == "loop" and not unit.fallible and all(n.op.kind in _MAPS for n in nodes)


def _takes_strides(work: Work, node: Node) -> bool:
    """Whether, in the body of a contraction, what makes ``node`` writes by any strides.

    Libraries' convolutions may refuse what is not packed.
    """
    if node.op.kind is not Kind.CONTRACTION:
        return node.op.kind in _MAPS
    return not work.routines or (node.op.tiles is None and is_matrix_product(labels_of(node)))


def part_of(outer: Layout, type: TensorType, starts: Starts) -> Layout:
    """Where a part of ``type`` lies that begins at ``starts`` of what lies at ``outer``."""
    offset = outer.offset + sum(s * t for s, t in zip(starts, outer.strides, strict=True))
    return Layout(outer.buffer, type, offset, outer.strides)
