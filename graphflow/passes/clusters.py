"""Contracting a DAG while it stays a DAG.

Groups of nodes are merged one pair at a time.  Two groups may merge only if no
path leads from one to the other through a third, or the result would have a
cycle.  A topological rank per group, kept up to date as groups merge (the
algorithm of Pearce and Kelly, "A dynamic topological sort algorithm for
directed acyclic graphs", 2006), confines the search to the ranks between the
two; merging neighbours in a chain costs a constant.
"""

from __future__ import annotations

from collections.abc import Iterable


class Clusters:
    """A DAG over ``0 … count-1`` whose vertices can be contracted.

    Vertices must be numbered topologically: every edge goes to a larger number.
    """

    def __init__(self, successors: Iterable[Iterable[int]]) -> None:
        self.successors = [set(s) for s in successors]
        self.predecessors: list[set[int]] = [set() for _ in self.successors]
        for vertex, following in enumerate(self.successors):
            for other in following:
                self.predecessors[other].add(vertex)
        self.rank = list(range(len(self.successors)))
        self._parent = list(range(len(self.successors)))

    def find(self, vertex: int) -> int:
        """The group that ``vertex`` belongs to, named by one of its members."""
        parent = self._parent
        while parent[vertex] != vertex:
            parent[vertex] = parent[parent[vertex]]
            vertex = parent[vertex]
        return vertex

    def merge(self, a: int, b: int) -> int | None:
        """Merge the groups ``a`` and ``b``; ``None`` if that would make a cycle.

        The search has no limit: one would make what merges depend on the rest of
        the graph, so that equal layers were grouped differently in a deep model.
        Returns the merged group.
        """
        if self.rank[a] > self.rank[b]:
            a, b = b, a
        after = self._reach(a, b, self.successors, self.rank[b], forward=True)
        if after is None:
            return None
        before = self._reach(b, a, self.predecessors, self.rank[a], forward=False)
        if before is None:
            return None
        if len(self.successors[b]) + len(self.predecessors[b]) > len(self.successors[a]) + len(
            self.predecessors[a]
        ):
            keep, drop = b, a
        else:
            keep, drop = a, b
        self._contract(keep, drop)
        self._reorder(keep, drop, before, after)
        return keep

    def _reach(
        self, start: int, end: int, edges: list[set[int]], bound: int, forward: bool
    ) -> list[int] | None:
        """Groups strictly between that ``start`` reaches; ``None`` if one leads to ``end``."""
        rank = self.rank
        seen: set[int] = set()
        stack = [n for n in edges[start] if n != end]
        while stack:
            vertex = stack.pop()
            if vertex in seen or (rank[vertex] > bound if forward else rank[vertex] < bound):
                continue
            if vertex == end:
                return None
            seen.add(vertex)
            stack.extend(edges[vertex])
        return list(seen)

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
        self._parent[drop] = keep

    def _reorder(self, keep: int, drop: int, before: list[int], after: list[int]) -> None:
        """Give the merged group a rank after ``before`` and ahead of ``after``."""
        rank = self.rank
        places = sorted(rank[v] for v in (keep, drop, *before, *after))
        before.sort(key=rank.__getitem__)
        after.sort(key=rank.__getitem__)
        # One place more than groups: the merged group's second place stays empty.
        for vertex, place in zip([*before, keep], places, strict=False):
            rank[vertex] = place
        for vertex, place in zip(reversed(after), reversed(places), strict=False):
            rank[vertex] = place

    def groups(self) -> dict[int, list[int]]:
        """Members of every group in ascending order, groups in topological order."""
        found: dict[int, list[int]] = {}
        for vertex in range(len(self._parent)):
            found.setdefault(self.find(vertex), []).append(vertex)
        return {g: found[g] for g in sorted(found, key=self.rank.__getitem__)}
