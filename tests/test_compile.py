"""Kernel source to object code to address: the compiled and the plain meaning agree."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from kernel_calls import call

from graphflow.codegen.compile import Compilation, assembly, compile_kernels
from graphflow.codegen.plain import PlainKernel, load_function, raise_failure
from graphflow.codegen.schedule import KernelSource
from graphflow.codegen.target import chosen_target
from graphflow.errors import CompileError
from graphflow.runtime.linker import link

HEADER = "from graphflow.codegen.prelude import *\n@kernel\n"
SCALE = (
    HEADER
    + """def scale_add(args, tid, nth):
    a = pointer_f32(args, 0)
    b = pointer_f32(args, 1)
    out = pointer_f32(args, 2)
    begin, end = share(args[3], tid, nth)
    for i in range(begin, end):
        out[i] = a[i] * f32(2.0) + b[i]
"""
)

MODULUS = (
    HEADER + "def modulus(args, tid, nth):\n    a = pointer_f64(args, 0)\n    a[0] = a[0] % a[1]\n"
)


def run(source: KernelSource, *arguments: np.ndarray | int, threads: int = 1) -> None:
    """Run the compiled kernel."""
    call(link(compile_kernels([source]).objects)[source.name], *arguments, threads=threads)


def run_plain(source: KernelSource, *arguments: np.ndarray | int) -> None:
    """Run the same file as plain Python behind the same C interface."""
    plain = PlainKernel(load_function(source.name, source.source, Path(f"{source.name}.py")))
    call(plain.address, *arguments)
    raise_failure()


@pytest.mark.parametrize("runner", [run, run_plain])
def test_elementwise_kernel(runner: Callable[..., None]) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 1003)).astype(np.float32)
    out = np.zeros_like(a)
    runner(KernelSource("scale_add", SCALE), a, b, out, a.size)
    np.testing.assert_allclose(out, a * np.float32(2) + b, rtol=1e-6)


def test_all_threads_together_cover_everything_once() -> None:
    a = np.ones(5000, np.float32)
    for threads in (1, 2, 3, 7):
        out = np.zeros_like(a)
        run(KernelSource("scale_add", SCALE), a, a, out, a.size, threads=threads)
        assert (out == 3).all()


def test_the_loop_is_vectorised_in_spite_of_a_possible_overlap() -> None:
    text = assembly(KernelSource("scale_add", SCALE))
    assert re.search(r"v?(add|mul|fmadd\w*)ps|v\d+\.4s", text)
    assert "call" not in text


def test_an_unknown_name_is_a_compile_error_with_kernel_and_file() -> None:
    source = KernelSource("bad", HEADER + "def bad(args, tid, nth):\n    nonsense(args)\n")
    with pytest.raises(CompileError, match=r"bad(.|\n)*bad\.py"):
        compile_kernels([source])


def test_a_file_without_the_kernel_is_a_compile_error() -> None:
    with pytest.raises(CompileError, match="no @kernel function"):
        compile_kernels([KernelSource("other", SCALE)])


def test_malformed_objects_do_not_link() -> None:
    with pytest.raises(CompileError, match="k"):
        link({"k": b"not an object file"})


def test_c_functions_are_called_through_the_offset_table() -> None:
    """Numba's ``%`` of floats calls libm; ordinary calls of it could not be linked."""
    a = np.array([-7.5, 2.0])
    run(KernelSource("modulus", MODULUS), a)
    assert a[0] == 0.5


def test_loops_with_steps_are_in_vectors() -> None:
    """LLVM would write vectors for a step that turns out to be 1, which kernels never mean."""
    text = (
        "from graphflow.codegen.prelude import kernel, pointer_bool, pointer_f32, f32, select\n\n\n"
        "@kernel\ndef stepped(args, tid, nth):\n"
        "    a = pointer_bool(args, 0)\n    b = pointer_f32(args, 1)\n"
        "    out = pointer_f32(args, 2)\n"
        "    for i in range(args[3]):\n"
        "        out[i] = select(a[i], b[i * args[4]], f32(0.0))\n"
    )
    code = assembly(KernelSource("stepped", text))
    if not chosen_target().is_x86:
        pytest.skip("the vector instructions are only known for x86")
    assert re.search(r"v?insertps|v?unpcklps|v?pinsrd|gather", code)


def test_compilations_that_overlap_put_everything_back() -> None:
    interval = sys.getswitchinterval()
    first, second = Compilation(), Compilation()
    first.__enter__()
    second.__enter__()
    first.__exit__()
    assert sys.getswitchinterval() < interval
    second.__exit__()
    assert sys.getswitchinterval() == interval
