"""How threads share products, so that each finds in its own caches what it needs.

A weight that one processor has updated and another one reads goes from cache to cache, a line
at a time: with weights of 400 KB and small batches that took longer than the products.  Most
kernels give every thread a part of the outermost axis.  A product can be shared by rows or by
columns, and then one of its operands is read whole by all threads.

Kernels choose by what there is to multiply, pack and read (:class:`Ways` has the same prices);
here each choice is given a handicap, the time that what crosses takes.  A buffer is followed
from access to access through the steps, twice around: a step follows a step.  What is not
touched again before the caches have seen other things crosses nothing.

Where all steps of a loop can have the same rows to themselves, as those of a recurrent cell
have, threads that share its products by rows need not meet in it at all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from math import inf
from typing import Literal, TypeAlias

from graphflow.codegen.partition import Rows
from graphflow.codegen.schedule import (
    UNKNOWN_TRIPS,
    Address,
    Branch,
    Buffer,
    Call,
    Loop,
    Step,
    Value,
    buffer_bytes,
)
from graphflow.records import dataclass, field, replace

Split: TypeAlias = Literal["outer", "inner", "whole", "first"]
"""What of a buffer a thread touches: its part of the memory in one piece, its part of each row,
all of it as every other thread, or all of it if it is the first thread."""

LEAST_BYTES = 1 << 13
"""Smaller buffers cross in less time than threads take to meet."""
CACHE_BYTES = 1 << 20
"""Of a thread's own caches."""
CROSSING = 0.2
"""Nanoseconds that a byte takes from cache to cache (two cores of a Zen 4; more if far apart)."""
MULTIPLIED = 200.0
"""Bytes of operands that a thread multiplies in a nanosecond: 50 products of float32."""
MEETING = 500.0
"""Nanoseconds that threads wait for each other before a step (several times as long between
processors that are far apart)."""
BY_ROWS = -(1 << 60)
"""A handicap that leaves no choice."""
_ROUNDS = 2  # through all groups of products; the next would change next to nothing
_MANY = 10  # iterations, of a loop that ends where a condition does not hold
_MOST = 4  # products whose ways are chosen together


@dataclass(frozen=True, slots=True)
class Ways:
    """How threads may share a product: by columns or by rows.

    ``columns`` and ``rows`` are what a thread has to do, in products for each of the ``depth``
    terms of a sum; ``splits`` what it touches of left operand, right operand and result, which
    are the first arguments of the call, by columns and by rows.
    """

    columns: int
    rows: int
    depth: int
    itemsize: int
    splits: Sequence[tuple[Split, Split]]
    word: int
    """Where in the call's arguments the handicap of sharing by rows is."""
    own: Mapping[int, Rows] = field(default_factory=dict)
    """Buffers of which threads touch rows of their own if they share it by rows."""

    def nanoseconds(self, by_columns: bool) -> float:
        """What a thread takes for its part."""
        products = (self.columns if by_columns else self.rows) * self.depth
        return products * self.itemsize / MULTIPLIED

    @property
    def longer_by_rows(self) -> float:
        """Nanoseconds that it takes longer if it is shared by rows."""
        return max(0.0, self.nanoseconds(False) - self.nanoseconds(True))

    def products(self, nanoseconds: float) -> int:
        """A time as a number of products for each term."""
        return round(nanoseconds * MULTIPLIED / self.itemsize / self.depth)


def shared_alike(
    steps: Sequence[Step], buffers: Sequence[Buffer], threads: int
) -> tuple[Step, ...]:
    """``steps``, whose products have handicaps for the ways in which threads may share them."""
    around = list(_around(steps))
    if threads < 2 or not any(isinstance(step, Call) and step.ways for step, _ in around):
        return tuple(steps)
    joined = frozenset(_joined(steps, buffers))
    plan = _Plan(around, buffers, threads, joined)
    handicaps = plan.handicaps()
    across = {key: plan.across(key) for key in handicaps}
    return tuple(_told(step, handicaps, across, joined) for step in steps)


def _joined(steps: Sequence[Step], buffers: Sequence[Buffer]) -> Iterator[int]:
    """The calls, by their ``id``, of loops in which threads do not meet: products are shared by
    rows there, and small calls shared at all."""
    for step in steps:
        if isinstance(step, Loop) and not step.parallel:
            within = (*step.head, *step.body)
            calls = [inner for inner in within if isinstance(inner, Call)]
            ways = [call.ways for call in calls if call.ways is not None]
            longer = sum(product.longer_by_rows for product in ways)
            if len(calls) == len(within) and ways and longer <= MEETING * len(calls):
                if _keep_to_themselves(calls, buffers):
                    yield from map(id, calls)
                    continue
        if isinstance(step, (Loop, Branch)):
            for part in step.parts:
                yield from _joined(part, buffers)


