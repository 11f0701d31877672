"""Numba's front end: the text of a kernel file to the text of an LLVM module.

Numba translates, types and lowers; its engine is never asked for machine code,
and its LLVM binding is not called, so that another thread may be optimising
the previous kernel meanwhile (the binding has one lock).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from numba.core.compiler import CompilerBase, Flags
from numba.core.compiler_machinery import PassManager
from numba.core.errors import NumbaError
from numba.core.typed_passes import NopythonTypeInference, PreLowerStripPhis
from numba.core.untyped_passes import FixupArgs, IRProcessing, ReconstructSSA, TranslateByteCode

from graphflow.codegen import atomics_lowering, avx512, intrinsics, vector_calls
from graphflow.codegen.bridge import types
from graphflow.codegen.contexts import kernel_target
from graphflow.codegen.contraction import lowering as contraction_lowering
from graphflow.codegen.contraction.linked import bodies_of
from graphflow.codegen.kernel_lowering import KeepTypes, LowerKernel, TranslateKernel, TypesChange
from graphflow.codegen.loop_hints import are_long, hint_loops, masked_from
from graphflow.codegen.plain import EPILOGUE_ARITY, KERNEL_ARITY, load_function
from graphflow.codegen.pointers import ARGUMENT_BLOCK
from graphflow.codegen.schedule import KernelSource
from graphflow.codegen.target import Target
from graphflow.errors import CompileError
from graphflow.records import dataclass

_TILES = re.compile(r"micro_kernels import .*\b(?:tile|dot|combine)\b")
_USE_GOT = '!llvm.module.flags = !{!1000000}\n!1000000 = !{i32 7, !"RtLibUseGOT", i32 1}\n'
"""C functions are called through the global offset table.

