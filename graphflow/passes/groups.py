"""Find the groups of nodes that become one kernel each.

Greedy and by :class:`~graphflow.ir.op.Kind` only, in this order:

1. every contraction takes the elementwise consumers over its result (bias,
   activation, mask, residual, the update of a weight), last contraction first;
2. every reduction grows over its domain: first those along rows, with all
   producers and consumers, so that softmax or a layer norm is one group; then
   the others, with the producers nobody else wants and their kept consumers;
3. what is left joins its producers, in topological order: elementwise chains;
4. groups over one domain that read a common operand merge, and those of scalars.

A group stays convex (:mod:`graphflow.passes.clusters`) and fits one iteration
domain (:mod:`graphflow.passes.spaces`).
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Iterator
from itertools import pairwise

from graphflow.ir.dims import Shape
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node
from graphflow.passes.chain_cuts import segments
from graphflow.passes.clusters import Clusters
from graphflow.passes.dataflow import Dataflow, Edge, Role, folded_axes, is_literal
from graphflow.passes.spaces import (
    dropped_shape,
    fits_together,
    kept_shape,
    reads_at_own_index,
    several_stages,
)
from graphflow.records import dataclass, field


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a group may grow: operations, operands read, values written."""

    operations: int = 40
    operands: int = 24
    results: int = 24


@dataclass(frozen=True, slots=True)
class Group:
    """What one kernel computes over ``domain``.

    ``kind`` is ``"loop"`` or ``"contraction"``, or ``"single"`` for an operation
    that never joins others; ``reduced`` are the axes of the domain that its
    reductions fold.  ``nodes`` in topological order; ``copies`` are the views,
    literals and cheap values it has for itself, ``again`` the nodes that it computes
    anew though they belong to another group.
    """

    kind: str
    nodes: tuple[Node, ...]
    copies: frozenset[Node]
    domain: Shape
    reduced: tuple[int, ...] = ()
    again: frozenset[Node] = frozenset()


@dataclass(slots=True)
class _Cluster:
    """A group in the making: members ascending, operands it reads from outside."""

    members: list[int]
    domain: Shape
    reduced: tuple[int, ...]
    reads: dict[Node, int] = field(default_factory=dict)  # and the work node it shows, or -1
    product: int = -1  # the contraction
    fusible: bool = True
    piece: int = -1  # of a long chain; groups of two pieces stay apart
    part: int = -1  # of the graph; so do groups of two parts
    late: frozenset[int] = frozenset()  # members that wait for a reduction of a single stage


def find_groups(
    graph: Graph, limits: Limits | None = None, flow: Dataflow | None = None
) -> list[Group]:
    """The groups of ``graph`` in an order in which they can run, single nodes included.

    Views and values that are cheap to compute anew belong to no group: whoever
    reads them has its own copy.
    """
    flow = flow or Dataflow(graph)
    finder = _Finder(flow, limits or Limits())
    finder.contractions()
    finder.reductions()
    finder.chains()
    finder.siblings()
    return finder.result()


