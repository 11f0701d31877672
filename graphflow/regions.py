"""Regions: the function given to ``cond``, ``scan`` or ``while_loop`` becomes a graph.

The function runs once on fresh input nodes, in the trace under way.  Nodes are a pure
interned DAG, so what its results need and what does not depend on those inputs was
computed outside: it becomes an operand of the region (a parameter, an invariant).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphflow.cell import Cell
from graphflow.errors import TraceError
from graphflow.ir import build
from graphflow.ir.cotangent import carries_gradient
from graphflow.ir.graph import Graph, Location
from graphflow.ir.node import Node, topological, with_inputs
from graphflow.ir.types import TensorType, TupleType, int64
from graphflow.mode import mode
from graphflow.records import dataclass
from graphflow.tensor import Tensor

if TYPE_CHECKING:
    from graphflow.trace import Tracer


@dataclass(slots=True)
class StepDraws:
    """How often a step of a scan draws from a generator, and the generator's state in the step."""

    key: Tensor
    count: int = 0


class Region:
    """A body under trace: the tensors it used, and the memory made in it.

    ``runs`` says how often: ``once`` at most, a known number of ``steps``, or ``unknown``.
    """

    def __init__(self, what: str, runs: str, outer: Region | None) -> None:
        self.what, self.runs, self.outer = what, runs, outer
        self.used: dict[Node, Tensor] = {}
        self.own: set[Cell] = set()
        self.drawn: dict[Cell, StepDraws] = {}

    def step(self) -> Region | None:
        """The innermost body around here that runs in steps, each with numbers of its own."""
        if self.runs == "unknown":
            raise TraceError(
                f"{self.what}: the body draws random numbers, and how often it runs is not "
                "known before; draw them outside"
            )
        if self.runs == "steps":
            return self
        return None if self.outer is None else self.outer.step()

    def steps(self) -> Region | None:
        """Like :meth:`step`, but None where drawing is refused."""
        if self.runs == "once":
            return None if self.outer is None else self.outer.steps()
        return self if self.runs == "steps" else None

    def draw(self, cell: Cell, count: int) -> int:
        """The number, within the step, of the next of ``count`` draws."""
        held = self.drawn.get(cell)
        if held is None:
            tracer = mode.tracer
            assert tracer is not None
            node = build.input_node(tracer._unique(f"{self.what}.state"), TensorType(int64, (2,)))
            made: Tensor = Tensor._of(Cell(node, tracer))
            held = self.drawn[cell] = StepDraws(made)
        held.count += count
        return held.count - count

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
        if self.region.runs == "once" and tensor is not None and tensor._cell in self.region.own:
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
                final[node] = with_inputs(node, [final[n] for n in node.inputs])
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
    runs: str,
) -> Body:
    """Run ``function`` on fresh tensors of these types; ``runs`` as in :class:`Region`.

    Where a step draws random numbers, the states of their generators are further inputs.
    Raises TraceError for a write to what was there before, and for random numbers in
    what runs an unknown number of times.
    """
    tracer = mode.tracer
    assert tracer is not None
    nodes = [build.input_node(tracer._unique(f"{what}.{i}"), t) for i, t in enumerate(types)]
    held = tracer.region
    region = Region(what, runs, held)
    tracer.region = region
    try:
        tensors: list[Tensor] = [Tensor._of(Cell(n, tracer)) for n in nodes]
        for tensor, node in zip(tensors, nodes):
            tensor._requires_grad = mode.grad and carries_gradient(node)
        outputs = [region.operand(t, tracer.node(t)) for t in function(tensors)]
    finally:
        tracer.region = held
    nodes += [tracer.node(drawn.key) for drawn in region.drawn.values()]
    return Body(nodes, outputs, region)


def numbers_drawn(tracer: Tracer) -> dict[Cell, int]:
    """How often each generator has been drawn from, in the program or the step under way."""
    step = None if tracer.region is None else tracer.region.steps()
    if step is None:
        return dict(tracer.draws)
    return {cell: drawn.count for cell, drawn in step.drawn.items()}


def set_numbers_drawn(tracer: Tracer, numbers: Mapping[Cell, int]) -> None:
    """Go on from ``numbers``, which :func:`numbers_drawn` gave: branches use the same ones."""
    step = None if tracer.region is None else tracer.region.steps()
    if step is None:
        tracer.draws = dict(numbers)
        return
    for cell, drawn in step.drawn.items():
        drawn.count = numbers.get(cell, 0)


def step_states(region: Region, steps: int, reverse: bool) -> list[Tensor]:
    """``i64[steps, 2]`` for each generator that the body draws from: its state at every row.

    Numbers are those of a loop that takes the steps one after the other.
    """
    from graphflow.dispatch import apply, literal

    tracer = mode.tracer
    assert tracer is not None
    found = []
    for cell, drawn in region.drawn.items():
        first = tracer.draw(cell, drawn.count * steps)
        order = np.arange(steps)[::-1] if reverse else np.arange(steps)
        offsets = np.stack([np.zeros(steps, np.int64), first + drawn.count * order], 1)
        found.append(apply("add", tracer.generator_key(cell), literal(offsets)))
    return found


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
