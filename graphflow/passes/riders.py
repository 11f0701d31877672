"""Values that are made again by a kernel that runs anyway, as one more of its results.

A kernel of the backward pass often computes what a value of the forward pass was made of: the
gradient of an activation computes the activation's ``tanh`` again.  If it reads all that the
value is made of, and runs before the value is read, it may store the value too: that takes the
few operations that are missing, and neither another kernel nor reading anything twice::

    again:  y = u * (1 + tanh(u))                         reads u
    host:   d = dy * (1 + tanh(u) + …)                    reads u, dy
    both:   t = tanh(u), d = dy * (1 + t + …), y = u * (1 + t)
"""

from __future__ import annotations

from collections.abc import Sequence

from graphflow.ir.graph import Graph
from graphflow.ir.node import Node, with_inputs
from graphflow.ir.op import Kind
from graphflow.passes.groups import Limits
from graphflow.passes.outline import Outline, Task
from graphflow.passes.recipes import Recipe, written_seconds
from graphflow.records import dataclass, replace

REACH = 8
"""How many kernels later a host may stand: it comes before the value's first late reader then."""


@dataclass(frozen=True, slots=True)
class Ride:
    """Results of a task that task ``host`` makes too; ``seconds`` are what that takes more.

    ``reads[i]`` is the input of the host's body that is the recipe's i-th.
    """

    host: int
    reads: Sequence[int]
    seconds: float


class Rides:
    """Finds hosts; equal layers are looked at once."""

    def __init__(self, outline: Outline) -> None:
        self.outline = outline
        self._known: dict[object, float | None] = {}

    def find(self, task: int, recipe: Recipe, time: int) -> Ride | None:
        """The host that makes what ``recipe`` makes of ``task`` before position ``time``."""
        if recipe.multiplies:
            return None
        tasks = self.outline.tasks
        for host in range(time, min(time + REACH, len(tasks))):
            if host == task or not self._may_run(host, time):
                continue
            place = {node: i for i, node in enumerate(tasks[host].reads)}
            reads = [place.get(n, -1) for n in sources_of(self.outline, tasks[task], recipe)]
            seconds = (
                None if -1 in reads else self._seconds(tasks[task], recipe, tasks[host], reads)
            )
            if seconds is not None:
                return Ride(host, reads, seconds)
        return None

    def _may_run(self, host: int, time: int) -> bool:
        """Whether task ``host`` could run at ``time``, but not long before."""
        work, makers = self.outline.tasks[host], self.outline.makers
        if work.kind != "loop" or not work.repeatable:
            return False
        latest = max((makers[v] for v in work.operands), default=-1)
        return time - REACH <= latest < time

    def _seconds(
        self, task: Task, recipe: Recipe, host: Task, reads: Sequence[int]
    ) -> float | None:
        bodies = task.body.inputs, task.body.outputs, host.body.inputs, host.body.outputs
        key = *bodies, tuple(recipe.wanted), tuple(recipe.given), tuple(reads)
        if key not in self._known:
            body = joined(task.body, recipe, host.body, reads)
            self._known[key] = None if body is None else _more(host.body, body)
        return self._known[key]


def _more(host: Graph, body: Graph) -> float:
    """Seconds that ``body`` takes more than ``host``, whose outputs and others it has."""
    there = set(host.nodes)
    more = [node for node in body.nodes if node not in there]
    return written_seconds(more, body.outputs[len(host.outputs) :])


def sources_of(outline: Outline, task: Task, recipe: Recipe) -> list[Node]:
    """The nodes that ``recipe`` reads, in its order; those without a node are missing."""
    given = [outline.nodes[task.results[g]] for g in recipe.given]
    return [task.reads[i] for i in recipe.inputs] + [n for n in given if n is not None]


def joined(body: Graph, recipe: Recipe, host: Graph, reads: Sequence[int]) -> Graph | None:
    """``host`` with what ``recipe`` makes of ``body`` as its last outputs.

    ``reads[i]`` is the input of ``host`` that is the recipe's i-th.  ``None`` unless all is
    elementwise, of one shape, and within the limits of a group.
    """
    made = [body.outputs[w] for w in recipe.wanted]
    if any(n.shape != made[0].shape for n in (*host.outputs, *made)):
        return None
    nodes = *host.nodes, *recipe.nodes
    if any(n.op.kind not in (Kind.ELEMENTWISE, Kind.LEAF) or n.op.fallible for n in nodes):
        return None
    sources = [body.inputs[i] for i in recipe.inputs] + [body.outputs[g] for g in recipe.given]
    new = {node: host.inputs[at] for node, at in zip(sources, reads, strict=True)}
    locations = dict(host.locations)
    for node in recipe.nodes:
        new[node] = with_inputs(node, [new[n] for n in node.inputs])
        if node in body.locations:
            locations.setdefault(new[node], body.locations[node])
    outputs = (*host.outputs, *(new[n] for n in made))
    whole = replace(host, outputs=outputs, locations=locations)
    limits = Limits()
    fits = len(whole.nodes) <= limits.operations and len(outputs) <= limits.results
    return whole if fits else None
