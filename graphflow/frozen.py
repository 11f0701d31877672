"""Frozen programs: ``program.save("model.gf")`` and ``gf.load_program("model.gf")``.

A file is in the safetensors format, so that any reader of it sees the weights.  Its metadata
have the graph (JSON, :mod:`graphflow.ir.json_form`), what a program is beside its graph, and
the schedule (:mod:`graphflow.codegen.schedule_form`); tensors are called ``state:name``,
``constant:0``, and ``object:kernel`` for native code, which is there only on request.

Opening a file from a stranger is safe: only the graph and the weights are read, and both are
checked.  The schedule comes from the user's own cache, which knows it by the graph, or else is
made anew from the graph, once.  With ``trusted=True`` the schedule, kernel sources and native
code of the file are used as they are: whoever wrote it can then run any code.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from functools import cached_property, lru_cache, partial
from typing import Any

import numpy as np

from graphflow.cell import Cell
from graphflow.codegen.schedule import KernelSource, Schedule
from graphflow.codegen.schedule_form import from_data, to_data
from graphflow.collection import without_collection
from graphflow.errors import CompileError, GraphError, GraphFlowError, ShapeError
from graphflow.ir.build import input_node, state_node
from graphflow.ir.dims import SymDim, evaluate_dim, parse_dim
from graphflow.ir.graph import Graph
from graphflow.ir.parser import read_type
from graphflow.ir.types import TensorType
from graphflow.program import Program
from graphflow.records import dataclass
from graphflow.runtime import cache
from graphflow.runtime.executor import executor_kernels
from graphflow.runtime.plans import Plan, load_plan, store_plan, text_key
from graphflow.serialization.atomic import replacing
from graphflow.serialization.safetensors import damaged, holds, read, write
from graphflow.trace import ScalarSource
from graphflow.traced_sizes import Assumption
from graphflow.version import __version__

FORMAT, VERSION = "graphflow-program", 1

Array = np.ndarray[Any, Any]


class FrozenProgram(Program):
    """A program from a file.  ``settings`` are its run-time scalars by name, to be changed.

    Its graph is read from ``text`` when somebody asks for it: running needs ``face`` only.
    """

    def __init__(
        self, face: Graph, cells: list[Cell], parts: _Parts, schedule: Schedule | None
    ) -> None:
        started = time.perf_counter()
        self.face, self._text = face, parts.graph
        self.settings = dict(parts.settings)
        leaves = {node.attrs["name"]: node for node in face.inputs}
        facts = parts.facts
        self._hold(
            cells,
            [
                ScalarSource(leaves[name], partial(self.settings.__getitem__, name))
                for name in facts["scalars"]
            ],
            facts["numbers"],
        )
        self._passes = ()
        self.keep = bool(facts.get("keep", False))
        self.memory_limit = facts.get("memory_limit")
        self.sizes, self._example = dict(facts["sizes"]), dict(facts["example"])
        self._assumptions = tuple(
            Assumption(_symbolic(dim), relation, bound)
            for dim, relation, bound in facts["assumptions"]
        )
        if schedule is None:
            self.template = self._known(parts)
        else:
            self.template, self._threads = schedule, facts["threads"]
        self._open()
        self.build_seconds = time.perf_counter() - started

    @cached_property
    def graph(self) -> Graph:
        """The graph, which is read when somebody asks for it."""
        return Graph.from_json(self._text)

    def _known(self, parts: _Parts) -> Schedule:
        """The schedule that the cache has for this very text, or that of the graph.

        What is kept under the text was made from its graph, after a look at its face.
        """
        key = text_key(parts.text, self._threads, self._amended)
        found = load_plan(key)
        if found is not None:
            schedule, self._walk = found
            return schedule
        if _face_facts(self.graph) != parts.facts["face"]:
            raise ValueError("its face is not that of its graph")
        self._unstored.append(key)
        return self._schedule()


@dataclass(frozen=True)
class _Parts:
    """The texts of a file: its graph, the facts beside it (text and data), its settings."""

    graph: str
    described: str
    facts: Mapping[str, Any]
    settings: Mapping[str, float]

    @property
    def text(self) -> str:
        """All that decides what the program computes."""
        return f"{self.described}\n{self.graph}"


# ---- saving --------------------------------------------------------------------------


def save_program(program: Program, path: str | os.PathLike[str], native: bool) -> None:
    """Write ``program`` with its state as it is now; see :meth:`Program.save`."""
    graph = _graph_of(program)
    values = {node.attrs["name"]: cell.value for node, cell in program._memory.items()}
    arrays = {f"state:{name}": np.asarray(v, order="C") for name, v in values.items()}
    try:
        data, constants = to_data(program.template)
    except TypeError as error:
        raise GraphFlowError(f"program {graph.name!r} cannot be saved: {error}") from None
    arrays |= {f"constant:{i}": array for i, array in enumerate(constants)}
    kernels = program.template.kernels
    if native:
        found = cache.object_code([*kernels, *executor_kernels()])
        arrays |= {f"object:{name}": np.frombuffer(code, np.uint8) for name, code in found.items()}
    for name, array in arrays.items():
        if not holds(array.dtype):
            raise GraphFlowError(f"{name} is {array.dtype}, which the file format has not")
    described = json.dumps(_facts_of(program, graph))
    parts = _Parts(graph.to_json(), described, {}, {})
    key = text_key(parts.text, program._threads, program._amended)
    store_plan(key, Plan(program.template, program._walk))
    metadata = {
        "format": FORMAT,
        "version": str(VERSION),
        "graphflow": __version__,
        "program": described,
        "settings": json.dumps({s.node.attrs["name"]: float(s.read()) for s in program.scalars}),
        "graph": parts.graph,
        "schedule": json.dumps(data, separators=(",", ":")),
        "kernels": json.dumps({k.name: cache.kernel_key(k).hex() for k in kernels}),
        "environment": cache.environment(),
    }
    with replacing(path) as stream:
        write(stream, arrays, metadata)


def _facts_of(program: Program, graph: Graph) -> dict[str, Any]:
    """What a program is beside its graph."""
    return {
        "face": _face_facts(graph),
        "scalars": [s.node.attrs["name"] for s in program.scalars],
        "numbers": sorted(program._numbers),
        "sizes": {name: int(size) for name, size in program.sizes.items()},
        "example": {name: int(size) for name, size in program._example.items()},
        "assumptions": [[str(a.dim), a.relation, a.bound] for a in program._assumptions],
        "threads": program._threads,
        "keep": program.keep,
        "memory_limit": program.memory_limit,
    }


def _face_facts(graph: Graph) -> dict[str, Any]:
    """Name, inputs, state and what is updated."""
    leaves = {
        part: [[n.attrs["name"], str(n.type)] for n in getattr(graph, part)]
        for part in ("inputs", "state")
    }
    return {"name": graph.name, **leaves, "updates": [n.attrs["name"] for n, _ in graph.updates]}


def _graph_of(program: Program) -> Graph:
    """The program's graph; passes that the user plugged in, which a file has not, are done."""
    graph = program.graph
    if program._unloaded:
        raise GraphFlowError(
            f"the state of program {graph.name!r} has no values yet; give them with "
            "program.load_state_dict(...) before saving it"
        )
    if not program._plain:
        raise GraphFlowError(
            f"the function {graph.name!r} returns views or arguments beside what its program "
            "computes; save gf.compile(gf.trace(function, ...)), which returns every tensor"
        )
    if program._passes:
        from graphflow.passes.pipeline import run_pipeline
        from graphflow.passes.plugged import pipeline_steps

        graph = run_pipeline(graph, pipeline_steps(program._passes)[:1])[-1].graph
    effects = [node for node in graph.nodes if not node.op.pure]
    if effects:
        place = graph.locations.get(effects[0])
        raise GraphFlowError(
            f"program {graph.name!r} calls a Python function (gf.print, gf.callback or "
            f"gf.breakpoint) at {place}, which no file can hold"
        )
    return graph


