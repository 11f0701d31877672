"""The kernel cache: object code beside its source, in the user's own folder.

:func:`load` is what the runtime calls: kernels in, addresses out.  A kernel is
looked up by a digest of everything its code depends on (source, Numba and
llvmlite, CPU, the code generation helpers); what is missing is compiled in one
batch, stored, and linked.  Trouble with the folder never stops a program: it
warns once and goes on in memory.

Native code is only loaded from a folder that belongs to this user and that
nobody else may write to, and only when a file's digest is right, so truncated
and foreign files are recompiled.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from graphflow import flags
from graphflow.codegen.schedule import KernelSource
from graphflow.codegen.target import chosen_target
from graphflow.digests import new_digest
from graphflow.errors import CompileError
from graphflow.records import NamedTuple, dataclass
from graphflow.runtime.compiler_files import ROOTS, helpers_digest, version_of
from graphflow.runtime.elf import laid_out, mapped
from graphflow.runtime.folder import (
    MAGIC,
    TOUCH_SECONDS,
    default_folder,
    entries,
    evict,
    pack,
    read_file,
    touch,
    usable_folder,
    warn_unwritable,
    write_file,
)
from graphflow.runtime.host import remember_with
from graphflow.runtime.linker import link

if TYPE_CHECKING:
    from graphflow.codegen.compile import Compilation
    from graphflow.codegen.plain import PlainKernel


@dataclass(frozen=True)
class Loaded:
    """Result of :func:`load`.

    ``addresses`` by kernel name; ``hits`` kernels found (in memory or on disk),
    ``misses`` kernels compiled; ``seconds`` spent; ``compile_seconds`` by name
    for the compiled ones; ``kernels`` are those that were asked for, ``folder`` the cache's.
    """

    addresses: Mapping[str, int]
    hits: int
    misses: int
    seconds: float
    compile_seconds: Mapping[str, float]
    kernels: tuple[KernelSource, ...]
    folder: Path

    @cached_property
    def paths(self) -> Mapping[str, Path]:
        """Paths of source files by name.  Who asks is about to read: a missing one is put back."""
        if usable_folder() == self.folder:
            _write_sources(self.folder, self.kernels)
        return _paths(self.kernels, self.folder)


@dataclass(frozen=True)
class Statistics:
    """Counts since the process started, and where the cache is (None: in memory only)."""

    hits: int
    misses: int
    folder: Path | None
    bytes: int


_lock = threading.RLock()
_linked: dict[bytes, int] = {}  # key -> address, for the life of the process
_keys: dict[tuple[bytes, KernelSource], bytes] = {}
"""Keys that are known, by what all code depends on and the kernel."""
_KEPT = 1024
"""Kernels whose keys are remembered, and their texts with them."""
_plain: dict[KernelSource, PlainKernel] = {}
_hits = 0
_misses = 0


def _after_fork() -> None:
    """Another thread may have held the lock when the child was made."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


# --- identity ---------------------------------------------------------------


remember_with(lambda: version_of("llvmlite"))


@cache
def _environment(target: str) -> bytes:
    parts = (
        MAGIC, version_of("numba"), version_of("llvmlite"), target.encode(), helpers_digest(ROOTS),
    )  # fmt: skip
    return new_digest(b"\0".join(parts)).digest()


def kernel_key(kernel: KernelSource) -> bytes:
    """Digest of everything the object code of ``kernel`` depends on."""
    where = _environment(chosen_target().identity)
    known = _keys.get((where, kernel))
    if known is not None:
        return known
    digest = new_digest(where)
    digest.update(f"{kernel.name}\0{kernel.epilogue}\0".encode())
    for line in kernel.source.splitlines():
        if line.startswith("from graphflow.") and "graphflow.codegen.prelude" not in line:
            digest.update(helpers_digest((line.split()[1],)))
    digest.update(kernel.source.encode())
    _know_keys(where, {kernel: digest.digest()})
    return _keys[where, kernel]


def _know_keys(where: bytes, found: Mapping[KernelSource, bytes]) -> None:
    if len(_keys) >= _KEPT:
        _keys.clear()
    _keys.update({(where, kernel): key for kernel, key in found.items()})


def environment() -> str:
    """What all object code of this process depends on, as a digest: compilers, machine, helpers."""
    return _environment(chosen_target().identity).hex()


