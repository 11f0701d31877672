"""From a fused graph to units of work.

A *unit* is one node that needs kernels (a fused group, a single primitive, a
host operation), or a copy that the schedule itself adds.  A *value* is memory
that somebody fills: a leaf or a result of a unit.  Every tensor is a
:class:`Layout` of a value; views of values are worked out here and cost
nothing.  Which value shares whose buffer is decided later, when the units
have an order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphflow.codegen.contraction.labels import is_matrix_product
from graphflow.codegen.control_forms import can_fail, control_form, loops_in
from graphflow.codegen.in_range import may_fail
from graphflow.codegen.layout import Layout, contiguous, view_of
from graphflow.codegen.padded_products import Chain, padded_operands, with_padding
from graphflow.codegen.schedule import MAX_LEVELS
from graphflow.codegen.stored_order import Order, ordered, wanted_order
from graphflow.errors import CompileError
from graphflow.ir.build import emit, input_node, splat
from graphflow.ir.graph import Graph, Location
from graphflow.ir.node import Node
from graphflow.ir.op import Kind
from graphflow.ir.products import labels_of
from graphflow.ir.types import TensorType, TupleType
from graphflow.passes.dataflow import has_kernel, is_alias, is_literal, view_pieces
from graphflow.passes.fuse import Bodies
from graphflow.passes.groups import Group
from graphflow.records import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Value:
    """Memory for one tensor: a leaf (``unit`` is -1) or a unit's result.

    Its axes are stored in ``order``, row-major if that is empty.
    """

    id: int
    type: TensorType
    leaf: Node | None
    unit: int
    order: Order = ()


@dataclass(slots=True)
class Unit:
    """Work to be lowered.  ``kind``: ``loop``, ``contraction``, ``control``, ``host``, ``routine``
    or ``check``.

    ``operands[i]`` is the layout of ``body.inputs[i]``, ``results[j]`` the value
    of ``body.outputs[j]``; a host unit, a library's routine and control flow have no body but
    their operation, ``node``.  A check has no results: it finds out whether its body's
    output, places that scatter ``node`` writes, is in range.
    """

    kind: str
    body: Graph
    operands: list[Layout]
    results: list[int]
    fallible: bool
    node: Node | None = None
    locations: tuple[Location, ...] = ()


@dataclass(slots=True)
class Work:
    """Units in graph order, the values they touch, and where every tensor is.

    ``level`` counts the loops around them.  With ``routines``, operations that libraries
    compute as a whole are theirs; with ``pads``, products pad their operands.
    """

    level: int = 0
    routines: bool = False
    pads: bool = False
    units: list[Unit] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    layouts: dict[Node, Layout] = field(default_factory=dict)
    bodies: Bodies = field(default_factory=Bodies)
    padded: Mapping[Node, Mapping[int, Chain]] = field(default_factory=dict)

    def value(
        self, type: TensorType, leaf: Node | None = None, unit: int = -1, order: Order = ()
    ) -> Value:
        """A new value."""
        made = Value(len(self.values), type, leaf, unit, order)
        self.values.append(made)
        return made

    def add(
        self, unit: Unit, types: Sequence[TensorType], orders: Sequence[Order] = ()
    ) -> list[Layout]:
        """Append ``unit`` with a fresh value a result type; their layouts."""
        found = []
        for type, order in zip(types, orders or [()] * len(types), strict=True):
            value = self.value(type, unit=len(self.units), order=order)
            unit.results.append(value.id)
            found.append(ordered(value.id, type, order))
        self.units.append(unit)
        return found

    def copy(self, source: Layout, name: str = "") -> Layout:
        """A unit that copies ``source`` into a fresh contiguous value; its layout."""
        unit = Unit("loop", copy_body(source.type), [source], [], False)
        return self.add(unit, [source.type])[0]


def copy_body(type: TensorType, flips: int = 0) -> Graph:
    """The body of a kernel that copies its operand (of complex numbers the two parts), of
    integers with the bits of ``flips`` flipped."""
    if type.dtype.is_complex:
        type = TensorType(type.dtype.real, (*type.shape, 2))
    source = input_node("x0", type)
    made = emit("bitwise_xor", source, splat(flips, type)) if flips else None
    return Graph((source,), (made or emit("stop_gradient", source),), name="body")


def collect(
    graph: Graph,
    leaves: Mapping[Node, Layout] | None = None,
    level: int = 0,
    routines: bool = False,
    pads: bool = False,
) -> Work:
    """The units and values of ``graph`` (which has been fused).

    ``leaves`` tells how the leaves of a region lie, which runs inside ``level`` loops.  With
    ``routines``, operations that libraries compute as a whole are theirs; with ``pads``, products
    pad operands that are padded for products alone.
    """
    work = Work(level, routines, pads)
    needed = _needed(graph)
    if pads:
        work.padded = padded_operands(graph)
        made = (chain for chains in work.padded.values() for chain in chains.values())
        needed.difference_update(node for chain in made for node in chain)
    for node, layout in (leaves or {}).items():
        if node in needed:
            value = work.value(node.tensor_type, leaf=node)
            work.layouts[node] = replace(layout, buffer=value.id)
    for node in graph.nodes:
        if node in needed:
            _visit(work, graph, node)
    return work


def _needed(graph: Graph) -> set[Node]:
    """Nodes whose value somebody reads from memory."""
    needed = set(graph.roots)
    for node in reversed(graph.nodes):
        if node in needed:
            needed.update(_reads(node))
    return needed


def _reads(node: Node) -> tuple[Node, ...]:
    """What ``node`` reads from memory: its operands, unless its kernel makes them itself."""
    if node.op.kind in _HAVE_BODIES and has_kernel(node):
        return tuple(n for n in node.inputs if not _in_text(n))
    return node.inputs


_HAVE_BODIES = (Kind.ELEMENTWISE, Kind.REDUCTION, Kind.GATHER, Kind.SCATTER, Kind.GENERATOR)


def _in_text(node: Node) -> bool:
    """True for literals and views of them: they are written into the kernel."""
    while is_alias(node) and view_pieces(node):
        node = node.inputs[0]
    return is_literal(node)


def _visit(work: Work, graph: Graph, node: Node) -> None:
    if node in work.layouts:
        return  # a result of a fused group: set with its group
    kind = node.op.kind
    if kind is Kind.LEAF:
        value = work.value(node.tensor_type, leaf=node)
        work.layouts[node] = contiguous(value.id, node.tensor_type)
        return
    if is_alias(node):
        operand = work.layouts[node.inputs[0]]
        # No strides show a transposed operand in row-major order: copy it first.
        layout = view_of(node, operand) or view_of(node, work.copy(operand))
        if layout is None:
            raise CompileError(f"{node.op.name} of {operand.type} has no strides")
        work.layouts[node] = layout
        return
    if "body" in node.attrs and "kind" in node.attrs:
        _visit_fused(work, graph, node)
    elif kind is Kind.CONTROL and work.level + loops_in(node) <= MAX_LEVELS:
        _visit_control(work, graph, node)
    elif node.op.routine and work.routines:
        _visit_routine(work, graph, node)
    elif not has_kernel(node):
        _visit_host(work, graph, node)
    elif kind is Kind.CONTRACTION:
        _visit_contraction(work, graph, node)
    else:
        _visit_single(work, graph, node)


def _visit_fused(work: Work, graph: Graph, node: Node) -> None:
    body: Graph = node.attrs["body"]
    suspects = [n for n in body.nodes if n.op.fallible]
    outer = dict(zip(body.inputs, node.inputs, strict=True)) if suspects else {}
    fallible = any(may_fail(n, outer) for n in suspects)
    places = _places(graph, node, body)
    body, operands = _padding(work, node, body)
    unit = Unit(node.attrs["kind"], body, operands, [], fallible, node, places)
    if len(body.outputs) == 1:
        order = _order_of_product(graph, node, body)
        work.layouts[node] = work.add(unit, [node.tensor_type], [order])[0]
        return
    _set_items(work, graph, node, work.add(unit, [n.tensor_type for n in body.outputs]))


def _set_items(work: Work, graph: Graph, node: Node, layouts: Sequence[Layout]) -> None:
    for user in graph.users[node]:
        work.layouts[user] = layouts[user.attrs["index"]]


def _padding(work: Work, node: Node, body: Graph) -> tuple[Graph, list[Layout]]:
    """The body of ``node``, which pads its operands if they are, and what that reads."""
    chains = work.padded.get(node, {})
    read = [chains[n][0].inputs[0] if n in chains else x for n, x in enumerate(node.inputs)]
    operands = [work.layouts[n] for n in read]
    return with_padding(body, chains) if chains else body, operands


def _visit_contraction(work: Work, graph: Graph, node: Node) -> None:
    body, operands = _padding(work, node, work.bodies.alone(node))
    unit = Unit("contraction", body, operands, [], False, node, _places(graph, node))
    order = _order_of_product(graph, node, body)
    work.layouts[node] = work.add(unit, [node.tensor_type], [order])[0]


def _order_of_product(graph: Graph, node: Node, body: Graph) -> Order:
    """The order in which ``node`` is stored: one that spares copies where it is a product of
    matrices as it is, whose kernels write any."""
    made = body.outputs[0]
    plain = made.op.contraction is not None and made.op.tiles is None
    return wanted_order(graph, node) if plain and is_matrix_product(labels_of(made)) else ()


def single_body(node: Node, graph: Graph, bodies: Bodies) -> tuple[list[Node], Graph]:
    """What the kernel of one operation reads, and its body."""
    copies: set[Node] = set()
    if node.op.kind in _HAVE_BODIES:
        stack = [n for n in node.inputs if _in_text(n)]
        while stack:
            top = stack.pop()
            copies.add(top)
            stack.extend(top.inputs)
    group = Group("loop", (node,), frozenset(copies), node.shape)
    reads, _, body = bodies.of(group, [node], graph.locations)
    return reads, body


def _visit_single(work: Work, graph: Graph, node: Node) -> None:
    reads, body = single_body(node, graph, work.bodies)
    operands = [work.layouts[n] for n in reads]
    unit = Unit("loop", body, operands, [], may_fail(node, {}), node, _places(graph, node))
    work.layouts[node] = work.add(unit, [node.tensor_type])[0]


def _visit_control(work: Work, graph: Graph, node: Node) -> None:
    operands = [work.layouts[n] for n in node.inputs]
    places = _places(graph, node)
    form = control_form(node)
    unit = Unit("control", Graph((), (), name="body"), operands, [], can_fail(node), node, places)
    values = work.add(unit, form.types)
    _set_items(work, graph, node, form.items(values))


def _visit_host(work: Work, graph: Graph, node: Node) -> None:
    operands = [work.layouts[n] for n in node.inputs]
    body = Graph((), (), name="body")
    # A host operation may raise, so state is committed after it.
    unit = Unit("host", body, operands, [], True, node, _places(graph, node))
    if isinstance(node.type, TensorType):
        work.layouts[node] = work.add(unit, [node.type])[0]
    else:
        layouts = work.add(unit, [t for t in node.type.items if isinstance(t, TensorType)])
        _set_items(work, graph, node, layouts)


def _visit_routine(work: Work, graph: Graph, node: Node) -> None:
    operands = [work.layouts[n] for n in node.inputs]
    body = Graph((), (), name="body")
    unit = Unit("routine", body, operands, [], False, node, _places(graph, node))
    items = node.type.items if isinstance(node.type, TupleType) else (node.type,)
    shown = {user.attrs["index"]: user for user in graph.users[node]}
    orders = [_with_last_axis_inside(graph, shown.get(n)) for n in range(len(items))]
    layouts = work.add(unit, [t for t in items if isinstance(t, TensorType)], orders)
    _set_items(work, graph, node, layouts)


def _with_last_axis_inside(graph: Graph, node: Node | None) -> Order:
    """The order of axes that saves copies of a result, if its last axis can lie together."""
    order = () if node is None else wanted_order(graph, node)
    return order if order and order[-1] == len(order) - 1 else ()


def _places(graph: Graph, node: Node, body: Graph | None = None) -> tuple[Location, ...]:
    """The user's lines behind ``node``, without repeats."""
    found = list(body.locations.values()) if body is not None else []
    own = graph.locations.get(node)
    if own is not None:
        found.append(own)
    return tuple(dict.fromkeys(found))
