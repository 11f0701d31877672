"""Control flow as nested steps: ``scan`` and ``while_loop`` are loops, ``cond`` a branch.

The steps of a region are made like those of the whole graph.  What is different is
where its leaves lie and where its results go: an item of a scanned operand is a
window that moves along its buffer, and so is the row of a stacked result.  Nothing is
copied on the way.  A carry lives in a history (see :mod:`.control_forms`), or in one
buffer: the first value is copied there, then it is updated like state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from graphflow.codegen.apart import steps_apart
from graphflow.codegen.buffers import BufferTable
from graphflow.codegen.control_forms import ScanForm, control_form
from graphflow.codegen.layout import Layout, contiguous
from graphflow.codegen.schedule import (
    UNKNOWN_TRIPS,
    Address,
    Branch,
    BufferKind,
    Call,
    Loop,
    Provenance,
    Step,
)
from graphflow.codegen.units import Unit, Work
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node
from graphflow.ir.types import TensorType, bool_
from graphflow.records import replace


class RegionEmitter(Protocol):
    """What makes the steps of regions and copies."""

    @property
    def context(self) -> BufferTable:
        """The buffers."""

    @property
    def work(self) -> Work:
        """The units being lowered."""

    @property
    def position(self) -> Mapping[Node, int]:
        """The number of every node, for provenance."""

    def region(
        self,
        region: Graph,
        leaves: Mapping[Node, Layout],
        results: Sequence[int],
        node: Node,
        level: int,
    ) -> tuple[Step, ...]:
        """The steps of a region."""

    def copied(self, source: Layout, target: Layout) -> list[Call]:
        """The calls that copy."""


def control_steps(
    emitter: RegionEmitter, unit: Unit, operands: Sequence[Layout], results: Sequence[int]
) -> list[Step]:
    """The steps of control flow whose operands lie at ``operands`` and whose values
    (:func:`control_form` tells which) fill the buffers ``results``."""
    assert unit.node is not None
    return _STEPS[unit.node.op.name](emitter, unit, operands, results)


def _scan(
    emitter: RegionEmitter, unit: Unit, operands: Sequence[Layout], results: Sequence[int]
) -> list[Step]:
    assert unit.node is not None
    node, form = unit.node, control_form(unit.node)
    assert isinstance(form, ScanForm)
    body: Graph = node.attrs["body"]
    carried, scanned = node.attrs["carried"], node.attrs["scanned"]
    level, context, step = emitter.work.level, emitter.context, form.step
    places = [contiguous(b, t) for b, t in zip(results, form.types, strict=True)]
    steps: list[Step] = []
    leaves: dict[Node, Layout] = {}
    targets: list[tuple[Node, int]] = []
    for k, value in form.histories.items():
        rows = places[value]
        first = replace(
            rows, type=operands[k].type, offset=form.row(0) * rows.strides[0],
            strides=rows.strides[1:],
        )  # fmt: skip
        steps += emitter.copied(operands[k], first)
        leaves[body.inputs[k]] = context.window(rows, form.row(0), step, level)
        after = context.window(rows, form.row(1), step, level)
        targets.append((body.outputs[k], after.buffer))
    for k, value in form.carries.items():
        steps += _begin(emitter, operands[k], places[value])
        leaves[body.inputs[k]] = places[value]
    begin = form.length - 1 if node.attrs["reverse"] else 0
    for k in range(carried, len(operands)):
        item = operands[k]
        if k < carried + scanned:
            item = context.window(item, begin, step, level)
        leaves[body.inputs[k]] = item
    for value, made in form.stacks:
        row = context.window(places[value], begin, step, level)
        targets.append((made, row.buffer))
    updates = [(body.inputs[k], body.outputs[k]) for k in form.carries]
    region = _with_state(body, [made for made, _ in targets], updates)

    def inside() -> tuple[Step, ...]:
        return emitter.region(region, leaves, [b for _, b in targets], node, level + 1)

    apart = steps_apart(context, unit, form.length, inside)
    inner = inside() if apart is None else apart
    if inner:
        loop = _loop(emitter, unit, form.length, inner)
        steps.append(replace(loop, parallel=apart is not None))
    return steps


def _while(
    emitter: RegionEmitter, unit: Unit, operands: Sequence[Layout], results: Sequence[int]
) -> list[Step]:
    assert unit.node is not None
    node = unit.node
    condition: Graph = node.attrs["condition"]
    body: Graph = node.attrs["body"]
    carried = node.attrs["carried"]
    level = emitter.work.level + 1
    carries = [contiguous(b, o.type) for b, o in zip(results, operands)]
    steps: list[Step] = []
    for operand, carry in zip(operands, carries):
        steps += _begin(emitter, operand, carry)
    places = [*carries, *operands[carried:]]
    test = emitter.context.buffer(BufferKind.ARENA, TensorType(bool_, ()))
    head = emitter.region(
        condition, dict(zip(condition.inputs, places, strict=True)), [test], node, level
    )
    updates = list(zip(body.inputs, body.outputs))
    inner = emitter.region(
        _with_state(body, (), updates), dict(zip(body.inputs, places, strict=True)), (), node, level
    )
    steps.append(_loop(emitter, unit, UNKNOWN_TRIPS, inner, head, Address(test)))
    return steps


def _cond(
    emitter: RegionEmitter, unit: Unit, operands: Sequence[Layout], results: Sequence[int]
) -> list[Step]:
    assert unit.node is not None
    node, level = unit.node, emitter.work.level
    predicate = operands[0]
    sides = []
    for name in ("then", "otherwise"):
        region: Graph = node.attrs[name]
        leaves = dict(zip(region.inputs, operands[1:], strict=True))
        sides.append(emitter.region(region, leaves, results, node, level))
    test = Address(predicate.buffer, predicate.offset * predicate.type.dtype.itemsize)
    reads, writes = _effects(emitter, [*sides[0], *sides[1]])
    where = emitter.context.root(test.buffer)
    return [
        Branch(
            node.op.name, test, sides[0], sides[1], reads | {where}, writes,
            _provenance(emitter, unit), unit.fallible,
        )
    ]  # fmt: skip


def _begin(emitter: RegionEmitter, operand: Layout, carry: Layout) -> list[Call]:
    """The first value of a carry, unless it lies there already."""
    return [] if operand.same_place(carry) else emitter.copied(operand, carry)


def _with_state(
    body: Graph, outputs: Sequence[Node], updates: Sequence[tuple[Node, Node]]
) -> Graph:
    """``body`` with carries as state."""
    carries = tuple(old for old, _ in updates)
    inputs = tuple(n for n in body.inputs if n not in carries)
    return replace(
        body, inputs=inputs, outputs=tuple(outputs), state=carries, updates=tuple(updates)
    )


def _loop(
    emitter: RegionEmitter,
    unit: Unit,
    trips: int,
    body: tuple[Step, ...],
    head: tuple[Step, ...] = (),
    test: Address | None = None,
) -> Loop:
    assert unit.node is not None
    reads, writes = _effects(emitter, (*head, *body))
    return Loop(
        unit.node.op.name, trips, body, reads, writes, head, test,
        _provenance(emitter, unit), unit.fallible,
    )  # fmt: skip


def _effects(
    emitter: RegionEmitter, steps: Iterable[Step]
) -> tuple[frozenset[int], frozenset[int]]:
    """All that ``steps`` read and write, with buffers in place of their windows."""
    root = emitter.context.root
    reads: set[int] = set()
    writes: set[int] = set()
    for step in steps:
        reads.update(map(root, step.reads))
        writes.update(map(root, step.writes))
    return frozenset(reads), frozenset(writes)


def _provenance(emitter: RegionEmitter, unit: Unit) -> Provenance:
    assert unit.node is not None
    text = f"{unit.node.op.name} -> {unit.node.type}"
    return Provenance(text, unit.locations, emitter.position[unit.node])


_STEPS: Mapping[str, Callable[[RegionEmitter, Unit, Sequence[Layout], Sequence[int]], list[Step]]]
_STEPS = {"scan": _scan, "while_loop": _while, "cond": _cond}