def _object_path(folder: Path, kernel: KernelSource, key: bytes) -> Path:
    return folder / f"{kernel.name}-{key.hex()[:16]}.o"


# --- the public functions ---------------------------------------------------


Companions: TypeAlias = Callable[[], list[KernelSource]]
"""Gives the kernels that a program will ask for next."""

COMPANIONS: list[Companions] = []
"""What modules that call kernels of their own have registered: theirs that are wanted."""


class Made(NamedTuple):
    """Object code by kernel name, and the seconds that each compiled kernel took."""

    objects: Mapping[str, bytes]
    seconds: Mapping[str, float]


class Batch:
    """Kernels that a program needs, looked up or compiled while it is still being made.

    :meth:`ask` reads what the folder has, and has the rest compiled at once, by threads;
    :func:`load` waits for that and links it.  When anything is compiled, so are those that
    ``companions`` gives, which will be asked for next: what is compiled in one batch is ready
    sooner.  Those that the folder has are linked along: while memory is made resident, every
    change of what is mapped waits for milliseconds.

    :meth:`close` it in the end; closing gives up what nobody waits for any more.
    """

    def __init__(self, companions: Companions = list) -> None:
        self.keys: dict[str, bytes] = {}
        """Keys of what was asked for, by name."""
        self.missing: set[str] = set()
        """Names of what had to be compiled."""
        self.seconds = 0.0
        """What asking took."""
        self._companions = companions
        self._sources: dict[str, KernelSource] = {}
        self._objects: dict[str, bytes] = {}
        self._compilation: Compilation | None = None

    @cached_property
    def _folder(self) -> Path | None:
        return usable_folder()

    def ask(self, kernels: Iterable[KernelSource]) -> None:
        """Have ``kernels`` made ready; raises :class:`CompileError` where one cannot be."""
        start = time.perf_counter()
        self._ask(kernels)
        self.seconds += time.perf_counter() - start

    def _ask(self, kernels: Iterable[KernelSource]) -> None:
        fresh = {kernel for kernel in kernels if self._is_new(kernel)}
        # Those that are found bring bodies with them, which the others need not have compiled.
        missing = [kernel for kernel in _order(fresh) if not self._is_found(kernel)]
        for kernel in missing:
            self._compile(kernel)

    def _is_new(self, kernel: KernelSource) -> bool:
        known = self._sources.setdefault(kernel.name, kernel)
        if known is not kernel and known != kernel:
            raise CompileError(f"different kernels have one name: {kernel.name}")
        return kernel.name not in self.keys

    def _is_found(self, kernel: KernelSource) -> bool:
        """Whether memory or the folder has a kernel."""
        key = self.keys[kernel.name] = kernel_key(kernel)
        if key in _linked:
            return True
        found = _find([kernel], self.keys, self._folder)
        self._objects.update(found)
        if self._compilation is not None:
            self._compilation.know(found)
        return bool(found)

    def _compile(self, kernel: KernelSource) -> None:
        self.missing.add(kernel.name)
        if self._compilation is None:
            # Imports Numba, which costs more than everything else here.
            from graphflow.codegen.compile import Compilation

            self._compilation = Compilation()  # for close(), should Ctrl-C come first
            self._compilation.__enter__()
            self._compilation.know(self._objects)
            self._ask(self._companions())
        if self._folder is not None:
            _write_sources(self._folder, [kernel])
        self._compilation.add(kernel, source_path(kernel, default_folder()))

    def finish(self) -> Made:
        """Object code of what is not in memory yet, and what compiling took; that is stored."""
        if self._compilation is None:
            if self._objects:
                self._find_companions()
            return Made(self._objects, {})
        compiled = self._compilation.finish()
        if self._folder is not None:
            made = {self._sources[name]: self.keys[name] for name in self.missing}
            _store(self._folder, made, compiled.objects)
        return Made({**self._objects, **compiled.objects}, compiled.seconds)

    def _find_companions(self) -> None:
        for kernel in self._companions():
            if self._is_new(kernel) and not self._is_found(kernel):
                del self.keys[kernel.name]

    def close(self) -> None:
        """Stop what is under way."""
        if self._compilation is not None:
            self._compilation.__exit__()
            self._compilation = None


_STARTERS = 3


