"""Kernels for 64-bit ARM, executed in this process by an emulator of the processor.

Unicorn maps this process's memory at the same addresses, so emulated code sees arrays, tapes,
constants and other kernels where they are.  :func:`install` has everything compiled for ARM
Linux, linked by LLVM, and called through the emulator; passes, schedules, tapes, slots and
storage are those of any program.  One thread; what takes time here says nothing of hardware.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
from unicorn import (
    UC_ARCH_ARM64,
    UC_HOOK_MEM_UNMAPPED,
    UC_MODE_ARM,
    UC_PROT_ALL,
    Uc,
    arm64_const,
)

from tests.arm import LINUX

_PAGE = 1 << 12
_PIECE = 1 << 18  # bytes that are mapped at a time
_STACK = 1 << 20
_VECTORS_ON = 3 << 20 | 3 << 16  # CPACR_EL1: instructions of NEON and SVE trap nowhere
_ARGUMENTS = [getattr(arm64_const, f"UC_ARM64_REG_X{number}") for number in range(8)]

entries: set[int] = set()
"""Addresses of emulated functions."""
calls = [0]
"""How often one was called."""


class Emulator:
    """An ARM processor that shares this process's memory."""

    def __init__(self) -> None:
        self._processor = Uc(UC_ARCH_ARM64, UC_MODE_ARM, arm64_const.UC_CPU_ARM64_MAX)
        self._processor.reg_write(arm64_const.UC_ARM64_REG_CPACR_EL1, _VECTORS_ON)
        self._processor.hook_add(UC_HOOK_MEM_UNMAPPED, self._map)
        self._mapped: set[int] = set()
        self._lock = threading.Lock()
        self._stack = np.zeros(_STACK, np.uint8)
        self._end = np.zeros(2 * _PAGE, np.uint8)  # holds a page of its own: where calls return to

    def _map(
        self, processor: Uc, access: int, address: int, size: int, value: int, data: object
    ) -> bool:
        """Map what lies around ``address``, where it is."""
        for piece in {address // _PIECE, (address + size - 1) // _PIECE} - self._mapped:
            if piece == 0:
                return False  # a null pointer
            start = piece * _PIECE
            processor.mem_map_ptr(start, _PIECE, UC_PROT_ALL, ctypes.c_void_p(start))
            self._mapped.add(piece)
        return True

    def call(self, entry: int, *arguments: int) -> None:
        """Call the function at ``entry``; one thread at a time."""
        with self._lock:
            self._call(entry, *arguments)

    def _call(self, entry: int, *arguments: int) -> None:
        end = -(-self._end.ctypes.data // _PAGE) * _PAGE
        write = self._processor.reg_write
        for register, word in zip(_ARGUMENTS, arguments):
            write(register, word & (1 << 64) - 1)
        write(arm64_const.UC_ARM64_REG_SP, (self._stack.ctypes.data + _STACK) // 16 * 16)
        write(arm64_const.UC_ARM64_REG_LR, end)
        self._processor.emu_start(entry, end)
        if self._processor.reg_read(arm64_const.UC_ARM64_REG_PC) != end:
            raise AssertionError("emulated code did not return")
        calls[0] += 1


@cache
def emulator() -> Emulator:
    """The one processor of this process."""
    return Emulator()


def _emulated(address: int) -> Callable[..., None]:
    """The function at ``address``, which takes integers, or bytes by their address."""

    def call(*arguments: Any) -> None:
        held = [np.frombuffer(bytearray(a), np.uint8) if isinstance(a, bytes) else a
                for a in arguments]  # fmt: skip
        words = [a.ctypes.data if isinstance(a, np.ndarray) else int(a) for a in held]
        emulator().call(address, *words)

    return call


_real_prototype = ctypes.CFUNCTYPE


def _prototype(result: Any, *parameters: Any, **options: Any) -> Any:
    """``ctypes.CFUNCTYPE``; functions at addresses of emulated ones are emulated."""
    kind: Any = _real_prototype(result, *parameters, **options)

    def new(cls: Any, *given: Any) -> Any:
        if given and isinstance(given[0], int) and given[0] in entries:
            return _emulated(given[0])
        return kind.__new__(cls, *given)

    parts = {name: getattr(kind, name) for name in ("_flags_", "_restype_", "_argtypes_")}
    return type(kind)(kind.__name__, (kind,), {"__new__": new, **parts})


def _link(objects: Mapping[str, bytes]) -> dict[str, int]:
    from graphflow.codegen.target import chosen_target
    from graphflow.runtime.linker import linked_by_llvm

    addresses = linked_by_llvm(objects, chosen_target()) if objects else {}
    entries.update(addresses.values())
    return addresses


def _alone(pool: Any, threads: int) -> tuple[int, int]:
    """``ThreadPool.attach`` where the caller is the only thread, which needs no control block."""
    return 0, 1


def install() -> None:
    """Let this process run kernels for ARM; call it before GraphFlow is imported."""
    os.environ.setdefault("GRAPHFLOW_CPU_FEATURES", LINUX)
    os.environ["GRAPHFLOW_NUM_THREADS"] = "1"
    setattr(ctypes, "CFUNCTYPE", _prototype)  # noqa: B010 - mypy knows that these are functions
    setattr(ctypes, "PYFUNCTYPE", _prototype)  # noqa: B010
    from graphflow.runtime import cache as kernel_cache
    from graphflow.runtime import linker, threads

    setattr(threads.ThreadPool, "attach", _alone)  # noqa: B010
    for module in (linker, kernel_cache):
        setattr(module, "link", _link)  # noqa: B010
