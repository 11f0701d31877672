"""From kernel source to object code: Numba's front end, then LLVM once.

Numba translates, types and lowers the kernel to LLVM text; its engine is never
asked for machine code.  The text, the ``vm`` functions it needs and a C entry
of the kernel's name become one module, optimised and emitted here::

    objects = compile_kernels([KernelSource("ew_tanh_3fa2", text)]).objects

Importing this module imports Numba (half a second); the runtime does so only
when a kernel is missing from the cache.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
from numba.core import types
from numba.core.compiler import CompilerBase, Flags
from numba.core.compiler_lock import global_compiler_lock
from numba.core.compiler_machinery import LoweringPass, PassManager, register_pass
from numba.core.cpu_options import FastMathOptions
from numba.core.errors import NumbaError
from numba.core.fastmathpass import rewrite_module
from numba.core.funcdesc import PythonFunctionDescriptor
from numba.core.lowering import Lower
from numba.core.registry import cpu_target
from numba.core.typed_passes import (
    NopythonTypeInference,
    PreLowerStripPhis,
)
from numba.core.untyped_passes import FixupArgs, IRProcessing, ReconstructSSA, TranslateByteCode

import graphflow.codegen.atomics_lowering  # noqa: F401  (registers the executor's vocabulary)
from graphflow.codegen import intrinsics
from graphflow.codegen.plain import EPILOGUE_ARITY, KERNEL_ARITY, load_function
from graphflow.codegen.pointers import ARGUMENT_BLOCK, attach_scopes
from graphflow.codegen.schedule import KernelSource
from graphflow.codegen.target import Target, host_target, target_machine
from graphflow.errors import CompileError


@dataclass(frozen=True)
class Compiled:
    """Object code by kernel name, and the seconds each kernel took."""

    objects: Mapping[str, bytes]
    seconds: Mapping[str, float] = field(default_factory=dict)


class _KernelLower(Lower):  # type: ignore[misc]
    """Lowers without Numba's environment object: kernels raise nothing and box nothing."""

    def lower(self) -> None:
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
        library = context.codegen().create_library(state.func_id.func_qualname)
        with context.push_code_library(library):
            lower = _KernelLower(context, library, description, state.func_ir)
            lower.lower()
        state.cr = (lower.module, description.llvm_func_name, library)
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


def _lower_to_text(kernel: KernelSource, path: Path, target: Target) -> tuple[str, list[Any]]:
    """LLVM text of a kernel with its C entry, and Numba libraries it calls into."""
    function = load_function(kernel.name, kernel.source, path)
    arity = EPILOGUE_ARITY if kernel.epilogue else KERNEL_ARITY
    if function.__code__.co_argcount != arity:
        raise CompileError(f"kernel {kernel.name}: {path} should take {arity} parameters")
    extra = arity - 1
    arguments = (ARGUMENT_BLOCK, *[types.int64] * extra)
    pipeline = _Pipeline(
        cpu_target.typing_context, cpu_target.target_context, None, arguments, types.none,
        _flags(), {},
    )  # fmt: skip
    try:
        module, inner, library = pipeline.compile_extra(function)
    except NumbaError as error:
        raise CompileError(
            f"kernel {kernel.name} could not be compiled; its source is {path}\n{error}"
        ) from error
    needed = module.__dict__.get("graphflow_functions", {})
    text = str(module)
    if needed:
        text = "\n".join(
            line
            for line in text.splitlines()
            if not (line.startswith("declare") and f'@"{intrinsics.PREFIX}' in line)
        )
    definitions = intrinsics.definitions(needed.values(), target.has_fma)
    text = _merge_declarations(text, definitions)
    return text + "\n" + _entry(kernel.name, inner, extra), list(library._linking_libraries)


def _merge_declarations(text: str, definitions: str) -> str:
    """Append ``definitions`` without declaring an intrinsic twice."""
    known = {line.split("(")[0].split("@")[1].strip('"') for line in text.splitlines()
             if line.startswith("declare")}  # fmt: skip
    kept = [
        line
        for line in definitions.splitlines()
        if not (line.startswith("declare") and line.split("(")[0].split("@")[1] in known)
    ]
    return "\n".join([text, *kept])


def _entry(name: str, inner: str, extra: int) -> str:
    """A C function that calls Numba's, whose status is always success."""
    parameters = ", ".join(["ptr %args", *(f"i64 %w{i}" for i in range(extra))])
    return (
        f'define void @"{name}"({parameters}) nounwind {{\n'
        "  %result = alloca ptr\n  %error = alloca ptr\n"
        f'  call i32 @"{inner}"(ptr %result, ptr %error, {parameters})\n'
        "  ret void\n}\n"
    )


@cache
def _machine(target: Target) -> Any:
    return target_machine(target)


def optimise(kernel: KernelSource, text: str, libraries: Sequence[Any], target: Target) -> Any:
    """The optimised LLVM module of a kernel; only the entry stays visible."""
    machine = _machine(target)
    try:
        module = llvm.parse_assembly(text)
        module.verify()
    except RuntimeError as error:
        raise CompileError(f"kernel {kernel.name}: invalid LLVM: {error}") from error
    for library in libraries:
        module.link_in(library._get_module_for_linking(), preserve=True)
    for function in module.functions:
        if not function.is_declaration and function.name != kernel.name:
            function.linkage = llvm.Linkage.internal
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = True
    options.loop_interleaving = True
    options.loop_unrolling = True
    options.slp_vectorization = True
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    return module


def compile_kernels(
    kernels: Sequence[KernelSource],
    paths: Mapping[str, Path] | None = None,
    target: Target | None = None,
) -> Compiled:
    """Compile each kernel to object code with a C entry of its name.

    ``paths`` says, by kernel name, which file a source is in (for tracebacks
    and messages).  Raises :class:`CompileError` naming the kernel and its file.
    """
    target = target or host_target()
    objects: dict[str, bytes] = {}
    seconds: dict[str, float] = {}
    with global_compiler_lock:
        for kernel in kernels:
            start = time.perf_counter()
            text, libraries = _lower_to_text(kernel, _path(kernel, paths), target)
            module = optimise(kernel, text, libraries, target)
            objects[kernel.name] = bytes(_machine(target).emit_object(module))
            seconds[kernel.name] = time.perf_counter() - start
    return Compiled(objects, seconds)


def _path(kernel: KernelSource, paths: Mapping[str, Path] | None) -> Path:
    return (paths or {}).get(kernel.name, Path(f"{kernel.name}.py"))


def assembly(kernel: KernelSource, target: Target | None = None) -> str:
    """The machine code of ``kernel`` as assembly text (for ``inspect`` and tests)."""
    target = target or host_target()
    with global_compiler_lock:
        text, libraries = _lower_to_text(kernel, _path(kernel, None), target)
        return str(_machine(target).emit_assembly(optimise(kernel, text, libraries, target)))
