"""From a traced graph to a schedule that fits in memory: passes, what is made again, lowering."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from graphflow.codegen.schedule import BufferKind, Schedule, buffer_bytes
from graphflow.codegen.sizes import for_example
from graphflow.errors import GraphFlowError, OutOfMemoryError
from graphflow.ir.graph import Graph
from graphflow.tables import quantity

if TYPE_CHECKING:
    from graphflow.passes.pipeline import Stage
    from graphflow.passes.rematerialise import Remade

Lower = Callable[[Graph], Schedule]

TRIES = 5
"""How often what is made again is chosen anew, where kernels turn out to need more memory."""
UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_LIMIT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", re.IGNORECASE)


def limit_in_bytes(limit: int | str | None) -> int | None:
    """Bytes of a limit given as a number or as ``"512MB"``, ``"1.5 GiB"``."""
    if limit is None:
        return None
    found = _LIMIT.fullmatch(limit) if isinstance(limit, str) else None
    if found is not None:
        unit = UNITS[found[2].lower()]
        if found[3]:
            unit = 1024 ** [*UNITS].index(found[2].lower())
        limit = int(float(found[1]) * unit)
    if not isinstance(limit, int) or isinstance(limit, bool) or limit <= 0:
        raise GraphFlowError(
            'memory_limit takes a positive number of bytes or a text such as "512MB" or '
            f'"1.5GiB", not {limit!r}'
        )
    return limit


def bytes_beside(schedule: Schedule) -> int:
    """Bytes that a program needs beside its arena: arguments, state, results, constants."""
    beside = (BufferKind.ARENA, BufferKind.WINDOW)
    return sum(buffer_bytes(b) for b in schedule.buffers if b.kind not in beside)


def has_parts(graph: Graph) -> bool:
    """Whether parts of ``graph`` are computed each by itself: then nothing is made again unasked,
    as what suits a graph of one part may be others than those that suit one of several."""
    return any(node.op.begins for node in graph.nodes)


def fitted(
    graph: Graph, lower: Lower, limit: int | None, example: Mapping[str, int], cheap: bool
) -> tuple[Schedule, tuple[Stage, ...]]:
    """The schedule of what the passes left, and the stage before it, if there is one.

    With a ``limit``, or what is ``cheap`` without one, values are made again.  ``example``
    are sizes of symbolic dimensions: the limit holds for those.
    """
    if limit is None:
        if not cheap:
            return lower(graph), ()
        schedule, stage = cheaper(graph, lower)
    else:
        schedule, stage = within(for_example(graph, example) if example else graph, limit, lower)
    return schedule, (stage,) if stage is not None else ()


def cheaper(graph: Graph, lower: Lower) -> tuple[Schedule, Stage | None]:
    """The schedule of a graph without what can be made again at next to no cost."""
    from graphflow.codegen.outlook import outline_of
    from graphflow.passes.rematerialise import Rematerialise

    started = time.perf_counter()
    made = Rematerialise(outline_of).remade(graph)
    seconds = time.perf_counter() - started
    schedule = lower(made.graph)
    if not made.again:
        return schedule, None
    return schedule, _stage(graph, made, seconds, made.before, made.after)


def within(graph: Graph, limit: int, lower: Lower) -> tuple[Schedule, Stage | None]:
    """The schedule of a graph with at most ``limit`` bytes, temporaries and all else together."""
    from graphflow.codegen.outlook import outline_of
    from graphflow.passes.rematerialise import Rematerialise

    started = time.perf_counter()
    before = least = lower(graph)
    goal = limit - bytes_beside(before)
    if before.arena_bytes <= goal:
        return before, None
    aim = max(goal - max(before.arena_bytes - outline_of(graph).peak, 0), 0)
    for attempt in range(TRIES):
        made = Rematerialise(outline_of, aim).remade(graph)
        schedule = lower(made.graph)
        if schedule.arena_bytes < least.arena_bytes:
            least = schedule
        if schedule.arena_bytes <= goal:
            seconds = time.perf_counter() - started
            arenas = before.arena_bytes, schedule.arena_bytes
            return schedule, _stage(graph, made, seconds, *arenas)
        if not aim:
            break
        aim = max(aim - (schedule.arena_bytes - goal), 0) if attempt < TRIES - 2 else 0
    beside = bytes_beside(least)
    raise OutOfMemoryError(
        f"the program {graph.name!r} does not fit in memory_limit={limit} bytes "
        f"({quantity(limit)}): it needs at least {least.arena_bytes + beside} bytes, "
        f"{quantity(beside)} of arguments, state and results and {quantity(least.arena_bytes)} of "
        f"temporaries ({quantity(before.arena_bytes)} if nothing is computed again). Give it a "
        "smaller batch or a higher limit."
    )


def _stage(graph: Graph, made: Remade, seconds: float, before: int, after: int) -> Stage:
    from graphflow.passes.pipeline import Stage

    note = (
        f"rematerialise: {len(made.again)} values are made again, the peak of temporaries falls "
        f"from {quantity(before)} to {quantity(after)}"
    )
    counts = len(graph.nodes), len(made.graph.nodes)
    return Stage("rematerialise", made.graph, seconds, *counts, note, made.again)
