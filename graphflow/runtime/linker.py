"""From object code to addresses: by :mod:`graphflow.runtime.elf`, else by llvmlite.

Numba is not imported for it, and llvmlite only where objects need it.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Mapping
from typing import Any

from graphflow.codegen.object_files import members
from graphflow.codegen.target import Target, chosen_target, target_machine
from graphflow.errors import CompileError
from graphflow.runtime import elf

_MAGIC = (b"\x7fELF", b"\xcf\xfa\xed\xfe", b"\x64\x86")  # Linux, macOS, Windows
_engines: list[Any] = []  # engines own the code's memory and live as long as the process
_lock = threading.Lock()


def _after_fork() -> None:
    """Another thread may have held the lock when the child was made."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def link(objects: Mapping[str, bytes]) -> dict[str, int]:
    """Load object code and return the address of each kernel's entry.

    ``objects`` maps a kernel's name to an object file that defines it.
    Addresses stay valid for the life of the process.  Raises
    :class:`CompileError` when an object is malformed or lacks its symbol.

    Objects for a machine that this process does not run on are not loaded: they are at 0, and
    a program of them is there to be looked at (:meth:`TapeContext.check_machine`).
    """
    if not objects:
        return {}
    target = chosen_target()
    if not target.is_host:
        return dict.fromkeys(objects, 0)
    with _lock:
        placed = elf.place(objects)
        return linked_by_llvm(objects, target) if placed is None else placed


def linked_by_llvm(objects: Mapping[str, bytes], target: Target) -> dict[str, int]:
    """:func:`link` by LLVM alone, for any target: it lays code out and never runs it."""
    engine = _new_engine(target)
    parts: dict[str, bytes] = {}
    for name, data in objects.items():
        try:
            parts |= members(name, data)
        except (struct.error, ValueError) as error:
            raise CompileError(f"object code of kernel {name} is damaged: {error}") from error
    for name, data in parts.items():
        _add(engine, name, data)
    engine.finalize_object()
    addresses = {name: int(engine.get_function_address(name)) for name in objects}
    _engines.append(engine)
    missing = [name for name, address in addresses.items() if not address]
    if missing:
        raise CompileError(f"object code without its kernel: {', '.join(missing)}")
    return addresses


def _new_engine(target: Target) -> Any:
    import llvmlite.binding as llvm

    machine = target_machine(target)
    # One contiguous reservation per engine keeps code and constants within
    # the two gigabytes that position-independent code reaches.
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine, use_lmm=True)


def _add(engine: Any, name: str, data: bytes) -> None:
    if not data.startswith(_MAGIC):  # LLVM would abort the process
        raise CompileError(f"object code of kernel {name} is no object file")
    import llvmlite.binding as llvm

    try:
        engine.add_object_file(llvm.ObjectFileRef.from_data(data))
    except (RuntimeError, OSError) as error:
        raise CompileError(f"object code of kernel {name} cannot be loaded: {error}") from error
