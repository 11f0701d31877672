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
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np

from graphflow import pytree
from graphflow.argument_memory import shared_cells
from graphflow.assigned import put_all
from graphflow.autograd.modes import in_grad_mode
from graphflow.capture import Capture, capture
from graphflow.cell import Cell, counted
from graphflow.collection import without_collection
from graphflow.dynamic import Dimensions, Dynamic, Family, shapes_of
from graphflow.entry import Entry
from graphflow.errors import CannotPostpone, IndexRangeError
from graphflow.guards import Described, Recompile, tell_of_many
from graphflow.labels import leaf_labels
from graphflow.mode import mode, structure
from graphflow.program import MOST_SIZES, Program
from graphflow.quick import MISS, quick_call
from graphflow.results import rebuild
from graphflow.runtime.fork import renew_after_fork
from graphflow.signature import (
    check_arguments,
    describe,
    difference,
    flat_arguments,
    place_of,
    signature_of,
    without_sizes,
)
from graphflow.tensor import Tensor
from graphflow.traced_sizes import NeedsSize

if TYPE_CHECKING:
    from graphflow.autograd.compiled import CallHistory, Given
    from graphflow.backward_program import BackwardProgram
    from graphflow.explain import Explanation
    from graphflow.partition import Backward

HandOver: TypeAlias = Callable[[Capture, Callable[[], None]], None]

_MAX_PROGRAMS, _MAX_SIGNATURES = 16, 256
"""Programs kept per signature, the least recently used goes first; and signatures."""


