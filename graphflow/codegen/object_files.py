"""What is asked of object files: which names from outside they refer to.

A kernel that calls bodies of the vocabulary is an archive, as ``ar`` makes them: its own object
first, then theirs, each under the name of the function that it defines.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

_ARCHIVE = b"!<arch>\n"
_MEMBER = struct.Struct("16s12s6s6s8s10s2s")  # name, time, owner, group, mode, size, end

_ELF_64 = b"\x7fELF\x02\x01"
_ELF_SYMBOL_TABLE = 2  # SHT_SYMTAB
_MACH_64 = b"\xcf\xfa\xed\xfe"
_MACH_HEADER = 32  # bytes
_MACH_SYMBOL_TABLE = 2  # LC_SYMTAB
_MACH_TYPE, _MACH_EXTERNAL = 0x0E, 0x01  # N_TYPE, of which 0 is undefined, and N_EXT


def archive(members: Mapping[str, bytes]) -> bytes:
    """An archive of object files by name; the only one of them as it is."""
    if len(members) == 1:
        return next(iter(members.values()))
    parts = [_ARCHIVE]
    for name, data in members.items():
        content = name.encode() + data  # as BSD does with names that are longer than the field
        fields = (f"#1/{len(name.encode())}", 0, 0, 0, 644, len(content))
        header = _MEMBER.pack(*(str(x).encode().ljust(16) for x in fields), b"`\n")
        parts += [header, content, b"\n" * (len(content) % 2)]
    return b"".join(parts)


def members(name: str, data: bytes) -> dict[str, bytes]:
    """What :func:`archive` was made of; ``name`` is that of an object by itself.

    Raises ``ValueError`` or ``struct.error`` where an archive is damaged.
    """
    if not data.startswith(_ARCHIVE):
        return {name: data}
    found, at = {}, len(_ARCHIVE)
    while at < len(data):
        title, *_, length, end = _MEMBER.unpack_from(data, at)
        at += _MEMBER.size
        size, start = int(length), at + int(title.removeprefix(b"#1/"))
        if end != b"`\n" or not at <= start <= at + size <= len(data):
            raise ValueError("damaged archive")
        found[data[at:start].decode()] = data[start : at + size]
        at += size + size % 2
    return found


def undefined_symbols(data: bytes) -> list[str]:
    """Outside names, as C spells them, that a 64-bit ELF or Mach-O object, or an archive of
    them, refers to.

    None are known of other formats.
    """
    found = members("", data)
    return [name for one in found.values() for name in _undefined(one) if name not in found]


def _undefined(data: bytes) -> list[str]:
    if data.startswith(_ELF_64):
        return _of_elf(data)
    return _of_mach(data) if data.startswith(_MACH_64) else []


def _of_elf(data: bytes) -> list[str]:
    (table,) = struct.unpack_from("<Q", data, 40)
    size, count = struct.unpack_from("<HH", data, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, table + i * size) for i in range(count)]
    names: list[str] = []
    for _, kind, _, _, offset, length, link, _, _, entry in sections:
        if kind != _ELF_SYMBOL_TABLE:
            continue
        strings = sections[link][4]
        for place in range(offset, offset + length, entry):
            name, _, _, section = struct.unpack_from("<IBBH", data, place)
            if name and section == 0:
                names.append(_text(data, strings + name))
    return names


def _of_mach(data: bytes) -> list[str]:
    (commands,) = struct.unpack_from("<I", data, 16)
    names: list[str] = []
    place = _MACH_HEADER
    for _ in range(commands):
        kind, size = struct.unpack_from("<II", data, place)
        if kind == _MACH_SYMBOL_TABLE:
            symbols, count, strings, _ = struct.unpack_from("<IIII", data, place + 8)
            for at in range(symbols, symbols + 16 * count, 16):
                name, sort = struct.unpack_from("<IB", data, at)
                if sort & _MACH_EXTERNAL and not sort & _MACH_TYPE:
                    names.append(_text(data, strings + name).removeprefix("_"))
        place += size
    return names


def _text(data: bytes, begin: int) -> str:
    return data[begin : data.index(b"\0", begin)].decode()