class _Finder:
    """Clusters and the rules by which they merge."""

    def __init__(self, flow: Dataflow, limits: Limits) -> None:
        self.flow, self.limits = flow, limits
        self.graph = Clusters(flow.users)
        self.home = self.graph.home
        self.clusters = [self._single(number) for number in range(len(flow.work))]

    def _single(self, number: int) -> _Cluster:
        node, flow = self.flow.work[number], self.flow
        role = flow.role[node]
        if role is Role.SINGLE:
            return _Cluster([number], (), (), fusible=False)
        part = flow.part[number]
        edges, literals = flow.edges[number], flow.literals
        reads = {e.operand: e.source for e in edges if e.operand not in literals}
        if role is Role.REDUCTION:
            space = node.inputs[0].shape, folded_axes(node)
            return _Cluster([number], *space, reads, part=part, late=frozenset([number]))
        product = number if role is Role.CONTRACTION else -1
        return _Cluster([number], node.shape, (), reads, product, part=part)

    def of(self, number: int) -> _Cluster:
        """The cluster that holds work node ``number``."""
        return self.clusters[self.home[number]]

    # -- phases ---------------------------------------------------------------

    def contractions(self) -> None:
        """Give every contraction its epilogue."""
        folded = self._only_folded()
        for number in reversed(self._with_role(Role.CONTRACTION)):
            self._grow(number, all_producers=False, folded=folded)

    def _only_folded(self) -> set[int]:
        """Elementwise values that nothing but reductions will see, in the end."""
        flow = self.flow
        found: set[int] = set()
        for number in reversed(range(len(flow.work))):
            users = flow.users[number]
            if flow.roles[number] is not Role.ELEMENTWISE or flow.escapes[number]:
                continue
            if users and all(u in found or flow.roles[u] is Role.REDUCTION for u in users):
                found.add(number)
        return found

    def _costs_a_result(self, number: int, seed: int, folded: Collection[int]) -> bool:
        """Whether ``number`` reads from the cluster of ``seed`` what others read, too, that are
        not ``folded`` themselves.

        That value is stored anyway: what is ``_only_folded`` is better made of it by
        the reduction than stored beside it.
        """
        flow, home = self.flow, self.home[seed]
        sources = {e.source for e in flow.edges[number] if e.source >= 0}
        return any(
            self.home[source] == home
            and (
                flow.escapes[source]
                or any(u != number and u not in folded for u in flow.users[source])
            )
            for source in sources
        )

    def reductions(self) -> None:
        """Grow the groups of reductions: rows first."""
        rows: list[int] = []
        others: list[int] = []
        for number in self._with_role(Role.REDUCTION):
            cluster = self.clusters[number]
            last = len(cluster.domain) - 1
            (rows if last in cluster.reduced else others).append(number)
        for number in rows:
            self._grow(number, all_producers=True)
        for number in others:
            self._grow(number, all_producers=False)

    def chains(self) -> None:
        """Join what is left to its producers, in topological order."""
        free = [len(self.of(n).members) == 1 for n in range(len(self.flow.work))]
        for number, piece in segments(self.flow, free, self.limits.operations).items():
            self.clusters[number].piece = piece
        for number in range(len(self.flow.work)):
            for edge in self.flow.edges[number]:
                if edge.source >= 0 and self.of(edge.source).product < 0:
                    self._try(number, edge.source)

    def siblings(self) -> None:
        """Merge groups over one domain that read the same operand, and those of single
        elements (step counts, bias corrections) whatever they read."""
        readers: dict[tuple[Node, int], list[int]] = {}
        scalars: dict[int, list[int]] = {}
        for number, edges in enumerate(self.flow.edges):
            cluster, part = self.clusters[number], self.flow.part[number]
            if not cluster.fusible:
                continue
            for edge in edges:
                if edge.operand.tensor_type.numel != 1:
                    readers.setdefault((self.flow.base(edge.operand), part), []).append(number)
            if not (cluster.domain or cluster.reduced):
                scalars.setdefault(part, []).append(number)
        for numbers in (*readers.values(), *scalars.values()):
            for first, second in pairwise(numbers):
                if self.of(first).product < 0 and self.of(second).product < 0:
                    self._try(second, first)

    def _with_role(self, role: Role) -> list[int]:
        return [n for n, found in enumerate(self.flow.roles) if found is role]

    def _grow(self, seed: int, all_producers: bool, folded: Collection[int] = frozenset()) -> None:
        """Merge neighbours of ``seed``'s cluster, nearest in topological order first.

        Those that are ``folded`` must not cost a result.
        """
        queue = list(self._neighbours(seed, all_producers))
        heapq.heapify(queue)
        seen = {seed}
        while queue:
            number = heapq.heappop(queue)
            if number in seen:
                continue
            seen.add(number)
            if number in folded and self._costs_a_result(number, seed, folded):
                continue
            if self.home[number] == self.home[seed] or self._try(number, seed):
                for other in self._neighbours(number, all_producers):
                    if other not in seen:
                        heapq.heappush(queue, other)

    def _neighbours(self, number: int, all_producers: bool) -> Iterable[int]:
        flow = self.flow
        yield from flow.users[number]
        if flow.roles[number] is Role.CONTRACTION:
            return  # what a contraction reads is not part of its epilogue
        home = self.home[number]
        for edge in flow.edges[number]:
            source = edge.source
            if source < 0:
                continue
            if all_producers or (
                not flow.escapes[source]
                and all(u == number or self.home[u] == home for u in flow.users[source])
            ):
                yield source

    # -- merging --------------------------------------------------------------

    def _try(self, a: int, b: int) -> bool:
        """Merge the clusters of work nodes ``a`` and ``b`` if that makes a legal group."""
        at, bt = self.home[a], self.home[b]
        if at == bt:
            return True
        one, two = self.clusters[at], self.clusters[bt]
        space = _common_space(one, two)
        if space is None or (one.piece >= 0 <= two.piece and one.piece != two.piece):
            return False
        if one.part != two.part:
            return False
        if len(one.members) + len(two.members) > self.limits.operations:
            return False
        homes = (at, bt)
        few = len(one.reads) + len(two.reads) <= self.limits.operands
        if not few and len(self._reads(one, two, homes)) > self.limits.operands:
            return False
        if not self._few_results(one, two, homes):
            return False
        late = self._fits(one, two, homes, *space)
        if late is None:
            return False
        merged = self.graph.merge(at, bt)
        if merged is None:
            return False
        reads = self._reads(one, two, homes)
        product, piece = max(one.product, two.product), max(one.piece, two.piece)
        members = sorted(one.members + two.members)
        self.clusters[merged] = _Cluster(
            members, *space, reads, product, piece=piece, part=one.part, late=late
        )
        return True

    def _reads(self, one: _Cluster, two: _Cluster, homes: tuple[int, int]) -> dict[Node, int]:
        """What two clusters read that is made in neither."""
        home = self.home
        return {
            n: at
            for reads in (one.reads, two.reads)
            for n, at in reads.items()
            if at < 0 or home[at] not in homes
        }

    def _few_results(self, one: _Cluster, two: _Cluster, homes: tuple[int, int]) -> bool:
        if len(one.members) + len(two.members) <= self.limits.results:
            return True
        flow, home, count = self.flow, self.home, 0
        for number in (*one.members, *two.members):
            if flow.escapes[number]:
                count += 1
                continue
            for user in flow.users[number]:
                if home[user] not in homes:
                    count += 1
                    break
        return count <= self.limits.results

    def _fits(
        self,
        one: _Cluster,
        two: _Cluster,
        homes: tuple[int, int],
        domain: Shape,
        reduced: tuple[int, ...],
    ) -> frozenset[int] | None:
        """Which members wait for a reduction, if all would read the others where they may.

        What held in a group over the same domain holds still: only new neighbours
        are looked at, whose number does not grow with the groups.
        """
        flow = self.flow
        if one.product >= 0 or two.product >= 0:
            epilogue, home = (two, homes[1]) if one.product >= 0 else (one, homes[0])
            if any(flow.roles[n] is not Role.ELEMENTWISE for n in epilogue.members):
                return None
            product = max(one.product, two.product)
            if any(self._is_in(edge.source, home) for edge in flow.edges[product]):
                return None  # the product's operands are complete before its epilogue runs
        if not reduced:
            for reader, edge in self._across(one, two, homes):
                if not reads_at_own_index(flow, reader, edge):
                    return None
            return frozenset()
        across = list(self._across(one, two, homes))
        moved = [c.members for c in (one, two) if (c.domain, c.reduced) != (domain, reduced)]
        if not fits_together(flow, moved, across, domain, reduced):
            return None
        if several_stages(domain, reduced):
            return frozenset()
        return self._wait(one.late | two.late, across, homes, domain)

    def _wait(
        self,
        late: frozenset[int],
        across: Iterable[tuple[int, Edge]],
        homes: tuple[int, int],
        domain: Shape,
    ) -> frozenset[int] | None:
        """The members of two groups that wait for a reduction, given who did in each; ``None``
        if one of them runs over the whole domain: a single stage is over by then."""
        flow, home, found = self.flow, self.home, set(late)
        stack = [reader for reader, edge in across if edge.source in late and reader not in late]
        while stack:
            number = stack.pop()
            if flow.roles[number] is Role.REDUCTION or flow.work[number].shape == domain:
                return None
            found.add(number)
            stack.extend(u for u in flow.users[number] if u not in found and home[u] in homes)
        return frozenset(found)

    def _is_in(self, number: int, home: int) -> bool:
        return number >= 0 and self.home[number] == home

    def _across(
        self, one: _Cluster, two: _Cluster, homes: tuple[int, int]
    ) -> Iterator[tuple[int, Edge]]:
        """What members of either cluster read from the other."""
        flow, home = self.flow, self.home
        small, large = one, homes[1]
        if len(two.members) < len(one.members):
            small, large = two, homes[0]
        for number in small.members:
            for edge in flow.edges[number]:
                if edge.source >= 0 and home[edge.source] == large:
                    yield number, edge
            for reader in flow.users[number]:
                if home[reader] == large:
                    for edge in flow.edges[reader]:
                        if edge.source == number:
                            yield reader, edge

    def result(self) -> list[Group]:
        """The clusters in topological order."""
        found = []
        for home in self.graph.groups():
            cluster = self.clusters[home]
            nodes = tuple(self.flow.work[n] for n in cluster.members)
            kind = "contraction" if cluster.product >= 0 else "loop"
            if not cluster.fusible:
                kind = "single"
            copies = copies_of(self.flow, cluster.members) if cluster.fusible else frozenset()
            found.append(Group(kind, nodes, copies, cluster.domain, cluster.reduced))
        return found


