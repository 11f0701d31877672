"""From kernel source to object code: Numba's front end, then LLVM once.

:mod:`graphflow.codegen.frontend` lowers a kernel to LLVM text; here the text is
optimised and emitted by threads of their own while the next kernels are lowered,
so that all processors work on Numba's Python and LLVM's C++::

    objects = compile_kernels([KernelSource("ew_tanh_3fa2", text)]).objects

    with Compilation() as compilation:
        compilation.add(kernel, path)      # as soon as it is known
        ...                                # other work: LLVM is busy meanwhile
        objects = compilation.finish().objects

Importing this module imports Numba (half a second); the runtime does so only
when a kernel is missing from the cache.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ContextDecorator, ExitStack
from ctypes import string_at
from functools import partial
from heapq import heappop, heappush
from itertools import starmap
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
from llvmlite.binding import ffi
from numba.core.compiler_lock import global_compiler_lock

from graphflow.codegen.frontend import Lowered, lower
from graphflow.codegen.object_files import archive, members, undefined_symbols
from graphflow.codegen.schedule import KernelSource
from graphflow.codegen.target import Target, chosen_target, target_machine
from graphflow.errors import CompileError
from graphflow.records import dataclass, field

_GUARDED_LOAD = "] if "
_MOST_THREADS = 4  # beside the one that lowers, which can keep no more of them busy
_SWITCH_SECONDS = 2e-4
_UNCOLLECTED = 1 << 16  # characters of kernels
_known_bodies: dict[Target, dict[str, bytes]] = {}
"""Object code of bodies of the vocabulary that this process has compiled."""


@dataclass(frozen=True)
class Compiled:
    """Object code by kernel name, and the seconds each kernel took (front end and LLVM)."""

    objects: Mapping[str, bytes]
    seconds: Mapping[str, float] = field(default_factory=dict)


def _unlocked(name: str) -> Callable[..., Any]:
    """A function of LLVM without the lock that its binding holds during every call.

    LLVM lets several threads optimise and emit, each in a context of its own.
    """
    function: Any = getattr(ffi.lib, name)
    unlocked: Callable[..., Any] = getattr(function, "_cfn", function)
    return unlocked


_SETTINGS = ("enable-mem-access-versioning", "enable-misched")
"""What LLVM does for all code, unless told otherwise, but had better not do for kernels.

It writes a second form of loops for steps that turn out to be 1.  Kernels say which steps are 1;
of the two forms only the one for 1 is in vectors: the other takes an element at a time, with a
jump a choice.

It puts instructions in another order before it gives them registers.  Tiles are written in an
order that needs as many as there are: in another, sums went to memory and back at every step.
"""


class _WhileAny(ContextDecorator, ABC):
    """What holds for the process while any thread is in what this decorates, or in its ``with``."""

    def __init__(self) -> None:
        self._lock, self._entered = threading.Lock(), 0

    def __enter__(self) -> None:
        with self._lock:
            if not self._entered:
                self.begin()
            self._entered += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._entered -= 1
            if not self._entered:
                self.end()

    @abstractmethod
    def begin(self) -> None:
        """Called by the first that comes."""

    @abstractmethod
    def end(self) -> None:
        """Called by the last that goes: puts back what was."""


class _AsWritten(_WhileAny):
    """LLVM leaves out :data:`_SETTINGS`.  They are the process's, for what else uses LLVM, too."""

    def begin(self) -> None:
        self._set("false")

    def end(self) -> None:
        self._set("true")

    @staticmethod
    def _set(value: str) -> None:
        for setting in _SETTINGS:
            llvm.set_option("graphflow", f"-{setting}={value}")


class _Yielding(_WhileAny):
    """The interpreter's lock is given up quickly: LLVM's threads want it for moments, and often."""

    def begin(self) -> None:
        self._interval = sys.getswitchinterval()
        sys.setswitchinterval(min(self._interval, _SWITCH_SECONDS))

    def end(self) -> None:
        sys.setswitchinterval(self._interval)


as_written = _AsWritten()
_yielding = _Yielding()


