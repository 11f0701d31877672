"""Link kernels without LLVM: their object files hold code, constants, and distances between them.

Kernels call nothing by name but bodies of the vocabulary, whose objects come with theirs, so an
ELF object of one has a single kind of relocation, the distance from an instruction to something
that is placed, too.  Placing such objects is a copy and an addition each, while importing
llvmlite for it costs a process 25 ms.  The code of all objects lies together, then their
constants: a small step touches few pages.  A body that several kernels call is there once.

Whatever else an object contains, and any other machine or system, is LLVM's business.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import struct
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from graphflow.codegen.object_files import members
from graphflow.records import NamedTuple

_IDENTITY = b"\x7fELF\x02\x01\x01"  # 64 bits, little-endian
_RELOCATABLE, _X86_64 = 1, 62
_PROGBITS, _SYMTAB, _RELA = 1, 2, 4
_ALLOCATED, _EXECUTABLE, _WRITABLE = 2, 4, 1
_PC32, _PLT32 = 2, 4
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QQq")
_DISTANCE = struct.Struct("<i")
_READ_AND_RUN = 1 | 4  # PROT_READ | PROT_EXEC

_kept: list[mmap.mmap] = []  # code lives as long as the process


class _Section(NamedTuple):
    """A header of the section table."""

    name: int
    type: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    entry: int


class _Unfamiliar(Exception):
    """An object with something in it that is not done here."""


class _Object:
    """An object file taken apart: what is to be placed, and what refers to what."""

    def __init__(self, data: bytes) -> None:
        if not data.startswith(_IDENTITY) or struct.unpack_from("<HH", data, 16) != (
            _RELOCATABLE,
            _X86_64,
        ):
            raise _Unfamiliar
        (table,) = struct.unpack_from("<Q", data, 0x28)
        size, count = struct.unpack_from("<HH", data, 0x3A)
        if size != _SECTION.size:
            raise _Unfamiliar
        self.data = data
        self.sections = [
            _Section(*_SECTION.unpack_from(data, table + i * size)) for i in range(count)
        ]
        self.placed = [s for s in self.sections if s.flags & _ALLOCATED and s.size]
        for s in self.placed:
            whole = s.offset + s.size <= len(data) and s.alignment <= mmap.PAGESIZE
            if s.type != _PROGBITS or s.flags & _WRITABLE or not whole:
                raise _Unfamiliar
        self.symbols = self._symbols()

    def _symbols(self) -> list[tuple[bytes, int, int]]:
        """Name, section and value of each symbol; section 0 is elsewhere."""
        found = []
        for section in self.sections:
            if section.type == _SYMTAB:
                names = self.sections[section.link].offset
                for at in range(section.offset, section.offset + section.size, _SYMBOL.size):
                    name, _, _, where, value, _ = _SYMBOL.unpack_from(self.data, at)
                    start = names + name
                    found.append((self.data[start : self.data.index(0, start)], where, value))
        return found

    def relocate(
        self, memory: bytearray, starts: Mapping[_Section, int], entries: Mapping[str, int]
    ) -> None:
        """Write all distances, the sections being at ``starts`` of ``memory``, and functions of
        other objects at ``entries``."""
        for table in self.sections:
            if table.type != _RELA or self.sections[table.info] not in starts:
                continue
            section = self.sections[table.info]
            begin, last = starts[section], section.size - _DISTANCE.size
            for at in range(table.offset, table.offset + table.size, _RELOCATION.size):
                offset, kind, addend = _RELOCATION.unpack_from(self.data, at)
                name, where, value = self.symbols[kind >> 32]
                known = kind & 0xFFFFFFFF in (_PC32, _PLT32) and offset <= last
                if not known or where >= len(self.sections):
                    raise _Unfamiliar
                if where:
                    target = starts[self.sections[where]] + value
                else:
                    target = entries[name.decode()]
                place = begin + offset
                _DISTANCE.pack_into(memory, place, target + addend - place)


class Layout(NamedTuple):
    """Code and constants that may lie anywhere in memory, from the start of a page."""

    code: bytes
    entries: dict[str, int]
    """Where each kernel's entry is in it, by name."""


def place(objects: Mapping[str, bytes]) -> dict[str, int] | None:
    """The address of each kernel's entry, by name; None if LLVM must link them."""
    try:
        layout = laid_out(objects)
        if layout is None:
            return None
        base = mapped(layout.code)
    except OSError:
        return None  # LLVM does it, or says what is wrong
    return {name: base + entry for name, entry in layout.entries.items()}


def laid_out(objects: Mapping[str, bytes]) -> Layout | None:
    """Objects side by side, linked; None if that is LLVM's business."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return None
    try:
        found: dict[str, bytes] = {}
        for name, data in objects.items():
            found |= members(name, data)
        return _laid_out({name: _Object(data) for name, data in found.items()}, objects)
    except (_Unfamiliar, struct.error, LookupError, ValueError, OverflowError):
        return None


def _laid_out(objects: Mapping[str, _Object], kernels: Iterable[str]) -> Layout:
    starts: list[dict[_Section, int]] = [{} for _ in objects]
    end = 0
    for executable in (_EXECUTABLE, 0):
        for found, one in zip(starts, objects.values()):
            for section in one.placed:
                if section.flags & _EXECUTABLE == executable:
                    end += -end % max(1, section.alignment)
                    found[section] = end
                    end += section.size
    memory = bytearray(end)
    entries = {
        name: _entry(name, one, found) for found, (name, one) in zip(starts, objects.items())
    }
    for found, one in zip(starts, objects.values()):
        for section, start in found.items():
            data = one.data[section.offset : section.offset + section.size]
            memory[start : start + section.size] = data
        one.relocate(memory, found, entries)
    return Layout(bytes(memory), {name: entries[name] for name in kernels})


def mapped(code: bytes) -> int:
    """The address of a copy of ``code`` that can be run, for the life of the process."""
    memory = mmap.mmap(-1, max(len(code), 1), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory[: len(code)] = code
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    protect: Any = ctypes.CDLL(None, use_errno=True).mprotect
    protect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    if protect(base, len(memory), _READ_AND_RUN):
        raise OSError(ctypes.get_errno(), "mprotect")
    _kept.append(memory)
    return base


def _entry(name: str, one: _Object, starts: Mapping[_Section, int]) -> int:
    for symbol, where, value in one.symbols:
        if symbol == name.encode() and 0 < where < len(one.sections):
            return starts[one.sections[where]] + value
    raise _Unfamiliar
