"""From a fused graph to a schedule: units, places, kernels, memory plan.

The steps, each in its own file: :mod:`~graphflow.codegen.units` finds what
needs a kernel and which views are mere strides; :mod:`~graphflow.codegen.placement`
decides who writes state in place, the order, and whose memory a result takes;
here every unit is lowered to calls over buffers, and
:mod:`~graphflow.codegen.memory` plans the arena.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import prod

from graphflow.codegen.buffers import BufferTable
from graphflow.codegen.contraction import (
    adds_onto,
    contraction_calls,
    is_small,
    product_calls,
    small_calls,
    takes_epilogue,
    takes_small_epilogue,
    winograd_calls,
)
from graphflow.codegen.contraction.labels import (
    is_matrix_product,
    place_of_product,
    summand,
    without,
)
from graphflow.codegen.control import control_steps
from graphflow.codegen.epilogue import Epilogue
from graphflow.codegen.host_steps import host_steps
from graphflow.codegen.kept import Kept, with_kept
from graphflow.codegen.layout import Layout, contiguous, real_layout
from graphflow.codegen.lower import CPU, lower_epilogue, lower_group
from graphflow.codegen.lower_scatter import lower_check
from graphflow.codegen.memory import plan_arena
from graphflow.codegen.placement import Placement, place
from graphflow.codegen.routines import routine_steps
from graphflow.codegen.schedule import (
    BufferKind,
    Call,
    KernelSource,
    Provenance,
    Result,
    Schedule,
    Step,
    buffer_bytes,
    kernels_in,
)
from graphflow.codegen.sharing import shared_alike
from graphflow.codegen.side_by_side import Part, part_of, parts_of, shown_in
from graphflow.codegen.sizes import for_example
from graphflow.codegen.stored_order import ordered
from graphflow.codegen.task import Backend
from graphflow.codegen.templates import Templates
from graphflow.codegen.units import Unit, Work, collect, copy_body
from graphflow.errors import CompileError
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node
from graphflow.ir.op import Kind
from graphflow.ir.products import depth_of, labels_of
from graphflow.ir.types import TensorType
from graphflow.records import replace


def build_schedule(
    graph: Graph,
    threads: int = 1,
    example: Mapping[str, int] | None = None,
    backend: Backend = CPU,
    keep: bool = False,
    ask: Callable[[Iterable[KernelSource]], None] | None = None,
) -> Schedule:
    """The schedule of ``graph``, which fusion has grouped.

    With symbolic dimensions it is one for all sizes, tuned for those in ``example``:
    :func:`~graphflow.codegen.instance.at_sizes` makes the schedule to run.

    ``threads`` is an upper bound on the threads that will run it (scratch memory
    depends on it, results do not).  ``backend`` says for which kind of device.
    With ``keep``, what depends on state alone is computed when that has changed only.
    ``ask`` is called with the kernels of every step as soon as they are known.
    """
    if example:
        graph = for_example(graph, example)
    for form in graph.forms:
        if isinstance(form.type, TensorType) and not form.type.is_static:
            raise CompileError(
                f"{form.op.name} yields {form.type}: give every symbolic dimension a size "
                "before scheduling"
            )
    work = collect(graph, routines=backend.routines, pads=backend.convolutions)
    placement = place(graph, work, rooms=not backend.whole)
    emitter = Emitter(graph, work, placement, Templates(BufferTable(threads, backend)))
    for steps in emitter.made():
        if ask is not None:
            ask(kernels_in(steps))
    return emitter.schedule(keep)


class Emitter:
    """Turns placed units into steps over buffers.

    The steps of a region are made by an emitter of their own, for control flow at
    ``position`` of the whole graph.
    """

    def __init__(
        self,
        graph: Graph,
        work: Work,
        placement: Placement,
        templates: Templates,
        position: int | None = None,
    ) -> None:
        self.graph, self.work, self.placement = graph, work, placement
        self.state = frozenset(graph.state)
        self.inner = position is not None
        self.templates, self.context = templates, templates.table
        self.steps: list[Step] = []
        self.buffer_of: dict[int, int] = {}  # value → buffer
        self._rooms: dict[Node, int] = {}
        self.position = {
            node: number if position is None else position
            for number, node in enumerate(graph.nodes)
        }

    def made(self) -> Iterator[Sequence[Step]]:
        """Append the steps of all units, then the copies of state; yields what is new."""
        done = 0
        for number in self.placement.order:
            self.unit(self.work.units[number])
            yield self.steps[done:]
            done = len(self.steps)
        for source, target in self.placement.commits:
            self.commit(source, target)
        yield self.steps[done:]

    def region(
        self,
        region: Graph,
        leaves: Mapping[Node, Layout],
        results: Sequence[int],
        node: Node,
        level: int,
    ) -> tuple[Step, ...]:
        """The steps of a region of ``node`` inside ``level`` loops.

        Its leaves lie at ``leaves``, its outputs go to the buffers ``results``, and its
        state is carried: updated where it lies.
        """
        work = collect(region, leaves, level, self.work.routines, self.work.pads)
        placement = place(region, work, region=True)
        inner = Emitter(region, work, placement, self.templates, self.position[node])
        for leaf, where in leaves.items():
            layout = work.layouts.get(leaf)
            if layout is not None:
                inner.buffer_of[layout.buffer] = where.buffer
        for layout, buffer in zip(placement.outputs, results, strict=True):
            inner.buffer_of[layout.buffer] = buffer
        for _ in inner.made():
            pass
        return tuple(inner.steps)

    # -- places ---------------------------------------------------------------

    def buffer(self, value: int) -> int:
        """The buffer that holds ``value``, made when first asked for."""
        home = self.placement.home.get(value, value)
        found = self.buffer_of.get(home)
        if found is None:
            found = self.buffer_of[home] = self._new_buffer(home)
        return found

    def _new_buffer(self, number: int) -> int:
        value = self.work.values[number]
        if number in self.placement.within:
            node, offset = self.placement.within[number]
            return self.context.part(self.room(node), value.type, offset)
        if value.leaf is None:
            fresh = number in self.placement.fresh
            kind = BufferKind.OUTPUT if fresh else BufferKind.ARENA
            return self.context.buffer(kind, value.type)
        attrs = value.leaf.attrs
        if "value" in attrs:
            data = attrs["value"]
            return self.context.buffer(BufferKind.CONSTANT, value.type, data=data.array)
        kind = BufferKind.STATE if value.leaf in self.state else BufferKind.INPUT
        return self.context.buffer(kind, value.type, attrs["name"])

    def room(self, node: Node) -> int:
        """The buffer in which operands of host operation ``node`` lie, made when asked for."""
        if node not in self._rooms:
            types = [operand.tensor_type for operand in node.inputs[1:]]
            size = sum(prod(type.static_shape) for type in types)
            whole = TensorType(types[0].dtype, (size,))
            self._rooms[node] = self.context.buffer(BufferKind.ROOM, whole)
        return self._rooms[node]

    def located(self, layout: Layout) -> Layout:
        """``layout`` over a buffer instead of a value."""
        if layout.buffer in self.placement.inside:
            found = shown_in(layout, self.placed(layout.buffer))
            assert found is not None  # or the value would have memory of its own
            return found
        return Layout(self.buffer(layout.buffer), layout.type, layout.offset, layout.strides)

    def placed(self, value: int) -> Layout:
        """Where ``value`` is written: in a buffer of its own, or to a part of another value."""
        made, part = self.work.values[value], self.placement.inside.get(value)
        if part is None:
            return ordered(self.buffer(value), made.type, made.order)
        found = part.inside(self.placed(part.whole), made)
        assert found is not None  # or it would have a buffer of its own
        return found

    # -- units ----------------------------------------------------------------

    def _rest(self, unit: Unit) -> None:
        """Append copies of those operands of ``unit`` that are not where they belong yet."""
        target = self.placed(unit.results[0])
        for operand, starts in zip(unit.operands, parts_of(unit.body), strict=True):
            here = Part(unit.results[0], operand.type, starts)
            if self.placement.inside.get(operand.buffer) != here:
                part = part_of(target, operand.type, starts)
                calls = self._copied(self.located(operand), part)
                self.steps += [self._described(call, unit, 0) for call in calls]

    def unit(self, unit: Unit) -> None:
        """Append the steps of ``unit``."""
        if any(operand.buffer in self.placement.inside for operand in unit.operands):
            self._rest(unit)
            return
        operands = [self.located(layout) for layout in unit.operands]
        results = [self.placed(value) for value in unit.results]
        if unit.kind == "host":
            self.steps += host_steps(self, unit, operands, results)
            return
        if unit.kind == "routine":
            self.steps += routine_steps(self, unit, operands, results)
            return
        if unit.kind == "control":
            self.steps += control_steps(self, unit, operands, [r.buffer for r in results])
            return
        if unit.kind == "check":
            self.steps += self._check(unit, operands)
            return
        position = -1 if unit.node is None else self.position[unit.node]
        self.steps += self.templates.calls(
            unit, operands, results, position, lambda: self._lowered(unit, operands, results)
        )

    def _lowered(
        self, unit: Unit, operands: Sequence[Layout], results: Sequence[Layout]
    ) -> list[Call]:
        lower = self._contraction if unit.kind == "contraction" else self._loop
        calls = lower(unit, operands, results)
        work = _flops(unit.body)
        return [
            self._described(call, unit, work if index == 0 else 0)
            for index, call in enumerate(calls)
        ]

    def commit(self, source: Layout, target: int) -> None:
        """Append the copy of a state's new value over the old one."""
        where = contiguous(self.buffer(target), source.type)
        self.steps += self.copied(self.located(source), where)

    def copied(self, source: Layout, target: Layout) -> list[Call]:
        """The calls that copy between places in buffers."""
        unit = Unit("loop", copy_body(source.type), [source], [], False)
        return [self._described(call, unit, 0) for call in self._copied(source, target)]

    def _loop(
        self, unit: Unit, operands: Sequence[Layout], results: Sequence[Layout]
    ) -> list[Call]:
        operands, results = ([real_layout(a) for a in group] for group in (operands, results))
        calls = lower_group(unit.body, operands, results, self.context)
        # A scatter's places may have been checked ahead, others are known to be in range.
        return calls if unit.fallible else [replace(call, fallible=False) for call in calls]

    def _check(self, unit: Unit, operands: Sequence[Layout]) -> list[Call]:
        places = unit.body.outputs[0]
        if unit.node is None or 0 in places.shape:
            return []
        layouts = dict(zip(unit.body.inputs, operands, strict=True))
        return [self._described(lower_check(unit.node, places, layouts, self.context), unit, 0)]

    def _copied(self, source: Layout, target: Layout, flips: int = 0) -> list[Call]:
        body, layouts = copy_body(source.type, flips), (real_layout(source), real_layout(target))
        return lower_group(body, layouts[:1], layouts[1:], self.context)

    def _contraction(
        self, unit: Unit, operands: Sequence[Layout], results: Sequence[Layout]
    ) -> list[Call]:
        body = unit.body
        whole = self.context.backend.contraction
        if whole is not None:
            return whole(body, operands, results, self.context)
        product = next(n for n in body.nodes if n.op.kind is Kind.CONTRACTION)
        position = {node: index for index, node in enumerate(body.inputs)}
        a, *others = (operands[position[n]] for n in product.inputs)
        onto = self._onto(body, product, operands, results)
        alone = onto or body.outputs == (product,)
        tile = (
            results[0]
            if alone
            else place_of_product(body, product, operands, results, self.context.temporary)
        )
        labels = labels_of(product) if product.op.tiles is None else None
        epilogue: Epilogue | None = None
        takes = _takes_epilogue(product)
        if takes and not alone:
            epilogue = lower_epilogue(body, product, tile, operands, results, self.context)
        if labels is None:
            calls = winograd_calls(product, (a, *others), tile, epilogue, self.context)
        elif is_small(product):
            three = (a, *others, tile)
            lasting = self._lasts(three[1])
            calls = small_calls(labels, three, epilogue, self.context, self._copied, lasting)
        elif takes:
            calls = contraction_calls(a, others[0], tile, epilogue, self.context, onto)
        else:
            calls = product_calls(labels, (a, *others, tile), self.context)
        if takes:
            # The driver cannot tell what the epilogue only reads.
            only_read = {o.buffer for o in operands} - {r.buffer for r in (*results, tile)}
            return [replace(call, writes=call.writes - only_read) for call in calls]
        if not alone:
            rest, kept = without(body, (product,))
            places = [tile if n is product else operands[position[n]] for n in kept]
            calls += lower_group(rest, places, results, self.context)
        return calls

    def _onto(
        self, body: Graph, product: Node, operands: Sequence[Layout], results: Sequence[Layout]
    ) -> bool:
        """Whether the product is only added to what already lies where the result goes."""
        other = summand(body, product)
        if other is None or product.op.tiles is not None or is_small(product):
            return False
        if not is_matrix_product(labels_of(product)):
            return False
        at = dict(zip(body.inputs, operands, strict=True))
        a, b = (at[n] for n in product.inputs)
        return at[other].same_place(results[0]) and adds_onto(a, b, results[0])

    def _lasts(self, place: Layout) -> bool:
        """Whether ``place`` is state, so that what is made of it may be kept between calls."""
        kind = self.context.buffers[place.buffer].kind
        return not self.inner and kind in (BufferKind.STATE, BufferKind.CONSTANT)

    def _described(self, call: Call, unit: Unit, flops: int) -> Call:
        """``call`` with what lowering leaves open: provenance, traffic, work."""
        buffers = self.context.buffers
        position = -1 if unit.node is None else self.position[unit.node]
        moved = sum(buffer_bytes(buffers[b]) for b in call.reads)
        moved += sum(buffer_bytes(buffers[b]) for b in call.writes)
        return replace(
            call,
            bytes=call.bytes or moved,
            flops=call.flops or flops,
            provenance=call.provenance
            if call.provenance.ir
            else Provenance(describe(unit.body), unit.locations, position),
        )

    # -- the whole ------------------------------------------------------------

    def schedule(self, keep: bool = False) -> Schedule:
        """The finished schedule."""
        placement, context = self.placement, self.context
        results = [self.located(layout) for layout in placement.outputs]
        found = tuple(Result(r.buffer, r.type, r.offset, r.strides) for r in results)
        committed = tuple(self.buffer(value) for value in placement.committed)
        kept = with_kept(context, self.steps) if keep else Kept(tuple(self.steps))
        steps = shared_alike(kept.steps, context.buffers, context.threads)
        memory = plan_arena(context.buffers, steps, context.threads)
        return Schedule(
            buffers=tuple(context.buffers),
            steps=steps,
            inputs=tuple(map(self._leaf_buffer, self.graph.inputs)),
            state=tuple(map(self._leaf_buffer, self.graph.state)),
            results=found,
            committed=committed,
            failures=tuple(context.failures),
            offsets=memory.offsets,
            arena_bytes=memory.arena_bytes,
            naive_bytes=memory.naive_bytes,
            stale=kept.stale,
            watched=kept.watched,
            own_bytes=memory.own_bytes,
            threads=context.threads,
        )

    def _leaf_buffer(self, node: Node) -> int:
        layout = self.work.layouts.get(node)
        return -1 if layout is None else self.buffer_of.get(layout.buffer, -1)


