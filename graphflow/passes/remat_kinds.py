"""What is made again unasked: values that are cheap, all of a kind or none.

Equal kernels make equal values, in every layer of a model.  Letting go of them one by one until
some sum of seconds is spent leaves equal layers with different kernels, and a deep model with
more of them than a shallow one.  So a kind is decided on as a whole, by what its bytes cost::

    the outputs of 96 layer norms    17 µs for 0.26 MB each    0.07 ns a byte: made again
    the outputs of 48 GELUs         460 µs for 1.05 MB each    0.44 ns a byte: kept

That price is compared with the step's own, its seconds over its bytes, which depends little on
how many layers there are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TypeAlias

from graphflow.ir.node import Node
from graphflow.passes.remat_search import Move, Search

PRICE = 1 / 3
"""The most that a byte may cost, in shares of what a byte at the step's peak costs."""
MOST = 0.08
"""The part of a step's time that may be spent at most."""
SMALL = 1024
"""Kinds of less than this part of the bytes at the peak stay."""
NEAR = 0.9
"""Values matter that take room where at least this part of the peak is in use."""

_Kind: TypeAlias = tuple[tuple[Node, ...], tuple[Node, ...], int]


class Kinds:
    """Values by the kernel that makes them, and which of its results they are."""

    def __init__(self, search: Search) -> None:
        self.search = search
        outline = search.outline
        self.whole = sum(map(search.recipes.whole, outline.tasks))
        self.price = PRICE * self.whole / max(outline.peak, 1)
        self._values: dict[_Kind, list[int]] = defaultdict(list)
        self._tried: set[_Kind] = set()
        for task in outline.tasks:
            for result, value in enumerate(task.results):
                if task.repeatable and value not in outline.held and outline.sizes[value]:
                    self._values[task.body.inputs, task.body.outputs, result].append(value)

    def run(self) -> None:
        """Let go of kinds, cheapest first."""
        while (kind := self._cheapest()) is not None:
            self._tried.add(kind)
            moves = list(self._cheap(self._values[kind]))
            values = self._values[kind]
            if not self._in_a_row(moves, values) or self._is_chain(moves, set(values)):
                continue
            seconds = self.search.seconds + sum(move.seconds for move in moves)
            if seconds > MOST * self.whole:
                return
            for move in moves:
                again = self.search.weighed(move.value, move.position)
                if again is not None and _price(again) <= self.price:
                    self.search.commit(again)

    def _in_a_row(self, moves: Sequence[Move], values: Sequence[int]) -> bool:
        """Whether ``moves`` are of neighbours among ``values``.

        At the ends layers are different; where one between others cannot follow, it would be
        left with another kernel.
        """
        places = [values.index(move.value) for move in moves]
        return bool(places) and places[-1] - places[0] == len(places) - 1

    def _is_chain(self, moves: Iterable[Move], values: Collection[int]) -> bool:
        """Whether one of ``values`` would be made of another, perhaps through what has gone.

        By the time that one is due all before it would be made again (the outputs of residual
        blocks), and where that is no use any more depends on how deep the model is.
        """
        search = self.search
        stack = [read for move in moves for again in move.again.values() for read in again.reads]
        seen: set[int] = set()
        while stack:
            read = stack.pop()
            if read in values:
                return True
            if read in search.remade and read not in seen:
                seen.add(read)
                stack.extend(search.again[search.place[read][0]].reads)
        return False

    def _cheapest(self) -> _Kind | None:
        """The kind whose bytes cost least; ``None`` if those of all others cost too much."""
        least = int(self.search.profile.max()) // SMALL
        found: list[tuple[float, int, _Kind]] = []
        for kind, values in self._values.items():
            if kind in self._tried or len(values) * self.search.outline.sizes[values[0]] < least:
                continue
            sample = self._cheap(values[at] for at in _spread(len(values)))
            price = min(map(_price, sample), default=None)
            if price is not None:
                found.append((price, values[0], kind))
        return min(found)[-1] if found else None

    def _cheap(self, values: Iterable[int]) -> Iterator[Move]:
        """What letting go of ``values`` would take, where it is worth that."""
        for value in values:
            position = self._position(value)
            move = self.search.weighed(value, position) if position >= 0 else None
            if move is not None and _price(move) <= self.price:
                yield move

    def _position(self, value: int) -> int:
        """Where ``value`` begins to wait longest for a use; -1: never while much is in use."""
        profile, outline = self.search.profile, self.search.outline
        marks = outline.makers[value], *outline.uses[value]
        length, early = max(((b - a, a) for a, b in pairwise(marks)), default=(0, 0))
        meanwhile = profile[early + 1 : early + length]
        if length < 2 or meanwhile.max() < NEAR * profile.max():
            return -1
        return early + 1


def _spread(count: int) -> Iterable[int]:
    """Some places among so many: kernels of one kind may stand in both passes."""
    return dict.fromkeys(count * part // 8 for part in range(8))


def _price(move: Move) -> float:
    """Seconds a byte that is free meanwhile."""
    return move.seconds / move.mean
