"""What LLVM said about this processor, kept in the cache folder for the next process.

It is found again by what Linux says about the processor, so a home folder that several
machines share holds a file for each kind of them.  Elsewhere LLVM is asked every time.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache

from graphflow.codegen import target
from graphflow.digests import new_digest
from graphflow.runtime.folder import pack, read_file, usable_folder, warn_unwritable, write_file

_CPUINFO = "/proc/cpuinfo"
_TOLD = ("vendor_id", "cpu family", "model", "model name", "stepping", "flags", "Features")
_ENOUGH = 1 << 14  # bytes, of which the first processor's lines are the beginning


@cache
def _processor() -> bytes:
    """Digest of what Linux says about the first processor; empty if it says too little."""
    try:
        with open(_CPUINFO, "rb", buffering=0) as file:
            text = file.read(_ENOUGH).decode(errors="replace")
    except OSError:
        return b""
    first = text.partition("\n\n")[0]
    lines = [line.partition(":") for line in first.splitlines()]
    facts = {name.strip(): value.strip() for name, _, value in lines}
    if "flags" not in facts:  # x86's spelling; other machines' say less than LLVM finds out
        return b""
    told = repr([(name, facts.get(name)) for name in _TOLD])
    return new_digest(f"{os.uname().machine} {told}".encode()).digest()


class HostFile:
    """The host's facts as a file of the cache folder; ``version`` is llvmlite's."""

    def __init__(self, version: Callable[[], bytes]) -> None:
        self._version = version

    def _key(self) -> bytes:
        return new_digest(self._version() + _processor()).digest()

    def recall(self) -> list[str] | None:
        """Triple, name and features, as a process before this one was told."""
        folder = usable_folder() if _processor() else None
        if folder is None:
            return None
        key = self._key()
        payload = read_file(folder / f"host-{key.hex()[:16]}.cpu", key)
        return None if payload is None else payload.decode().split("\n")

    def keep(self, facts: list[str]) -> None:
        """Write them for later processes."""
        folder = usable_folder() if _processor() else None
        if folder is None:
            return
        key = self._key()
        try:
            data = pack(key, "\n".join(facts).encode())
            write_file(folder / f"host-{key.hex()[:16]}.cpu", data)
        except OSError as error:
            warn_unwritable(folder, error)


def remember_with(version: Callable[[], bytes]) -> None:
    """Let the compiler's idea of this processor come from the cache folder."""
    target.memory[:] = [HostFile(version)]
