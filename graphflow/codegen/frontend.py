"""Numba's front end: the text of a kernel file to the text of an LLVM module.

Numba translates, types and lowers; its engine is never asked for machine code,
and its LLVM binding is not called, so that another thread may be optimising
the previous kernel meanwhile (the binding has one lock).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from llvmlite import ir
from numba.core import cgutils
from numba.core.compiler import CompilerBase, Flags
from numba.core.compiler_machinery import LoweringPass, PassManager, register_pass
from numba.core.cpu_options import FastMathOptions
from numba.core.errors import NumbaError
from numba.core.fastmathpass import rewrite_module
from numba.core.funcdesc import PythonFunctionDescriptor
from numba.core.lowering import Lower
from numba.core.typed_passes import NopythonTypeInference, PreLowerStripPhis
from numba.core.untyped_passes import FixupArgs, IRProcessing, ReconstructSSA, TranslateByteCode

from graphflow.codegen import atomics_lowering, intrinsics, vector_calls
from graphflow.codegen.bridge import types
from graphflow.codegen.contexts import kernel_target
from graphflow.codegen.contraction import lowering as contraction_lowering
from graphflow.codegen.loop_hints import can_mask, hint_loops
from graphflow.codegen.plain import EPILOGUE_ARITY, KERNEL_ARITY, load_function
from graphflow.codegen.pointers import ARGUMENT_BLOCK, attach_scopes
from graphflow.codegen.schedule import KernelSource
from graphflow.codegen.target import Target
from graphflow.errors import CompileError
from graphflow.records import dataclass

_USE_GOT = '!llvm.module.flags = !{!1000000}\n!1000000 = !{i32 7, !"RtLibUseGOT", i32 1}\n'
"""C functions are called through the global offset table.

The linker's memory manager reserves that table, but not the one that ordinary
calls of outside functions need, and would end the process.
"""
_VOCABULARY = (atomics_lowering, contraction_lowering, intrinsics)
"""Modules that teach Numba, when imported, what the names in kernel files compile to."""


@dataclass(frozen=True)
class Lowered:
    """A kernel as LLVM text with a C entry of its name, and Numba libraries it calls into."""

    kernel: KernelSource
    text: str
    libraries: Sequence[Any]


class _ModuleLibrary:
    """What lowering needs of a Numba code library: somewhere to note what must be linked."""

    def __init__(self, name: str, triple: str, data_layout: str) -> None:
        self.name, self._triple, self._data_layout = name, triple, data_layout
        self.linked: list[Any] = []

    def create_ir_module(self, name: str) -> Any:
        """An empty module for the target."""
        module = ir.Module(name)
        module.triple, module.data_layout = self._triple, self._data_layout
        return module

    def add_linking_library(self, library: Any) -> None:
        """Note another compiled function's library."""
        self.linked.append(library)


class _KernelLower(Lower):  # type: ignore[misc]
    """Lowers without Numba's environment object: kernels raise nothing and box nothing."""

    def alloca_lltype(self, name: str, lltype: Any, datamodel: Any = None) -> Any:
        """Space for a variable; Numba's version asks LLVM its size for the debugger."""
        return cgutils.alloca_once(self.builder, lltype, name=name, zfill=False)

    def lower(self) -> None:
        """Lower the function; its module is the result."""
        self.genlower = None
        self.lower_normal_function(self.fndesc)
        attach_scopes(self.module)
        rewrite_module(self.module, FastMathOptions({"contract"}))


@register_pass(mutates_CFG=True, analysis_only=False)
class _LowerKernel(LoweringPass):  # type: ignore[misc]
    """Leave the lowered module, instead of machine code, as the result."""

    _name = "graphflow_lower_kernel"

    def __init__(self) -> None:
        LoweringPass.__init__(self)

    def run_pass(self, state: Any) -> bool:
        context = state.targetctx
        description = PythonFunctionDescriptor.from_specialized_function(
            state.func_ir, state.typemap, state.return_type, state.calltypes,
            mangler=context.mangler, inline=False, noalias=False, abi_tags=[],
        )  # fmt: skip
        library = _ModuleLibrary(state.func_id.func_qualname, *_layout())
        with context.push_code_library(library):
            lower = _KernelLower(context, library, description, state.func_ir)
            lower.lower()
        state.cr = (lower.module, description.llvm_func_name, library.linked)
        return True


class _Pipeline(CompilerBase):  # type: ignore[misc]
    """The passes generated kernels need; closures, generators and with-blocks they have not."""

    def define_pipelines(self) -> list[Any]:
        manager = PassManager("graphflow")
        for step in (
            TranslateByteCode, FixupArgs, IRProcessing, ReconstructSSA,
            NopythonTypeInference, PreLowerStripPhis, _LowerKernel,
        ):  # fmt: skip
            manager.add_pass(step, step._name)
        manager.finalize()
        return [manager]


def _flags() -> Any:
    flags = Flags()
    flags.nrt = False
    flags.error_model = "numpy"
    flags.no_cpython_wrapper = True
    flags.no_cfunc_wrapper = True
    flags.release_gil = True
    return flags


@cache
def _layout() -> tuple[str, str]:
    codegen = kernel_target().codegen()
    return str(codegen._create_empty_module("").triple), str(codegen._data_layout)


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
    contexts = kernel_target()
    pipeline = _Pipeline(
        contexts.typing_context, contexts, None, arguments, types.none,
        _flags(), {},
    )  # fmt: skip
    try:
        module, inner, libraries = pipeline.compile_extra(function)
    except NumbaError as error:
        raise CompileError(
            f"kernel {kernel.name} could not be compiled; its source is {path}\n{error}"
        ) from error
    needed = module.__dict__.get("graphflow_functions", {})
    lines = [line for line in str(module).splitlines() if not _declares_vector_function(line)]
    definitions = vector_calls.definitions(needed.values(), target.has_fma)
    text = "\n".join(
        [*_merge(lines, definitions.splitlines()), _entry(kernel.name, inner, extra), _USE_GOT]
    )
    text = _without_library_idioms(text)
    text = hint_loops(text, can_mask(target, text))
    return Lowered(kernel, text, libraries)


def _without_library_idioms(text: str) -> str:
    """Keep loops loops: no kernel may call ``memset``, which is slow for short rows
    and a symbol from outside that the linker's contiguous memory has no room for."""
    return "\n".join(
        f'{line[:-1]}"no-builtins" {{' if line == "{" or _opens_function(line) else line
        for line in text.splitlines()
    )


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