def copies_of(flow: Dataflow, numbers: Iterable[int]) -> frozenset[Node]:
    """What these work nodes read that is neither one of them nor an operand."""
    members = {flow.work[n] for n in numbers}
    found: set[Node] = set()
    stack = [operand for node in members for operand in node.inputs]
    memory: set[Node] = set()  # what a contraction multiplies must lie in memory
    for node in members:
        if flow.role[node] is Role.CONTRACTION:
            memory.update(node.inputs)
    while stack:
        node = stack.pop()
        if node in found or node in members or node in memory:
            continue
        base = flow.base(node)
        inside = base in members or is_literal(base) or flow.role[base] is Role.CHEAP
        if inside and flow.is_mapped(node):
            found.add(node)
            stack.extend(node.inputs)
    return frozenset(found)


def _common_space(one: _Cluster, two: _Cluster) -> tuple[Shape, tuple[int, ...]] | None:
    """The domain and reduced axes of the merged cluster, if there is one."""
    if not (one.fusible and two.fusible) or (one.product >= 0 <= two.product):
        return None
    if one.reduced and two.reduced:
        same = one.domain == two.domain and one.reduced == two.reduced
        return (one.domain, one.reduced) if same else None
    if two.reduced:
        one, two = two, one
    if one.domain == two.domain:
        return one.domain, one.reduced
    if one.reduced and two.domain in (
        kept_shape(one.domain, one.reduced),
        dropped_shape(one.domain, one.reduced),
    ):
        return one.domain, one.reduced
    return None
