"""PTX to machine code without a GPU or a driver, and what a kernel needs of a multiprocessor.

nvJitLink, which ``numba-cuda[cu13]`` brings, holds NVIDIA's assembler.  Its result is an ELF
file; the sizes that decide how many threads fit, and whether anything was spilled, stand in
its sections ``.nv.info`` and ``.nv.shared.<kernel>``.
"""

from __future__ import annotations

import importlib
import struct
from collections.abc import Iterator
from typing import Any

from graphflow.codegen.cuda.toolchain import INSTALL
from graphflow.errors import CompileError
from graphflow.records import dataclass

WARP = 32
_PARAMETERS = ".nv.constant0."
_REGISTERS, _FRAME = 0x2F, 0x11  # EIATTR_REGCOUNT, EIATTR_FRAME_SIZE
_NO_VALUE, _BYTE_VALUE, _HALF_VALUE, _SIZED_VALUE = 1, 2, 3, 4  # how long an attribute is


@dataclass(frozen=True, slots=True)
class Resources:
    """What a kernel takes: ``registers`` a thread, ``shared`` bytes a block.

    ``frame`` is the bytes a thread keeps in local memory, which is device memory: spilled
    registers, and arrays that are indexed by what is not known to the compiler.
    """

    registers: int
    frame: int
    shared: int

    def occupancy(self, threads: int, capability: tuple[int, int]) -> float:
        """The share of a multiprocessor's warps that blocks of ``threads`` keep busy.

        By the limits of NVIDIA's programming guide for compute capability 8.0 and 9.0.
        """
        most_shared = (228 if capability >= (9, 0) else 164) * 1024
        warps = -(-threads // WARP)
        by_registers = 65536 // (-(-self.registers * WARP // 256) * 256) // warps
        # The system's own 1024 bytes a block: machine code for 9.0 counts them itself.
        by_shared = (
            most_shared // (self.shared + 1024)
            if capability < (9, 0)
            else (most_shared // max(self.shared, 1024))
        )
        return min(32, 64 // warps, by_registers, by_shared) * warps / 64


def entry_of(code: bytes) -> str:
    """The name of the one kernel of a cubin: only kernels have parameters in constant memory."""
    for name, _, _ in _sections(code):
        if name.startswith(_PARAMETERS):
            return name[len(_PARAMETERS) :]
    raise CompileError("machine code without a kernel")


def assemble(text: str, capability: tuple[int, int]) -> bytes:
    """Machine code (a cubin) of a PTX text; :class:`CompileError` says what is wrong with it."""
    nvjitlink = _assembler()
    options = [f"-arch=sm_{capability[0]}{capability[1]}"]
    handle = nvjitlink.create(len(options), options)
    try:
        data = text.encode()
        nvjitlink.add_data(handle, nvjitlink.InputType.PTX, data, len(data), "kernel")
        nvjitlink.complete(handle)
        code = bytearray(nvjitlink.get_linked_cubin_size(handle))
        nvjitlink.get_linked_cubin(handle, code)
    except nvjitlink.nvJitLinkError as error:
        raise CompileError(f"{options[0]}: {_log(nvjitlink, handle) or error}") from error
    finally:
        nvjitlink.destroy(handle)
    return bytes(code)


def _assembler() -> Any:
    try:
        return importlib.import_module("cuda.bindings.nvjitlink")
    except ImportError as error:
        raise CompileError(f"there is no assembler for CUDA ({error}): {INSTALL}") from None


def _log(nvjitlink: Any, handle: int) -> str:
    log = bytearray(nvjitlink.get_error_log_size(handle))
    if log:
        nvjitlink.get_error_log(handle, log)
    return log.decode(errors="replace").strip("\0 \n")


def resources(code: bytes) -> Resources:
    """What the one kernel of a cubin takes."""
    found = {_REGISTERS: 0, _FRAME: 0}
    shared = 0
    for name, offset, size in _sections(code):
        if name == ".nv.info":
            for attribute, value in _attributes(code[offset : offset + size]):
                if attribute in found:  # the number of a symbol, then the value
                    found[attribute] = max(found[attribute], struct.unpack("<II", value)[1])
        elif name.startswith(".nv.shared.") and not name.startswith(".nv.shared.reserved"):
            shared += size
    if not found[_REGISTERS]:
        raise CompileError("machine code that does not tell how many registers it takes")
    return Resources(found[_REGISTERS], found[_FRAME], shared)


def _sections(code: bytes) -> Iterator[tuple[str, int, int]]:
    """Name, offset and size of the sections of a little-endian ELF64 file."""
    if code[:6] != b"\x7fELF\x02\x01":
        raise CompileError("machine code for a GPU that is no ELF file")
    start = struct.unpack_from("<Q", code, 0x28)[0]
    width, count, names = struct.unpack_from("<HHH", code, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", code, start + width * n) for n in range(count)]
    table = headers[names][4]
    for name, _, _, _, offset, size in headers:
        first = table + name
        yield code[first : code.index(b"\0", first)].decode(), offset, size


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Attributes of ``.nv.info`` and their values."""
    at = 0
    while at + 4 <= len(data):
        form, attribute, length = struct.unpack_from("<BBH", data, at)
        if form not in (_NO_VALUE, _BYTE_VALUE, _HALF_VALUE, _SIZED_VALUE):
            raise CompileError(f"an attribute of machine code of an unknown form, {form}")
        size = length if form == _SIZED_VALUE else 0
        yield attribute, data[at + 4 : at + 4 + size]
        at += 4 + size
