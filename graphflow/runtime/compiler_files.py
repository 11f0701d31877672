"""What plans and kernels in the cache depend on: the compiler's own files, Numba and llvmlite.

All of it is a digest.  Contents are read when it matters which of them changed (a kernel
depends on the few modules its code is made from), and what was read is remembered in the
cache folder under the files' sizes and times, so that a later process reads none of them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.machinery import PathFinder

from graphflow.digests import new_digest
from graphflow.runtime.folder import pack, read_file, usable_folder, warn_unwritable, write_file

ROOTS = ("graphflow.codegen.compile", "graphflow.codegen.prelude")
"""The modules that turn any kernel's source into machine code."""

_COMPILED = ("graphflow.codegen.", "graphflow.ir.formulas.")
"""Beginnings of the names of modules whose functions become machine code, or write it."""
_DATA_ONLY = "graphflow.codegen.schedule"  # records; they do not shape machine code
_IMPORT = re.compile(
    r"^[ \t]*(?:from (graphflow[\w.]*) import (?:\(([^)]*)\)|([^\n(]*))|import (graphflow[\w.]*))",
    re.MULTILINE,
)
_PACKAGE = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
_COMPILER = ("ir", "passes", "codegen", "runtime", "autograd")


@cache
def compiler_digest() -> bytes:
    """Changes when a file of the compiler does: by size and time, as reading all takes too long."""
    digest = new_digest()
    for path, facts in sorted((entry.path, entry.stat()) for entry in _sources()):
        digest.update(f"{path} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    return digest.digest()


def _sources() -> Iterator[os.DirEntry[str]]:
    pending = [os.path.join(_PACKAGE, part) for part in _COMPILER]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_dir():
                    pending.append(entry.path)
                elif entry.name.endswith(".py"):
                    yield entry


@cache
def helpers_digest(roots: tuple[str, ...]) -> bytes:
    """Digest of the code generation modules that ``roots`` import, directly or not.

    Numba would silently serve stale machine code when one of them changes.
    """
    folder = usable_folder()
    if folder is None:
        return contents_digest(roots, module_files())
    key = new_digest(compiler_digest() + repr(roots).encode()).digest()
    path = folder / f"helpers-{key.hex()[:16]}.digest"
    found = read_file(path, key)
    if found is None:
        found = contents_digest(roots, module_files())
        try:
            write_file(path, pack(key, found))
        except OSError as error:
            warn_unwritable(folder, error)
    return found


def module_files() -> Mapping[str, str]:
    """Files of the modules that may take part in code generation and execution, by name."""
    files = {}
    for entry in _sources():
        module = os.path.relpath(entry.path, _PACKAGE)[: -len(".py")].replace(os.sep, ".")
        files["graphflow." + module.removesuffix(".__init__")] = entry.path
    return files


def contents_digest(roots: tuple[str, ...], files: Mapping[str, str]) -> bytes:
    """:func:`helpers_digest` by reading: modules are looked up in ``files``."""
    texts: dict[str, bytes] = {}
    pending = list(roots)
    while pending:
        module = pending.pop()
        inside = module in roots or module.startswith(_COMPILED)
        if inside and module in files and module not in texts and module != _DATA_ONLY:
            with open(files[module], "rb") as file:
                texts[module] = file.read()
            pending.extend(_imported(texts[module].decode()))
    digest = new_digest()
    for module in sorted(texts):
        digest.update(f"{module} {len(texts[module])}\n".encode())
        digest.update(texts[module])
    return digest.digest()


def _imported(source: str) -> Iterator[str]:
    """Names in GraphFlow that ``source`` imports; some are modules, some are not."""
    for module, block, line, plain_module in _IMPORT.findall(source):
        if plain_module:
            yield plain_module
            continue
        yield module
        for name in (block or line).split(","):
            bare = name.split(" as ")[0].split("#")[0].strip()
            if bare:
                yield f"{module}.{bare}"


@cache
def version_of(package: str) -> bytes:
    """What changes when ``package`` is upgraded, without importing it."""
    spec = PathFinder.find_spec(package)
    if spec is not None and spec.origin is not None:
        try:
            with open(os.path.join(os.path.dirname(spec.origin), "_version.py"), "rb") as file:
                return file.read()
        except FileNotFoundError:
            pass
    from importlib.metadata import version

    return version(package).encode()
