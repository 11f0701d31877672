"""A program as plain data: what :func:`program_data` returns.

::

    {"format": "graphflow-program", "version": 1, "graphflow": "0.1", "name": "step",
     "threads": 2, "sizes": {"batch": 64},
     "seconds": {"trace": …, "passes": …, "schedule": …, "kernels": …},
     "stages":  [{"name": "traced", "seconds": 0.0, "note": "traced: 119 nodes",
                  "nodes": 119, "graph": {…}}, …],              (graph: see graph_data)
     "steps":   [{"id": 0, "kind": "kernel", "name": "mm_relu_36a2", "kernels": ["mm_…", "ep_…"],
                  "ir": "…", "locations": [{"file", "line", "module"}], "bytes": …, "flops": …,
                  "threads": 2, "reads": [3], "writes": [5], "node": 17, "nodes": [812, 815],
                  "seconds": 1.2e-5, "runs": 10, "steps": []}, …],
     "kernels": [{"name", "source", "path", "epilogue": false, "steps": [0, 4]}, …],
     "memory":  {"naive_bytes", "arena_bytes",
                 "buffers": [{"id", "kind", "type", "name", "bytes", "offset", "first", "last",
                              "written"}, …]},
     "cache":   {"hits", "misses", "path"},
     "schedule": "…"}                                           (the schedule's text)

A step's ``node`` is the id of its operation in the last stage's graph (``null``: a copy that
the schedule adds), ``nodes`` the keys of the nodes that it computes, as they stood before
fusion.  ``seconds`` is the mean of ``runs`` timed runs (``null`` and 0 before a profile).
``kind`` is ``kernel``, ``host``, or the class of a step that holds others (``loop``,
``branch``), which are in ``steps`` and whose ``seconds`` are those of all timed runs of what
is inside, with ``runs`` 0; ids count through the tree.  A buffer's ``first`` and
``last`` are the ids of the first and the last step that touch it (``null``: none),
``offset`` its place in the arena (``null``: it lies elsewhere).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from graphflow.codegen.schedule import (
    Branch,
    Call,
    HostCall,
    Loop,
    PlainStep,
    Schedule,
    buffer_bytes,
    kernels_in,
)
from graphflow.explain import stages_of
from graphflow.inspection.graph_data import graph_data, location_data
from graphflow.inspection.members import members
from graphflow.version import __version__

if TYPE_CHECKING:
    from graphflow.program import Program

FORMAT, VERSION = "graphflow-program", 1


def program_data(program: Program) -> dict[str, Any]:
    """Everything about ``program``, as the module's docstring describes it."""
    schedule = program.compiled_again()[1]
    records = [stage for stage in stages_of(program) if stage.graph is not None]
    loaded = program.loaded.loaded
    units = {step.provenance.node for step in schedule.steps}
    computed = members([stage.graph for stage in records], units)
    steps = _Steps(program, schedule, computed).data()
    return {
        "format": FORMAT,
        "version": VERSION,
        "graphflow": __version__,
        "name": program.graph.name,
        "threads": program.loaded.threads,
        "sizes": dict(program.sizes),
        "seconds": {
            "trace": program.trace_seconds,
            "passes": program.passes_seconds,
            "schedule": program.schedule_seconds,
            "kernels": loaded.seconds,
        },
        "stages": [
            {
                "name": stage.name,
                "seconds": stage.seconds,
                "note": stage.note,
                "nodes": stage.nodes,
                "graph": graph_data(stage.graph),
            }
            for stage in records
        ],
        "steps": steps,
        "kernels": _kernels(schedule.steps, loaded.paths),
        "memory": _memory(schedule, steps),
        "cache": {
            "hits": loaded.hits,
            "misses": loaded.misses,
            "path": str(loaded.folder) if loaded.kernels else None,
        },
        "schedule": str(schedule),
    }


