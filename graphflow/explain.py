"""What a program is made of, for people: ``program.explain()``, ``program.kernels``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphflow.codegen.schedule import Call, HostCall, Schedule, plain_steps
from graphflow.errors import IndexRangeError
from graphflow.hints import hints_of
from graphflow.ir.graph import Graph
from graphflow.ir.ops.collectives import transport
from graphflow.passes.pipeline import Stage
from graphflow.records import dataclass, field
from graphflow.tables import duration, quantity, table

if TYPE_CHECKING:
    from graphflow.compiled import Compiled
    from graphflow.program import Program


MOST_REMADE = 20
"""So many lines say what is made again."""


def with_places(error: IndexRangeError, graph: Graph) -> IndexRangeError:
    """``error`` and where in the user's code the operations stand that it complains about."""
    message = str(error)
    found: dict[str, None] = {}
    for node, place in graph.locations.items():
        types = ", ".join(str(operand.type) for operand in node.inputs)
        if message.startswith(f"{node.op.name}:") and f"(operands {types})" in message:
            found[str(place)] = None
    return IndexRangeError("\n  at ".join((message, *found)))


@dataclass(frozen=True)
class StageRecord:
    """One stage: ``graph`` or ``schedule``, the seconds it took, nodes (or calls), a note."""

    name: str
    graph: Any
    schedule: Schedule | None
    seconds: float
    nodes: int
    note: str


@dataclass(frozen=True)
class Kernel:
    """One kernel call of a program.

    ``bytes`` it moves and ``flops`` it does; ``ir`` the operations it computes,
    ``user_lines`` where they were written; ``threads`` that share it.
    """

    name: str
    source_path: Path | None
    source: str
    ir: str
    bytes: int
    flops: int
    user_lines: tuple[str, ...]
    threads: int


@dataclass(frozen=True)
class Memory:
    """Bytes of temporaries: one buffer each, as planned, and the arena that holds the plan."""

    naive: int
    planned: int
    arena: int


@dataclass(frozen=True)
class CacheUse:
    """Kernels found and compiled for a program, and where the cache is."""

    hits: int
    misses: int
    path: Path | None


@dataclass(frozen=True)
class Explanation:
    """Everything about one program; prints as a page."""

    name: str
    stages: tuple[StageRecord, ...]
    kernels: tuple[Kernel, ...]
    memory: Memory
    cache: CacheUse
    host_ops: tuple[str, ...]
    guards: tuple[str, ...] = ()
    recompiles: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    dimensions: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()
    remade: tuple[str, ...] = ()
    """What is made again for the backward pass instead of being kept."""
    launching: str = ""
    """Where kernels run and how they are started, if not on the CPU."""
    tuning: str = ""
    """Which products are cut otherwise than usual, because that was measured to be faster."""
    carrier: str = ""
    """How values travel between the ranks of a job, once some have."""
    backward: Explanation | None = None
    """The program of gradients, where these are taken outside the compiled function."""

    def __str__(self) -> str:
        parts = [f"program {self.name}", self._stages(), self._kernels(), self._summary()]
        if self.remade:
            parts.append(self._remade())
        if self.launching:
            parts.append(self.launching)
        if self.tuning:
            parts.append(self.tuning)
        if self.dimensions:
            parts.append("dimensions:\n" + "\n".join(f"  {line}" for line in self.dimensions))
        if self.recompiles:
            parts.append("recompiles:\n" + "\n".join(f"  {r}" for r in self.recompiles))
        if self.hints:
            parts.append("hints:\n" + "\n".join(f"  {hint}" for hint in self.hints))
        if self.backward is not None:
            parts.append(str(self.backward))
        return "\n\n".join(parts)

    def _stages(self) -> str:
        rows = [[s.name, s.nodes, duration(s.seconds), s.note] for s in self.stages]
        return table(["stage", "nodes", "time", "note"], rows)

    def _kernels(self) -> str:
        rows = [
            [k.name, quantity(k.bytes), f"{k.flops:,}", k.threads, " ".join(k.user_lines[:1])]
            for k in self.kernels
        ]
        return table(["kernel", "bytes", "operations", "threads", "line"], rows)

    def _remade(self) -> str:
        shown = [f"  {line}" for line in self.remade[:MOST_REMADE]]
        more = len(self.remade) - len(shown)
        return "\n".join(["made again:", *shown, *([f"  and {more} more"] if more else [])])

    def _summary(self) -> str:
        memory, cache = self.memory, self.cache
        spent = ", ".join(f"{name} {duration(s)}" for name, s in self.seconds.items())
        return "\n".join(
            [
                f"memory: {quantity(memory.naive)} of temporaries in an arena of "
                f"{quantity(memory.arena)}",
                f"kernels: {cache.hits} from the cache, {cache.misses} compiled"
                + (f" ({cache.path})" if cache.path else ""),
                f"host operations: {', '.join(self.host_ops) or 'none'}",
                *([f"between ranks: {self.carrier}"] if self.carrier else []),
                f"guards: {len(self.guards)}",
                f"time: {spent}",
            ]
        )


