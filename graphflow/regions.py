"""Regions: the function given to ``cond``, ``scan`` or ``while_loop`` becomes a graph.

The function runs once on fresh input nodes, in the trace under way.  Nodes are a pure
interned DAG, so what its results need and what does not depend on those inputs was
computed outside: it becomes an operand of the region (a parameter, an invariant).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from graphflow.cell import Cell
from graphflow.errors import TraceError
from graphflow.ir import build
from graphflow.ir.cotangent import carries_gradient
from graphflow.ir.graph import Graph, Location
from graphflow.ir.node import Node, make_node, topological
from graphflow.ir.types import TensorType, TupleType
from graphflow.mode import mode
from graphflow.tensor import Tensor

if TYPE_CHECKING:
    from graphflow.trace import Tracer


class Region:
    """A body under trace: the tensors it used, and the memory made in it."""

    def __init__(self, what: str, once: bool) -> None:
        self.what, self.once = what, once
        self.used: dict[Node, Tensor] = {}
        self.own: set[Cell] = set()

    def operand(self, tensor: Tensor, node: Node) -> Node:
        """The node that stands for an operand of an operation in the body.

        The gradient of a region is made from its graph, which cannot see that a tensor
        was detached: ``stop_gradient`` says it there.
        """
        if mode.grad and not tensor._requires_grad and _varies(node):
            node = build.emit("stop_gradient", node)
        self.used.setdefault(node, tensor)
        return node

    def check_write(self, cell: Cell, action: str) -> None:
        """Refuse a change of what was there before the body."""
        if cell not in self.own:
            raise TraceError(
                f"{self.what}: the body {action} from outside, which a body that is traced "
                "once cannot do at every step; carry the value, or return it"
            )


class Body:
    """A traced body: result nodes over the region's inputs, and how it was traced."""

    def __init__(self, inputs: list[Node], outputs: list[Node], region: Region) -> None:
        self.inputs, self.outputs, self.region = inputs, outputs, region

    def captured(self) -> dict[Node, Tensor]:
        """The values from outside that the body reads."""
        inside = self._dependent()
        found: dict[Node, Tensor] = {}
        seen: set[Node] = set()
        stack = list(reversed(self.outputs))
        while stack:
            node = stack.pop()
            if node in seen:
                continue
            seen.add(node)
            if node not in inside and self._from_outside(node):
                found[node] = self._tensor(node)
            else:
                stack.extend(reversed(node.inputs))
        return found

    def _dependent(self) -> set[Node]:
        inside = set(self.inputs)
        for node in topological(self.outputs):
            if any(n in inside for n in node.inputs):
                inside.add(node)
        return inside

    def _from_outside(self, node: Node) -> bool:
        if not node.inputs:
            return "name" in node.attrs  # a leaf; constants are part of the region
        tensor = self.region.used.get(node)
        if self.region.once and tensor is not None and tensor._cell in self.region.own:
            return False  # a branch does its own work, only when it is taken
        several = isinstance(node.inputs[0].type, TupleType)
        return several or (tensor is not None and _has_leaf(node))

    def _tensor(self, node: Node) -> Tensor:
        found = self.region.used.get(node)
        return Tensor._of(Cell(node, mode.tracer)) if found is None else found

    def graph(self, name: str, captured: Sequence[Node]) -> Graph:
        """The closed graph that takes the inputs and then what was ``captured``."""
        tracer = mode.tracer
        assert tracer is not None
        final: dict[Node, Node] = {}
        takes = []
        for i, node in enumerate((*self.inputs, *captured)):
            final[node] = build.input_node(f"x{i}", node.tensor_type)
            takes.append(final[node])
        stack = list(reversed(self.outputs))
        while stack:
            node = stack[-1]
            waiting = [] if node in final else [n for n in node.inputs if n not in final]
            if waiting:
                stack.extend(waiting)
                continue
            stack.pop()
            if node not in final:
                inputs = [final[n] for n in node.inputs]
                final[node] = make_node(node.op, inputs, node.attrs, node.type)
        places = {
            final[n]: tracer.locations[n] for n in final if n.inputs and n in tracer.locations
        }
        outputs = tuple(final[n] for n in self.outputs)
        return Graph(tuple(takes), outputs, name=name, locations=places)


def _varies(node: Node) -> bool:
    """Whether a gradient could flow to ``node``: constants have none."""
    return carries_gradient(node) and bool(node.inputs or "name" in node.attrs)


def _has_leaf(node: Node) -> bool:
    return any(not n.inputs and "name" in n.attrs for n in topological([node]))


def trace_body(
    what: str,
    function: Callable[[list[Tensor]], Sequence[Tensor]],
    types: Sequence[TensorType],
    once: bool,
) -> Body:
    """Run ``function`` on fresh tensors of these types.

    Raises TraceError for a write to what was there before, and for random numbers
    unless the body is a branch, which runs ``once``.
    """
    tracer = mode.tracer
    assert tracer is not None
    nodes = [build.input_node(tracer._unique(f"{what}.{i}"), t) for i, t in enumerate(types)]
    region, held, draws = Region(what, once), tracer.region, dict(tracer.draws)
    tracer.region = region
    try:
        tensors: list[Tensor] = [Tensor._of(Cell(n, tracer)) for n in nodes]
        for tensor, node in zip(tensors, nodes):
            tensor._requires_grad = mode.grad and carries_gradient(node)
        outputs = [region.operand(t, tracer.node(t)) for t in function(tensors)]
    finally:
        tracer.region = held
    if not once and tracer.draws != draws:
        raise TraceError(
            f"{what}: the body draws random numbers, which would be the same at every step; "
            "draw them before the loop and scan over them"
        )
    return Body(nodes, outputs, region)


def capture(bodies: Sequence[tuple[str, Body]]) -> tuple[list[Graph], list[Tensor]]:
    """The graphs of bodies that take the same inputs, and the operands captured by any."""
    found: dict[Node, Tensor] = {}
    for _, body in bodies:
        for node, tensor in body.captured().items():
            found.setdefault(node, tensor)
    captured = list(found)
    return [body.graph(name, captured) for name, body in bodies], list(found.values())


def apply_control(op: str, inputs: Sequence[Tensor], attrs: dict[str, Any]) -> list[Tensor]:
    """The results of a control operation in the trace under way, with their history."""
    from graphflow.autograd.control import record_control
    from graphflow.ir.op import lookup

    tracer: Tracer | None = mode.tracer
    assert tracer is not None
    recorded = mode.grad and any(t._requires_grad for t in inputs)
    whole = tracer.emit(lookup(op), inputs, attrs)
    assert isinstance(whole.type, TupleType)
    if recorded:
        return record_control(whole, inputs)
    outs = [taken(whole, i, tracer.locations[whole]) for i in range(len(whole.type.items))]
    for out in outs:
        tracer.block_gradient(inputs, out)
    return outs


def taken(whole: Node, index: int, place: Location) -> Tensor:
    """Result ``index`` of an operation that has several."""
    tracer = mode.tracer
    assert tracer is not None
    node = build.emit("get", whole, index=index)
    tracer.locations.setdefault(node, place)
    out: Tensor = Tensor._of(Cell(node, tracer))
    return out