The linker's memory manager reserves that table, but not the one that ordinary
calls of outside functions need, and would end the process.
"""
_VOCABULARY = (atomics_lowering, contraction_lowering, intrinsics)
"""Modules that teach Numba, when imported, what the names in kernel files compile to."""


@dataclass(frozen=True)
class Lowered:
    """A kernel as LLVM text with a C entry of its name, and what it calls into.

    ``bodies`` are the functions of the vocabulary that it calls, by name, each a module as text.
    ``inlined`` are modules as text that are linked once the kernel is optimised, ``libraries``
    Numba's, that are linked before.  ``tiled``: its time is spent in register tiles.
    """

    kernel: KernelSource
    text: str
    bodies: Mapping[str, str]
    inlined: Sequence[str]
    libraries: Sequence[Any]
    tiled: bool


class _Pipeline(CompilerBase):  # type: ignore[misc]
    """The passes generated kernels need; closures, generators and with-blocks they have not."""

    def define_pipelines(self) -> list[Any]:
        manager = PassManager("graphflow")
        for step in self._passes():
            manager.add_pass(step, step._name)
        manager.finalize()
        return [manager]

    def _passes(self) -> Sequence[Any]:
        return (TranslateKernel, FixupArgs, KeepTypes, LowerKernel)


class _RenamingPipeline(_Pipeline):
    """For kernels whose variables change their type."""

    def _passes(self) -> Sequence[Any]:
        return (
            TranslateByteCode, FixupArgs, IRProcessing, ReconstructSSA,
            NopythonTypeInference, PreLowerStripPhis, LowerKernel,
        )  # fmt: skip


def _flags() -> Any:
    flags = Flags()
    flags.nrt = False
    flags.error_model = "numpy"
    flags.no_cpython_wrapper = True
    flags.no_cfunc_wrapper = True
    flags.release_gil = True
    return flags


def lower(kernel: KernelSource, path: Path, target: Target) -> Lowered:
    """Import the kernel's text as file ``path`` and lower it.

    Raises :class:`CompileError` naming the kernel and the file.
    """
    function = load_function(kernel.name, kernel.source, path)
    arity = EPILOGUE_ARITY if kernel.epilogue else KERNEL_ARITY
    if function.__code__.co_argcount != arity:
        raise CompileError(f"kernel {kernel.name}: {path} should take {arity} parameters")
    extra = arity - 1
    arguments = (ARGUMENT_BLOCK, *[types.int64] * extra)
    try:
        module, inner, libraries = _translated(function, arguments)
    except NumbaError as error:
        raise CompileError(
            f"kernel {kernel.name} could not be compiled; its source is {path}\n{error}"
        ) from error
    needed = module.__dict__.get("graphflow_functions", {})
    lines = [line for line in str(module).splitlines() if not _declares_vector_function(line)]
    definitions = vector_calls.definitions(needed.values(), target)
    lines = _merge(lines, definitions.splitlines())
    lines += _entry(kernel.name, inner, extra).splitlines()
    bodies = bodies_of(module)
    text = "\n".join([*_closed(lines, f'define i32 @"{inner}"', bodies), _USE_GOT])
    masked = masked_from(target, text, aside=bool(bodies))
    text = hint_loops(text, masked, are_long(target, text))
    tiled = _TILES.search(kernel.source) is not None
    inlined = (avx512.BODIES,) if avx512.LOOKUP in definitions else ()  # all, where one is
    return Lowered(kernel, text, bodies, inlined, libraries, tiled)


def _translated(function: Any, arguments: tuple[Any, ...]) -> Any:
    """The lowered module of ``function``, the name of it there, and libraries it calls into."""
    try:
        return _run(_Pipeline, function, arguments)
    except TypesChange:
        return _run(_RenamingPipeline, function, arguments)


def _run(pipeline: type[_Pipeline], function: Any, arguments: tuple[Any, ...]) -> Any:
    contexts = kernel_target()
    passes = pipeline(
        contexts.typing_context, contexts, None, arguments, types.none,
        _flags(), {},
    )  # fmt: skip
    return passes.compile_extra(function)


def _closed(lines: list[str], inner: str, bodies: Collection[str]) -> Iterator[str]:
    """Functions nobody else sees: the one that begins with ``inner`` becomes part of the entry.

    Loops stay loops: no kernel may call ``memset``, which is slow for short rows and a symbol
    from outside that the linker's contiguous memory has no room for.  ``bodies`` lie beside it;
    what it may call from farther outside goes through the offset table.
    """
    for line in lines:
        if line.startswith(inner):
            yield f"{line.replace('define', 'define internal', 1)} alwaysinline"
        elif line == "{" or _opens_function(line):
            yield f'{line[:-1]}"no-builtins" {{'
        elif (name := _declared(line)) is not None and not name.startswith("llvm."):
            beside = name in bodies
            yield line.replace("declare", "declare hidden") if beside else f"{line} nonlazybind"
        else:
            yield line


def _opens_function(line: str) -> bool:
    return line.startswith("define") and line.endswith("{")


def _declares_vector_function(line: str) -> bool:
    return line.startswith("declare") and f'@"{vector_calls.PREFIX}' in line


def _declared(line: str) -> str | None:
    """The function an LLVM line declares."""
    if not line.startswith("declare"):
        return None
    return line.split("@")[1].split("(")[0].strip('"')


def _merge(lines: list[str], definitions: list[str]) -> list[str]:
    """Append ``definitions`` without declaring a function twice."""
    known = {_declared(line) for line in lines} - {None}
    return [*lines, *(line for line in definitions if _declared(line) not in known)]


def _entry(name: str, inner: str, extra: int) -> str:
    """A C function that calls Numba's, whose status is always success."""
    parameters = ", ".join(["ptr %args", *(f"i64 %w{i}" for i in range(extra))])
    return (
        f'define void @"{name}"({parameters}) nounwind {{\n'
        "  %result = alloca ptr\n  %error = alloca ptr\n"
        f'  call i32 @"{inner}"(ptr %result, ptr %error, {parameters})\n'
        "  ret void\n}\n"
    )