def every_step(steps: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The steps of ``data["steps"]`` and those inside them, in order of their ids."""
    for step in steps:
        yield step
        yield from every_step(step["steps"])


class _Steps:
    """The steps of a schedule as data, with ids that count through the tree."""

    def __init__(
        self, program: Program, schedule: Schedule, computed: Mapping[int, list[int]]
    ) -> None:
        self.schedule, self.computed = schedule, computed
        self.threads = program.loaded.threads
        self.timings = iter(program.loaded.timings())
        self.count = 0

    def data(self) -> list[dict[str, Any]]:
        """All of them."""
        return [self.step(step) for step in self.schedule.steps]

    def step(self, step: Any) -> dict[str, Any]:
        """One step and what is inside it."""
        number = self.count
        self.count += 1
        place = step.provenance
        if isinstance(step, (Loop, Branch)):
            return self._nested(step, number)
        host = isinstance(step, HostCall)
        seconds, runs = (0.0, 0) if host else next(self.timings, (0.0, 0))
        return {
            "id": number,
            "kind": "host" if host else "kernel",
            "name": _name(step),
            "kernels": [] if host else [kernel.name for kernel in kernels_in([step])],
            "ir": place.ir,
            "locations": [location_data(found) for found in place.locations],
            "bytes": 0 if host else step.bytes,
            "flops": 0 if host else step.flops,
            "threads": self.threads if isinstance(step, Call) and step.parallel else 1,
            "reads": sorted(step.reads),
            "writes": sorted(step.writes),
            "node": place.node if place.node >= 0 else None,
            "nodes": self.computed.get(place.node, []),
            "seconds": seconds / runs if runs else None,
            "runs": runs,
            "steps": [],
        }

    def _nested(self, step: Loop | Branch, number: int) -> dict[str, Any]:
        """A loop or a branch, with what is inside; only that is timed."""
        inner = [self.step(s) for part in step.parts for s in part]
        place = step.provenance
        apart = isinstance(step, Loop) and step.parallel
        return {
            "id": number,
            "kind": "loop" if isinstance(step, Loop) else "branch",
            "name": step.name,
            "kernels": [],
            "ir": place.ir,
            "locations": [location_data(found) for found in place.locations],
            "bytes": sum(s["bytes"] for s in inner),
            "flops": sum(s["flops"] for s in inner),
            "threads": self.threads if apart else max((s["threads"] for s in inner), default=1),
            "reads": sorted(step.reads),
            "writes": sorted(step.writes),
            "node": place.node if place.node >= 0 else None,
            "nodes": self.computed.get(place.node, []),
            "seconds": None,
            "runs": 0,
            "steps": inner,
        }


def _name(step: PlainStep) -> str:
    if isinstance(step, Call):
        return step.kernel.name
    return step.name if isinstance(step, HostCall) else step.routine.name


def _tree(steps: Sequence[Any]) -> Iterator[Any]:
    """``steps`` and those inside them, in order of their ids."""
    for step in steps:
        yield step
        if isinstance(step, (Loop, Branch)):
            for part in step.parts:
                yield from _tree(part)


def _kernels(steps: Sequence[Any], paths: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The distinct kernels, in order of first use."""
    found: dict[str, dict[str, Any]] = {}
    for number, step in enumerate(_tree(steps)):
        for kernel in kernels_in([step]) if isinstance(step, Call) else ():
            path = paths.get(kernel.name)
            entry = found.setdefault(
                kernel.name,
                {
                    "name": kernel.name,
                    "source": kernel.source,
                    "path": None if path is None else str(path),
                    "epilogue": kernel.epilogue,
                    "steps": [],
                },
            )
            entry["steps"].append(number)
    return list(found.values())


def _memory(schedule: Schedule, steps: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The memory plan: every buffer with its place and its lifetime in steps."""
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for step in every_step(steps):
        for buffer in (*step["reads"], *step["writes"]):
            first.setdefault(buffer, step["id"])
            last[buffer] = step["id"]
    return {
        "naive_bytes": schedule.naive_bytes,
        "arena_bytes": schedule.arena_bytes,
        "buffers": [
            {
                "id": buffer.id,
                "kind": buffer.kind.value,
                "type": str(buffer.type),
                "name": buffer.name,
                "bytes": buffer_bytes(buffer),
                "offset": schedule.offsets.get(buffer.id),
                "first": first.get(buffer.id),
                "last": last.get(buffer.id),
                "written": buffer.id in schedule.committed,
            }
            for buffer in schedule.buffers
        ],
    }