def _keep_to_themselves(calls: Sequence[Call], buffers: Sequence[Buffer]) -> bool:
    """Whether threads that share products by rows touch nothing that another one writes."""
    written = {_root(buffer, buffers) for call in calls for buffer in call.writes}
    found: dict[int, set[Rows | None]] = {root: set() for root in written}
    for call in calls:
        own = _by_rows(call)
        for buffer in call.reads | call.writes:
            root = _root(buffer, buffers)
            if root in written:
                found[root].add(own.get(buffer) if buffers[buffer].dense else None)
    return all(len(rows) == 1 and None not in rows for rows in found.values())


def _by_rows(call: Call) -> Mapping[int, Rows]:
    """What a thread has to itself if it shares a product by rows."""
    return {**call.partition, **call.ways.own} if call.ways is not None else call.partition


def _root(buffer: int, buffers: Sequence[Buffer]) -> int:
    while buffers[buffer].base >= 0:
        buffer = buffers[buffer].base
    return buffer


def _around(steps: Sequence[Step], times: int = 1) -> Iterator[tuple[Step, int]]:
    """The steps as they run, and how often; none of what a thread runs by itself.

    Those of a loop come twice: for the first iteration, and for the others.
    """
    for step in steps:
        if isinstance(step, Branch):
            for part in step.parts:
                yield from _around(part, times)
        elif not isinstance(step, Loop):
            yield step, times
        elif not step.parallel:
            trips = _MANY if step.trips == UNKNOWN_TRIPS else step.trips
            for often in (1, trips - 1):
                yield from _around((*step.head, *step.body), times * max(0, often))


def _told(
    step: Step,
    handicaps: Mapping[int, int],
    across: Mapping[int, frozenset[int]],
    joined: frozenset[int],
) -> Step:
    def within(steps: Sequence[Step]) -> tuple[Step, ...]:
        return tuple(_told(step, handicaps, across, joined) for step in steps)

    if isinstance(step, Call):
        told = step
        if id(step) in joined:
            told = replace(told, parallel=True, partition=_by_rows(step))
        if step.ways is not None:
            words = list(step.arguments)
            words[step.ways.word] = Value(handicaps.get(id(step), 0))
            crossed = across.get(id(step), frozenset())
            told = replace(told, arguments=tuple(words), ways=None, across=crossed)
        return told
    if isinstance(step, Loop):
        return replace(step, head=within(step.head), body=within(step.body))
    if isinstance(step, Branch):
        return replace(step, then=within(step.then), otherwise=within(step.otherwise))
    return step


