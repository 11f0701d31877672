"""Backward passes that a trace leaves open until somebody wants their nodes.

Who finds a program's plan never looks at the graph, and half of a training step's graph is its
gradient.  So where a trace may (:attr:`~graphflow.trace.Tracer.sweeps`), ``backward()`` writes
down which operations it would go through, and every leaf's gradient is a placeholder.  The trace
with placeholders is a :class:`Draft`: what is written down and the graph so far say all that the
whole graph depends on, and the plan is looked for by them.  :attr:`Draft.graph` is the whole.

Only plain histories are left open: operations of one result, without hooks and without bodies,
whose rules are the package's own (a plan does not know the user's files).
Whether every leaf gets a gradient is known when the pass is written out: if one does not,
:class:`~graphflow.errors.CannotPostpone` is raised, and the trace is to be made without postponing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache, cached_property
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from graphflow.autograd.history import Edge, GradNode
from graphflow.autograd.recipes import recipe
from graphflow.cell import Cell
from graphflow.digests import new_digest
from graphflow.errors import CannotPostpone
from graphflow.ir.build import emit, input_node
from graphflow.ir.graph import Graph, Location
from graphflow.ir.node import Node, attrs_key, topological, with_inputs
from graphflow.ir.op import OpDef
from graphflow.ir.types import TensorType
from graphflow.records import dataclass
from graphflow.repeats import again
from graphflow.tensor import Tensor
from graphflow.traced_sizes import as_plain

if TYPE_CHECKING:
    from graphflow.trace import Tracer


@dataclass(frozen=True, slots=True)
class Step:
    """A recorded operation; values, steps and leaves are given by their numbers."""

    op: OpDef
    attrs: Mapping[str, Any]
    values: tuple[int, ...]
    """Its operands and its result."""
    targets: tuple[int | None, ...]
    """Where the cotangents of its operands go: to a step, or to leaf ``~target``."""
    module: str

    @property
    def key(self) -> tuple[Any, ...]:
        """All that the step's nodes depend on."""
        return self.op.name, attrs_key(self.attrs), self.values, self.targets


@dataclass(frozen=True, slots=True)
class Sweep:
    """A backward pass: its steps, the last operation first, and what they may read."""

    steps: tuple[Step, ...]
    values: tuple[Node, ...]
    starts: tuple[tuple[int, int], ...]
    """Which step begins with which value as its cotangent."""
    gradients: tuple[Node, ...]
    """The placeholders, one for each leaf."""
    place: Location

    @property
    def key(self) -> tuple[Any, ...]:
        """All that the gradients depend on, apart from the values."""
        return self.starts, len(self.gradients), [step.key for step in self.steps]

    def written(self, values: Sequence[Node], locations: dict[Node, Location]) -> list[Node]:
        """The gradients' nodes, given those of the values."""
        arrived: dict[int, Node] = {}
        for number, value in self.starts:
            arrived[number] = values[value]
        for number, step in enumerate(self.steps):
            if number not in arrived:
                raise CannotPostpone(f"no cotangent arrives at {step.op.name}")
            found = _cotangents(
                step, values, arrived.pop(number), locations, self._within(step.module)
            )
            for target, ct in zip(step.targets, found):
                if target is None or ct is None:
                    continue
                held = arrived.get(target)
                if held is not None:
                    ct = emit("add", held, ct)
                    reader = self.steps[target].module if target >= 0 else ""
                    locations.setdefault(ct, self._within(reader))
                arrived[target] = ct
        made = [arrived.get(~leaf) for leaf in range(len(self.gradients))]
        for node, placeholder in zip(made, self.gradients):
            if node is None or node.type != placeholder.type:
                raise CannotPostpone(f"{placeholder.attrs['name']} is not a {placeholder.type}")
        return [node for node in made if node is not None]

    def _within(self, module: str) -> Location:
        """The place of what is work of ``module``, if it is of one."""
        return self.place._replace(module=module) if module else self.place


def _cotangents(
    step: Step, values: Sequence[Node], ct: Node, locations: dict[Node, Location], place: Location
) -> list[Node | None]:
    """The cotangents of a step's operands: its rule's recipe over the values."""
    given = (*[values[v] for v in step.values], ct)
    wants = tuple([target is not None for target in step.targets])
    found = recipe(step.op, tuple([n.type for n in given[:-2]]), step.attrs, wants)
    types = [n and n.type for n in found.given[-2:]]
    if not found.repeats or types != [n.type for n in given[-2:]]:
        raise CannotPostpone(f"the gradient rule of {step.op.name} is to be asked each time")
    made = {n: value for n, value in zip(found.given, given) if n is not None}
    again(found.body, made, place, locations)
    return [None if result is None else made[result] for result in found.results]


class Draft:
    """The graph of a trace with ``sweeps`` that are not written out yet."""

    def __init__(self, face: Graph, sweeps: Sequence[Sweep]) -> None:
        self.face = face
        """The graph, in which placeholders stand for gradients."""
        self._sweeps = tuple(sweeps)

    def hash(self) -> str:
        """Equal for drafts whose graphs compute the same in the same way."""
        face, sweeps = self.face, self._sweeps
        placeholders = [node for sweep in sweeps for node in sweep.gradients]
        values = [node for sweep in sweeps for node in sweep.values]
        whole = Graph(
            (*face.inputs, *placeholders), (*face.outputs, *values), face.state, face.updates
        )
        parts = whole.hash(), len(face.outputs), [sweep.key for sweep in sweeps]
        return new_digest(repr(parts).encode()).hexdigest()[:32]

    @cached_property
    def graph(self) -> Graph:
        """The whole graph; raises CannotPostpone if a leaf gets no gradient after all."""
        made: dict[Node, Node] = {}
        locations = dict(self.face.locations)
        for sweep in self._sweeps:
            values = _over(sweep.values, made, locations)
            made.update(zip(sweep.gradients, sweep.written(values, locations)))
        outputs = _over(self.face.outputs, made, locations)
        values = _over([value for _, value in self.face.updates], made, locations)
        updates = zip((state for state, _ in self.face.updates), values)
        return self.face.with_roots(outputs, updates, locations)


