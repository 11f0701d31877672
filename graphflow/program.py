"""A program: a graph made ready to run, bound to the memory it works on.

Building one runs the passes, makes the schedule, and loads kernels from the
cache or compiles them.  Running one takes input addresses and scalar values,
makes one native call, and hands back fresh memory for every output.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from graphflow import flags
from graphflow.capture import Capture, captured_memory
from graphflow.cell import Cell, counted
from graphflow.codegen.schedule import Schedule, plain_steps
from graphflow.codegen.sizes import example_for, known_sizes
from graphflow.collection import without_collection
from graphflow.device import Device
from graphflow.digests import amendments
from graphflow.errors import GraphFlowError, IndexRangeError, ShapeError
from graphflow.functions.creation import as_tensor, from_numpy
from graphflow.ir.binding import solve_sizes, type_at
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node
from graphflow.mode import mode
from graphflow.profiling.watch import opened
from graphflow.program_views import ProgramViews
from graphflow.records import replace
from graphflow.runtime.fork import renew_after_fork
from graphflow.runtime.launch import LoadedProgram, aliased_results, copied_out
from graphflow.runtime.plans import Plan, load_plan, plan_key, store_plan
from graphflow.runtime.threads import get_num_threads
from graphflow.runtime.turns import turn
from graphflow.runtime.walk import Walk
from graphflow.tensor import Tensor
from graphflow.trace import ScalarSource
from graphflow.traced_sizes import Assumption

if TYPE_CHECKING:
    from graphflow.autograd.postponed import Draft
    from graphflow.passes.base import Pass
    from graphflow.passes.pipeline import Stage
    from graphflow.runtime.preparation import Preparation
    from graphflow.tuning import Tuning

MOST_SIZES = 32
"""Sizes of symbolic dimensions for which a program is kept ready to run."""


class Program(ProgramViews):
    """What a graph becomes; ``program(*inputs)`` runs one step.

    ``cells`` is the memory of each node of ``graph.state``; the last inputs of the graph are
    run-time ``scalars``, read again when the structure version moves.  ``sizes`` are those of
    symbolic dimensions: ``template`` is then the schedule for all sizes, ``schedule`` the one for
    these, and :meth:`at` gives the program for others; kernels are tuned for the sizes in
    ``example``.  With ``keep``, what depends on state alone is kept between calls for as long as
    that does not change.  ``hidden`` are numbers of outputs that may have strides.  ``face`` is the
    graph, of which at least name, inputs, state and what is updated are there.
    """

    face: Graph
    sizes: Mapping[str, int]

    tune: float | None = None
    tuning: Tuning | None = None
    _traced: Graph | Draft | None = None
    _prepared: Preparation | None = None
    _walk: Walk | None = None
    _stays: Callable[[Node], bool] | None = None  # see Decompose
    _hidden: frozenset[int] = frozenset()
    portable: ClassVar[bool] = False  # whether passes that suit a processor only are left out

    def __init__(
        self,
        graph: Graph | Draft,
        cells: Sequence[Cell],
        scalars: Sequence[ScalarSource],
        numbers: Sequence[int] = (),
        *,
        passes: Sequence[Pass] | None = None,
        device: str | None = None,
        sizes: Mapping[str, int] | None = None,
        example: Mapping[str, int] | None = None,
        keep: bool = False,
        memory_limit: int | None = None,
        tune: float | None = None,
        hidden: frozenset[int] = frozenset(),
    ) -> None:
        started = time.perf_counter()
        self._traced = graph
        self.face = graph if isinstance(graph, Graph) else graph.face
        self._hold(cells, scalars, numbers)
        self.keep, self._hidden, self.memory_limit, self.tune = keep, hidden, memory_limit, tune
        self._passes: tuple[Pass, ...] = tuple(passes or ())
        self.sizes = known_sizes(self.face, sizes or {})
        self._example = example_for(self.face, self.sizes, example or {})
        with turn():
            try:
                self.template = self._schedule()
                self._open()
            finally:
                if self._prepared is not None:
                    self._prepared.close()
                    self._prepared = None
        self.build_seconds = time.perf_counter() - started
        if flags.wants_report():
            from graphflow.debug import report

            report(self)

    @cached_property
    def graph(self) -> Graph:
        """The whole graph, with the gradients that a trace has left open."""
        traced = self._traced
        assert traced is not None
        return traced if isinstance(traced, Graph) else traced.graph

    def _hold(
        self, cells: Sequence[Cell], scalars: Sequence[ScalarSource], numbers: Sequence[int]
    ) -> None:
        """What a program has before it has a schedule."""
        self.cells, self.scalars, self._numbers = tuple(cells), tuple(scalars), frozenset(numbers)
        self._threads, self._amended = get_num_threads(), b"".join(amendments)
        self.passes_seconds = self.schedule_seconds = self.trace_seconds = 0.0
        self._stages: tuple[Stage, ...] = ()
        self._by_size: OrderedDict[tuple[int, ...], Program] = OrderedDict()
        self._assumptions: tuple[Assumption, ...] = ()
        self._unstored: list[bytes] = []  # keys of the plan, which is complete when loaded
        self._unloaded = False
        self._plain = True  # whether the graph's outputs are what the traced function returns

    def _open(self, beside: LoadedProgram | None = None) -> None:
        """Make the schedule for ``sizes`` ready to run over the program's memory."""
        graph, scalars = self.face, len(self.scalars)
        self.schedule = self.template.at(self.sizes)
        by_value = {*self._numbers, *range(len(graph.inputs) - scalars, len(graph.inputs))}
        self.loaded = without_collection(self._load)(frozenset(by_value), beside)
        while self._unstored:
            store_plan(self._unstored.pop(), Plan(self.template, self._walk))
        self._memory = dict(zip(graph.state, self.cells, strict=True))
        changing = {node for node, _ in graph.updates}
        self._changing = frozenset(i for i, n in enumerate(graph.state) if n in changing)
        self._input_types = [type_at(n.tensor_type, self.sizes) for n in graph.inputs]
        self._aliases = aliased_results(self.schedule)
        self.scalar_values: tuple[float, ...] = ()
        self._mirrors: list[tuple[Cell, Cell]] = []
        self._lock = threading.RLock()
        renew_after_fork(self)
        self._bind()
        opened(self)

    def _load(self, scalars: frozenset[int], beside: LoadedProgram | None) -> Any:
        """The schedule with its kernels, ready to run."""
        made = LoadedProgram(
            self.schedule, scalars=scalars, threads=self._threads, beside=beside,
            alone=not self.sizes, prepared=self._prepared, known=self._walk,
        )  # fmt: skip
        self._walk = None if self.sizes else made.walk
        return made

    def at(self, sizes: Mapping[str, int]) -> Program:
        """This program for other sizes of its symbolic dimensions.

        Kernels and state are the same; only numbers, memory plan and tape are made anew.
        The last few sizes are kept ready.
        """
        key = tuple(sizes[name] for name in self.sizes)
        if key == tuple(self.sizes.values()):
            return self
        found = self._by_size.get(key)
        if found is None:
            found = copy(self)
            found.sizes = dict(zip(self.sizes, key, strict=True))
            found._open(self.loaded)
            self._by_size[key] = found
            if len(self._by_size) > MOST_SIZES:
                self._by_size.popitem(last=False)
        self._by_size.move_to_end(key)
        return found

    def _schedule(self) -> Schedule:
        """The schedule: found again when an equal graph was compiled before, or built."""
        fresh = self._passes or flags.wants_report()
        what = self._threads, self._example, self.keep, self.memory_limit, self.tune is not None
        key = (
            b""
            if fresh
            else plan_key(self._traced or self.graph, *what, self._amended, self._hidden)
        )
        found = load_plan(key) if key else None
        if found is None:
            self._placed = self._build()
            found = Plan(self._placed, None)
            if key and (self.tuning is None or self.tuning.complete):
                self._unstored.append(key)
        self._walk = found.walk
        return found.schedule

    @without_collection
    def _build(self) -> Schedule:
        """Run the passes and schedule what they leave.

        The state nodes are padded with those that the passes found unused, so that
        ``schedule.state`` is in the order of ``graph.state``.
        """
        from graphflow.passes.pipeline import run_pipeline
        from graphflow.passes.plugged import pipeline_steps
        from graphflow.scheduling import fitted, has_parts

        started = time.perf_counter()
        how = self.portable, self.keep, self._stays, self._hidden
        self._stages = run_pipeline(self.graph, pipeline_steps(self._passes, *how))
        scheduling, lowered = time.perf_counter(), self._stages[-1].graph
        self.passes_seconds = scheduling - started
        cheap = not (self._example or self.portable or self.keep or has_parts(self.graph))
        self._prepare(lowered)

        def build() -> tuple[Schedule, tuple[Stage, ...]]:
            made, more = fitted(lowered, self._lower, self.memory_limit, self._example, cheap)
            buffers = dict(zip(lowered.state, made.state, strict=True))
            state = tuple(buffers.get(n, -1) for n in self.graph.state)
            return replace(made, state=state), more

        if self.tune is None:
            schedule, more = build()
        else:
            from graphflow.tuning import tuned

            schedule, more, self.tuning = tuned(self, build)
        self._stages += more
        self.schedule_seconds = time.perf_counter() - scheduling
        if self._prepared is not None:  # their seconds count as theirs
            self.schedule_seconds -= self._prepared.batch.seconds
        return schedule

    def _lower(self, graph: Graph) -> Schedule:
        """The schedule of a graph that the passes are done with."""
        from graphflow.codegen.build_schedule import build_schedule

        ask = self._prepared.ask if self._prepared is not None else None
        return build_schedule(graph, self._threads, self._example, keep=self.keep, ask=ask)

    def _prepare(self, graph: Graph) -> None:
        """Let memory and kernels be made ready while a fused graph is scheduled."""
        from graphflow.codegen.memory import expected_bytes
        from graphflow.runtime.preparation import Preparation

        if self.memory_limit is None and self.tune is None and not hasattr(self, "loaded"):
            self._prepared = Preparation(expected_bytes(graph))

    def compiled_again(self) -> tuple[tuple[Stage, ...], Schedule]:
        """Stages and schedule with places in the user's code (a stored plan has none)."""
        if not self._stages:
            self._placed = self._build()
        return self._stages, self._placed.at(self.sizes)

    @staticmethod
    def kind_for(device: Device) -> type[Program]:
        """The class of programs that run on ``device``."""
        if device.type == "cpu":
            return Program
        from graphflow.device_program import DeviceProgram

        return DeviceProgram

    @classmethod
    def from_capture(cls, capture: Capture, **options: Any) -> Program:
        """The program of a traced function, for the device that its tensors are on."""
        options = {**options, "device": str(capture.device)}
        made = cls.kind_for(capture.device)(
            capture.traced, capture.cells, capture.scalars, capture.numbers,
            sizes=capture.sizes, keep=capture.is_lasting, hidden=capture.hidden, **options,
        )  # fmt: skip
        made._assumptions = capture.assumptions
        tensors = [r for r in capture.results if r.kind != "value"]
        made._plain = [r.index for r in tensors] == [*range(len(made.schedule.results))]
        made._plain &= all(not r.chain and r.kind in ("new", "number") for r in tensors)
        return made

    @classmethod
    def from_graph(cls, graph: Graph, **options: Any) -> Program:
        """The program of a graph: over the tensors it captured, or over memory of its own."""
        if (captured := captured_memory(graph)) is not None:
            return cls.from_capture(captured, **options)
        cells = [Cell(np.zeros(n.tensor_type.static_shape, n.dtype.numpy)) for n in graph.state]
        made = cls(graph, cells, (), (), keep=not graph.updates, **options)
        made._unloaded = bool(cells)
        return made

    def after_fork(self) -> None:
        """A fresh lock in a forked child: the parent's may have been held by another thread."""
        self._lock = threading.RLock()

    @property
    def launching(self) -> str:
        """Where kernels run and how they are started, if that is not by one call on the CPU."""
        return ""

    @property
    def simple(self) -> bool:
        """True when no result lies in other memory, and none is strided."""
        return not (self._aliases or self._mirrors)

    def _bind(self) -> None:
        """Point every state at its memory, and read the run-time scalars.

        Kernels want row-major memory: a strided array is copied in and out at every run.
        """
        held = []
        for cell in self.cells:
            strided = not cell.value.flags.c_contiguous
            held.append(Cell(np.array(cell.value, order="C")) if strided else cell)
            if strided:
                held[-1].shared = True
                self._mirrors.append((cell, held[-1]))
        self.loaded.bind_all(held)
        self.refresh()

    def refresh(self) -> None:
        """Read the run-time scalars again."""
        self.scalar_values = tuple(float(source.read()) for source in self.scalars)

    # ---- running -------------------------------------------------------------------

    def __call__(self, *inputs: Any) -> Any:
        """Run one step on tensors (or arrays, or floats); returns one tensor or a tuple."""
        if len(inputs) != (expected := len(self.face.inputs) - len(self.scalars)):
            raise GraphFlowError(f"the program takes {expected} inputs, got {len(inputs)}")
        if self._unloaded:
            names = ", ".join(n.attrs["name"] for n in self.face.state)
            raise GraphFlowError(
                f"the state of program {self.face.name!r} has no values yet ({names}); "
                "give them with program.load_state_dict(...)"
            )
        here = self._for(inputs) if self.sizes else self
        with here._lock:
            here.refresh()
            given = [here._checked(i, value) for i, value in enumerate(inputs)]
            changing = [self.cells[number] for number in here._changing]
            made = tuple(Tensor._of(cell) for cell in counted(changing, here.run, given))
        return made[0] if len(made) == 1 else made

    def _for(self, inputs: Sequence[Any]) -> Program:
        """The program for the sizes of these inputs."""
        shapes = [tuple(getattr(value, "shape", ())) for value in inputs]
        sizes = solve_sizes(list(zip(self.face.inputs, shapes)), {})
        for assumption in self._assumptions:
            if not assumption.holds(sizes):
                raise ShapeError(
                    f"program {self.face.name!r} was traced for sizes with {assumption}; "
                    f"the inputs have {', '.join(f'{n} = {sizes[n]}' for n in sizes)}"
                )
        with self._lock:
            return self.at(sizes)

    def _checked(self, position: int, value: Any) -> Tensor | float:
        if position in self._numbers:
            return float(value)
        want = self._input_types[position]
        tensor = from_numpy(value) if isinstance(value, np.ndarray) else as_tensor(value)
        if isinstance(value, (bool, int, float)):
            tensor = as_tensor(value, dtype=want.dtype)
        if (have := tensor._type_now()) != want:
            name = self.face.inputs[position].attrs["name"]
            raise GraphFlowError(f"input '{name}' of the program has type {want}, got {have}")
        return tensor

    def run(self, inputs: Sequence[Any], bound: Sequence[tuple[int, Tensor]] = ()) -> list[Cell]:
        """One step on checked tensors and floats; the outputs as fresh memory.

        ``bound``: tensors in whose memory state lies in this call (written arguments, what was
        found), by number."""
        if mode.guard is not None:
            return mode.guard.run(self, inputs, bound)
        places = [(number, self._rebind(number, tensor), tensor) for number, tensor in bound]
        held = [_contiguous(x) if isinstance(x, Tensor) else x for x in inputs]
        words = [x if isinstance(x, float) else int(x.__array_interface__["data"][0]) for x in held]
        for cell, mirror in self._mirrors:
            np.copyto(mirror.value, cell.value)
        try:
            outputs = self.loaded.run((*words, *self.scalar_values))
            self._put_back(places)
        except IndexRangeError as error:
            from graphflow.explain import with_places

            raise with_places(error, self.graph) from None
        except GraphFlowError:  # nothing has changed
            raise
        except BaseException:  # Ctrl-C may come after the last write
            self._put_back(places)
            raise
        given = (*held, *self.scalar_values)
        return [
            Cell(self.alias(i, given)) if made is None else Cell(made.array, None, made.address)
            for i, made in enumerate(outputs)
        ]

    def _put_back(self, places: Sequence[tuple[int, Cell, Tensor]]) -> None:
        """Copy what the step changed to where it belongs, if it did not lie there."""
        for cell, mirror in self._mirrors:
            np.copyto(cell.value, mirror.value)
        for number, cell, tensor in places:
            if number not in self._changing:
                continue
            if cell.value is not tensor._eager():
                np.copyto(tensor._eager(), cell.value)
            tensor._cell.version += 1

    def _rebind(self, position: int, tensor: Tensor) -> Cell:
        """Let a state live in an argument's memory (a row-major copy of it, if it is strided)."""
        cell = tensor._cell if not tensor._chain else Cell(tensor._eager())
        if not cell.value.flags.c_contiguous:
            cell = Cell(np.array(cell.value, order="C"))
        self._memory[self.face.state[position]] = cell
        self.loaded.bind(position, cell)
        return cell

    def alias(self, position: int, inputs: Sequence[Any]) -> np.ndarray[Any, Any]:
        """A result that lies in an input or a state, copied out of it."""
        result, kind, index = self._aliases[position]
        base = inputs[index] if kind == "input" else self._memory[self.face.state[index]].value
        return copied_out(result, base)

    # ---- state ---------------------------------------------------------------------

    def state_dict(self) -> dict[str, Tensor]:
        """The state by name (sharing memory)."""
        return {n.attrs["name"]: Tensor._of(c) for n, c in self._memory.items()}

    def load_state_dict(self, values: Mapping[str, Any]) -> None:
        """Copy values in by name; nothing is written unless every name and shape fits."""
        named = {n.attrs["name"]: c for n, c in self._memory.items()}
        given = {k: v.numpy(force=True) if isinstance(v, Tensor) else v for k, v in values.items()}
        arrays = {k: np.asarray(v) for k, v in given.items()}
        wrong = [k for k in named if k not in arrays or arrays[k].shape != named[k].value.shape]
        unknown = [k for k in arrays if k not in named]
        if wrong or unknown:
            raise GraphFlowError(
                f"state does not fit: missing or of another shape: {wrong}; unknown: {unknown}"
            )
        for name, array in arrays.items():
            np.copyto(named[name].value, array)
            named[name].version += 1
        self._unloaded = False

    def __repr__(self) -> str:
        return f"<program {self.face.name}: {len(list(plain_steps(self.schedule.steps)))} calls>"


def _contiguous(tensor: Tensor) -> np.ndarray[Any, Any]:
    return np.ascontiguousarray(tensor._eager()).reshape(tensor._eager().shape)