def _takes_epilogue(product: Node) -> bool:
    """Whether the kernel of ``product`` can run what follows on each tile."""
    if product.op.tiles is not None:
        return takes_epilogue(product)
    labels = labels_of(product)
    return takes_small_epilogue(labels) if is_small(product) else is_matrix_product(labels)


def describe(body: Graph) -> str:
    """A body as a line of text for each operation."""
    names = {node: f"%{n.attrs['name']}" for node in body.inputs for n in (node,)}
    lines = []
    for node in body.nodes:
        if node in names:
            continue
        if node.op.kind is Kind.LEAF:
            names[node] = str(node.attrs["value"].array) if not node.shape else "const"
            continue
        names[node] = f"%{len(names)}"
        operands = ", ".join(names[n] for n in node.inputs)
        lines.append(f"{names[node]}: {node.type} = {node.op.name}({operands})")
    return "\n".join(lines)


def _flops(body: Graph) -> int:
    """Scalar operations of a body: one an element and operation, two a product."""
    total = 0
    for node in body.nodes:
        kind = node.op.kind
        if kind is Kind.CONTRACTION:
            total += 2 * depth_of(node) * _elements(node)
        elif kind is Kind.REDUCTION:
            total += _elements(node.inputs[0])
        elif kind is Kind.ELEMENTWISE:
            total += _elements(node)
    return total


def _elements(node: Node) -> int:
    return prod(node.tensor_type.static_shape)