def stages_of(program: Program) -> list[StageRecord]:
    """The graph after every pass that changed it, then the schedule."""
    stages, schedule = program.compiled_again()
    records = [_stage(stage) for stage in _changed(stages)]
    steps = list(plain_steps(schedule.steps))
    records.append(
        StageRecord(
            "schedule", None, schedule, program.schedule_seconds, len(steps),
            f"{len(steps)} calls",
        )
    )  # fmt: skip
    return records


def _changed(stages: Sequence[Stage]) -> list[Stage]:
    kept = list(stages[:1])
    for stage in stages[1:]:
        if stage.graph is not kept[-1].graph:
            kept.append(stage)
    return kept


def _stage(stage: Stage) -> StageRecord:
    return StageRecord(stage.name, stage.graph, None, stage.seconds, stage.nodes, stage.note)


def kernels_of(program: Program) -> list[Kernel]:
    """The kernel calls in order."""
    loaded = program.loaded
    return [
        Kernel(
            name=step.kernel.name,
            source_path=loaded.loaded.paths.get(step.kernel.name),
            source=step.kernel.source,
            ir=step.provenance.ir,
            bytes=step.bytes,
            flops=step.flops,
            user_lines=tuple(str(place) for place in step.provenance.locations),
            threads=loaded.threads if step.parallel else 1,
        )
        for step in plain_steps(program.compiled_again()[1].steps)
        if isinstance(step, Call)
    ]


def explain_program(program: Program) -> Explanation:
    """The explanation of one program."""
    schedule, loaded = program.schedule, program.loaded.loaded
    stages = tuple(stages_of(program))
    path = loaded.folder if loaded.kernels else None
    return Explanation(
        name=program.graph.name,
        stages=stages,
        kernels=tuple(kernels_of(program)),
        memory=Memory(schedule.naive_bytes, schedule.arena_bytes, schedule.arena_bytes),
        cache=CacheUse(loaded.hits, loaded.misses, path),
        host_ops=tuple(s.name for s in plain_steps(schedule.steps) if isinstance(s, HostCall)),
        seconds={
            "trace": program.trace_seconds,
            "passes": program.passes_seconds,
            "schedule": program.schedule_seconds,
            "kernels": loaded.seconds,
        },
        hints=hints_of(program.graph),
        remade=tuple(line for s in program.compiled_again()[0] for line in s.details),
        launching=program.launching,
        tuning=str(program.tuning or ""),
        carrier=transport().carrier(),
    )


def explain_compiled(compiled: Compiled) -> Explanation:
    """The explanation of the latest program of a compiled callable, with its recompiles."""
    from graphflow.errors import GraphFlowError
    from graphflow.records import replace

    entry = compiled.latest
    if entry is None:
        raise GraphFlowError(f"{compiled.__name__} has not been called yet: nothing is compiled")
    guards = (
        *(guard.what for guard in entry.capture.guards),
        *map(str, entry.capture.assumptions),
    )
    recompiles = tuple(map(str, compiled.recompiles))
    return replace(
        explain_program(entry.program),
        guards=guards,
        recompiles=recompiles,
        dimensions=compiled.dimensions,
        backward=None if entry.backward is None else explain_program(entry.backward.program),
    )