# ---- loading -------------------------------------------------------------------------


@without_collection
def load_program(path: str | os.PathLike[str], *, trusted: bool = False) -> Program:
    """The program that ``program.save(path)`` wrote, with its state.

    Nothing is traced.  Passes run only if this user's cache has no program for the graph yet;
    kernels come from the cache or are compiled once.  With ``trusted``, the schedule and the
    native code in the file are used instead, where they fit this machine: load only files that
    you wrote or would run as a script.  ``program.settings`` has the run-time scalars by name
    (a learning rate), to be read and changed.

    Raises :class:`GraphFlowError` naming the file if it is damaged, of another kind or newer
    than this version.
    """
    name = os.fspath(path)
    with open(path, "rb") as stream:
        arrays, metadata = read(stream, name)
    _check_kind(metadata, name)
    try:
        parts = _Parts(
            metadata["graph"], metadata["program"], _checked(json.loads(metadata["program"])),
            _settings(json.loads(metadata["settings"])),
        )  # fmt: skip
        face = _face(parts.facts["face"])
        cells = _cells(face, arrays, parts.facts["sizes"])
        schedule = _trusted(metadata, arrays) if trusted else None
        return FrozenProgram(face, cells, parts, schedule)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise damaged(name, f"its parts do not fit together ({error})") from None
    except (GraphError, CompileError, ShapeError) as error:
        raise GraphFlowError(f"{name}: {error}") from None


