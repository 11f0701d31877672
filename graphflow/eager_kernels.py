"""Eager operations on many elements as kernels: programs of one operation.

NumPy computes an operation on one thread, and functions such as ``erf`` in a dozen passes over
memory.  Where there is much to do (``dispatch.MUCH``), an operation is looked up by its attributes
and operands:

- If the cache has its program, from this process or an earlier one, that computes it.
- Else NumPy does.  Once it has done :data:`WORTH` for it, a thread makes the program beside the
  work that goes on, for NumPy leaves a processor idle; from then on the program is used.

So nobody waits for a compiler.  The bits of a result change when NumPy's place is taken, within
what the operation's record allows; ``gf.use_deterministic_algorithms(True)`` has programs made when
they are first wanted instead, and every run gives the same bits.  So it is in a job of several
ranks, whose parameters would drift apart otherwise.
``gf.backends.cpu.eager_kernels = False`` leaves all to NumPy.
"""

from __future__ import annotations

import atexit
import threading
import warnings
from collections.abc import Callable, Sequence
from itertools import count
from queue import SimpleQueue
from typing import Any, TypeAlias

from graphflow import flags
from graphflow.backends import cpu
from graphflow.digests import amendments
from graphflow.eager_operands import common_order, operand, reordered, start_of
from graphflow.errors import IndexRangeError
from graphflow.ir import build
from graphflow.ir.graph import Graph
from graphflow.ir.node import attrs_key
from graphflow.ir.op import Kind, OpDef
from graphflow.ir.ops.shape import inverse_order
from graphflow.ir.types import TupleType
from graphflow.numerics import compiles_at_once
from graphflow.program import Program
from graphflow.runtime.fork import renew_after_fork
from graphflow.runtime.plans import is_stored, plan_key
from graphflow.runtime.storage import Array, Blocks, Storage
from graphflow.runtime.threads import get_num_threads

WORTH = 1 << 24
"""Elements of operands times the operation's cost that NumPy goes through (15 to 50 ms of work)
before it is worth compiling: that takes 0.1 s of a processor that is idle, of a convolution 1."""
KEPT, KEPT_BYTES = 1024, 1 << 28
"""Operations that are remembered, and bytes of temporaries of their programs together."""
IDLE_BYTES = 1 << 28
"""Of results that nobody has any more, to be used again."""
PATIENCE = 5.0
"""Seconds that a process waits in the end for what is being compiled."""

Run: TypeAlias = Callable[[Sequence[int | float]], Sequence[Storage | None]]
_KINDS = frozenset(
    (Kind.ELEMENTWISE, Kind.REDUCTION, Kind.LINE, Kind.GATHER, Kind.SCATTER, Kind.CONTRACTION)
)


class _Known:
    """An operation on operands of certain types, and what NumPy has done for it.

    ``graph`` is None once a program was made of it, or if none can be; ``run`` starts the
    program, if there is one.
    """

    __slots__ = ("asked", "done", "graph", "nbytes", "run", "used")

    def __init__(self, graph: Graph | None) -> None:
        self.graph = graph
        self.run: Run | None = None
        self.nbytes = 0
        """Of temporaries of the program."""
        self.done, self.used, self.asked = 0.0, 0, graph is None

    def make(self) -> None:
        """Make the program, unless that can't be: NumPy goes on then, with a warning."""
        graph, self.graph, self.asked = self.graph, None, True
        assert graph is not None
        try:
            program = Program(graph, (), ())
        except Exception as error:  # whatever it is, the operation works without
            stays_with_numpy(graph.name, error)
            return
        if program.simple:
            program.loaded.draw_outputs_from(_blocks)
            self.nbytes, self.run = program.loaded.memory.nbytes, program.loaded.launcher()


class _Compiler:
    """A thread that makes programs, one after the other; started when there is the first."""

    def __init__(self) -> None:
        self.after_fork()
        renew_after_fork(self)
        atexit.register(self.stop)

    def after_fork(self) -> None:
        """The thread stayed in the parent; what it was to compile is left to NumPy."""
        self.lock = threading.Lock()
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._working = threading.Lock()
        self._thread: threading.Thread | None = None
        self.stopped = False

    def add(self, make: Callable[[], None]) -> None:
        """Have a program made by ``make``."""
        with self.lock:
            if self.stopped:
                return
            self._queue.put(make)
            if not self._working.locked():
                threading.Thread(target=self._work, name="graphflow-eager", daemon=True).start()

    def _work(self) -> None:
        """Make programs, unless another thread is at that: Ctrl-C, too, ends a ``start()``."""
        if not self._working.acquire(blocking=False):
            return
        try:
            self._thread = threading.current_thread()
            while (make := self._queue.get()) is not None and not self.stopped:
                make()
        finally:
            self._working.release()

    def stop(self) -> None:
        """Make no more programs."""
        self.stopped = True
        self._queue.put(None)
        if self._thread is not None:
            self._thread.join(PATIENCE)


