"""In which order calls run.

Any topological order of the dependences is correct (anti-dependences are
edges like others).  Among those, this one keeps data hot and memory low: it
goes on with what the last call made ready, and takes dead ends first: a call
nothing else waits for (the update of a weight) frees its operands.  Calls that set
something off (a message) run at once, those that wait for it when nothing else is left.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Sequence

from graphflow.errors import CompileError


def run_order(
    successors: Sequence[Iterable[int]],
    early: Collection[int] = (),
    late: Collection[int] = (),
    small: Collection[int] = (),
) -> list[int]:
    """A topological order of ``0 … n-1``; :class:`CompileError` if there is a cycle.

    Those that are ``early`` come as soon as they are ready; those that are ``late``, in the
    order they are ready, when no other is.  ``small`` ones make next to nothing, and run as
    soon as they can: the updates of all weights wait for a few step counts and corrections,
    which wait for nothing.
    """
    count = len(successors)
    waiting = [0] * count
    for following in successors:
        for vertex in following:
            waiting[vertex] += 1
    height = heights(successors, list(waiting), early)
    roots = [v for v in range(count) if not waiting[v]]
    order: list[int] = []
    first = [v for v in reversed(roots) if v in small]
    ready = [v for v in roots if v not in small]
    while first:  # what small calls alone make ready begins nothing large
        order.append(first.pop())
        for follower in _freed(successors[order[-1]], waiting):
            (first if follower in small else ready).append(follower)
    ready.sort(reverse=True)  # the first in program order is popped first
    deferred: deque[int] = deque()
    while ready or deferred:
        if ready and ready[-1] in late:
            deferred.append(ready.pop())
            continue
        vertex = ready.pop() if ready else deferred.popleft()
        order.append(vertex)
        freed = _freed(successors[vertex], waiting)
        # Popped from the end: lowest height first, program order among equals.
        freed.sort(key=lambda v: (v in early, v in small, -height[v], -v))
        ready.extend(freed)
    if len(order) != count:
        raise CompileError("the calls of a schedule depend on each other in a cycle")
    return order


def _freed(following: Iterable[int], waiting: list[int]) -> list[int]:
    """Those of ``following`` that now wait for nothing more."""
    freed = []
    for follower in following:
        waiting[follower] -= 1
        if not waiting[follower]:
            freed.append(follower)
    return freed


def heights(
    successors: Sequence[Iterable[int]], waiting: list[int], ends: Collection[int] = ()
) -> list[int]:
    """Length of the longest path from every vertex to an end, or to one that counts as such.

    ``waiting`` counts each vertex's predecessors and is used up.
    """
    order = [v for v in range(len(successors)) if not waiting[v]]
    for vertex in order:  # grows while it is walked
        for follower in successors[vertex]:
            waiting[follower] -= 1
            if not waiting[follower]:
                order.append(follower)
    height = [0] * len(successors)
    for vertex in reversed(order):
        for follower in () if vertex in ends else successors[vertex]:
            height[vertex] = max(height[vertex], height[follower] + 1)
    return height


def reaches(successors: Sequence[Iterable[int]], start: int, targets: set[int]) -> bool:
    """Whether a path leads from ``start`` to any of ``targets`` (itself aside)."""
    if not targets:
        return False
    seen = {start}
    stack = [start]
    while stack:
        for follower in successors[stack.pop()]:
            if follower in targets:
                return True
            if follower not in seen:
                seen.add(follower)
                stack.append(follower)
    return False
