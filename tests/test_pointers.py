"""Pointers, casts, shares and calls of kernels: compiled and plain agree with NumPy."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from test_compile import run, run_plain

from graphflow.codegen.compile import assembly, compile_kernels
from graphflow.codegen.plain import EPILOGUE_ARITY, PlainKernel, load_function, share
from graphflow.codegen.schedule import KernelSource
from graphflow.codegen.target import Target, chosen_target
from graphflow.errors import CompileError
from graphflow.runtime.linker import link

HEADER = "from graphflow.codegen.prelude import *\n@kernel\n"
RUNNERS = pytest.mark.parametrize("runner", [run, run_plain], ids=["compiled", "plain"])
Runner = Callable[..., None]
DTYPES: dict[str, Any] = {
    "bool": np.bool_, "u8": np.uint8, "u16": np.uint16, "u32": np.uint32, "u64": np.uint64,
    "i8": np.int8, "i16": np.int16, "i32": np.int32, "i64": np.int64,
    "f16": np.float16, "bf16": ml_dtypes.bfloat16, "f32": np.float32, "f64": np.float64,
}  # fmt: skip


def source(name: str, *lines: str, arity: str = "args, tid, nth") -> KernelSource:
    body = "".join(f"    {line}\n" for line in lines)
    return KernelSource(name, f"{HEADER}def {name}({arity}):\n{body}", "batch" in arity)


def awkward(element: str) -> Any:
    """Values at the ends of a type."""
    kind = DTYPES[element]
    if element == "bool":
        return np.array([True, False, True])
    if element in ("f16", "bf16", "f32", "f64"):
        info = ml_dtypes.finfo(kind)
        ends = [0.0, -0.0, 1.5, float(info.max), float(info.tiny), -3.25, np.inf, -np.inf, np.nan]
        return np.array(ends, kind)
    info = np.iinfo(kind)
    return np.array([info.min, info.max, 0, 1, 77], kind)


@RUNNERS
@pytest.mark.parametrize("element", DTYPES)
def test_every_element_type_is_copied_exactly(runner: Runner, element: str) -> None:
    a = awkward(element)
    out = np.zeros_like(a)
    lines = (f"a = pointer_{element}(args, 0)", f"out = pointer_{element}(args, 1)",
             "for i in range(args[2]):", "    out[i] = a[i]")  # fmt: skip
    runner(source(f"copy_{element}", *lines), a, out, a.size)
    wide = np.float64 if "f" in element else a.dtype  # NumPy's own types know that NaN is NaN
    np.testing.assert_array_equal(out.astype(wide), a.astype(wide))
    if element == "bool":
        assert set(out.view(np.uint8).tolist()) <= {0, 1}


@RUNNERS
@pytest.mark.parametrize("element", ["f16", "bf16"])
def test_half_formats_round_to_nearest_even(runner: Runner, element: str) -> None:
    rng = np.random.default_rng(5)
    a = np.concatenate([
        rng.standard_normal(300) * 10.0 ** rng.integers(-9, 6, 300),
        [np.nan, np.inf, -np.inf, 65519.0, 65520.0, 1 + 2.0**-8, 1 + 3 * 2.0**-8, 1e-8, 3.4e38],
    ]).astype(np.float32)  # fmt: skip
    out = np.zeros(a.size, DTYPES[element])
    cast = np.zeros(a.size, np.float32)
    lines = ("a = pointer_f32(args, 0)", f"out = pointer_{element}(args, 1)",
             "cast = pointer_f32(args, 2)", "for i in range(args[3]):",
             "    out[i] = a[i]", f"    cast[i] = {element}(a[i])")  # fmt: skip
    runner(source(f"round_{element}", *lines), a, out, cast, a.size)
    with np.errstate(over="ignore"):
        expected = a.astype(DTYPES[element])
    np.testing.assert_array_equal(out.astype(np.float32), expected.astype(np.float32))
    np.testing.assert_array_equal(cast, expected.astype(np.float32))


@RUNNERS
def test_a_byte_that_is_not_zero_is_true(runner: Runner) -> None:
    a = np.array([0, 1, 2, 255], np.uint8)
    out = np.zeros(4, np.float32)
    lines = ("a = pointer_bool(args, 0)", "out = pointer_f32(args, 1)", "for i in range(4):",
             "    out[i] = select(a[i], f32(2.0), f32(-1.0))")  # fmt: skip
    runner(source("truth", *lines), a, out)
    assert out.tolist() == [-1, 2, 2, 2]


INTEGER_CASTS = [e for e in DTYPES if e[0] in "iu"]


@RUNNERS
@pytest.mark.parametrize("target", INTEGER_CASTS)
def test_casts_between_integers_wrap(runner: Runner, target: str) -> None:
    a = np.array([0, 1, -1, 127, 128, 255, 256, -129, 2**31, 2**40 + 5, -(2**63)], np.int64)
    out = np.zeros(a.size, DTYPES[target])
    lines = ("a = pointer_i64(args, 0)", f"out = pointer_{target}(args, 1)",
             "for i in range(args[2]):", f"    out[i] = {target}(a[i])")  # fmt: skip
    runner(source(f"wrap_{target}", *lines), a, out, a.size)
    np.testing.assert_array_equal(out, a.astype(DTYPES[target]))


@RUNNERS
@pytest.mark.parametrize("target", INTEGER_CASTS)
@pytest.mark.parametrize("origin", ["f32", "f64"])
def test_casts_from_floats_truncate(runner: Runner, origin: str, target: str) -> None:
    a = np.array([0.0, -0.0, 0.9, 1.5, 99.99, 100.0], DTYPES[origin])
    if target.startswith("i"):
        a = np.concatenate([a, -a])
    out = np.zeros(a.size, DTYPES[target])
    lines = (f"a = pointer_{origin}(args, 0)", f"out = pointer_{target}(args, 1)",
             "for i in range(args[2]):", f"    out[i] = {target}(a[i])")  # fmt: skip
    runner(source(f"truncate_{origin}_{target}", *lines), a, out, a.size)
    np.testing.assert_array_equal(out, a.astype(DTYPES[target]))


@pytest.mark.parametrize("target", INTEGER_CASTS)
def test_casts_of_nan_and_infinity_give_some_integer(target: str) -> None:
    a = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30] * 8, np.float32)
    out = np.zeros(a.size, DTYPES[target])
    lines = ("a = pointer_f32(args, 0)", f"out = pointer_{target}(args, 1)",
             "for i in range(args[2]):", f"    out[i] = {target}(a[i])")  # fmt: skip
    kernel = source(f"nan_{target}", *lines)
    run(kernel, a, out, a.size)
    again = np.zeros_like(out)
    run(kernel, a, again, a.size)
    np.testing.assert_array_equal(out, again)


@RUNNERS
def test_offsets_raw_pointers_and_addresses(runner: Runner) -> None:
    a = np.arange(20, dtype=np.float64)
    out = np.zeros(4)
    lines = (
        "a = pointer_f64(args, 0)",
        "out = pointer_f64(args, 1)",
        "row = a + args[2] * 5",
        "same = pointer_at_f64(address_of(row))",
        "out[0] = row[1]",
        "out[1] = same[2]",
        "out[2] = row[-1]",
        "out[3] = pointer_at_i64(address_of(args))[2]",
    )
    runner(source("offsets", *lines), a, out, 3)
    assert out.tolist() == [16, 17, 14, 3]


@RUNNERS
def test_select_takes_the_wider_type_and_evaluates_both_sides(runner: Runner) -> None:
    out = np.zeros(2, np.int64)
    lines = ("out = pointer_i64(args, 0)", "small = i32(args[1])", "big = args[2]",
             "out[0] = select(small < 0, small, big)",
             "out[1] = select(small > 0, small, big)")  # fmt: skip
    runner(source("wider", *lines), out, -5, 2**40)
    assert out.tolist() == [-5, 2**40]


@RUNNERS
def test_accumulation_that_may_be_regrouped(runner: Runner) -> None:
    rng = np.random.default_rng(1)
    a = rng.standard_normal(3001).astype(np.float32)
    out = np.zeros(2, np.float32)
    lines = ("a = pointer_f32(args, 0)", "out = pointer_f32(args, 1)", "total = f32(0.0)",
             "product = f32(1.0)", "for i in range(args[2]):", "    total = add_fast(total, a[i])",
             "    product = mul_fast(product, f32(1.0) + a[i] * f32(1e-4))", "out[0] = total",
             "out[1] = product")  # fmt: skip
    runner(source("accumulate", *lines), a, out, a.size)
    wide = a.astype(np.float64)
    np.testing.assert_allclose(out, [wide.sum(), np.prod(1 + wide * 1e-4)], rtol=2e-5)


def compiled_reduction(step: str) -> str:
    lines = ("a = pointer_f32(args, 0)", "out = pointer_f32(args, 1)", "total = f32(0.0)",
             "for i in range(args[2]):", f"    total = {step}", "out[0] = total")  # fmt: skip
    return assembly(source("reduction", *lines))


@pytest.mark.skipif(not chosen_target().is_x86, reason="reads x86 assembly")
def test_what_vectorises_and_what_must_not() -> None:
    packed = r"\bv?(add|max|cmp\w*|range)ps\b"
    assert re.search(packed, compiled_reduction("add_fast(total, a[i])"))
    assert re.search(packed, compiled_reduction("vm.maximum(total, a[i])"))
    assert not re.search(r"\bv?addps\b", compiled_reduction("total + a[i]")), "reordered a sum"


@pytest.mark.skipif(not chosen_target().is_x86, reason="reads x86 assembly")
def test_slots_never_alias_so_no_overlap_is_checked_at_run_time() -> None:
    lines = ("a = pointer_f32(args, 0)", "b = pointer_f32(args, 1)", "out = pointer_f32(args, 2)",
             "for i in range(args[3]):", "    out[i] = a[i] * b[i]")  # fmt: skip
    scoped = assembly(source("scoped", *lines))
    unscoped = assembly(source("unscoped", *(
        re.sub(r"pointer_f32\(args, (\d)\)", r"pointer_at_f32(args[\1])", line) for line in lines
    )))  # fmt: skip

    def pointer_comparisons(text: str) -> int:
        """Jumps before the first packed multiplication: the checks that choose the loop."""
        return len(re.findall(r"^\s+j[a-z]+\s", text.split("mulps")[0], re.MULTILINE))

    assert "mulps" in scoped
    assert pointer_comparisons(scoped) < pointer_comparisons(unscoped)


@pytest.mark.skipif(not chosen_target().is_x86, reason="reads x86 assembly")
def test_one_slot_read_and_written_in_place_vectorises() -> None:
    lines = ("a = pointer_f32(args, 0)", "for i in range(args[1]):", "    a[i] = a[i] * f32(3.0)")
    assert "mulps" in assembly(source("in_place", *lines))


EPILOGUE = "args, batch, i0, i1, j0, j1"


@RUNNERS
def test_an_epilogue_is_called_by_address(runner: Runner) -> None:
    epilogue = source(
        "mark",
        "out = pointer_i64(args, 0)",
        "out[0] = batch", "out[1] = i0", "out[2] = i1", "out[3] = j0", "out[4] = j1",
        arity=EPILOGUE,
    )  # fmt: skip
    if runner is run:
        address = link(compile_kernels([epilogue]).objects)["mark"]
    else:
        function = load_function("mark", epilogue.source, Path("mark.py"))
        assert function.__code__.co_argcount == EPILOGUE_ARITY
        keep = PlainKernel(function)
        address = keep.address
    out = np.zeros(5, np.int64)
    block = np.array([out.ctypes.data], np.int64)
    driver = source("driver", "call_epilogue(args[0], args[1], 7, 0, 14, 32, 64)")
    runner(driver, address, block)
    assert out.tolist() == [7, 0, 14, 32, 64]


@RUNNERS
def test_a_kernel_calls_a_kernel_by_address(runner: Runner) -> None:
    inner = source("inner", "out = pointer_i64(args, 0)", "out[tid] = nth * 100 + tid")
    address = link(compile_kernels([inner]).objects)["inner"]
    out = np.zeros(3, np.int64)
    block = np.array([out.ctypes.data], np.int64)
    outer = source("outer", "for t in range(3):", "    call_kernel(args[0], args[1], t, 3)")
    runner(outer, address, block)
    assert out.tolist() == [300, 301, 302]


@pytest.mark.parametrize("n", [0, 1, 2, 15, 17, 1000, 1024 * 3, 1024 * 8 + 5, 10**9 + 7])
@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_shares_are_balanced_and_cover_the_range(n: int, threads: int) -> None:
    parts = [share(n, tid, threads) for tid in range(threads)]
    assert parts[0][0] == 0
    assert parts[-1][1] == n
    assert all(a[1] == b[0] for a, b in itertools.pairwise(parts))
    sizes = [end - begin for begin, end in parts]
    large = n >= 1024 * threads
    assert max(sizes) - min(sizes) <= (32 if large else 1)
    if large:
        assert all(begin % 16 == 0 for begin, _ in parts)
    out = np.zeros(2 * threads, np.int64)
    lines = ("out = pointer_i64(args, 0)", "begin, end = share(args[1], tid, nth)",
             "out[2 * tid] = begin", "out[2 * tid + 1] = end")  # fmt: skip
    run(source("shares", *lines), out, n, threads=threads)
    assert out.reshape(-1, 2).tolist() == [list(part) for part in parts]


def test_the_slot_must_be_a_literal() -> None:
    with pytest.raises(CompileError, match="slots"):
        compile_kernels([source("slots", "a = pointer_f32(args, tid)", "a[0] = f32(0.0)")])


def test_a_wrong_number_of_parameters_is_an_error() -> None:
    with pytest.raises(CompileError, match="parameters"):
        compile_kernels([source("few", "pass", arity="args")])
    with pytest.raises(CompileError, match="should take 6 parameters"):
        compile_kernels([KernelSource("k", source("k", "pass").source, epilogue=True)])


def test_an_exception_in_a_plain_kernel_reaches_the_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        run_plain(source("fails", "args[0] // (tid - tid)"), 1)


def test_cpu_features_imply_each_other() -> None:
    host = Target("x86_64-linux", "znver4", "+avx,+avx2,+fma,+avx512f,+avx512vl")
    assert (host.vector_bytes, host.has_fma) == (64, True)
    assert Target("x86_64-linux", "x", host.features + ",-avx512f").vector_bytes == 32
    without = Target("x86_64-linux", "x", host.features + ",-avx")
    assert (without.vector_bytes, without.has_fma) == (16, False)
    bare = Target("x86_64-linux", "x86-64", "+avx2,+fma")
    assert (bare.vector_bytes, bare.has_fma) == (32, True)
