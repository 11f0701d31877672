"""Kernel files to functions that can be launched, and to PTX without a GPU."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from graphflow.codegen.cuda.toolchain import toolchain
from graphflow.codegen.plain import load_function
from graphflow.codegen.schedule import KernelSource
from graphflow.errors import CompileError

_NUMBA = {
    "bool": "boolean", "f32": "float32", "f64": "float64",
    **{f"{s}{n}": f"{t}{n}" for s, t in (("i", "int"), ("u", "uint")) for n in (8, 16, 32, 64)},
}  # fmt: skip


def function_of(kernel: KernelSource) -> Any:
    """The plain Python function of a kernel file."""
    return load_function(kernel.name, kernel.source, Path(f"{kernel.name}.py"))


def launchable(kernel: KernelSource) -> Any:
    """The kernel as an object of Numba's that takes a grid and is called."""
    return toolchain().cuda.jit(function_of(kernel))


@cache
def _types() -> Any:
    return toolchain().module("types")


def signature(kernel: KernelSource) -> Any:
    """The types of a kernel's parameters: contiguous arrays, then 64-bit integers."""
    if kernel.launch is None:
        raise CompileError(f"kernel {kernel.name} is not one for a GPU")
    types = _types()
    arrays = [
        types.Array(getattr(types, _NUMBA[element]), 1, "C") for element in kernel.launch.elements
    ]
    return types.void(*arrays, *[types.int64] * kernel.launch.integers)


def ptx(kernel: KernelSource, capability: tuple[int, int]) -> str:
    """The kernel as PTX for a compute capability such as ``(9, 0)``.

    Needs neither a GPU nor a driver, but NVVM, which ``numba-cuda[cu13]`` brings.
    Raises :class:`CompileError` when the kernel does not compile.
    """
    types = signature(kernel)
    assert kernel.launch is not None
    bounds = (kernel.launch.block, kernel.launch.resident)
    try:
        text, _ = toolchain().cuda.compile_ptx(
            function_of(kernel), types, cc=capability, launch_bounds=bounds
        )
    except Exception as error:
        raise CompileError(
            f"kernel {kernel.name} does not compile for {capability}: {error}"
        ) from error
    return str(text)
