"""Who writes state in place, in which order units run, and whose buffer a value takes.

State rule: a new value is written over the old one by the unit that computes
it, if that unit can run after every reader of the old value and after
everything that can fail.  A scatter's places are checked ahead of it, so it
cannot fail itself; of scatters into each other's results each can write there.
Otherwise the value goes to a buffer of its own and is copied when all else is
done.  So a step that fails has changed nothing, and nobody reads a new value
for an old one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from graphflow.codegen.layout import Layout, contiguous
from graphflow.codegen.order import reaches, run_order
from graphflow.codegen.rooms import made_in_rooms
from graphflow.codegen.side_by_side import Part, put_together
from graphflow.codegen.sizes import example_of
from graphflow.codegen.units import Unit, Value, Work
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node
from graphflow.ir.op import Kind
from graphflow.records import dataclass, field, replace

LITTLE = 512
"""Elements of results up to which it does not matter how long they are kept."""


@dataclass(slots=True)
class Placement:
    """The decisions: ``order`` of units; ``home[v]`` is the value whose buffer value
    ``v`` takes (itself, a state's old value, or a dying operand); ``outputs`` the
    layouts of the graph's results and ``fresh`` the values that hold them;
    ``commits`` are trailing copies (source, state's old value); ``committed`` the
    old values that get overwritten; ``within`` has values that lie in the room of a host
    operation, and at which byte, if there are ``rooms``; ``inside[v]`` says which part of
    another value ``v`` is."""

    order: list[int] = field(default_factory=list)
    home: dict[int, int] = field(default_factory=dict)
    outputs: list[Layout] = field(default_factory=list)
    fresh: set[int] = field(default_factory=set)
    commits: list[tuple[Layout, int]] = field(default_factory=list)
    committed: list[int] = field(default_factory=list)
    within: dict[int, tuple[Node, int]] = field(default_factory=dict)
    rooms: bool = False
    inside: dict[int, Part] = field(default_factory=dict)


def place(
    graph: Graph, work: Work, region: bool = False, rooms: bool = False
) -> Placement:  # fmt: skip
    """Decide for ``graph``, whose units are in ``work`` (which may get copies added).

    Each result of a ``region`` has memory of its own to go to.  With ``rooms``, operands of
    host operations that have one are made there.
    """
    placement = Placement(rooms=rooms)
    old = {state: _leaf(work, state) for state, new in graph.updates if new is not state}
    if region:
        _place_results(graph, work, placement)
    else:
        _place_outputs(graph, work, placement, set(old.values()))
    sources = _sources(graph, work, old)
    if sources:
        _check_ahead(work)
    successors = _dependences(work)
    readers = _readers(work)
    fence = len(successors)
    successors.append(set())
    for number, unit in enumerate(work.units):
        if unit.fallible:
            successors[number].add(fence)
    failing = {fence} if any(unit.fallible for unit in work.units) else set()
    ends = {source.buffer for source in sources.values()}
    for state, source in sources.items():
        target = old[state]
        placement.committed.append(target)
        links = _links(work, placement, source, target, ends)
        last = [replace(link, over=target) for link in links[:1]]
        before = {link.over: readers.get(link.over, set()) | failing for link in [*links, *last]}
        chosen = next((c for c in (links, last) if c and _follow(successors, c, before)), [])
        placement.home.update({link.value: target for link in chosen})
        if not chosen:
            placement.commits.append((source, target))
    hosts = [(n, u.node.op) for n, u in enumerate(work.units) if u.kind == "host" and u.node]
    early, late = {n for n, op in hosts if op.early}, {n for n, op in hosts if op.late}
    small = {n for n, unit in enumerate(work.units) if _makes_little(work, unit)} | {fence}
    small -= early | late
    placement.order = [n for n in run_order(successors, early, late, small) if n != fence]
    if rooms:
        placement.within = made_in_rooms(work, placement.fresh | set(placement.home))
    _reuse_operands(work, placement)
    bound = {*placement.fresh, *(source.buffer for source, _ in placement.commits)}
    moved = {*placement.home, *placement.home.values(), *placement.within}
    placement.inside = put_together(work, bound, moved)
    return placement


def _makes_little(work: Work, unit: Unit) -> bool:
    sizes = [work.values[v].type.numel for v in unit.results]
    return all(isinstance(size, int) and size <= LITTLE for size in sizes)


def _leaf(work: Work, node: Node) -> int:
    """The value of leaf ``node``, made if nothing has read it yet."""
    layout = work.layouts.get(node)
    if layout is None:
        value = work.value(node.tensor_type, leaf=node)
        layout = work.layouts[node] = contiguous(value.id, node.tensor_type)
    return layout.buffer


def _place_outputs(graph: Graph, work: Work, placement: Placement, changing: set[int]) -> None:
    """Where results are read: fresh memory, or the input or state they are a view of."""
    copies: dict[Node, Layout] = {}
    for node in graph.outputs:
        layout = work.layouts[node]
        value = work.values[layout.buffer]
        if value.leaf is not None and (
            layout.buffer in changing or "value" in value.leaf.attrs or _is_rearranged(layout)
        ):
            # The old value of changing state, data of the program, or what kernels copy better
            # than NumPy would: the caller's own copy.
            if node not in copies:
                copies[node] = work.copy(layout)
            layout = copies[node]
        placement.outputs.append(layout)
        if work.values[layout.buffer].leaf is None:
            placement.fresh.add(layout.buffer)


def _is_rearranged(layout: Layout) -> bool:
    """Whether ``layout`` shows much that does not lie in runs: backwards, repeated or with gaps.

    What is only transposed is copied in the order it lies in, by its strides.
    """
    steps = [s for s, n in zip(layout.strides, layout.shape, strict=True) if n != 1]
    return min(steps, default=1) != 1 and example_of(prod(layout.shape)) > LITTLE


def _place_results(graph: Graph, work: Work, placement: Placement) -> None:
    """Results that a unit can write where they go, and copies of the others."""
    for node in graph.outputs:
        layout = work.layouts[node]
        value = work.values[layout.buffer]
        whole = contiguous(value.id, node.tensor_type)
        ready = value.leaf is None and value.type == node.type and layout.same_place(whole)
        if not ready or value.id in placement.fresh:
            layout = work.copy(layout)
        placement.outputs.append(layout)
        placement.fresh.add(layout.buffer)


def _sources(graph: Graph, work: Work, old: dict[Node, int]) -> dict[Node, Layout]:
    """The layout of every state's new value; old values of changing state are copied first."""
    changing = set(old.values())
    found: dict[Node, Layout] = {}
    for state, new in graph.updates:
        if state in old:
            layout = work.layouts[new]
            found[state] = work.copy(layout) if layout.buffer in changing else layout
    return found


def _check_ahead(work: Work) -> None:
    """Let units of their own check the places of scatters, before all that changes state.

    Scatters that agree on the places and how many there may be share one.
    """
    done: set[object] = set()
    for unit in [unit for unit in work.units if unit.fallible and _scatter(unit) is not None]:
        scatter = unit.body.outputs[0]
        body = Graph((), (scatter.inputs[1],), name="body")
        leaves = [n for n in unit.body.inputs if n in body.nodes]
        places = [x for n, x in zip(unit.body.inputs, unit.operands, strict=True) if n in leaves]
        unit.fallible = False
        axis = scatter.attrs["axis"]
        key = (tuple(places), body.outputs if not places else None, axis, scatter.shape[axis])
        if key not in done:
            done.add(key)
            body = replace(body, inputs=tuple(leaves))
            work.units.append(Unit("check", body, places, [], True, unit.node, unit.locations))


def _scatter(unit: Unit) -> Node | None:
    """The scatter that is all a unit does."""
    if unit.kind != "loop" or len(unit.body.outputs) > 1:
        return None
    (made,) = unit.body.outputs
    return made if made.op.kind is Kind.SCATTER else None


def _base(unit: Unit) -> Layout | None:
    """What a unit that is nothing but a scatter scatters into."""
    made = _scatter(unit)
    if made is None or made.inputs[0] not in unit.body.inputs:
        return None
    return unit.operands[unit.body.inputs.index(made.inputs[0])]


def _dependences(work: Work) -> list[set[int]]:
    successors: list[set[int]] = [set() for _ in work.units]
    for number, unit in enumerate(work.units):
        for operand in unit.operands:
            producer = work.values[operand.buffer].unit
            if producer >= 0:
                successors[producer].add(number)
    return successors


def _readers(work: Work) -> dict[int, set[int]]:
    """The units that read each value."""
    found: dict[int, set[int]] = {}
    for number, unit in enumerate(work.units):
        for operand in unit.operands:
            found.setdefault(operand.buffer, set()).add(number)
    return found


@dataclass(frozen=True, slots=True)
class _Link:
    """Unit ``writer`` writes ``value`` where value ``over`` is, once all others have read that."""

    writer: int
    value: int
    over: int


def _links(
    work: Work, placement: Placement, source: Layout, target: int, ends: set[int]
) -> list[_Link]:
    """How ``source`` comes to be where state ``target`` is; none if it cannot.

    By one unit, or by several that scatter each into the result of the one before, unless
    that is one of ``ends``: what else becomes of it must stay.
    """
    links: list[_Link] = []
    while True:
        writer = _writer_in_place(work, placement, source, target)
        if writer < 0:
            break
        links.append(_Link(writer, source.buffer, target))
        base = _base(work.units[writer])
        if base is None or base.buffer == target or base.buffer in ends:
            break
        if not may_overwrite(work.units[writer], base.buffer, work.values[source.buffer]):
            break
        source = base
    over = [link.value for link in links[1:]] + [target] * bool(links)
    return [replace(link, over=value) for link, value in zip(links, over, strict=True)]


def _follow(successors: list[set[int]], links: list[_Link], before: dict[int, set[int]]) -> bool:
    """Let each link's writer run after the units ``before`` it; False where it cannot."""
    for link in links:
        others = before[link.over] - {link.writer}
        if reaches(successors, link.writer, others):
            return False
        for number in others:
            successors[number].add(link.writer)
    return True


def _writer_in_place(work: Work, placement: Placement, source: Layout, target: int) -> int:
    """The unit that may write ``source`` straight over ``target``, -1 if none may."""
    value = work.values[source.buffer]
    if value.unit < 0 or source.buffer in placement.fresh or source.buffer in placement.home:
        return -1
    unit = work.units[value.unit]
    if unit.kind in ("host", "routine", "control") or unit.fallible:
        return -1
    whole = contiguous(value.id, work.values[target].type)
    if value.type != work.values[target].type or not source.same_place(whole):
        return -1
    return value.unit if may_overwrite(unit, target, value) else -1


def may_overwrite(unit: Unit, operand: int, result: Value) -> bool:
    """Whether ``unit`` may write ``result`` over value ``operand`` element by element.

    It may when it does not read the operand, or reads it only whole, row-major,
    and in elementwise operations of the result's shape that lead to the result:
    every element is then read before it is written.  A scatter changes its
    base where it lies if nothing else reads that.  In a group that folds,
    only results outside the folded loops are safe: rows of the others, and sums
    that are results themselves, are written while the group still reads.
    """
    body = unit.body
    for layout, source in zip(unit.operands, body.inputs, strict=True):
        if layout.buffer != operand:
            continue
        if layout.shape != result.type.static_shape or not layout.is_contiguous or layout.offset:
            return False
        key = source, body.outputs[unit.results.index(result.id)]
        safe = body.found.get(key)
        if safe is None:
            safe = body.found[key] = _is_read_before(body, *key)
        if not safe:
            return False
    return True


def _is_read_before(body: Graph, source: Node, target: Node) -> bool:
    """Whether every element of ``source`` is read before that of ``target`` is written."""
    users = body.users
    if target.op.kind is Kind.SCATTER:  # what is not scattered into stays as it is
        alone = users[source] == (target,) and target.inputs.count(source) == 1
        return alone and target.inputs[0] is source and len(body.outputs) == 1
    reached = _pointwise(source, users, target.shape)
    return source not in body.outputs and reached is not None and _safe_loops(body, target, reached)


def _safe_loops(body: Graph, target: Node, reached: set[Node]) -> bool:
    folded = [n.inputs[0] for n in body.nodes if n.op.kind is Kind.REDUCTION]
    return not folded or (target in reached and all(n.shape != target.shape for n in folded))


def _pointwise(
    source: Node, users: Mapping[Node, Sequence[Node]], shape: tuple[object, ...]
) -> set[Node] | None:
    """All that depends on ``source`` if it is elementwise, of its shape; else ``None``.

    Then no reduction comes between a read and the write, and no view or gather
    reads at another index.
    """
    seen: set[Node] = set()
    stack = list(users[source])
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if node.op.kind is not Kind.ELEMENTWISE or node.shape != shape:
            return None
        stack.extend(users[node])
    return seen


def _reuse_operands(work: Work, placement: Placement) -> None:
    """Let results take the memory of operands that die with their unit."""
    last: dict[int, int] = {}
    for position, number in enumerate(placement.order):
        for operand in work.units[number].operands:
            last[operand.buffer] = position
    kept = placement.fresh | set(placement.home) | set(placement.within)
    kept |= {source.buffer for source, _ in placement.commits}
    for position, number in enumerate(placement.order):
        unit = work.units[number]
        if unit.kind != "loop" or unit.fallible:
            continue
        for result in unit.results:
            if result in kept:
                continue
            for operand in unit.operands:
                value = work.values[operand.buffer]
                if value.unit < 0 or value.id in kept or last[value.id] != position:
                    continue
                if _takes_place(unit, value, work.values[result]):
                    placement.home[result] = placement.home.get(value.id, value.id)
                    kept.add(value.id)
                    break


def _takes_place(unit: Unit, value: Value, result: Value) -> bool:
    """Whether ``unit`` may write ``result`` where its operand ``value`` is, which has as many
    elements (perhaps by another shape)."""
    same = value.type.dtype == result.type.dtype and value.type.numel == result.type.numel
    return same and may_overwrite(unit, value.id, result)