class Compiled:
    """What ``gf.compile(callable)`` returns; call it like the original."""

    tells: ClassVar[bool] = True
    """Whether to warn where operations run one by one instead of the program."""

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        device: str | None = None,
        dynamic: Any = None,
        passes: Any = None,
        keep_grads: bool = False,
        name: str | None = None,
        memory_limit: int | None = None,
        tune: float | None = None,
    ) -> None:
        self.original = function
        self.recompiles: list[Recompile] = []
        self._options: dict[str, Any] = {"device": device, "passes": passes}
        self._options |= {"memory_limit": memory_limit, "tune": tune}
        self._keep_grads = keep_grads
        self._name = name
        self._entries: dict[Any, list[Entry]] = {}
        self._last: Entry | None = None
        self._quick: Callable[[tuple[Any, ...]], Any] | None = None
        self._dimensions = Dimensions(dynamic)
        self._sized: OrderedDict[Any, None] = OrderedDict()
        self._by_shape: dict[Any, Entry] = {}
        self._lock = threading.RLock()
        renew_after_fork(self)
        self._signature: list[tuple[str, Described]] | None = None
        self._postpones = True  # gradients' nodes, till they are wanted
        self.__name__ = getattr(function, "__name__", type(function).__name__)
        self.__doc__ = getattr(function, "__doc__", None)
        self.__wrapped__ = function

    def after_fork(self) -> None:
        """A fresh lock in a forked child: the parent's may have been held by another thread."""
        self._lock = threading.RLock()

    @property
    def programs(self) -> list[Program]:
        """The programs made so far, one a signature and state of the world.

        A program with symbolic dimensions is one for all sizes.
        """
        entries = [entry for entries in self._entries.values() for entry in entries]
        families = [f for known in self._dimensions.families.values() for f in known]
        return [e.program for e in entries if e.family is None] + [f.program for f in families]

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Which dimensions of the arguments are symbolic, which could not be, and why."""
        return tuple(self._dimensions.notes)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the original returns, from the program that fits."""
        quick = self._quick
        if quick is not None and not kwargs:
            try:
                result = quick(args)
                if result is not MISS:
                    return result
                if self._by_shape:
                    result = self._at_other_sizes(args)
                    if result is not MISS:
                        return result
            except IndexRangeError:
                pass  # nothing has changed: the slow path fails with the place
        return self._slow_call(args, kwargs)

    def _at_other_sizes(self, args: tuple[Any, ...]) -> Any:
        """The quick call of the entry for the sizes of these arguments, if there is one."""
        entry = self._by_shape.get(tuple(map(_shape_at_hand, args)))
        if entry is None or entry.quick is None or entry is self._last:
            return MISS
        result = entry.quick(args)
        if result is not MISS:
            self._turn_to(entry)
        return result

    def _turn_to(self, entry: Entry) -> None:
        """Try the quick call of ``entry`` first from now on."""
        before = self._last
        if before is not None and entry.family is not None and before.program.loaded.is_large:
            before.program.loaded.release_outputs()
        self._last, self._quick = entry, entry.quick

    def _slow_call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        if mode.tracer is not None:
            return self.original(*args, **kwargs)
        with self._lock:
            return self._checked_call(args, kwargs)

    def prepare(self, *args: Any, **kwargs: Any) -> Entry:
        """Trace and compile for arguments like these, without running anything."""
        with self._lock:
            leaves, shape = flat_arguments(args, kwargs)
            return self._find(leaves, shape)

    def prepare_beside(self, args: tuple[Any, ...], hand_over: HandOver) -> None:
        """Trace for arguments like these now, and let ``hand_over(captured, make)`` see to it that
        ``make()`` compiles what was traced; from then on :meth:`attempt` finds the program."""
        leaves, shape = flat_arguments(args, {})
        captured = capture(self.original, args, {}, self._name, self._keep_grads, assigns=True)
        entries, grad = self._entries.setdefault(self._key(leaves, shape), []), mode.grad

        def make() -> None:
            program = Program.from_capture(captured, **self._options)
            entries.append(in_grad_mode(grad, self._entry, captured, program, leaves))

        hand_over(captured, make)

    def attempt(self, args: tuple[Any, ...]) -> Any:
        """What a program that is there already makes of ``args``; ``MISS`` if none fits."""
        quick = self._quick
        result = MISS if quick is None else quick(args)
        if result is not MISS:
            return result
        with self._lock:
            leaves, shape = flat_arguments(args, {})
            entry = self._fitting(self._entries.get(self._key(leaves, shape), []), leaves)
            return MISS if entry is None else self._run(entry, args, {}, leaves)

    def _checked_call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        leaves, shape = flat_arguments(args, kwargs)
        return self._run(self._find(leaves, shape), args, kwargs, leaves)

    def _run(
        self, entry: Entry, args: tuple[Any, ...], kwargs: Mapping[str, Any], leaves: list[Any]
    ) -> Any:
        captured = entry.capture
        entry.program.refresh()
        shared = shared_cells(leaves) | captured.shared
        shown = [
            Tensor._of(x._cell) if shared and isinstance(x, Tensor) and x._cell in shared else x
            for x in leaves
        ]
        bound = [(position, shown[i]) for i, position in captured.mutable]
        found, gradients, copied = entry.gradients()
        inputs = [shown[i] for i in entry.inputs]
        outputs = counted(captured.updated, entry.program.run, inputs, bound + found)
        entry.settle(gradients, copied)
        if entry is not self._last:
            if entry.simple and entry.quick is None:
                entry.quick = quick_call(entry)
            if entry.family is not None and not kwargs:
                self._by_shape[tuple(map(_shape_at_hand, args))] = entry
            self._turn_to(entry)
        for i, number in captured.argument_grads:
            _add_grad(leaves[i], Tensor._of(outputs[number]))
        returned, live = rebuild(captured, outputs, leaves)
        if entry.history is not None:
            entry.history.record(outputs, live, leaves, (args, kwargs), shown)
        return put_all(captured, returned, leaves) if captured.members else returned

    def _entry(
        self, captured: Capture, program: Program, leaves: list[Any], family: Family | None = None
    ) -> Entry:
        entry = Entry(captured, program, leaves, family)
        if captured.backward is not None:
            entry.history = self._history(entry, captured.backward)
        return entry

    def _history(self, entry: Entry, backward: Backward) -> CallHistory:
        """What gives results of an entry's calls the history that leaves the function."""
        captured = entry.capture
        from graphflow.autograd.compiled import CallHistory

        def run(
            cts: Sequence[Tensor], saved: Sequence[Cell], arguments: Sequence[Tensor]
        ) -> Sequence[Tensor]:
            if entry.backward is None:
                entry.backward = self._backward_program(entry, saved)
            return entry.backward.run(cts, saved, arguments)

        def again(given: Given, leaves: Sequence[Any]) -> Sequence[Tensor]:
            from graphflow.autograd.again import run_again  # seldom asked for

            return run_again(self.original, captured, self.tells, given, leaves)

        repeats = again if captured.may_repeat else None
        return CallHistory(backward, captured.cells, run, repeats)

    def _backward_program(self, entry: Entry, saved: Sequence[Cell]) -> BackwardProgram:
        """The program of gradients for an entry; those of one family share it."""
        from graphflow.backward_program import backward_program

        family = entry.family
        if family is None:
            return backward_program(entry.capture, saved, self._options)
        if family.backward is None:
            family.backward = backward_program(entry.capture, saved, self._options)
        return family.backward.at(entry.capture.sizes)

    def _find(
        self,
        leaves: list[Any],
        shape: pytree.Structure,
    ) -> Entry:
        check_arguments(leaves)
        key = self._key(leaves, shape)
        entries = self._entries.setdefault(key, [])
        if len(self._entries) > _MAX_SIGNATURES:
            self._by_shape.clear()
            del self._entries[next(iter(self._entries))]
        entry = self._fitting(entries, leaves)
        if entry is not None:
            return entry
        kind = (*key[:-1], without_sizes(key[-1]))
        sized = self._sized_entry(kind, key, leaves)
        if sized is not None:
            return sized
        args, kwargs = pytree.unflatten(shape, leaves)
        labels = leaf_labels(self.original, args, kwargs)
        described = list(zip(labels, map(describe, leaves)))
        cause = self._dimensions.broken(kind, leaves) or self._cause(entries, described)
        traced = self._dynamic_trace(args, kwargs, leaves, kind, labels)
        entry = self._trace(args, kwargs, leaves) if traced is None else traced
        if traced is not None:
            self._keep_sized(key, entry)
        else:
            if entries and entry.written:
                entry.told_apart(entries[-1], leaves)
            entries.append(entry)
            del entries[:-_MAX_PROGRAMS]
        self._dimensions.remember(kind, leaves)
        if cause is not None:
            self.recompiles.append(Recompile(*cause, place_of(self.original)))
            tell_of_many(self.__name__, self.recompiles)
        self._signature = described
        return entry

    def _key(self, leaves: list[Any], shape: pytree.Structure) -> tuple[Any, ...]:
        """What programs are kept by: nests, modes and the signature of the arguments."""
        modes = (mode.grad, mode.autocast and mode.autocast.dtypes)
        return shape, modes, signature_of(leaves)

    def _fitting(self, entries: list[Entry], leaves: list[Any]) -> Entry | None:
        """The latest of ``entries`` whose assumptions hold, as the latest from now on."""
        for position in range(len(entries) - 1, -1, -1):
            entry = entries[position]
            if entry.broken() is None and entry.captured_arguments(leaves) == entry.aliased:
                entries.append(entries.pop(position))
                return entry
        return None

    def _trace(
        self,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        leaves: list[Any],
        dynamic: Dynamic | None = None,
    ) -> Entry:
        started = time.perf_counter()
        try:
            captured, program = self._captured(args, kwargs, dynamic, self._postpones)
        except CannotPostpone:
            self._postpones = False
            captured, program = self._captured(args, kwargs, dynamic, False)
        program.trace_seconds = time.perf_counter() - started - program.build_seconds
        elapsed = time.perf_counter() - started
        if elapsed > 1.0:
            print(f"graphflow: compiled {captured.name} in {elapsed:.1f} s", file=sys.stderr)
        if dynamic is None:
            return self._entry(captured, program, leaves)
        family = Family(dynamic, captured, program, tuple(shapes_of(leaves)))
        return self._entry(captured.at(captured.sizes), program, leaves, family)

    def _captured(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], dynamic: Dynamic | None,
        postpones: bool,
    ) -> tuple[Capture, Program]:  # fmt: skip
        captured = without_collection(capture)(
            self.original, args, kwargs, self._name, self._keep_grads,
            dynamic=dynamic, assigns=True, postpones=postpones,
        )  # fmt: skip
        example = dynamic.largest if dynamic is not None else {}
        return captured, Program.from_capture(captured, example=example, **self._options)

    def _dynamic_trace(
        self,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        leaves: list[Any],
        kind: Any,
        labels: Sequence[str],
    ) -> Entry | None:
        """A program with symbolic dimensions, if there are to be some and all goes well."""
        known = self._dimensions
        dynamic = known.choose(kind, leaves, labels)
        while dynamic is not None:
            try:
                entry = self._trace(args, kwargs, leaves, dynamic)
            except Exception as error:
                # What fails with a fixed size too fails again then, and says so better.
                names, why, always = dynamic.names, str(error).partition("\n")[0], True
                if isinstance(error, NeedsSize):
                    names, why, always = error.symbols, error.reason, error.always
                known.fix(kind, dynamic.sized(leaves, labels, names), why, always)
                dynamic = dynamic.without(names)
                continue
            assert entry.family is not None
            families = known.families.setdefault(kind, [])
            families.append(entry.family)
            del families[:-_MAX_PROGRAMS]
            known.note(dynamic, labels)
            return entry
        return None

    def _sized_entry(self, kind: Any, key: Any, leaves: list[Any]) -> Entry | None:
        """The program of a family for the sizes of these arguments."""
        found = self._dimensions.family(kind, leaves)
        if found is None:
            return None
        family, sizes = found
        program = family.program.at(sizes)
        entry = self._entry(family.capture.at(sizes), program, leaves, family)
        if entry.broken() is not None or entry.aliased != ():
            return None
        self._keep_sized(key, entry)
        return entry

    def _keep_sized(self, key: Any, entry: Entry) -> None:
        """Keep the entry for the next calls of these sizes, in place of the least recent one."""
        self._entries.setdefault(key, []).append(entry)
        self._sized[key] = None
        if len(self._sized) > MOST_SIZES:
            old, _ = self._sized.popitem(last=False)
            self._by_shape.clear()
            self._entries[old] = [e for e in self._entries.get(old, ()) if e.family is None]

    def _cause(
        self, entries: list[Entry], described: list[tuple[str, Described]]
    ) -> tuple[str, Any, Any] | None:
        """What changed since the program before: its name, from what, to what."""
        if not self._entries or (self._last is None and not entries):
            return None
        if entries:
            broken = entries[-1].broken()
            if broken is None:
                return "an argument that the function may reach from outside, too", None, None
            return broken.change()
        found = difference(dict(self._signature or []), dict(described))
        return found or ("gradient mode, autocast or shared memory of the arguments", None, None)

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
        self._sized.clear()
        self._by_shape.clear()
        self._dimensions.clear()
        self.recompiles.clear()
        self._last = self._quick = None

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is None:
            return self
        import types

        return types.MethodType(self, instance)

    def __reduce__(self) -> Any:
        """Copies and pickles hold the original and the options; programs are made anew."""
        options = {
            **self._options,
            "dynamic": self._dimensions.asked,
            "keep_grads": self._keep_grads,
            "name": self._name,
        }
        return _again, (type(self), self.original, options)

    def __repr__(self) -> str:
        return f"<compiled {self.__name__}, {len(self.programs)} programs>"


