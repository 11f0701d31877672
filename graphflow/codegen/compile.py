"""From kernel source to object code: Numba's front end, then LLVM once.

:mod:`graphflow.codegen.frontend` lowers a kernel to LLVM text; here the text is
optimised and emitted, in a second thread when there are several kernels, so
that Numba's Python and LLVM's C++ overlap::

    objects = compile_kernels([KernelSource("ew_tanh_3fa2", text)]).objects

Importing this module imports Numba (half a second); the runtime does so only
when a kernel is missing from the cache.
"""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
from numba.core.compiler_lock import global_compiler_lock

from graphflow.codegen.frontend import Lowered, lower
from graphflow.codegen.schedule import KernelSource
from graphflow.codegen.target import Target, host_target, target_machine
from graphflow.errors import CompileError
from graphflow.records import dataclass, field

_SYMBOL_TABLE = 2  # ELF's SHT_SYMTAB


@dataclass(frozen=True)
class Compiled:
    """Object code by kernel name, and the seconds each kernel took (front end and LLVM)."""

    objects: Mapping[str, bytes]
    seconds: Mapping[str, float] = field(default_factory=dict)


class _Backend:
    """LLVM for one batch: a target machine and a context that one thread uses at a time."""

    def __init__(self, target: Target) -> None:
        self._machine = target_machine(target)
        self._context = llvm.create_context()
        self._lock = threading.Lock()

    def optimise(self, lowered: Lowered) -> Any:
        """The optimised module; only the kernel's entry stays visible."""
        name = lowered.kernel.name
        try:
            module = llvm.parse_assembly(lowered.text, self._context)
            module.verify()
        except RuntimeError as error:
            raise CompileError(f"kernel {name}: invalid LLVM: {error}") from error
        for library in lowered.libraries:
            bitcode = library._get_module_for_linking().as_bitcode()
            module.link_in(llvm.parse_bitcode(bitcode, self._context))
        for function in module.functions:
            if function.is_declaration:
                function.add_function_attribute("nonlazybind")  # through the offset table
            elif function.name != name:
                function.linkage = llvm.Linkage.internal
        options = llvm.create_pipeline_tuning_options(speed_level=3)
        options.loop_vectorization = True
        options.loop_interleaving = True
        options.loop_unrolling = True
        options.slp_vectorization = True
        builder = llvm.create_pass_builder(self._machine, options)
        builder.getModulePassManager().run(module, builder)
        return module

    def emit(self, lowered: Lowered) -> tuple[bytes, float]:
        """Object code, and the seconds it took."""
        with self._lock:
            start = time.perf_counter()
            data = bytes(self._machine.emit_object(self.optimise(lowered)))
            missing = [name for name in undefined_symbols(data) if not _is_loaded(name)]
            if missing:  # LLVM would end the process when linking
                raise CompileError(
                    f"kernel {lowered.kernel.name} calls {', '.join(missing)}, "
                    "which no library of this process defines"
                )
            return data, time.perf_counter() - start

    def assembly(self, lowered: Lowered) -> str:
        """Machine code as text."""
        with self._lock:
            return str(self._machine.emit_assembly(self.optimise(lowered)))


def _is_loaded(symbol: str) -> bool:
    return symbol == "_GLOBAL_OFFSET_TABLE_" or bool(llvm.address_of_symbol(symbol))


def undefined_symbols(data: bytes) -> list[str]:
    """Outside names that a 64-bit ELF object refers to (none are known of other formats)."""
    if not data.startswith(b"\x7fELF\x02\x01"):
        return []
    (table,) = struct.unpack_from("<Q", data, 40)
    size, count = struct.unpack_from("<HH", data, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, table + i * size) for i in range(count)]
    names: list[str] = []
    for _, kind, _, _, offset, length, link, _, _, entry in sections:
        if kind != _SYMBOL_TABLE:
            continue
        strings = sections[link][4]
        for place in range(offset, offset + length, entry):
            name, _, _, section = struct.unpack_from("<IBBH", data, place)
            if name and section == 0:
                begin = strings + name
                names.append(data[begin : data.index(b"\0", begin)].decode())
    return names


def compile_kernels(
    kernels: Sequence[KernelSource],
    paths: Mapping[str, Path] | None = None,
) -> Compiled:
    """Compile each kernel for this machine to object code with a C entry of its name.

    ``paths`` says, by kernel name, which file a source is in (for tracebacks
    and messages).  Raises :class:`CompileError` naming the kernel and its file.
    """
    target = host_target()
    backend = _Backend(target)
    seconds: dict[str, float] = {}
    pending: dict[str, Future[tuple[bytes, float]]] = {}
    worker = ThreadPoolExecutor(1, thread_name_prefix="graphflow-llvm")
    try:
        with global_compiler_lock:
            for kernel in kernels:
                start = time.perf_counter()
                lowered = lower(kernel, _path(kernel, paths), target)
                seconds[kernel.name] = time.perf_counter() - start
                pending[kernel.name] = worker.submit(backend.emit, lowered)
        objects = {}
        for name, future in pending.items():
            objects[name], spent = future.result()
            seconds[name] += spent
    finally:
        worker.shutdown(cancel_futures=True)
    return Compiled(objects, seconds)


def _path(kernel: KernelSource, paths: Mapping[str, Path] | None) -> Path:
    return (paths or {}).get(kernel.name, Path(f"{kernel.name}.py"))


def assembly(kernel: KernelSource) -> str:
    """The machine code of ``kernel`` as assembly text (for ``inspect`` and tests)."""
    target = host_target()
    with global_compiler_lock:
        return _Backend(target).assembly(lower(kernel, _path(kernel, None), target))
