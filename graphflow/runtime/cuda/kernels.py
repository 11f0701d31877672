"""CUDA kernels as what starts them, and their machine code in the cache folder.

What is compiled is stored under a digest of everything it depends on (the kernel's source,
the compute capability, the compilers, our own code generation), so that a later process
compiles nothing.  The folder is that of :mod:`graphflow.runtime.folder`, with its rules.

Machine code is loaded and started by the driver's own calls, with addresses for arrays: Numba's
launch looks at the types of all arguments each time.  Where there are no such calls, and in the
simulator, Numba compiles and launches.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from ctypes import addressof, c_int64, c_void_p, sizeof
from functools import cache
from pathlib import Path
from typing import Any

from graphflow.codegen.cuda.assemble import assemble, entry_of
from graphflow.codegen.cuda.compile import launchable, ptx
from graphflow.codegen.cuda.toolchain import toolchain, version_of
from graphflow.codegen.schedule import KernelSource
from graphflow.digests import new_digest
from graphflow.records import dataclass
from graphflow.runtime.compiler_files import helpers_digest
from graphflow.runtime.cuda.compiling import Capability, compiled_apart, processes
from graphflow.runtime.cuda.driver import Driver, Start
from graphflow.runtime.folder import MAGIC, evict, read_file, store, usable_folder

_ROOTS = (
    "graphflow.codegen.cuda.assemble",
    "graphflow.codegen.cuda.compile",
    "graphflow.codegen.cuda.prelude",
)
_COMPILERS = ("numba-cuda", "llvmlite", "nvidia-nvvm", "nvidia-nvjitlink")
_lock = threading.RLock()
_code: dict[bytes, bytes] = {}
_loaded: dict[tuple[KernelSource, int], Loaded] = {}


@dataclass(slots=True)
class Counts:
    """Kernels since the process started: ``found`` in the folder, and ``compiled``."""

    found: int = 0
    compiled: int = 0


counts = Counts()


@cache
def _environment() -> bytes:
    digest = new_digest(MAGIC + helpers_digest(_ROOTS))
    for package in _COMPILERS:
        digest.update(f"{package} {version_of(package) or 'of the system'}\n".encode())
    return digest.digest()


def _key(kernel: KernelSource, capability: Capability) -> bytes:
    digest = new_digest(_environment())
    digest.update(f"{kernel.name}\0{kernel.launch}\0{capability}\0{kernel.source}".encode())
    return digest.digest()


def machine_code(kernel: KernelSource, capability: Capability) -> bytes:
    """A kernel's code for GPUs of a compute capability: from memory, the folder, or compiled.

    Needs neither a GPU nor a driver.  Raises :class:`CompileError` when it does not compile.
    """
    key = _key(kernel, capability)
    with _lock:
        if _stored(kernel, key) is None:
            _keep(kernel, key, assemble(ptx(kernel, capability), capability))
        return _code[key]


def prepare(kernels: Iterable[KernelSource], capability: Capability) -> None:
    """Have the code of many kernels at hand: what has to be compiled is, by several processes.

    Kernels that do not compile are left to :func:`machine_code`, which says why.
    """
    with _lock:
        keys = {kernel: _key(kernel, capability) for kernel in kernels}
        lacking = [kernel for kernel, key in keys.items() if _stored(kernel, key) is None]
        count = processes(len(lacking))
        if count > 1:
            for kernel, code in compiled_apart(lacking, capability, count).items():
                _keep(kernel, keys[kernel], code)


def _path(kernel: KernelSource, key: bytes) -> Path | None:
    folder = usable_folder()
    return None if folder is None else folder / f"{kernel.name}-{key.hex()[:16]}.cubin"


def _stored(kernel: KernelSource, key: bytes) -> bytes | None:
    """Code from memory or the folder, if it is there."""
    if key not in _code:
        path = _path(kernel, key)
        code = None if path is None else read_file(path, key)
        if code is None:
            return None
        counts.found += 1
        _code[key] = code
    return _code[key]


def _keep(kernel: KernelSource, key: bytes, code: bytes) -> None:
    """Keep what was compiled, in memory and in the folder."""
    counts.compiled += 1
    _code[key] = code
    path = _path(kernel, key)
    if path is not None:
        store(path, key, code)
        evict(path.parent, {str(path)})


class Loaded:
    """A kernel's machine code on the device that is the driver's current one."""

    def __init__(self, code: bytes, calls: Driver) -> None:
        self._calls = calls
        self._module = calls.asked("cuModuleLoadData", code)
        self._function = calls.asked("cuModuleGetFunction", self._module, entry_of(code).encode())

    def starter(self, grid: int, block: int, words: Sequence[int]) -> Start:
        """What starts ``grid`` blocks of ``block`` threads with the parameters ``words``."""
        held = (c_int64 * len(words))(*words)
        first, asked = addressof(held), self._calls.asked
        pointers = (c_void_p * len(words))(*range(first, first + sizeof(held), sizeof(c_int64)))

        def start(
            stream: Any, kept: Any = (held, pointers), where: int = addressof(pointers)
        ) -> None:
            asked(
                "cuLaunchKernel", self._function, grid, 1, 1, block, 1, 1, 0, int(stream), where, 0
            )

        return start


def array_words(address: int, nbytes: int, itemsize: int) -> tuple[int, ...]:
    """A one-dimensional array as the parameters that Numba's compilers make of it.

    Owner and parent (none), elements, bytes of one, address, extent, stride.
    """
    count = nbytes // itemsize
    return (0, 0, count, itemsize, address, count, itemsize)


def loaded(kernel: KernelSource, device: int, calls: Driver) -> Loaded:
    """The kernel on ``device``, which is the driver's current one."""
    found = _loaded.get((kernel, device))
    if found is None:
        found = _loaded[kernel, device] = Loaded(machine_code(kernel, current_capability()), calls)
    return found


def current_capability() -> Capability:
    """The compute capability of the driver's current device."""
    major, minor = toolchain().cuda.get_current_device().compute_capability
    return int(major), int(minor)


@cache
def function_for(kernel: KernelSource) -> Any:
    """The kernel as an object of Numba's that takes a grid and is called."""
    return launchable(kernel)
