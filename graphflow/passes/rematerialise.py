"""Values of the forward pass that are made again for the backward pass, to save memory.

Grouping has decided what is one kernel; here some kernels, or the parts of them that are
needed, are run a second time.  Nodes are interned, so that the second run would be the first
one: it takes one more operand, which it does not read, and which is there when it is due.
That keeps it near its use, too, for it cannot begin before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from graphflow.ir.build import emit
from graphflow.ir.graph import Graph, Location
from graphflow.ir.node import Node, with_inputs
from graphflow.passes.base import Pass
from graphflow.passes.dead_results import without_dead_results
from graphflow.passes.outline import Look, Outline
from graphflow.passes.recipes import body_of
from graphflow.passes.remat_kinds import Kinds
from graphflow.passes.remat_search import Again, Search
from graphflow.passes.riders import joined, sources_of
from graphflow.records import NamedTuple

WORTH = 1 << 23
"""Bytes of temporaries from which it is worth looking for what need not be kept."""
CHECKED = 600
"""Kernels up to which the plan of what has been made is looked at again, where nobody asked."""
LEAST = 0.03
"""The part of the peak that has to go for the graph to change, where nobody has asked."""


@dataclass(frozen=True)
class Rematerialise(Pass):
    """Makes values again so that temporaries need at most ``limit`` bytes, if that can be.

    Without a limit it lets go of what costs next to nothing.  Results are made again by the
    operations that made them, of the same operands: random numbers are the same again.  Only
    kernels without effects that cannot fail are run twice; in regions nothing changes.
    """

    name: ClassVar[str] = "rematerialise"
    stage: ClassVar[str | None] = "fused"

    look: Look = field(repr=False)
    limit: int | None = None

    def __str__(self) -> str:
        """The name, and the limit if there is one."""
        return self.name if self.limit is None else f"{self.name}{{limit={self.limit}}}"

    def run(self, graph: Graph) -> Graph:
        """The graph with some kernels run twice."""
        return self.remade(graph).graph

    def remade(self, graph: Graph) -> Remade:
        """The graph with some kernels run twice, and what that makes again."""
        outline = self.look(graph)
        peak = outline.peak
        if self.limit is None:
            return self._cheaply(graph, outline, peak) if peak >= WORTH else Remade(graph)
        if peak <= self.limit:
            return Remade(graph)
        search = Search(outline)
        search.run(self.limit)
        return _remade(graph, search)

    def _cheaply(self, graph: Graph, outline: Outline, peak: int) -> Remade:
        search = Search(outline)
        Kinds(search).run()
        if int(search.profile.max()) > (1 - LEAST) * peak:
            return Remade(graph)
        made = _remade(graph, search)
        # A deep model's layers are alike, and a second look at all of them takes long.
        few = len(outline.tasks) <= CHECKED
        after = self.look(made.graph).peak if few else int(search.profile.max())
        if after > (1 - LEAST) * peak:
            return Remade(graph)
        return made._replace(before=peak, after=after)


class Remade(NamedTuple):
    """A graph, a line for every value that it makes again, and the peaks before and after."""

    graph: Graph
    again: tuple[str, ...] = ()
    before: int = 0
    after: int = 0


def _remade(graph: Graph, search: Search) -> Remade:
    if not search.again:
        return Remade(graph)
    return Remade(repeated(graph, search), tuple(_described(graph, search)))


def _described(graph: Graph, search: Search) -> Iterator[str]:
    outline = search.outline
    for number, again in sorted(search.again.items()):
        task = outline.tasks[number]
        for result in sorted(again.wanted):
            node = outline.nodes[task.results[result]]
            place = graph.locations.get(node) if node is not None else None
            made = task.body.outputs[result]
            where = f"  {place}" if place is not None else ""
            yield f"{made.op.name}: {made.type}{where}"


def repeated(graph: Graph, search: Search) -> Graph:
    """``graph`` with the tasks run again that ``search`` has found."""
    rewriter = _Rewriter(graph, search)
    full, alone = divided(search)
    waiting: dict[int, list[Again | Carried]] = {}
    for carried in full:
        waiting.setdefault(carried.time, []).append(carried)
    for again in alone:
        waiting.setdefault(again.time, []).append(again)
    for time, work in enumerate(search.outline.tasks):
        for due in waiting.get(time, ()):
            if isinstance(due, Carried):
                rewriter.carry(due)
            else:
                rewriter.repeat(due)
        for result in work.results:
            node = search.outline.nodes[result]
            if node is not None:
                rewriter.at(node, time)
    end = len(search.outline.tasks)
    outputs = [rewriter.at(n, end) for n in graph.outputs]
    updates = [(s, rewriter.at(v, end)) for s, v in graph.updates]
    return without_dead_results(graph.with_roots(outputs, updates, rewriter.locations))


class _Rewriter:
    """New nodes for old ones; what is read late is read from where it was made again."""

    def __init__(self, graph: Graph, search: Search) -> None:
        self.graph, self.search = graph, search
        self.new: dict[Node, Node] = {n: n for n in (*graph.inputs, *graph.state)}
        self.late: dict[Node, tuple[int, Node]] = {}
        """What was made again: since when, and the node."""
        self.locations: dict[Node, Location] = {}
        self.own = {
            node: search.outline.makers[v]
            for v, node in enumerate(search.outline.nodes)
            if node is not None
        }

    def at(self, node: Node, time: int) -> Node:
        """The new node for ``node`` where it is read at position ``time``."""
        stack = [node]
        views: dict[Node, Node] = {}
        while stack:
            top = stack[-1]
            if top in views or self._found(top, time, views):
                stack.pop()
                continue
            missing = [n for n in top.inputs if n not in views]
            if missing:
                stack.extend(missing)
                continue
            stack.pop()
            made = with_inputs(top, [views[n] for n in top.inputs])
            self._place(top, made)
            views[top] = made
            if self._is_own(top):
                self.new[top] = made
        return views[node]

    def _found(self, node: Node, time: int, views: dict[Node, Node]) -> bool:
        """Whether ``node`` has its new node for ``time``, which then is among ``views``."""
        late = self.late.get(node)
        if late is not None and late[0] <= time:
            views[node] = late[1]
        elif node in self.new:
            views[node] = self.new[node]
        else:
            return False
        return True

    def _is_own(self, node: Node) -> bool:
        """Whether ``node`` is work, or the tuple of work's results: it is made once."""
        return node in self.own or "body" in node.attrs or not node.inputs

    def _place(self, node: Node, made: Node) -> None:
        place = self.graph.locations.get(node)
        if place is not None:
            self.locations.setdefault(made, place)

    def repeat(self, again: Again) -> None:
        """Run a task again."""
        outline = self.search.outline
        task = outline.tasks[again.task]
        token = outline.nodes[self.search.token(again.time)]
        operands = [self.at(n, again.time) for n in sources_of(outline, task, again.recipe)]
        if token is not None:
            operands.append(self.new[token])
        kind, body = body_of(task, again.recipe, token)
        made = emit("fused", *operands, kind=kind, body=body)
        self._replace(again, [made] if len(body.outputs) == 1 else _parts(made))

    def carry(self, carried: Carried) -> None:
        """Run a task that makes results of others, too."""
        outline = self.search.outline
        task = outline.tasks[carried.host]
        operands = [self.at(n, carried.time) for n in task.reads]
        made = emit("fused", *operands, kind=task.kind, body=carried.body)
        parts = _parts(made)
        for value, part in zip(task.results, parts):
            node = outline.nodes[value]
            if node is not None:
                self.new[node] = part
                self._place(node, part)
        at = len(task.results)
        for again in carried.riders:
            self._replace(again, parts[at : at + len(again.wanted)])
            at += len(again.wanted)

    def _replace(self, again: Again, parts: Sequence[Node]) -> None:
        """Let the results of a task be ``parts`` from now on."""
        outline = self.search.outline
        for wanted, part in zip(again.recipe.wanted, parts, strict=True):
            node = outline.nodes[outline.tasks[again.task].results[wanted]]
            if node is not None:
                self.late[node] = again.time, part
                self._place(node, part)


def _parts(made: Node) -> Sequence[Node]:
    return [emit("get", made, index=index) for index in range(len(made.attrs["body"].outputs))]


@dataclass(frozen=True)
class Carried:
    """Task ``host`` with ``body``, which makes results of the ``riders`` too, before ``time``."""

    host: int
    body: Graph
    riders: Sequence[Again]
    time: int


def divided(search: Search) -> tuple[list[Carried], list[Again]]:
    """The tasks that make results of others, and what runs again by itself.

    What no longer fits into its host beside others runs by itself.
    """
    tasks = search.outline.tasks
    bodies: dict[int, Graph] = {}
    riders: dict[int, list[Again]] = {}
    alone = []
    for number in sorted(search.again):
        again = search.again[number]
        ride, body = again.ride, None
        if ride is not None:
            host = bodies.get(ride.host, tasks[ride.host].body)
            body = joined(tasks[number].body, again.recipe, host, ride.reads)
        if ride is None or body is None:
            alone.append(again)
            continue
        bodies[ride.host] = body
        riders.setdefault(ride.host, []).append(again)
    full = [Carried(h, bodies[h], rs, min(r.time for r in rs)) for h, rs in riders.items()]
    return full, alone