class _Plan:
    """How products are shared, while that is being decided."""

    def __init__(
        self,
        around: Sequence[tuple[Step, int]],
        buffers: Sequence[Buffer],
        threads: int,
        joined: frozenset[int] = frozenset(),
    ) -> None:
        self._around, self._buffers, self._threads = around, buffers, threads
        self._joined = joined
        self._products = {
            id(step): step for step, _ in around if isinstance(step, Call) and step.ways
        }
        self._times: Counter[int] = Counter()
        for step, times in around:
            self._times[id(step)] += times
        self._by_columns = {
            key: call.ways.columns <= call.ways.rows and key not in joined
            for key, call in self._products.items()
            if call.ways
        }
        self._clock: list[int] = []
        """Bytes that were moved before each step."""
        self._accesses: dict[int, list[tuple[int, int, bool]]] = {}
        """Of a buffer: steps that touch it, how many bytes, and whether they write them."""
        now = 0
        for number, (step, _) in enumerate(around):
            self._clock.append(now)
            now += step.bytes if isinstance(step, Call) else 0
            for buffer in step.reads | step.writes:
                found = self._accesses.setdefault(self._root(buffer), [])
                found.append((number, buffer_bytes(buffers[buffer]), buffer in step.writes))
        self._clock.append(now)
        self._sharers = {b: keys for b in self._accesses if (keys := self._sharers_of(b))}
        """The products that touch a buffer which may cross."""
        self._known: dict[tuple[int, ...], float] = {}

    def _sharers_of(self, buffer: int) -> tuple[int, ...]:
        accesses = self._accesses[buffer]
        written = any(writes for *_, writes in accesses)
        if not written or buffer_bytes(self._buffers[buffer]) < LEAST_BYTES:
            return ()
        steps = dict.fromkeys(id(self._around[number][0]) for number, *_ in accesses)
        return tuple(key for key in steps if key in self._products)

    def _root(self, buffer: int) -> int:
        return _root(buffer, self._buffers)

    def handicaps(self) -> dict[int, int]:
        """For each product, by its ``id``: what sharing it by rows costs more than by columns."""
        for _ in range(_ROUNDS):
            for keys in self._groups():
                self._choose(keys)
        found = dict.fromkeys(self._joined & self._products.keys(), BY_ROWS)
        for key, call in self._products.items():
            if key in self._joined:
                continue
            ways = call.ways
            assert ways is not None
            buffers = self._touched([key])
            costs = []
            for by_columns in (True, False):
                self._by_columns[key] = by_columns
                costs.append(sum(map(self._crossing, buffers)))
            found[key] = ways.products((costs[1] - costs[0]) / max(1, self._times[key]))
            self._by_columns[key] = ways.columns <= ways.rows + found[key]
        return found

    def across(self, key: int) -> frozenset[int]:
        """What a product writes otherwise than some rows a thread, as it is shared now."""
        number = next(n for n, (step, _) in enumerate(self._around) if id(step) == key)
        written = map(self._root, self._products[key].writes)
        return frozenset(b for b in written if self._split(number, b) != "outer")

    def _groups(self) -> list[tuple[int, ...]]:
        """Products that touch the same buffer, those of large buffers first."""
        order = sorted(self._sharers, key=lambda b: -buffer_bytes(self._buffers[b]))
        free = (
            tuple(key for key in self._sharers[buffer] if key not in self._joined)
            for buffer in order
        )
        return [*dict.fromkeys(keys[:_MOST] for keys in free if keys)]

    def _choose(self, keys: Sequence[int]) -> None:
        """Share a few products in the ways that are best together, as the others are now."""
        buffers = self._touched(keys)
        products = [(self._products[key].ways, self._times[key]) for key in keys]
        best, least = None, inf
        for choice in product((True, False), repeat=len(keys)):
            self._by_columns.update(zip(keys, choice))
            cost = sum(map(self._crossing, buffers))
            for (ways, times), by_columns in zip(products, choice):
                assert ways is not None
                cost += ways.nanoseconds(by_columns) * times
            if cost < least:
                best, least = choice, cost
        self._by_columns.update(zip(keys, best or ()))

    def _touched(self, keys: Sequence[int]) -> list[int]:
        """The buffers of some products that may cross."""
        calls = [self._products[key] for key in keys]
        touched = {self._root(b) for call in calls for b in call.reads | call.writes}
        return sorted(touched & self._sharers.keys())

    def _crossing(self, buffer: int) -> float:
        """Nanoseconds in which a buffer crosses from thread to thread, all around."""
        key = buffer, *(self._by_columns[sharer] for sharer in self._sharers[buffer])
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._crossed(buffer)
        return found

    def _crossed(self, buffer: int) -> float:
        held: dict[Split, int] = {}  # what threads have of it, and when it was moved
        total, around = 0.0, self._clock[-1]
        for turn in range(2):
            for number, size, writes in self._accesses[buffer]:
                split, now = self._split(number, buffer), turn * around + self._clock[number]
                near = [s for s, then in held.items() if now - then < CACHE_BYTES * self._threads]
                if turn and near:
                    part = min(self._share(one, split) for one in near)
                    total += part * size * self._around[number][1]
                if writes:
                    held.clear()
                held[split] = now
        return total * CROSSING

    def _split(self, number: int, buffer: int) -> Split:
        step = self._around[number][0]
        if not isinstance(step, Call) or not step.parallel:
            return "first"
        if step.ways is None:
            return "outer"
        way = not self._by_columns[id(step)]
        for place, splits in zip(step.arguments, step.ways.splits):
            if isinstance(place, Address) and self._root(place.buffer) == buffer:
                return splits[way]
        return step.ways.splits[-1][way]  # what an epilogue takes lies like the result

    def _share(self, held: Split, wanted: Split) -> float:
        """The part of a buffer that the thread with most to fetch has to fetch."""
        others = (self._threads - 1) / self._threads
        if held in (wanted, "whole"):
            return 0.0
        if wanted == "whole":
            return 1.0 if held == "first" else others
        if "first" in (held, wanted):
            return others if wanted == "first" else 1 / self._threads
        return others / self._threads