class _Backend(threading.local):
    """LLVM for one target: a machine and a context for each thread."""

    def __init__(self, target: Target) -> None:
        self._machine = target_machine(target)
        self._context = llvm.create_context()

    def optimise(self, lowered: Lowered) -> Any:
        """The optimised module; only the kernel's entry stays visible."""
        name = lowered.kernel.name
        module = self._parsed(name, lowered.text)
        for library in lowered.libraries:
            bitcode = library._get_module_for_linking().as_bitcode()
            module.link_in(llvm.parse_bitcode(bitcode, self._context))
            _hide(module, name)
        builder = llvm.create_pass_builder(self._machine, _options(lowered))
        _run(builder.getModulePassManager(), module, builder)
        if lowered.inlined:
            for text in lowered.inlined:
                module.link_in(self._parsed(name, text))
            _hide(module, name)
            _run(few_passes(), module, builder)
        return module

    def body(self, name: str, text: str) -> Any:
        """The optimised module of a body of the vocabulary."""
        module = self._parsed(name, text)
        module.triple = self._machine.triple
        module.data_layout = str(self._machine.target_data)
        options = llvm.create_pipeline_tuning_options()
        _run(few_passes(), module, llvm.create_pass_builder(self._machine, options))
        return module

    def _parsed(self, name: str, text: str) -> Any:
        try:
            module = llvm.parse_assembly(text, self._context)
            module.verify()
        except RuntimeError as error:
            raise CompileError(f"kernel {name}: invalid LLVM: {error}") from error
        return module

    def emit(self, lowered: Lowered) -> bytes:
        """Object code of a kernel, without that of the bodies that it calls."""
        data = self.emitted(self.optimise(lowered))
        called = [name for name in undefined_symbols(data) if name not in lowered.bodies]
        missing = [name for name in called if not _is_loaded(name)]
        if missing:  # LLVM would end the process when linking
            raise CompileError(
                f"kernel {lowered.kernel.name} calls {', '.join(missing)}, "
                "which no library of this process defines"
            )
        return data

    def emitted(self, module: Any) -> bytes:
        """Object code of an optimised module."""
        with ffi.OutputString() as message:
            emit = _unlocked("LLVMPY_TargetMachineEmitToMemory")
            buffer = emit(self._machine, module, 1, message)
            if not buffer:
                raise CompileError(f"LLVM cannot emit {module.name}: {message}")
        try:
            start, size = (
                ffi.lib.LLVMPY_GetBufferStart(buffer),
                ffi.lib.LLVMPY_GetBufferSize(buffer),
            )
            return string_at(start, size)
        finally:
            ffi.lib.LLVMPY_DisposeMemoryBuffer(buffer)

    def assembly(self, lowered: Lowered) -> str:
        """Machine code as text, that of the bodies it calls after its own."""
        modules = [self.optimise(lowered), *starmap(self.body, lowered.bodies.items())]
        return "\n".join(str(self._machine.emit_assembly(module)) for module in modules)


def _hide(module: Any, name: str) -> None:
    """Make all functions but ``name`` internal, as those of the lowered text are already."""
    for function in module.functions:
        if function.is_declaration:
            function.add_function_attribute("nonlazybind")
        elif function.name != name:
            function.linkage = llvm.Linkage.internal


def _options(lowered: Lowered) -> Any:
    """How LLVM optimises a kernel: as little as makes no kernel slower.

    Register tiles are written in vectors, so there is little to find beyond the first level.
    At the third LLVM writes a loop anew for each condition that stays the same in it, which
    pays where loads are guarded.  What lies outside of loops is not worth vectorising.
    """
    level = 1 if lowered.tiled else 3 if _GUARDED_LOAD in lowered.kernel.source else 2
    options = llvm.create_pipeline_tuning_options(speed_level=level)
    options.loop_vectorization = True
    options.loop_interleaving = True
    options.loop_unrolling = True
    options.slp_vectorization = False
    return options


def few_passes() -> Any:
    """What bodies of the vocabulary gain from: what is stored and loaded stays in registers, and
    calls of single instructions become these instructions.

    They are vectors already; all that LLVM does for other code took half the time of a product.
    """
    passes = llvm.create_new_module_pass_manager()
    passes.add_always_inliner_pass()
    passes.add_sroa_pass()
    passes.add_instruction_combine_pass()
    passes.add_simplify_cfg_pass()
    return passes


def _run(passes: Any, module: Any, builder: Any) -> None:
    _unlocked("LLVMPY_RunNewModulePassManager")(passes, module, builder)


def _is_loaded(symbol: str) -> bool:
    return symbol == "_GLOBAL_OFFSET_TABLE_" or bool(llvm.address_of_symbol(symbol))


def _free_locks() -> None:
    """Let go of LLVM's and Numba's lock, if Ctrl-C left this thread with them.

    ``__enter__`` takes them in Python, and can be interrupted right after that: no other thread
    would ever get them again.
    """
    for holder in (getattr(ffi.lib, "_lock", None), global_compiler_lock):
        lock: Any = getattr(holder, "_lock", None)
        while hasattr(lock, "_is_owned") and lock._is_owned():
            lock.release()