def _order(kernels: Iterable[KernelSource]) -> list[KernelSource]:
    """What takes longest comes first, so that threads end together; but the very first are
    short, so that the others have something to do until a long one is lowered."""
    ordered = sorted(kernels, key=lambda kernel: (len(kernel.source), kernel.name))
    return ordered[:_STARTERS] + ordered[: _STARTERS - 1 : -1]


def load(
    kernels: Iterable[KernelSource], companions: Companions = list, batch: Batch | None = None
) -> Loaded:
    """Addresses of ``kernels``, compiling those that are in neither memory nor cache.

    ``batch`` may have been asked for them before; otherwise it is one with ``companions``.
    Those are in no count of the result.

    Safe to call from several threads and processes.  Raises
    :class:`CompileError` when a kernel cannot be compiled.
    """
    start = time.perf_counter()
    unique = list(dict.fromkeys(kernels))
    with _lock:
        if flags.DISABLE_JIT.value:
            return _load_plain(unique, start)
        batch = batch or Batch(companions)
        try:
            batch.ask(unique)
            return _linked_batch(unique, batch)
        finally:
            batch.close()


def _linked_batch(kernels: list[KernelSource], batch: Batch) -> Loaded:
    global _hits, _misses
    start = time.perf_counter()
    made = batch.finish()
    fresh = {n: code for n, code in made.objects.items() if batch.keys[n] not in _linked}
    for name, address in link(fresh).items():
        _linked[batch.keys[name]] = address
    missing = [kernel.name for kernel in kernels if kernel.name in batch.missing]
    hits = len(kernels) - len(missing)
    _hits, _misses = _hits + hits, _misses + len(missing)
    return Loaded(
        addresses={kernel.name: _linked[batch.keys[kernel.name]] for kernel in kernels},
        hits=hits,
        misses=len(missing),
        seconds=batch.seconds + time.perf_counter() - start,
        compile_seconds={name: made.seconds[name] for name in missing},
        kernels=tuple(kernels),
        folder=default_folder(),
    )


def find(kernel: KernelSource) -> int | None:
    """The address of ``kernel`` if memory or the folder has it: nothing is compiled.

    None too where kernels are for another machine.
    """
    with _lock:
        key = kernel_key(kernel)
        if key not in _linked:
            for address in link(_find([kernel], {kernel.name: key}, usable_folder())).values():
                _linked[key] = address
        return _linked.get(key) or None


def _find(
    kernels: list[KernelSource], keys: Mapping[str, bytes], folder: Path | None
) -> dict[str, bytes]:
    """Object code of those ``kernels`` that ``folder`` holds."""
    objects: dict[str, bytes] = {}
    if folder is not None:
        for kernel in kernels:
            key = keys[kernel.name]
            data = read_file(_object_path(folder, kernel, key), key)
            if data is not None:
                objects[kernel.name] = data
    return objects


def _paths(kernels: Iterable[KernelSource], folder: Path) -> dict[str, Path]:
    return {kernel.name: source_path(kernel, folder) for kernel in kernels}


def source_path(kernel: KernelSource, folder: Path) -> Path:
    """Where the source of ``kernel`` lives in ``folder``: its name and a digest of its text."""
    digest = new_digest(kernel.source.encode()).hexdigest()[:12]
    return folder / f"{kernel.name}-{digest}.py"


def _compile(
    kernels: list[KernelSource],
) -> tuple[Mapping[str, bytes], Mapping[str, float]]:
    # Imports Numba, which costs more than everything else here.
    from graphflow.codegen.compile import compile_kernels

    compiled = compile_kernels(kernels, _paths(kernels, default_folder()))
    return compiled.objects, compiled.seconds


def _write_sources(folder: Path, kernels: Iterable[KernelSource]) -> None:
    """Put the readable source of each kernel beside its object code, for people and debuggers."""
    try:
        for kernel in kernels:
            path = source_path(kernel, folder)
            data = kernel.source.encode()
            try:
                facts = path.stat()
            except FileNotFoundError:
                write_file(path, data)
                continue
            if facts.st_size != len(data):
                write_file(path, data)
            elif time.time() - facts.st_mtime > TOUCH_SECONDS:
                touch(path)
    except OSError as error:
        warn_unwritable(folder, error)


