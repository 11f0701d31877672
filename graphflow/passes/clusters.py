"""Contracting a DAG while it stays a DAG.

Groups of nodes are merged one pair at a time.  Two groups may merge only if no
path leads from one to the other through a third, or the result would have a
cycle.  A topological order of the groups, kept up to date as they merge, confines
the search to those between the two (as in Pearce and Kelly, "A dynamic topological
sort algorithm for directed acyclic graphs", 2006).  It goes from both ends in turn
and stops where one of them has come to an end (Bender, Fineman, Gilbert and Tarjan,
"A new approach to incremental cycle detection", 2015): only what that end has met
has to change places.  So merging neighbours costs a constant, however far apart
they stand and however deep the graph.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

GAP = 1 << 40
"""Between the ranks of neighbours at first; a place between two has a rank between theirs."""


class Clusters:
    """A DAG over ``0 … count-1`` whose vertices can be contracted.

    Vertices must be numbered topologically: every edge goes to a larger number.
    """

    def __init__(self, successors: Iterable[Iterable[int]]) -> None:
        self.successors = [set(s) for s in successors]
        self.count = count = len(self.successors)
        self.predecessors: list[set[int]] = [set() for _ in self.successors]
        for vertex, following in enumerate(self.successors):
            for other in following:
                self.predecessors[other].add(vertex)
        self.rank = [*range(GAP, GAP * (count + 1), GAP), 0]
        self.searched = 0
        """Steps that looking for paths has taken so far."""
        self.home = list(range(count))
        """The group of each vertex, named by one of its members."""
        self._members = [[vertex] for vertex in self.home]
        # The order as a ring through the vertex ``count``, which stands before the first one.
        self._next = [*range(1, count + 1), 0]
        self._previous = [count, *range(count)]

    def merge(self, a: int, b: int) -> int | None:
        """Merge the groups ``a`` and ``b``; ``None`` if that would make a cycle.

        The search has no limit: one would make what merges depend on the rest of
        the graph, so that equal layers were grouped differently in a deep model.
        Returns the merged group.
        """
        if self.rank[a] > self.rank[b]:
            a, b = b, a
        if not self._place(a, b):
            return None
        degree = [len(self.successors[v]) + len(self.predecessors[v]) for v in (a, b)]
        keep, drop = (b, a) if degree[1] > degree[0] else (a, b)
        self._contract(keep, drop)
        return keep

    def _place(self, a: int, b: int) -> bool:
        """Make ``a`` and ``b``, in this order, neighbours; False if a path leads between them."""
        alone = self.successors[a] <= {b}
        if alone or self.predecessors[b] <= {a}:  # one of the searches has nothing to start with
            self.searched += 1
            self._move([a] if alone else [b], b if alone else self._previous[a])
            return True
        rank = self.rank.__getitem__
        after: set[int] = set()
        before: set[int] = set()
        forward = self._reach(a, b, self.successors, after, forward=True)
        backward = self._reach(b, a, self.predecessors, before, forward=False)
        while True:
            self.searched += 1
            ahead = next(forward, None)
            if ahead is None:
                self._move([a, *sorted(after, key=rank)], b)
                return True
            behind = next(backward, None)
            if behind is None:
                self._move([*sorted(before, key=rank), b], self._previous[a])
                return True
            if ahead or behind:
                return False

    def _reach(
        self, start: int, end: int, edges: list[set[int]], found: set[int], forward: bool
    ) -> Iterator[bool]:
        """Collect the groups between the two that ``start`` reaches, step by step.

        Yields whether a step has led to ``end``.
        """
        rank, bound = self.rank, self.rank[end]
        stack = [*(edges[start] - {end})]
        while stack:
            vertex = stack.pop()
            if vertex not in found and (rank[vertex] < bound if forward else rank[vertex] > bound):
                found.add(vertex)
                stack.extend(edges[vertex])
            yield vertex == end

    def _move(self, vertices: Iterable[int], place: int) -> None:
        """Bring ``vertices`` directly behind ``place``, in this order."""
        following, previous, rank = self._next, self._previous, self.rank
        for vertex in vertices:
            if previous[vertex] != place:
                following[previous[vertex]] = following[vertex]
                previous[following[vertex]] = previous[vertex]
                after = following[place]
                following[place] = previous[after] = vertex
                previous[vertex], following[vertex] = place, after
                low = rank[place]
                high = rank[after] if after < self.count else low + 2 * GAP
                rank[vertex] = (low + high) // 2
                if rank[vertex] == low:
                    self._spread()
            place = vertex

    def _spread(self) -> None:
        """Even distances between all ranks."""
        vertex, rank = self.count, 0
        while (vertex := self._next[vertex]) < self.count:
            rank += GAP
            self.rank[vertex] = rank

    def _contract(self, keep: int, drop: int) -> None:
        for one, other in (
            (self.successors, self.predecessors),
            (self.predecessors, self.successors),
        ):
            for vertex in one[drop]:
                other[vertex].discard(drop)
                if vertex != keep:
                    other[vertex].add(keep)
                    one[keep].add(vertex)
            one[keep].discard(drop)
            one[drop] = set()
        for vertex in self._members[drop]:
            self.home[vertex] = keep
        self._members[keep] += self._members[drop]
        self._members[drop] = []

    def groups(self) -> dict[int, list[int]]:
        """Members of every group in ascending order, groups in topological order."""
        found: dict[int, list[int]] = {}
        for vertex in range(self.count):
            found.setdefault(self.home[vertex], []).append(vertex)
        return {g: found[g] for g in sorted(found, key=self.rank.__getitem__)}