class CompiledModule(Compiled):
    """A compiled ``nn.Module``: calls play programs, attributes are the module's.

    A method that returns its module (``eval()``, ``to()``) returns the compiled one.
    """

    def install(self) -> Any:
        """The module, which is compiled wherever it is called from now on."""
        self.original.__dict__["_compiled"] = self
        structure.bump()
        return self.original

    def __getattr__(self, name: str) -> Any:
        if name == "original":
            raise AttributeError(name)
        found = getattr(self.original, name)
        if getattr(found, "__self__", None) is not self.original:
            return found

        @wraps(found)
        def method(*args: Any, **kwargs: Any) -> Any:
            result = found(*args, **kwargs)
            return self if result is self.original else result

        return method

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_") or name in ("original", "recompiles"):
            object.__setattr__(self, name, value)
        else:
            setattr(self.original, name, value)

    def __repr__(self) -> str:
        return f"compiled({self.original!r})"


def _shape_at_hand(argument: Any) -> Any:
    """The shape of a tensor whose array is there already, else nothing."""
    array = argument._array if argument.__class__ is Tensor else None
    return array.shape if array.__class__ is np.ndarray else None


def _again(kind: type[Compiled], original: Any, options: dict[str, Any]) -> Compiled:
    return kind(original, **options)


def _add_grad(argument: Tensor, gradient: Tensor) -> None:
    held = argument._grad
    argument._grad = gradient if held is None else (held + gradient).detach()