def _store(folder: Path, keys: Mapping[KernelSource, bytes], objects: Mapping[str, bytes]) -> None:
    kept = set()
    try:
        for kernel, key in keys.items():
            path = _object_path(folder, kernel, key)
            write_file(path, pack(key, objects[kernel.name]))
            kept |= {str(path), str(source_path(kernel, folder))}
    except OSError as error:
        warn_unwritable(folder, error)
    evict(folder, kept)


def _load_plain(kernels: list[KernelSource], start: float) -> Loaded:
    from graphflow.codegen.plain import PlainKernel, load_function  # for debugging only

    folder, chosen = usable_folder(), default_folder()
    paths = _paths(kernels, chosen)
    if folder is not None:
        _write_sources(folder, kernels)
    for kernel in kernels:
        if kernel not in _plain:
            function = load_function(kernel.name, kernel.source, paths[kernel.name])
            _plain[kernel] = PlainKernel(function)
    addresses = {kernel.name: _plain[kernel].address for kernel in kernels}
    seconds = time.perf_counter() - start
    return Loaded(addresses, len(kernels), 0, seconds, {}, tuple(kernels), chosen)


def object_code(kernels: Iterable[KernelSource]) -> Mapping[str, bytes]:
    """The object code of ``kernels`` by name: from the folder, or compiled."""
    unique = list(dict.fromkeys(kernels))
    keys = {kernel.name: kernel_key(kernel) for kernel in unique}
    with _lock:
        found = _find(unique, keys, usable_folder())
        missing = [kernel for kernel in unique if kernel.name not in found]
        return {**found, **_compile(missing)[0]} if missing else found


def adopt(objects: Mapping[KernelSource, bytes]) -> None:
    """Link object code that was made for this :func:`environment`: the kernels are known then."""
    with _lock:
        keys = {kernel.name: kernel_key(kernel) for kernel in objects}
        unknown = {k.name: code for k, code in objects.items() if keys[k.name] not in _linked}
        for name, address in link(unknown).items():
            _linked[keys[name]] = address


class LinkedCode(NamedTuple):
    """The machine code of a program's kernels, linked: one copy brings it into a process."""

    environment: str
    """The :func:`environment` it was made in; it is good for no other."""
    names: tuple[str, ...]
    keys: tuple[bytes, ...]
    entries: tuple[int, ...]
    """Where each kernel's entry is."""
    code: bytes


def linked_code(kernels: Iterable[KernelSource]) -> LinkedCode | None:
    """The code of those ``kernels`` that have been linked, and that the folder holds; None where
    LLVM links."""
    folder = usable_folder()
    if folder is None or not chosen_target().is_host:
        return None
    with _lock:
        linked = [kernel for kernel in kernels if kernel_key(kernel) in _linked]
        keys = {kernel.name: kernel_key(kernel) for kernel in linked}
        layout = laid_out(_find(linked, keys, folder))
    if layout is None:
        return None
    names, entries = tuple(layout.entries), tuple(layout.entries.values())
    return LinkedCode(environment(), names, tuple(keys[n] for n in names), entries, layout.code)


def adopt_linked(linked: LinkedCode, kernels: Iterable[KernelSource]) -> None:
    """Take over code made earlier for this :func:`environment`; other code is left alone."""
    target = chosen_target()
    if linked.environment != environment() or not target.is_host or flags.DISABLE_JIT.value:
        return
    with _lock:
        if not set(linked.keys) <= _linked.keys():
            base = mapped(linked.code)
            for key, entry in zip(linked.keys, linked.entries, strict=True):
                _linked.setdefault(key, base + entry)
        known = dict(zip(linked.names, linked.keys, strict=True))
        named = {kernel: known[kernel.name] for kernel in kernels if kernel.name in known}
        _know_keys(_environment(target.identity), named)


def statistics() -> Statistics:
    """Hits and misses of this process, and the folder and its size."""
    folder = default_folder()
    present = folder if folder.is_dir() else None
    return Statistics(_hits, _misses, present, size())


def size() -> int:
    """Bytes the cache folder holds."""
    return sum(size for _, size, _ in entries(default_folder()))


def clear() -> int:
    """Delete every file of the cache; return how many.  Linked kernels keep running."""
    removed = 0
    for _, _, path in entries(default_folder()):
        try:
            os.unlink(path)
        except OSError:
            continue
        removed += 1
    return removed