class Compilation:
    """Kernels on their way to object code for the chosen target, each with a C entry of its name.

    Threads optimise and emit what :meth:`add` has lowered, and the bodies that it calls, what
    takes longest first, so that they end together.  For one thread; a context manager.
    """

    def __init__(self) -> None:
        self._target = chosen_target()
        self._backend = _Backend(self._target)
        self._waiting: list[tuple[int, int, Callable[[], None]]] = []
        self._lock = threading.Lock()
        self._running: list[Future[bool]] = []
        self._objects: dict[str, bytes] = {}
        self._bodies: dict[str, bytes] = _known_bodies.setdefault(self._target, {})
        self._called: dict[str, Collection[str]] = {}
        self._asked: set[str] = set()
        self._seconds: dict[str, float] = {}
        self._uncollected = 0
        self._open = ExitStack()

    def __enter__(self) -> Compilation:
        try:
            _free_locks()
            self._open.enter_context(as_written)
            self._open.enter_context(_yielding)
            self._workers = ThreadPoolExecutor(_threads(), thread_name_prefix="graphflow-llvm")
            self._open.callback(self._workers.shutdown, cancel_futures=True)
        except BaseException:  # Ctrl-C: the block is not entered, so nobody leaves it
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        _free_locks()  # or the threads that are waited for would wait, too
        self._waiting.clear()
        self._open.close()

    def add(self, kernel: KernelSource, path: Path) -> None:
        """Lower a kernel whose source is in file ``path``, and have it compiled.

        Raises :class:`CompileError` naming the kernel and its file.
        """
        start = time.perf_counter()
        with global_compiler_lock:
            lowered = lower(kernel, path, self._target)
        self._seconds[kernel.name] = time.perf_counter() - start
        self._called[kernel.name] = lowered.bodies.keys()
        self._have_done(lowered.text, partial(self._emit, lowered))
        for name, text in lowered.bodies.items():
            if name not in self._bodies and name not in self._asked:
                self._asked.add(name)
                self._have_done(text, partial(self._emit_body, name, text))
        self._uncollected = _collected(self._uncollected + len(kernel.source))

    def know(self, objects: Mapping[str, bytes]) -> None:
        """Take the bodies that came with kernels compiled earlier, for this target."""
        for name, data in objects.items():
            for body, code in members(name, data).items():
                if body != name:
                    self._bodies.setdefault(body, code)

    def _have_done(self, text: str, work: Callable[[], None]) -> None:
        with self._lock:
            heappush(self._waiting, (-len(text), len(self._running), work))
        self._running.append(self._workers.submit(self._do_largest))

    def finish(self) -> Compiled:
        """All that was added, when it is compiled."""
        while self._do_largest():  # this thread has nothing else to do now
            pass
        for future in self._running:
            future.result()
        return Compiled({name: self._whole(name) for name in self._seconds}, self._seconds)

    def _whole(self, name: str) -> bytes:
        """A kernel's object code, and that of the bodies which it calls."""
        bodies = {body: self._bodies[body] for body in self._called[name]}
        return archive({name: self._objects[name], **bodies})

    def _do_largest(self) -> bool:
        """Compile the largest of what waits; False if nothing does."""
        with self._lock:
            if not self._waiting:
                return False
            work = heappop(self._waiting)[-1]
        work()
        return True

    def _emit(self, lowered: Lowered) -> None:
        start = time.perf_counter()
        self._objects[lowered.kernel.name] = self._backend.emit(lowered)
        self._seconds[lowered.kernel.name] += time.perf_counter() - start

    def _emit_body(self, name: str, text: str) -> None:
        backend = self._backend
        self._bodies[name] = backend.emitted(backend.body(name, text))


def compile_kernels(
    kernels: Sequence[KernelSource],
    paths: Mapping[str, Path] | None = None,
) -> Compiled:
    """Compile each kernel for the chosen target to object code with a C entry of its name.

    ``paths`` says, by kernel name, which file a source is in (for tracebacks
    and messages).  Raises :class:`CompileError` naming the kernel and its file.
    """
    with Compilation() as compilation:
        for kernel in kernels:
            compilation.add(kernel, _path(kernel, paths))
        return compilation.finish()


def _collected(uncollected: int) -> int:
    """Text lowered since cyclic garbage was looked for; it is now if that is much.

    Numba leaves a megabyte behind for two kilobytes of text.  Programs are made with collection
    off, which would look at all of Numba again and again.
    """
    if uncollected < _UNCOLLECTED:
        return uncollected
    gc.collect(0)
    return 0


def _threads() -> int:
    """How many threads run LLVM beside this one."""
    try:
        processors = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        processors = os.cpu_count() or 1
    return max(1, min(processors - 1, _MOST_THREADS))


def _path(kernel: KernelSource, paths: Mapping[str, Path] | None) -> Path:
    return (paths or {}).get(kernel.name, Path(f"{kernel.name}.py"))


@as_written
def assembly(kernel: KernelSource) -> str:
    """The machine code of ``kernel`` as assembly text (for ``inspect`` and tests)."""
    target = chosen_target()
    with global_compiler_lock:
        return _Backend(target).assembly(lower(kernel, _path(kernel, None), target))