_known: dict[Any, _Known] = {}
_calls = count()
_blocks = Blocks(IDLE_BYTES)
_compiler = _Compiler()


def stays_with_numpy(name: str, error: Exception) -> None:
    """Warn that ``name`` could not be compiled, unless that is because the process is ending."""
    if not _compiler.stopped:
        reason = f"{type(error).__name__}: {error}"
        warnings.warn(
            f"eager {name} stays with NumPy, for it can't be compiled: {reason}", stacklevel=3
        )


def compile_beside(make: Callable[[], None]) -> None:
    """Have ``make()`` called by the thread that compiles for eager code."""
    _compiler.add(make)


def value(op: OpDef, arrays: Sequence[Array], attrs: dict[str, Any]) -> Array | None:
    """``op(*arrays, **attrs)`` in memory of its own, with the strides that NumPy would give it;
    None: NumPy shall compute it."""
    if not _may_run(op, arrays):
        return None
    order = None
    if not all(array.flags.c_contiguous for array in arrays):
        order = common_order(op, arrays)
        if order is None:
            return None
        arrays = [reordered(array, order) for array in arrays]
    key = (op, attrs_key(attrs), get_num_threads(), *map(_form, arrays))
    known = _known.get(key) or _looked_up(key, op, arrays, attrs)
    known.used = next(_calls)
    if known.run is None:
        known.done += op.cost * sum(array.size for array in arrays)
        if known.done >= WORTH and not known.asked:
            known.asked = True
            compile_beside(known.make)
        return None
    try:
        (made,) = known.run([start_of(array) for array in arrays])
    except IndexRangeError:
        return None  # the reference says where
    assert made is not None
    return made.array.transpose(inverse_order(order)) if order else made.array


def _may_run(op: OpDef, arrays: Sequence[Array]) -> bool:
    """Whether ``op`` has kernels that are quicker than its reference."""
    if op.kind not in _KINDS or not cpu.eager_kernels or flags.DISABLE_JIT.value:
        return False
    if any(array.dtype.kind == "c" for array in arrays):
        return False
    return not (op.blas and arrays[0].dtype.char in "fd")


def _form(array: Array) -> tuple[Any, ...]:
    return array.dtype, array.shape, None if array.flags.c_contiguous else array.strides


def _looked_up(key: Any, op: OpDef, arrays: Sequence[Array], attrs: dict[str, Any]) -> _Known:
    """An operation that is new to this process, with its program if that is there already."""
    graph = _graph(op, arrays, attrs)
    known = _Known(graph)
    if graph is not None and is_wanted_now(graph):
        known.make()
    with _compiler.lock:
        _known[key] = known
        _forget()
    return known


def is_wanted_now(graph: Graph, keep: bool = False) -> bool:
    """Whether the program of ``graph`` is to be made at once: the cache has it, or every run shall
    give the same bits."""
    if compiles_at_once():
        return True
    return is_stored(plan_key(graph, get_num_threads(), {}, keep, amended=b"".join(amendments)))


def _forget() -> None:
    """Let go of what was used least recently, where it is more than may be kept."""
    used = sum(known.nbytes for known in _known.values())
    if len(_known) <= KEPT and used <= KEPT_BYTES:
        return
    *oldest, _ = sorted(_known, key=lambda key: _known[key].used)
    for key in oldest:
        if len(_known) <= KEPT * 3 // 4 and used <= KEPT_BYTES * 3 // 4:
            break
        used -= _known.pop(key).nbytes


def _graph(op: OpDef, arrays: Sequence[Array], attrs: dict[str, Any]) -> Graph | None:
    """The operation over inputs that lie as ``arrays`` do; None if kernels cannot read these."""
    leaves, operands = [], []
    for number, array in enumerate(arrays):
        found = operand(f"x{number}", array)
        if found is None:
            return None
        leaves.append(found[0])
        operands.append(found[1])
    if isinstance(build.infer_type(op, tuple(operands), attrs), TupleType):
        return None
    made = build.emit(op, *operands, **attrs)
    return Graph(inputs=tuple(leaves), outputs=(made,), name=op.name)
