"""Every graph of a test run in all forms and back: ``pytest -p tests.round_trips …``.

A plug-in for pytest: each graph that goes into the pipeline, and what comes out of each stage,
is written as text, JSON, networkx and Python and read again; one that does not come back fails
the test that made it.  What has no form (Python functions in a graph, fused groups in Python)
is counted by its refusal.
"""

from __future__ import annotations

import collections
import hashlib
from collections.abc import Iterator
from typing import Any

import pytest

from graphflow.api import trace
from graphflow.errors import GraphError
from graphflow.ir.graph import Graph
from graphflow.mode import mode
from graphflow.passes import pipeline
from graphflow.program import Program
from graphflow.records import replace

LARGEST = 3000
counts: collections.Counter[str] = collections.Counter()
seen: set[bytes] = set()
wrong: list[str] = []


def rebuilt(graph: Graph) -> Graph:
    """The graph that its Python form traces to."""
    names: dict[str, Any] = {}
    exec(compile(graph.to_python(), "<rebuilt>", "exec"), names)
    (function,) = (value for value in names.values() if hasattr(value, "__code__"))
    made: Graph = trace(function, *names["SPECS"])
    return made


FORMS = {
    "text": lambda graph: Graph.parse(str(graph)),
    "JSON": lambda graph: Graph.from_json(graph.to_json()),
    "networkx": lambda graph: Graph.from_networkx(graph.to_networkx()),
    "Python": rebuilt,
}


def written(graph: Graph) -> Graph:
    """Without state that is written back unchanged, which a trace does not record."""
    return replace(graph, updates=tuple((c, v) for c, v in graph.updates if c is not v))


def check(graph: Graph) -> None:
    """All forms of one graph, once for each text."""
    key = hashlib.sha256(str(graph).encode()).digest()
    if key in seen or len(graph.nodes) > LARGEST:
        return
    seen.add(key)
    for form, back in FORMS.items():
        try:
            same = back(graph).same_as(written(graph) if form == "Python" else graph)
        except GraphError as error:
            counts[f"{form}: {str(error)[:90]}"] += 1
            continue
        except Exception as error:
            same = False
            wrong.append(f"{form}: {type(error).__name__}: {error}")
        counts[f"{form}: {'the same' if same else 'ANOTHER'}"] += 1
        if not same:
            wrong.append(f"{form} of\n{str(graph)[:3000]}")


_run_pipeline = pipeline.run_pipeline


def run_pipeline(graph: Graph, *args: Any, **kwargs: Any) -> Any:
    """The pipeline, and a look at what goes in and at what each pass leaves."""
    stages = _run_pipeline(graph, *args, **kwargs)
    if mode.tracer is None:
        for stage in stages:
            check(stage.graph)
    return stages


pipeline.run_pipeline = run_pipeline  # before any test module imports it

_schedule = Program._schedule


def schedule(program: Program) -> Any:
    """The schedule of a program, and a look at its graph, whose passes may have run before."""
    if mode.tracer is None:
        check(program.graph)
    return _schedule(program)


Program._schedule = schedule  # type: ignore[method-assign]


@pytest.fixture(autouse=True)
def all_forms_come_back() -> Iterator[None]:
    """Fail the test one of whose graphs did not come back."""
    yield
    found, wrong[:] = wrong.copy(), []
    assert not found, "\n".join(found)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how many graphs there were, and what each form refused."""
    terminalreporter.write_line(f"{len(seen)} graphs in all forms")
    for what, number in sorted(counts.items()):
        terminalreporter.write_line(f"{number:6} {what}")