def _over(
    roots: Iterable[Node], made: dict[Node, Node], locations: dict[Node, Location]
) -> list[Node]:
    """``roots`` over what ``made`` has for placeholders; what is built for that joins it."""
    roots = list(roots)
    for node in topological(roots):
        if node not in made and any(n in made for n in node.inputs):
            new = made[node] = with_inputs(node, [made.get(n, n) for n in node.inputs])
            if node in locations:
                locations.setdefault(new, locations[node])
    return [made.get(node, node) for node in roots]


def postpone(
    tracer: Tracer,
    sweeps: list[Sweep],
    pending: Mapping[GradNode, Tensor],
    retain_graph: bool,
) -> list[tuple[Tensor, Tensor]] | None:
    """Leave open the backward pass that begins with the ``pending`` cotangents.

    Every leaf that it reaches, with its gradient; None, and nothing has happened, where the pass
    is to be written out at once.
    """
    if tracer.region is not None or tracer.explicit:
        return None
    nodes = _reached(pending)
    if nodes is None:
        return None
    record = _Record(tracer, nodes)
    starts = [
        (record.numbers[node], record.number(tracer.node(ct))) for node, ct in pending.items()
    ]
    steps = [record.step(node) for node in nodes]
    if not record.is_complete:
        return None
    if not retain_graph:
        for node in nodes:
            node.release()
    leaves = record.leaves.values()
    gradients = [input_node(tracer._unique("gradient"), n.tensor_type) for _, _, n in leaves]
    values = tuple(record.values)
    sweeps.append(Sweep(tuple(steps), values, tuple(starts), tuple(gradients), tracer.here()))
    return [(leaf, Tensor._of(Cell(node, tracer))) for (_, leaf, _), node in zip(leaves, gradients)]


def _reached(pending: Iterable[GradNode]) -> list[GradNode] | None:
    """The histories that a backward pass goes through, in its order; None if one is special."""
    stack, met = list(pending), set(pending)
    while stack:
        node = stack.pop()
        if node.__class__ is not GradNode or node.hooks or node.retain is not None or node.released:
            return None
        assert node.op is not None
        if not _is_own(node.op):
            return None
        for edge in node.edges:
            if edge is not None and edge.node is not None and edge.node not in met:
                met.add(edge.node)
                stack.append(edge.node)
    return sorted(met, key=attrgetter("serial"), reverse=True)


@cache
def _is_own(op: OpDef) -> bool:
    """Whether the gradient rules are in files that plans depend on, not in the user's."""
    rules = op.vjp if isinstance(op.vjp, tuple) else (op.vjp,)
    return all(rule is None or rule.__module__.startswith("graphflow.") for rule in rules)


class _Record:
    """What a backward pass goes through, by numbers."""

    def __init__(self, tracer: Tracer, nodes: Sequence[GradNode]) -> None:
        self._tracer = tracer
        self.numbers = {node: number for number, node in enumerate(nodes)}
        self.values: dict[Node, int] = {}
        self.leaves: dict[int, tuple[int, Tensor, Node]] = {}
        """Leaves, numbered in the order in which their gradients arrive, with their values."""
        self.is_complete = True
        """False if a value is not to be had yet, or has no fixed size."""

    def number(self, node: Node) -> int:
        """The number of a value."""
        number = self.values.get(node)
        if number is None:
            if node.type.__class__ is not TensorType or not node.tensor_type.is_static:
                self.is_complete = False
            number = self.values[node] = len(self.values)
        return number

    def step(self, node: GradNode) -> Step:
        """A recorded operation, whose saved values are there."""
        assert node.op is not None
        values, out = [], node.out
        for tensor, version in zip(node.inputs, node.versions):
            shadow = self._checked(node, tensor._cell, version)
            values.append(-1 if shadow is None else self.number(tensor._traced_value(shadow)))
        shadow = self._checked(node, out.cell, out.version)
        values.append(-1 if shadow is None else self.number(out.traced_value(shadow)))
        targets = tuple([None if edge is None else self._target(edge) for edge in node.edges])
        attrs = {name: as_plain(value) for name, value in node.attrs.items()}
        return Step(node.op, attrs, tuple(values), targets, node.module)

    def _checked(self, node: GradNode, cell: Cell, version: int) -> Cell | None:
        """The traced cell of a saved value; None if the trace has not read it, nor does now."""
        tracer = self._tracer
        shadow = cell if cell.tracer is tracer else tracer.shadows.get(cell)
        if shadow is None:
            self.is_complete = False
        elif shadow.version != version:
            node.check()  # raises if a rule reads what was written over
        return shadow

    def _target(self, edge: Edge) -> int:
        if edge.node is not None:
            return self.numbers[edge.node]
        leaf = edge.leaf
        assert leaf is not None
        if id(leaf) not in self.leaves and self.is_complete:
            self.leaves[id(leaf)] = len(self.leaves), leaf, self._tracer.node(leaf)
        return ~self.leaves[id(leaf)][0] if self.is_complete else 0
