"""Operations without loops of their own: calls of the host, or of kernels that are quicker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from graphflow.codegen.control import RegionEmitter
from graphflow.codegen.layout import Layout, contiguous
from graphflow.codegen.lower_line import address_of
from graphflow.codegen.placement import Placement
from graphflow.codegen.schedule import (
    Branch,
    Call,
    HostCall,
    Provenance,
    Step,
    attempt_of,
    buffer_bytes,
)
from graphflow.codegen.units import Unit
from graphflow.errors import CompileError
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node
from graphflow.ir.types import TensorType
from graphflow.records import replace


class HostEmitter(RegionEmitter, Protocol):
    """What makes copies, and knows what lies in rooms."""

    @property
    def graph(self) -> Graph:
        """What is being lowered."""

    @property
    def placement(self) -> Placement:
        """What lies where."""

    def room(self, node: Node) -> int:
        """The buffer in which operands of host operation ``node`` lie."""


def host_steps(
    emitter: HostEmitter, unit: Unit, operands: Sequence[Layout], results: Sequence[Layout]
) -> list[Step]:
    """The steps that compute the operation of ``unit``."""
    node = unit.node
    if node is None:
        raise CompileError("a host unit without an operation")
    where = f"{node.op.name} -> {node.type}", unit.locations, emitter.position[node]
    provenance = Provenance(*where)
    made = _by_kernels(emitter, node, operands, results)
    if made is None:
        return _host(emitter, node, operands, results, provenance)
    steps, refused = made
    steps = [replace(s, provenance=provenance) if isinstance(s, Call) else s for s in steps]
    if refused is None:
        return steps
    again = tuple(_host(emitter, node, operands, results, provenance))
    reads, writes = (
        frozenset().union(*(getattr(step, kind) for step in again)) for kind in ("reads", "writes")
    )
    test = address_of(refused)
    reads |= {refused.buffer}
    return [*steps, Branch(node.op.name, test, again, (), reads, writes, provenance)]


def _host(
    emitter: HostEmitter,
    node: Node,
    operands: Sequence[Layout],
    results: Sequence[Layout],
    provenance: Provenance,
) -> list[Step]:
    """The call of the host, after copies of what does not lie as it takes it."""
    steps, parts = list[Step](), tuple[TensorType, ...]()
    if emitter.placement.rooms and node.op.rooms is not None:
        parts = tuple(layout.type for layout in operands[1:])
        operands = [operands[0], _in_room(emitter, node, operands[1:], steps)]
    inputs = tuple((_whole(emitter, x, steps).buffer, x.type) for x in operands)
    outputs, attrs = [result.buffer for result in results], node.attrs
    alone, users = node.op.alone, emitter.graph.users[node]
    if alone >= 0 and all(user.attrs["index"] == alone for user in users):
        outputs, attrs = [outputs[alone]], {**attrs, "alone": True}
    call = HostCall(
        node.op.name,
        node.op.reference,
        attrs,
        inputs,
        outputs[0],
        frozenset(buffer for buffer, _ in inputs),
        frozenset(outputs),
        provenance,
        tuple(outputs[1:]),
        node.op.fills,
        node.op.rooms if parts else None,
        parts,
        attempt_of(node.op, bool(parts)),
    )
    return [*steps, call]


def _by_kernels(
    emitter: HostEmitter, node: Node, operands: Sequence[Layout], results: Sequence[Layout]
) -> tuple[list[Step], Layout | None] | None:
    """The calls of kernels, if there are some that are quicker than the host, and the byte that
    says that they have no result."""
    lower = emitter.context.backend.instead
    if lower is None:
        return None
    forget, steps = emitter.context.begun(), list[Step]()
    whole = [x if x.is_contiguous else _whole(emitter, x, steps) for x in operands]
    made = lower(node, whole, results, emitter.context)
    if made is None:
        forget()
        return None
    calls, refused = made
    return [*steps, *calls], refused


def _whole(emitter: HostEmitter, layout: Layout, steps: list[Step]) -> Layout:
    """``layout``, copied to memory of its own unless it fills its buffer in order."""
    context = emitter.context
    size = buffer_bytes(context.buffers[layout.buffer])
    if not layout.offset and layout.is_contiguous and size == layout.type.static_bytes:
        return layout
    copy = context.temporary(layout.type)
    steps += emitter.copied(layout, copy)
    return copy


def _in_room(
    emitter: HostEmitter, node: Node, operands: Sequence[Layout], steps: list[Step]
) -> Layout:
    """The room of host operation ``node``, with copies of operands that were not made there."""
    context, room, begin = emitter.context, emitter.room(node), 0
    for layout in operands:
        buffer = context.buffers[layout.buffer]
        if (buffer.base, buffer.offset) != (room, begin):
            part = context.part(room, layout.type, begin)
            steps += emitter.copied(layout, contiguous(part, layout.type))
        begin += layout.type.static_bytes
    return contiguous(room, context.buffers[room].type)
