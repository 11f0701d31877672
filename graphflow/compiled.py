"""``gf.compile``: a callable that traces once per signature and then plays programs.

A call first tries the program of the previous call: the structure version has
not moved, the names the function reads hold the same objects, the arguments
have the same types.  Only when that fails are other programs looked at, and
only when none fits is the function traced again, with the reason kept in
``recompiles``.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphflow import pytree
from graphflow.autograd.compiled import CompiledNode
from graphflow.autograd.several import attach
from graphflow.capture import Capture, Static, capture, check_arguments, leaf_labels, shared_cells
from graphflow.cell import CAPTURED, Cell, layout_of
from graphflow.errors import IndexRangeError
from graphflow.functions.creation import from_numpy
from graphflow.guards import Described, Guard, Recompile, same_value
from graphflow.ir.node import attrs_key, value_key
from graphflow.mode import mode, structure
from graphflow.partition import Backward
from graphflow.program import Program
from graphflow.quick import MISS, quick_call
from graphflow.reads import Read
from graphflow.results import rebuild
from graphflow.runtime.fork import renew_after_fork
from graphflow.tensor import Tensor

if TYPE_CHECKING:
    from graphflow.explain import Explanation

_MAX_PROGRAMS = 16
"""Programs kept per signature; the least recently used goes first."""


class Entry:
    """A program, what it assumed, and when that was last checked.

    ``simple`` entries have a quick path: arguments are leaves, results are fresh
    tensors, nothing is aliased, and no history leaves the function.
    """

    __slots__ = (
        "_owned", "aliased", "backward", "capture", "grad", "inputs", "program", "reads", "same",
        "simple", "specs", "uses_grads", "values", "version",
    )  # fmt: skip

    def __init__(self, captured: Capture, program: Program, leaves: Sequence[Any]) -> None:
        self.capture = captured
        self.program = program
        self.backward: Program | None = None
        self.reads = captured.reads
        self.version = self.values = -1
        self.grad = mode.grad
        self.inputs = captured.leaves
        self.specs = tuple(_spec(leaf) for leaf in leaves)
        self._owned = frozenset(captured.cells) | captured.named
        for cell in self._owned:
            cell.layout = CAPTURED
        self.aliased = self.captured_arguments(leaves)
        self.uses_grads = captured.uses_grads
        groups = _groups_by_memory(leaves)
        self.same = tuple((group[0], i) for group in groups for i in group[1:])
        self.simple = (
            not (captured.mutable or captured.argument_grads or captured.backward or self.aliased)
            and not any(leaves[i]._chain for group in groups for i in group)
            and program.simple
            and all(r.kind == "new" and not r.chain for r in captured.results)
        )

    def word(self, arg: Any, spec: tuple[Any, Any, Any], words: list[int | float]) -> bool:
        """Append the address or value of an argument; False unless it is what ``spec`` says.

        Row-major memory is remembered as such: next time one comparison will do.
        """
        dtype = spec[0]
        if dtype is None:
            return arg.__class__ is spec[1] and bool(arg == spec[2])
        if dtype is float:
            if arg.__class__ is float:
                words.append(arg)
            return arg.__class__ is float
        if arg.__class__ is not Tensor:
            return False
        array, cell = arg._array, arg._cell
        if array.__class__ is not np.ndarray or cell in self._owned:
            return False
        if array.dtype is not dtype or array.shape != spec[1] or arg._requires_grad != spec[2]:
            return False
        if not array.flags.c_contiguous:
            return False
        if arg._chain:
            words.append(int(array.__array_interface__["data"][0]))
            return True
        words.append(cell.address)
        if cell.layout is None:
            cell.layout = layout_of(dtype, spec[1])
        return True

    def captured_arguments(self, leaves: Sequence[Any]) -> tuple[tuple[int, Cell], ...]:
        """The arguments that the function also reaches from outside."""
        return tuple(
            (i, leaf._cell)
            for i, leaf in enumerate(leaves)
            if isinstance(leaf, Tensor) and leaf._cell in self._owned
        )

    def broken(self) -> Read | Guard | None:
        """The first assumption that no longer holds."""
        for read in self.reads:
            if not same_value(read.now(), read.value):
                return read
        if self.settled():
            return None
        return next((guard for guard in self.capture.guards if not guard.holds()), None)

    def settled(self) -> bool:
        """True while nothing that a guard looks at has changed since the last run."""
        return self.version == (structure.version if self.uses_grads else structure.solid)

    def settle(self) -> None:
        """Give every leaf the ``.grad`` that the program leaves behind."""
        moved = False
        for leaf, value in self.capture.grads:
            moved |= leaf._grad is not value
            leaf._grad = value
        if moved:
            # What appeared may be what this very program assumed was not there.
            structure.regrade()
            self.version = -1
        else:
            self.version = structure.version if self.uses_grads else structure.solid


class Compiled:
    """What ``gf.compile(callable)`` returns; call it like the original."""

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        device: str | None = None,
        dynamic: Any = None,
        passes: Any = None,
        keep_grads: bool = False,
        name: str | None = None,
    ) -> None:
        self.original = function
        self.recompiles: list[Recompile] = []
        self._options: dict[str, Any] = {"device": device, "passes": passes}
        self._keep_grads = keep_grads
        self._name = name
        self._entries: dict[Any, list[Entry]] = {}
        self._last: Entry | None = None
        self._quick: Callable[[tuple[Any, ...]], Any] | None = None
        self._lock = threading.RLock()
        renew_after_fork(self)
        self._signature: list[tuple[str, Described]] | None = None
        self.__name__ = getattr(function, "__name__", type(function).__name__)
        self.__doc__ = getattr(function, "__doc__", None)
        self.__wrapped__ = function

    def after_fork(self) -> None:
        """A fresh lock in a forked child: the parent's may have been held by another thread."""
        self._lock = threading.RLock()

    @property
    def programs(self) -> list[Program]:
        """The programs made so far, one a signature and state of the world."""
        return [entry.program for entries in self._entries.values() for entry in entries]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the original returns, from the program that fits."""
        quick = self._quick
        if quick is not None and not kwargs:
            try:
                result = quick(args)
                if result is not MISS:
                    return result
            except IndexRangeError:
                pass  # nothing has changed: the slow path fails with the place
        return self._slow_call(args, kwargs)

    def _slow_call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        if mode.tracer is not None:
            return self.original(*args, **kwargs)
        with self._lock:
            return self._checked_call(args, kwargs)

    def prepare(self, *args: Any, **kwargs: Any) -> Entry:
        """Trace and compile for arguments like these, without running anything."""
        with self._lock:
            leaves, shape = _flat_arguments(args, kwargs)
            return self._find(leaves, shape)

    def _checked_call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        leaves, shape = _flat_arguments(args, kwargs)
        entry = self._find(leaves, shape)
        captured = entry.capture
        entry.program.refresh()
        shared = shared_cells(leaves)
        shown = [
            Tensor._of(x._cell) if shared and isinstance(x, Tensor) and x._cell in shared else x
            for x in leaves
        ]
        written = [(position, shown[i]) for i, position in captured.mutable]
        outputs = entry.program.run([shown[i] for i in entry.inputs], written)
        for cell in captured.updated:
            cell.version += 1
        entry.settle()
        if entry is not self._last:
            self._last = entry
            self._quick = quick_call(entry) if entry.simple else None
        for i, number in captured.argument_grads:
            _add_grad(leaves[i], Tensor._of(outputs[number]))
        returned, live = rebuild(captured, outputs, leaves)
        if captured.backward is not None:
            self._record(entry, captured.backward, outputs, leaves, live)
        return returned

    def _record(
        self,
        entry: Entry,
        backward: Backward,
        outputs: Sequence[Cell],
        leaves: Sequence[Any],
        live: Sequence[Tensor],
    ) -> None:
        """Give live results a history whose backward is a program, made at its first use."""
        targets = [
            leaf if i < 0 else leaves[i]
            for leaf, i in zip(backward.leaves, backward.leaf_arguments, strict=True)
        ]
        given = [Tensor._of(outputs[n]) for n in backward.saved]
        given += [leaves[i].detach() for i in backward.arguments]
        watched = [*backward.cells, *(leaves[i]._cell for i in backward.arguments)]

        def run(cts: Sequence[Tensor]) -> list[Tensor]:
            if entry.backward is None:
                entry.backward = Program(backward.graph, backward.cells, (), (), **self._options)
            return [Tensor._of(cell) for cell in entry.backward.run([*cts, *given])]

        types = [t._type_now() for t in live]
        attach(live, CompiledNode(targets, types, watched, run))

    def _find(
        self,
        leaves: list[Any],
        shape: pytree.Structure,
    ) -> Entry:
        check_arguments(leaves)
        key = (shape, mode.grad, _signature(leaves))
        entries = self._entries.setdefault(key, [])
        for position in range(len(entries) - 1, -1, -1):
            entry = entries[position]
            if entry.broken() is None and entry.captured_arguments(leaves) == entry.aliased:
                entries.append(entries.pop(position))
                return entries[-1]
        args, kwargs = pytree.unflatten(shape, leaves)
        described = list(zip(leaf_labels(self.original, args, kwargs), map(_describe, leaves)))
        cause = self._cause(entries, described)
        entry = self._trace(args, kwargs, leaves, entries)
        if cause is not None:
            self.recompiles.append(Recompile(*cause, _place(self.original)))
        self._signature = described
        return entry

    def _trace(
        self,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        leaves: list[Any],
        entries: list[Entry],
    ) -> Entry:
        started = time.perf_counter()
        captured = capture(self.original, args, kwargs, self._name, self._keep_grads)
        program = Program.from_capture(captured, **self._options)
        program.trace_seconds = time.perf_counter() - started - program.build_seconds
        elapsed = time.perf_counter() - started
        if elapsed > 1.0:
            print(f"graphflow: compiled {captured.name} in {elapsed:.1f} s", file=sys.stderr)
        entry = Entry(captured, program, leaves)
        entries.append(entry)
        del entries[:-_MAX_PROGRAMS]
        return entry

    def _cause(
        self, entries: list[Entry], described: list[tuple[str, Described]]
    ) -> tuple[str, Any, Any] | None:
        """What changed since the program before: its name, from what, to what."""
        if not self._entries or (self._last is None and not entries):
            return None
        if entries:
            broken = entries[-1].broken()
            if broken is None:
                return "an argument that the function also reaches from outside", None, None
            return broken.change()
        before = dict(self._signature or [])
        for name, text in described:
            if name in before and before[name] != text:
                return name, before[name], text
        if before and list(before) != [name for name, _ in described]:
            names = Described(", ".join(before)), Described(", ".join(n for n, _ in described))
            return "the structure of the arguments", *names
        return "gradient mode or shared memory of the arguments", None, None

    @property
    def latest(self) -> Entry | None:
        """The program of the last call, with what it assumed."""
        return self._last

    def explain(self) -> Explanation:
        """Stages, kernels, memory, cache and recompiles of the latest program."""
        from graphflow.explain import explain_compiled

        return explain_compiled(self)

    def clear(self) -> None:
        """Forget every program."""
        self._entries.clear()
        self.recompiles.clear()
        self._last = self._quick = None

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is None:
            return self
        import types

        return types.MethodType(self, instance)

    def __reduce__(self) -> Any:
        """Copies and pickles hold the original and the options; programs are made anew."""
        options = {**self._options, "keep_grads": self._keep_grads, "name": self._name}
        return _again, (type(self), self.original, options)

    def __repr__(self) -> str:
        return f"<compiled {self.__name__}, {len(self.programs)} programs>"


class CompiledModule(Compiled):
    """A compiled ``nn.Module``: calls play programs, attributes are the module's."""

    def __getattr__(self, name: str) -> Any:
        if name == "original":
            raise AttributeError(name)
        return getattr(self.original, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_") or name in ("original", "recompiles"):
            object.__setattr__(self, name, value)
        else:
            setattr(self.original, name, value)

    def __repr__(self) -> str:
        return f"compiled({self.original!r})"


def _again(kind: type[Compiled], original: Any, options: dict[str, Any]) -> Compiled:
    return kind(original, **options)


def _add_grad(argument: Tensor, gradient: Tensor) -> None:
    held = argument._grad
    argument._grad = gradient if held is None else (held + gradient).detach()


def _groups_by_memory(leaves: Sequence[Any]) -> list[list[int]]:
    """Positions of tensors that show the same memory, where there is more than one."""
    groups: dict[Any, list[int]] = {}
    for i, leaf in enumerate(leaves):
        if isinstance(leaf, Tensor):
            groups.setdefault(leaf._cell, []).append(i)
    return [group for group in groups.values() if len(group) > 1]


def _signature(leaves: Sequence[Any]) -> tuple[Any, ...]:
    """What of the arguments a program depends on; a hashable key."""
    cells: dict[Any, int] = {}
    shared = shared_cells(leaves)
    parts: list[Any] = []
    for leaf in leaves:
        if isinstance(leaf, Tensor):
            array = leaf._eager()
            alias = cells.setdefault(leaf._cell, len(cells))
            chain: tuple[Any, ...] = ()
            if leaf._cell in shared:
                chain = tuple((step.op.name, attrs_key(step.attrs)) for step in leaf._chain)
            parts.append((array.dtype, array.shape, leaf._requires_grad, alias, chain))
        elif type(leaf) is float:
            parts.append(float)
        elif isinstance(leaf, Static):
            parts.append(("static", value_key(leaf.value)))
        else:
            parts.append((type(leaf), leaf))
    return tuple(parts)


def _spec(leaf: Any) -> tuple[Any, Any, Any]:
    """What a leaf must look like for the quick path.

    (NumPy dtype, shape, requires grad) of a tensor; (float, …) for a run-time
    scalar; (None, class, value) for anything static.
    """
    if isinstance(leaf, Tensor):
        array = leaf._eager()
        return (array.dtype, array.shape, leaf._requires_grad)
    if type(leaf) is float:
        return (float, (), False)
    return (None, type(leaf), leaf)


def _describe(leaf: Any) -> Described:
    if isinstance(leaf, Tensor):
        grad = " requiring grad" if leaf._requires_grad else ""
        return Described(f"{leaf._type_now()}{grad}")
    if isinstance(leaf, Static):
        return Described(repr(leaf.value))
    return Described("float" if type(leaf) is float else repr(leaf))


def _flat_arguments(
    args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[list[Any], pytree.Structure]:
    """The leaves of a call's arguments, keywords in one order however they were given."""
    leaves, shape = pytree.flatten((args, {name: kwargs[name] for name in sorted(kwargs)}))
    return [_as_argument(leaf) for leaf in leaves], shape


def _as_argument(leaf: Any) -> Any:
    """NumPy arrays as tensors over their memory, NumPy numbers as Python's."""
    if isinstance(leaf, np.ndarray):
        return from_numpy(leaf)
    return leaf.item() if isinstance(leaf, (np.number, np.bool_)) else leaf


def _place(function: Any) -> str:
    """Where a function was defined: file and line."""
    while hasattr(function, "func"):
        function = function.func
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    if code is None:
        code = getattr(getattr(type(function), "forward", None), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else ""
