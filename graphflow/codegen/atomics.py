"""Words that threads share, and calls into the system: the executor's vocabulary.

Generated kernels never need these; the tape executor and the thread pool are
written with them.  As everywhere, a name means plain Python until Numba
compiles it (:mod:`graphflow.codegen.atomics_lowering`).  In plain Python only
one thread walks a tape, so ordinary loads and stores are enough.
"""

from __future__ import annotations

import ctypes

_SYSTEM_ABI = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 5)


def atomic_load(address: int) -> int:
    """The int64 word at ``address``; nothing later in the program is done before it."""
    return int(ctypes.c_int64.from_address(address).value)


def atomic_store(address: int, value: int) -> None:
    """Set the word at ``address``; everything earlier in the program is seen first."""
    ctypes.c_int64.from_address(address).value = value


def atomic_add(address: int, value: int) -> int:
    """Add to the word at ``address`` in one indivisible step and return its old value."""
    cell = ctypes.c_int64.from_address(address)
    before = int(cell.value)
    cell.value = before + value
    return before


def pause() -> None:
    """Tell the processor that this is a waiting loop (saves power, frees a sibling)."""


def call_system(address: int, a: int, b: int, c: int, d: int, e: int) -> int:
    """Call the C function at ``address`` with up to five integers; further ones are ignored."""
    return int(_SYSTEM_ABI(address)(a, b, c, d, e))
