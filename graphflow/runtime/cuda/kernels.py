"""CUDA kernels as functions to launch, and their machine code in the cache folder.

What is compiled is stored under a digest of everything it depends on (the kernel's source,
the compute capability, the compilers, our own code generation), so that a later process
compiles nothing.  The folder is that of :mod:`graphflow.runtime.folder`, with its rules.
"""

from __future__ import annotations

import threading
from functools import cache
from typing import Any

from graphflow.codegen.cuda.assemble import assemble
from graphflow.codegen.cuda.compile import launchable, ptx, ready
from graphflow.codegen.cuda.toolchain import is_simulated, toolchain, version_of
from graphflow.codegen.schedule import KernelSource
from graphflow.digests import new_digest
from graphflow.records import dataclass
from graphflow.runtime.compiler_files import helpers_digest
from graphflow.runtime.folder import MAGIC, evict, read_file, store, usable_folder

Capability = tuple[int, int]
_ROOTS = (
    "graphflow.codegen.cuda.assemble",
    "graphflow.codegen.cuda.compile",
    "graphflow.codegen.cuda.prelude",
)
_COMPILERS = ("numba-cuda", "llvmlite", "nvidia-nvvm", "nvidia-nvjitlink")
_lock = threading.RLock()
_code: dict[bytes, bytes] = {}
_launchable: dict[tuple[KernelSource, int], Any] = {}


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
        if key not in _code:
            _code[key] = _from_folder(kernel, capability, key)
        return _code[key]


def _from_folder(kernel: KernelSource, capability: Capability, key: bytes) -> bytes:
    folder = usable_folder()
    path = None if folder is None else folder / f"{kernel.name}-{key.hex()[:16]}.cubin"
    code = None if path is None else read_file(path, key)
    if code is not None:
        counts.found += 1
        return code
    code = assemble(ptx(kernel, capability), capability)
    counts.compiled += 1
    if path is not None:
        store(path, key, code)
        evict(path.parent, {str(path)})
    return code


def function_for(kernel: KernelSource, device: int) -> Any:
    """The kernel as an object of Numba's that takes a grid and is called, for a device.

    That device is the driver's current one.  With numba-cuda its code comes from the cache;
    other targets, and the simulator, compile for themselves.
    """
    found = _launchable.get((kernel, device))
    if found is None:
        chosen = toolchain()
        if chosen.package != "numba-cuda" or is_simulated():
            found = launchable(kernel)
        else:
            capability = tuple(chosen.cuda.get_current_device().compute_capability)
            found = ready(kernel, machine_code(kernel, capability), capability)
        _launchable[kernel, device] = found
    return found
