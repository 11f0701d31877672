"""Which values are made again instead of being kept, by a model of the memory plan.

A value that is used early and again late takes room in between.  Where it can be made again of
what is there late anyway, it can go: its maker is run a second time just before the first of
its late uses.  The search looks at the position where most memory is in use and lets go, one
after the other, of what frees the most bytes for the longest time a second of work, with
everything that this pulls along: what must be made again for it, made again earlier, or kept
longer.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from graphflow.passes.outline import Outline
from graphflow.passes.recipes import Recipe, Recipes
from graphflow.passes.riders import Ride, Rides
from graphflow.records import dataclass, field

ROUNDS = 256
"""Positions that are looked at."""
SHARE = 0.25
"""How much of what could go at a position goes before the next is looked at."""
SMALL = 1024
"""Values of less than this part of the bytes in use stay."""
PULLED = 48
"""Kernels that may have to run again for the sake of one value."""


@dataclass(slots=True)
class Again:
    """A task that is run again before position ``time``, for its results ``wanted``."""

    task: int
    time: int
    wanted: frozenset[int]
    recipe: Recipe
    reads: tuple[int, ...]
    """The values that it reads."""
    ride: Ride | None = None
    """The task that makes the results beside its own, instead of a second run."""

    @property
    def seconds(self) -> float:
        """What it takes."""
        return self.recipe.seconds if self.ride is None else self.ride.seconds


@dataclass(slots=True)
class Move:
    """What letting go of a value would take: tasks run again, values kept until a position."""

    value: int
    position: int
    again: dict[int, Again] = field(default_factory=dict)
    kept: dict[int, int] = field(default_factory=dict)
    seconds: float = 0.0
    score: float = 0.0
    freed: int = 0
    """Bytes that are free at ``position``."""
    mean: float = 0.0
    """Bytes that are free, on average over the time in which the value need not be there."""


class Search:
    """The state of the search; ``again`` is what it has found, by task."""

    def __init__(self, outline: Outline) -> None:
        self.outline = outline
        self.profile = outline.profile()
        self.recipes = Recipes()
        self.rides = Rides(outline)
        self.hosts: set[int] = set()
        """Tasks that make results of others too, and run earlier for it."""
        self.again: dict[int, Again] = {}
        self.remade: dict[int, int] = {}
        """For values that have been let go of: when they are made again."""
        self.gone: dict[int, int] = {}
        """For the same: the last position at which they are there at first."""
        self.last = [max(u[-1] if u else -1, e) for u, e in zip(outline.uses, outline.ends)]
        self.place = {
            v: (t, i) for t, task in enumerate(outline.tasks) for i, v in enumerate(task.results)
        }
        self.seconds = 0.0
        self._sizes = np.array(outline.sizes, np.int64)
        self._begins = np.array(outline.begins, np.int64)
        self._ends = np.array(outline.ends, np.int64)
        self._tokens: dict[int, int] = {}

    def run(self, goal: int) -> None:
        """Let go of values until the peak is at most ``goal`` bytes, or none can go."""
        for _ in range(ROUNDS):
            peak = int(self.profile.max(initial=0))
            if peak <= goal or not self._lower(int(self.profile.argmax()), goal):
                return

    def _lower(self, position: int, goal: int) -> bool:
        """Let go of some values at ``position``; False if none can."""
        found = [m for v in self._candidates(position) if (m := self._useful(v, position))]
        found.sort(key=lambda move: (-move.score, move.value))
        done = 0
        for move in found:
            if done:
                again = self._useful(move.value, position)
                if again is None or again.score < move.score / 2:
                    continue
                move = again
            self.commit(move)
            done += 1
            top = int(self.profile.max())
            enough = done >= SHARE * len(found) or top > self.profile[position]
            if top <= goal or enough:
                break
        return done > 0

    def _candidates(self, position: int) -> list[int]:
        """Values that take room at ``position`` between two uses, and may go."""
        worth = max(int(self.profile[position]) // SMALL, 1)
        alive = (self._begins < position) & (self._ends > position) & (self._sizes >= worth)
        outline = self.outline
        return [
            v
            for v in map(int, np.flatnonzero(alive))
            if v not in self.remade
            and v not in outline.held
            and outline.tasks[self.place[v][0]].repeatable
        ]

    # -- one value ------------------------------------------------------------------------

    def _useful(self, value: int, position: int) -> Move | None:
        """What letting go of ``value`` takes, if that frees something at ``position`` itself."""
        move = self.weighed(value, position)
        return move if move is not None and move.freed > 0 else None

    def weighed(self, value: int, position: int) -> Move | None:
        """What letting go of ``value`` around ``position`` takes; ``None`` if it is no use."""
        uses = self.outline.uses[value]
        late = [u for u in uses if u >= position]
        if value in self.remade or not late:
            return None
        early = max([self.outline.makers[value], *(u for u in uses if u < position)])
        move = Move(value, position)
        size, time = self.outline.sizes[value], late[0]
        if not self._follow(move, value, time, position):
            return None
        wait = move.again[self.place[value][0]].time - 1 - early
        gain = float(size) * wait
        freed = size * (time > position)
        for kept, until in move.kept.items():
            gain -= float(self.outline.sizes[kept]) * (until - self.last[kept])
            freed -= self.outline.sizes[kept] * (self.last[kept] < position)
        for task, again in move.again.items():
            known = self.again.get(task)
            move.seconds += again.seconds - (known.seconds if known else 0.0)
            if known:
                room = sum(self._size(task, w) for w in known.wanted)
                gain -= float(room) * (known.time - again.time)
                freed -= room * (again.time <= position < known.time)
            for _, begin, end, size in self._moved(again):
                gain -= float(size) * (end + 1 - begin)
                freed -= size * (begin <= position <= end)
        if gain <= 0:
            return None
        move.freed, move.mean = freed, gain / wait
        move.score = gain / max(move.seconds, 1e-9)
        return move

    def _size(self, task: int, result: int) -> int:
        return self.outline.sizes[self.outline.tasks[task].results[result]]

    def _follow(self, move: Move, value: int, time: int, position: int) -> bool:
        """Fill in what making ``value`` again at ``time`` takes; False if it cannot be."""
        stack = [(value, time)]
        for _ in range(PULLED):
            if not stack:
                return True
            value, time = stack.pop()
            task, result = self.place[value]
            known = move.again.get(task) or self.again.get(task)
            wanted = frozenset([result])
            if known is not None:
                wanted, time = wanted | known.wanted, min(time, known.time)
                if wanted == known.wanted and time == known.time:
                    continue
            if not self.outline.tasks[task].repeatable:
                return False
            again = move.again[task] = self._repeated(move, task, time, wanted)
            if again.recipe.fallible or not (again.ride or self._held_back(time, position)):
                return False
            stack += [(read, time) for read in again.reads if self._pulled(move, read, time)]
        return not stack

    def _held_back(self, time: int, position: int) -> bool:
        """Whether a second run at ``time`` can be held back until after ``position``."""
        token = self.token(time)
        return token >= 0 and self.outline.makers[token] > position

    def _moved(self, again: Again) -> Iterator[tuple[int, int, int, int]]:
        """What changes as the task that makes results of ``again`` too runs earlier: values, first
        and last positions, bytes more (or less: operands that it is the last to read go)."""
        if again.ride is None or again.ride.host in self.hosts:
            return
        host, time = again.ride.host, again.time
        work = self.outline.tasks[host]
        for value in work.results:
            yield value, time, int(self._begins[value]) - 1, self.outline.sizes[value]
        for value in set(work.operands):
            if self.last[value] == host:
                yield value, time, host, -self.outline.sizes[value]

    def _pulled(self, move: Move, read: int, time: int) -> bool:
        """Whether ``read`` must be made again for a task that reads it at ``time``."""
        if read not in self.place:
            return False  # an argument, or state
        when = self._remade(move, read)
        if when is not None:
            return when > time > self._there_until(read, when)
        if max(self.last[read], move.kept.get(read, -1)) >= time:
            return False
        if self._comes_along(move, read, time):
            return True
        move.kept[read] = time
        return False

    def _there_until(self, value: int, when: int) -> int:
        """The last position at which a value that is made again at ``when`` is there at first."""
        known = self.gone.get(value)
        if known is not None:
            return known
        early = (use for use in self.outline.uses[value] if use < when)
        return max([self.outline.makers[value], *early])

    def _remade(self, move: Move, value: int) -> int | None:
        """When a value is made again, if it is."""
        task, result = self.place[value]
        again = move.again.get(task) or self.again.get(task)
        return again.time if again is not None and result in again.wanted else None

    def _comes_along(self, move: Move, value: int, time: int) -> bool:
        """Whether what is gone by ``time`` is better made again than kept until then."""
        size, task = self.outline.sizes[value], self.outline.tasks[self.place[value][0]]
        if not task.repeatable:
            return False
        recipe = self.recipes.of(task.body, [self.place[value][1]], ())
        operands = [task.operands[i] for i in recipe.inputs]
        if not recipe.multiplies and all(self._is_there(move, v, time) for v in operands):
            return True
        return size >= self.outline.sizes[move.value]

    def _is_there(self, move: Move, value: int, time: int) -> bool:
        if value not in self.place or self.last[value] >= time:
            return True
        return self._remade(move, value) is not None

    def _repeated(self, move: Move, task: int, time: int, wanted: frozenset[int]) -> Again:
        work = self.outline.tasks[task]
        given = [
            i
            for i, v in enumerate(work.results)
            if i not in wanted and v not in self.remade and self.last[v] >= time
        ]
        recipe = self.recipes.of(work.body, wanted, given)
        reads = [work.operands[i] for i in recipe.inputs]
        reads += [work.results[g] for g in recipe.given]
        ride = self.rides.find(task, recipe, time)
        return Again(task, time, wanted, recipe, tuple(dict.fromkeys(reads)), ride)

    def token(self, time: int) -> int:
        """A value that is there just before position ``time`` and not long before; -1: none."""
        found = self._tokens.get(time)
        if found is None:
            found = self._tokens[time] = self._find_token(time)
        return found

    def _find_token(self, time: int) -> int:
        outline = self.outline
        operands = [v for v in outline.tasks[time].operands if self._marks(v)]
        best = max(operands, key=lambda v: outline.makers[v], default=-1)
        if best >= 0 and outline.makers[best] >= time - 8:
            return best
        for earlier in range(time - 1, max(-1, time - 33), -1):
            for value in outline.tasks[earlier].results:
                if self._marks(value):
                    return value
        return best

    def _marks(self, value: int) -> bool:
        """Whether a value can be waited for: an intermediate one in memory of its own."""
        return self.outline.sizes[value] > 0 and self.outline.nodes[value] is not None

    # -- taking a move --------------------------------------------------------------------

    def commit(self, move: Move) -> None:
        """Do what ``move`` says."""
        outline = self.outline
        for value, until in move.kept.items():
            self._room(outline.sizes[value], self.last[value] + 1, until)
            self.last[value] = until
            self._ends[value] = until
        for task, again in move.again.items():
            for value, begin, end, size in self._moved(again):
                self._room(size, begin, end)
                if size < 0:
                    self.last[value] = self._ends[value] = begin - 1
            self._repeat(task, again)
            self.again[task] = again
        self.hosts.update(a.ride.host for a in move.again.values() if a.ride is not None)
        self.seconds += move.seconds
        for again in move.again.values():
            for value in {*again.reads, -1 if again.ride else self.token(again.time)}:
                if value in self.place and again.time not in outline.uses[value]:
                    outline.uses[value] = sorted([*outline.uses[value], again.time])
        for again in move.again.values():
            self._settle(again)

    def _repeat(self, task: int, again: Again) -> None:
        """Account for results that are made again, or made again earlier."""
        outline, known = self.outline, self.again.get(task)
        for result in again.wanted:
            value = outline.tasks[task].results[result]
            if known is not None and result in known.wanted:
                self._room(outline.sizes[value], again.time, self.remade[value] - 1)
            self.remade.setdefault(value, -1)

    def _settle(self, again: Again) -> None:
        """When the results are made again, and what room that leaves before."""
        outline = self.outline
        for result in again.wanted:
            value = outline.tasks[again.task].results[result]
            before, self.remade[value] = self.remade[value], again.time
            if before >= 0:
                continue
            early = self._there_until(value, again.time)
            last = max([again.time, *outline.uses[value]])
            if self.last[value] >= again.time:
                self._room(-outline.sizes[value], early + 1, again.time - 1)
            else:
                self._room(outline.sizes[value], again.time, last)
            self.last[value] = max(self.last[value], last)
            self.gone[value] = early

    def _room(self, size: int, begin: int, end: int) -> None:
        if end >= begin:
            self.profile[begin : end + 1] += size