def _check_kind(metadata: Mapping[str, str], name: str) -> None:
    if metadata.get("format") != FORMAT:
        raise GraphFlowError(
            f"{name}: no program saved with program.save(); weights are read with gf.load()"
        )
    version = metadata.get("version", "")
    if not version.isdecimal() or not 1 <= int(version) <= VERSION:
        raise GraphFlowError(
            f"{name}: version {version!r} of the format; this GraphFlow ({__version__}) reads "
            f"versions up to {VERSION}"
        )


def _checked(facts: Any) -> Mapping[str, Any]:
    """What a program is beside its graph, each part of the type it must have."""
    sizes = [*facts["sizes"].values(), *facts["example"].values()]
    if not all(n.__class__ is int and n >= 0 for n in (*sizes, *facts["numbers"])):
        raise ValueError("sizes and numbers are whole numbers")
    if facts["threads"].__class__ is not int or not 1 <= facts["threads"] <= 4096:
        raise ValueError("threads is a small number")
    made: Mapping[str, Any] = facts
    return made


def _settings(values: Any) -> Mapping[str, float]:
    return {str(name): float(value) for name, value in values.items()}


def _symbolic(text: str) -> SymDim:
    dim = parse_dim(text)
    if not isinstance(dim, SymDim):
        raise ValueError(f"{text} is no symbolic dimension")
    return dim


def _face(facts: Mapping[str, Any]) -> Graph:
    """A graph of leaves only."""
    inputs = tuple(input_node(name, _tensor_type(text)) for name, text in facts["inputs"])
    state = {name: state_node(name, _tensor_type(text)) for name, text in facts["state"]}
    updates = tuple((state[name], state[name]) for name in facts["updates"])
    return Graph(inputs, (), tuple(state.values()), updates, str(facts["name"]))


@lru_cache
def _tensor_type(text: str) -> TensorType:
    type = read_type(text)
    if not isinstance(type, TensorType):
        raise ValueError(f"{text} is no type of a tensor")
    return type


def _cells(graph: Graph, arrays: Mapping[str, Array], sizes: Mapping[str, int]) -> list[Cell]:
    """The state of ``graph``, each array of the type that the graph says."""
    cells = []
    for node in graph.state:
        array = arrays[f"state:{node.attrs['name']}"]
        shape = tuple(evaluate_dim(d, sizes) for d in node.shape)
        if (array.shape, array.dtype) != (shape, node.dtype.numpy):
            raise ValueError(f"state {node.attrs['name']!r} is no {node.type}")
        cells.append(Cell(array))
    return cells


def _trusted(metadata: Mapping[str, str], arrays: Mapping[str, Array]) -> Schedule | None:
    """The schedule of the file, its native code linked, if they were made for this machine."""
    if metadata["environment"] != cache.environment():
        return None
    count = sum(key.startswith("constant:") for key in arrays)
    constants = [arrays[f"constant:{i}"] for i in range(count)]
    schedule = from_data(json.loads(metadata["schedule"]), constants)
    code: dict[KernelSource, bytes] = {}
    for kernel in (*schedule.kernels, *executor_kernels()):
        held = arrays.get(f"object:{kernel.name}")
        if held is not None:
            code[kernel] = held.tobytes()
    cache.adopt(code)
    return schedule
