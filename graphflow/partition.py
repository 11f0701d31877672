"""Split a traced function with live history into a forward and a backward graph.

Used when ``backward()`` happens outside a compiled function.  While the trace
is still open the tape engine is run on cotangent inputs; what its results need
from the forward pass is *saved*: handed out as extra outputs of the forward
graph and taken in as inputs of the backward graph.  State and arguments are
not saved but read again (their versions are checked, as for any saved tensor).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest

from graphflow.autograd.engine import arriving
from graphflow.autograd.history import GradNode
from graphflow.cell import Cell
from graphflow.errors import ChangedInPlaceError, TraceError
from graphflow.ir import build
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node, ancestors, topological, with_inputs
from graphflow.ir.op import Kind
from graphflow.passes.dataflow import is_alias
from graphflow.passes.saved_values import DEAR
from graphflow.records import dataclass
from graphflow.tensor import Tensor
from graphflow.trace import Tracer

MOST_LIGHT = 16
"""Operations that one value is computed again with."""


@dataclass(frozen=True)
class Backward:
    """The backward half of a function.

    ``graph`` takes the cotangents of the differentiable outputs, then the
    ``saved`` values (numbers of extra forward outputs), then the arguments
    ``arguments`` (leaf numbers); it yields a gradient for each of ``leaves``.
    """

    graph: Graph
    cells: tuple[Cell, ...]
    saved: tuple[int, ...]
    arguments: tuple[int, ...]
    leaves: tuple[Tensor, ...]
    leaf_arguments: tuple[int, ...]
    """For each leaf the number of the argument it is, or -1."""
    reached: tuple[frozenset[int], ...]
    """For each leaf the outputs that it has a part in: without a cotangent of any of them it has
    no gradient, which is not the same as a gradient of zeros."""
    watched: tuple[Cell, ...]
    """Those of ``cells`` that the gradients are made of."""
    updated: tuple[Cell, ...]
    """Those of ``cells`` that the backward pass changes."""
    refusal: str = ""
    """Why there is no backward pass, if there is none."""


def partition(tracer: Tracer, live: Sequence[Tensor], outputs: list[Node]) -> Backward:
    """Differentiate ``live`` and split; values to save are appended to ``outputs``."""
    leaves = _leaves_of(live, tracer)
    tracer.assigned.differentiated.update(map(id, leaves))
    cts = [build.input_node(tracer._unique(f"ct{i}"), t._type) for i, t in enumerate(live)]
    given = [Tensor._of(Cell(node, tracer)) for node in cts]
    before = tracer.values_now()
    try:
        found = _swept(tracer, live, leaves, given)
    except ChangedInPlaceError as error:
        for cell, shadow in tracer.shadows.items():  # what it has written so far
            shadow.value = before.get(cell, tracer.captured.get(cell, shadow.value))
        return _refused(tracer, leaves, error)
    updates = LateUpdates(tracer, before, set(cts))
    values = [
        tracer.node(g) if g is not None else build.splat(0, tracer.node(leaf).tensor_type)
        for g, leaf in zip(found, leaves)
    ]
    late = _depending_on(values, set(cts))
    boundary = _boundary(values, late)
    arguments = {node: tracer.input_leaf[cell] for cell, node in tracer.input_nodes()}
    moving = tracer.assigned.moving()
    cells = {node: cell for cell, node in tracer.captured.items() if cell not in moving}
    all_read = dict.fromkeys([*boundary, *updates.boundary])
    read = [n for n in all_read if n in arguments]
    state = [n for n in all_read if n in cells]
    known = {*read, *state}
    saved = _needed([n for n in boundary if n not in known], known, late)
    saved += [n for n in updates.boundary if n not in {*saved, *known}]
    first = len(outputs)
    outputs.extend(build.emit("copy", n) if n.op.name in ("state", "input") else n for n in saved)
    inputs, new = _inputs_for(tracer, cts, saved, read)
    changes = updates.over(new)
    gradients = rebuilt(values, new)
    held = [*state, *(n for n, _ in changes if n not in state)]
    graph = Graph(
        inputs=inputs,
        outputs=tuple(gradients),
        state=tuple(held),
        updates=changes,
        name=f"{tracer.name}_backward",
        locations={new[n]: place for n, place in tracer.locations.items() if n in new},
    )
    numbers = tuple(tracer.positions.get(id(leaf), -1) for leaf in leaves)
    return Backward(
        graph,
        tuple(cells[n] for n in held),
        tuple(range(first, len(outputs))),
        tuple(arguments[n] for n in read),
        tuple(leaves),
        numbers,
        _reached(values, cts, found),
        tuple(cells[n] for n in state),
        tuple(cells[n] for n, _ in changes),
    )


def _swept(
    tracer: Tracer, live: Sequence[Tensor], leaves: Sequence[Tensor], given: Sequence[Tensor]
) -> list[Tensor | None]:
    """The gradients of ``leaves``; an error where a hook assigns an attribute on the way."""
    left = [value for _, value in tracer.assigned.left()]
    found = arriving(live, leaves, given)
    for member, value in tracer.assigned.left():
        if not any(value is known for known in left):
            raise TraceError(
                f"a hook that compiled {tracer.name!r} registers assigns {member.name!r} in the "
                "backward pass, which is a program too: call backward() in the function"
            )
    return found


def _refused(tracer: Tracer, leaves: Sequence[Tensor], error: ChangedInPlaceError) -> Backward:
    """No backward pass, because the function has changed what it would read: who calls
    ``backward()`` on a result is told, as in eager code, and who does not has the result."""
    why = (
        f"{error}\n  compiled {tracer.name!r} changes it, as an optimiser's step does, after its "
        "result was computed: call backward() in the function, before that"
    )
    graph = Graph(inputs=(), outputs=(), state=(), updates=(), name=f"{tracer.name}_backward")
    given = tuple(tracer.positions.get(id(leaf), -1) for leaf in leaves)
    return Backward(graph, (), (), (), tuple(leaves), given, (), (), (), refusal=why)


class LateUpdates:
    """Writes of the backward pass to memory outside, as a batch norm's in a checkpointed part.

    They start from what lies there when the pass runs, which is not what lay there when the
    function did.  The forward program is left without them.
    """

    def __init__(self, tracer: Tracer, before: Mapping[Cell, Node], cts: set[Node]) -> None:
        self._new: dict[Node, Node] = {}
        moving = tracer.assigned.moving()
        for cell, shadow in tracer.shadows.items():
            origin = tracer.captured.get(cell)
            start = before.get(cell, origin)
            if shadow.value is start or start is None:
                continue
            if origin is None or cell in tracer.input_leaf or cell in moving:
                raise TraceError(
                    f"the backward pass of compiled {tracer.name!r} writes to an argument or to an "
                    "attribute that programs replace; call backward() inside the function"
                )
            (self._new[origin],) = _over(shadow.value, start, origin)
            shadow.value = start
        roots = list(self._new.values())
        late = _depending_on(roots, {*cts, *self._new})
        self.boundary = [n for n in _boundary(roots, late) if n not in self._new]
        """What they read of the forward pass."""

    def over(self, given: Mapping[Node, Node]) -> tuple[tuple[Node, Node], ...]:
        """The updates of a graph with these inputs for what was saved."""
        new = {n: given.get(n, n) for n in self.boundary}
        return tuple(zip(self._new, rebuilt(list(self._new.values()), new), strict=True))


def _over(value: Node, start: Node, other: Node) -> list[Node]:
    """``value`` made of ``other`` instead of ``start``."""
    return rebuilt([value], {start: other})


def _leaves_of(live: Sequence[Tensor], tracer: Tracer) -> list[Tensor]:
    """The tensors that the histories of ``live`` end in: leaves, and those that came with a history
    of their own, which takes the gradient from there."""
    found: dict[int, Tensor] = {}
    stack = [t.grad_fn for t in live]
    seen: set[GradNode] = set()
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        for edge, operand in zip_longest(node.edges, node.inputs):
            if edge is None:
                continue
            end = edge.leaf
            if edge.node is not None and tracer.assigned.is_from_outside(edge.node):
                end = operand if operand is not None and operand.grad_fn is edge.node else None
            if end is None:
                stack.append(edge.node)
            else:
                found.setdefault(id(end), end)
    return list(found.values())


def _depending_on(roots: Sequence[Node], sources: set[Node]) -> set[Node]:
    late = set(sources)
    for node in topological(roots):
        if any(operand in late for operand in node.inputs):
            late.add(node)
    return late


def _reached(
    values: Sequence[Node], cts: Sequence[Node], arrived: Sequence[Tensor | None]
) -> tuple[frozenset[int], ...]:
    """For each of ``values`` the numbers of the cotangents that it is made of; of those that
    arrived though they are made of none (zeros behind ``round``), all."""
    found = {ct: frozenset((number,)) for number, ct in enumerate(cts)}
    for node in topological(values):
        if node not in found:
            found[node] = frozenset().union(*(found[n] for n in node.inputs))
    every = frozenset(range(len(cts)))
    return tuple(
        found[node] or (frozenset() if gradient is None else every)
        for node, gradient in zip(values, arrived, strict=True)
    )


def _boundary(roots: Sequence[Node], late: set[Node]) -> list[Node]:
    """What the late part reads of the early part; what needs no data stays inside."""
    wanted: dict[Node, None] = {}
    fixed: set[Node] = set()
    for node in topological(roots):
        if all(n in fixed for n in node.inputs) and node.op.name not in ("input", "state"):
            fixed.add(node)
        if node in late:
            wanted.update(dict.fromkeys(n for n in node.inputs if n not in late))
    wanted.update(dict.fromkeys(n for n in roots if n not in late))
    return _without_views([n for n in wanted if n not in fixed])


def _without_views(wanted: Sequence[Node]) -> list[Node]:
    """``wanted`` with views replaced by what they show, where that is no more to keep."""
    shown: dict[Node, list[Node]] = {}
    for node in wanted:
        base = node
        while is_alias(base):
            base = base.inputs[0]
        shown.setdefault(base, []).append(node)
    found: list[Node] = []
    for base, views in shown.items():
        held = base.op.name in ("input", "state") or base in views
        sizes = [n.tensor_type.numel for n in (base, *views)]
        known = [size for size in sizes if isinstance(size, int)]
        less = len(known) == len(sizes) and known[0] <= sum(known[1:])
        found.extend([base] if held or less else views)
    return found


def _needed(saved: Sequence[Node], given: set[Node], late: set[Node]) -> list[Node]:
    """``saved`` without what light operations make of the others where it is read.

    That is in kernels over elements, which compute it as they go; a product would have it
    stored.  So of ``x * sigmoid(x)`` neither is the result saved nor ``1 - sigmoid(x)``.
    """
    fused = {n for n in saved if n.dtype.itemsize > 1}  # a mask is read in less time
    for node in late:
        if node.op.kind not in (Kind.ELEMENTWISE, Kind.REDUCTION):
            fused.difference_update(node.inputs)
    there = {*given, *saved}
    for node in sorted(fused, key=lambda n: -n.serial):
        there.discard(node)
        if not _is_light(node, there):
            there.add(node)
    return [n for n in saved if n in there]


def _is_light(node: Node, there: set[Node]) -> bool:
    """Whether a few light operations on elements make ``node`` of what is there."""
    for count, one in enumerate(ancestors(node, there.__contains__)):
        light = one.op.kind is Kind.ELEMENTWISE and one.op.cost < DEAR
        if not (light or is_alias(one) or one.op.name == "constant") or count >= MOST_LIGHT:
            return False
    return True


def _inputs_for(
    tracer: Tracer, cts: Sequence[Node], saved: Sequence[Node], read: Sequence[Node]
) -> tuple[tuple[Node, ...], dict[Node, Node]]:
    new = {
        n: build.input_node(tracer._unique(f"saved{i}"), n.tensor_type) for i, n in enumerate(saved)
    }
    return (*cts, *new.values(), *read), new


def rebuilt(roots: Sequence[Node], new: dict[Node, Node]) -> list[Node]:
    """``roots`` over what ``new`` has in place of nodes; it gets the others."""
    for node in topological(roots):
        if node not in new:
            new[node] = with_inputs(node, [new[n] for n in node.inputs])
    return [new[n] for n in roots]
