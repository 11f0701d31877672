"""Vector maths: errors against wider oracles, edge values, integers, Philox, vectorisation."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import kernel_calls
import numpy as np
import pytest
import vector_math_accuracy as accuracy
from vector_math_accuracy import CASES, Case

from graphflow.codegen import vector_math as vm
from graphflow.codegen.compile import assembly, compile_kernels
from graphflow.codegen.llvm_expr import LLVMMachine, llvm_function
from graphflow.codegen.schedule import KernelSource
from graphflow.codegen.target import chosen_target
from graphflow.runtime.linker import link

BOUND = 2.0  # units in the last place
ELEMENTS = ("f32", "f64")
LONG = np.finfo(np.longdouble).nmant > np.finfo(np.float64).nmant
needs_oracle = pytest.mark.skipif(not LONG, reason="no wider type than float64 here")
EACH = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
FORMATS = pytest.mark.parametrize("element", ["f32", pytest.param("f64", marks=needs_oracle)])


def inside(case: Case, element: str, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Drop what lies beyond the stated range (but keep infinities)."""
    arguments = tuple(a[~(arguments[0] < case.lowest)] for a in arguments)
    if case.limit is None:
        return arguments
    with np.errstate(all="ignore"):
        measure = arguments[0] / arguments[1] if case.arity == 2 else arguments[0]
        keep = ~((np.abs(measure) > case.limit[element]) & np.isfinite(arguments[0]))
    return tuple(a[keep] for a in arguments)


@EACH
@FORMATS
def test_errors_stay_within_two_units_in_the_last_place(case: Case, element: str) -> None:
    count = 1000 if accuracy.is_slow(case, element) else 50_000
    error, where = accuracy.measure(case, element, count)
    assert error <= BOUND, f"{case.name}{where}: {error} ulp (seed {accuracy.SEED})"


@EACH
@FORMATS
def test_edge_values(case: Case, element: str) -> None:
    arguments = inside(case, element, accuracy.special(case.arity, element))
    got = accuracy.compiled(case.name, element, case.arity)(*arguments)
    with np.errstate(all="ignore"):
        exact = case.oracle(*(a.astype(accuracy.WIDE[element]) for a in arguments))
        expected = exact.astype(got.dtype)
    error = accuracy.errors(got, exact, element)
    zero = (got == 0) & (expected == 0) & (case.name != "erf")  # the decimal oracle has no -0.0
    wrong = (error > BOUND) | (zero & (np.signbit(got) != np.signbit(expected)))
    shown = [(*(a[i] for a in arguments), got[i], expected[i]) for i in np.flatnonzero(wrong)]
    assert not shown, shown[:5]


@EACH
@FORMATS
def test_plain_python_means_the_same(case: Case, element: str) -> None:
    arguments = inside(case, element, accuracy.samples(case, element, 200))
    if case.name in ("remainder", "fmod"):  # float64 has no exact fma in plain Python
        arguments = tuple(np.clip(a, -100, 100) for a in arguments)
    compiled = accuracy.compiled(case.name, element, case.arity)(*arguments)
    plain = vm.FUNCTIONS[case.name].public(*arguments)
    assert plain.dtype == compiled.dtype
    error = accuracy.errors(plain, compiled.astype(accuracy.WIDE[element]), element)
    if case.name in ("remainder", "fmod"):
        np.testing.assert_allclose(plain, compiled, rtol=0, atol=1e-9)
    else:
        assert error.max() <= 1.0


@pytest.mark.skipif(not chosen_target().has_fma, reason="the table is for fused multiply-add")
def test_the_table_in_the_documentation_holds() -> None:
    stated = accuracy.written()
    for case in CASES:
        assert stated[case.name][1] <= BOUND
        error, where = accuracy.measure(case, "f32", 20_000)
        assert error <= stated[case.name][0] + 0.25, f"{case.name}{where}: {stated[case.name]}"


def test_every_function_has_its_row_or_is_exact() -> None:
    text = accuracy.TABLE.read_text()
    exact = next(line for line in text.split("\n- ") if line.startswith("Exact or correctly"))
    named = set(re.findall(r"`(\w+)`", exact.split(".")[0]))
    # Of absolute errors, see test_special_functions.
    named |= {"j0", "j1", "y0", "y1", "airy_ai", "airy_ai_slope"}
    assert set(vm.FUNCTIONS) == named | set(accuracy.written())
    assert not named & set(accuracy.written())


@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize(
    "name",
    [c.name for c in CASES if c.arity == 1]
    + [
        "floor",
        "round",
        "sign",
        "abs",
        "relu",
        "lgamma",
        "digamma",
        "erfc",
        "erfcx",
        "erfinv",
        "ndtri",
    ]
    + ["i0", "i0e", "i1", "i1e", "k0", "k0e", "k1", "k1e", "j0", "j1", "y0", "y1"]
    + ["airy_ai", "airy_ai_slope"],
)
def test_loops_vectorise_without_calls(name: str, element: str) -> None:
    target = chosen_target()
    if name in ("floor", "round") and target.is_x86 and "sse4.1" not in target.enabled:
        pytest.skip("rounding instructions came with SSE 4.1")
    lines = (
        f"from graphflow.codegen.prelude import kernel, pointer_{element}, vm",
        "@kernel",
        "def loop(args, tid, nth):",
        f"    a = pointer_{element}(args, 0)",
        f"    out = pointer_{element}(args, 1)",
        "    for i in range(args[2]):",
        f"        out[i] = vm.{name}(a[i])",
        "",
    )
    text = assembly(KernelSource("loop", "\n".join(lines)))
    assert not re.search(r"^\s+(callq?|bl)\s", text, re.MULTILINE)
    if not chosen_target().is_x86:
        pytest.skip("the vector registers are only known for x86")
    wide = {64: "zmm", 32: "[yz]mm", 16: "xmm"}[chosen_target().vector_bytes]
    assert re.search(rf"%{wide}\d+", text)


def loop_of(expression: str) -> str:
    """The assembly of a loop that stores ``expression`` of every ``a[i]``."""
    lines = (
        "from graphflow.codegen.prelude import kernel, pointer_f32, vm",
        "@kernel",
        "def loop(args, tid, nth):",
        "    a = pointer_f32(args, 0)",
        "    out = pointer_f32(args, 1)",
        "    for i in range(args[2]):",
        f"        out[i] = {expression}",
        "",
    )
    return assembly(KernelSource("loop", "\n".join(lines)))


@pytest.mark.skipif(not chosen_target().has_avx512, reason="tables want AVX-512")
@pytest.mark.parametrize("rest", ["", "* vm.sin(a[i])"])  # the longer loop is masked
def test_tables_are_looked_up_in_registers(rest: str) -> None:
    text = loop_of(f"vm.phi(a[i]) {rest}")
    assert len(re.findall(r"vperm[it]2ps\s.*%zmm", text)) >= 5
    assert "gather" not in text


@pytest.mark.skipif(not chosen_target().has_avx512, reason="an instruction of AVX-512")
@pytest.mark.parametrize("rest", ["", "* vm.sin(a[i])"])  # the longer loop is masked
def test_powers_of_two_are_one_instruction(rest: str) -> None:
    text = loop_of(f"vm.exp(a[i]) {rest}")
    assert re.search(r"vscalefps\s.*%zmm", text) and not re.search(r"vpslld\s", text)


@pytest.mark.parametrize("name", ["exp", "exp2", "sigmoid", "tanh", "phi"])
def test_bits_do_not_depend_on_the_place_in_a_loop(name: str) -> None:
    """Full vectors, shorter ones and single elements are different instructions."""
    length = 4 * 16 + 8 + 4 + 3
    ends = [np.nan, np.inf, -np.inf, 0.0, -0.0, 88.7, 88.8, -87.3, -87.4, -103.9, -104.1, 1e-40]
    x = np.concatenate([ends, np.linspace(-104, 89, length - len(ends))]).astype(np.float32)
    function = accuracy.compiled(name, "f32", 1)
    first = function(x)
    for turn in range(1, length):
        turned = function(np.roll(x, turn))
        np.testing.assert_array_equal(np.roll(turned, -turn).view(np.uint32), first.view(np.uint32))


def test_a_target_without_fma_gets_no_fma() -> None:
    for function in vm.FUNCTIONS.values():
        kinds = function.fixed or ("f64",) * function.arity
        if kinds[0] not in function.types and not function.fixed:
            continue
        text, declared = llvm_function("f", function.formula, kinds, LLVMMachine(has_fma=False))
        assert "llvm.fma" not in text
        assert not any("fma" in line for line in declared)


INTEGERS = [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64]


@pytest.mark.parametrize("kind", INTEGERS)
def test_integer_division_floors_and_never_traps(kind: Any) -> None:
    info = np.iinfo(kind)
    ends = [info.min, info.min + 1, info.max - 1, info.max, 0, 1, 2, 3, 7]
    values = np.array(ends + ([-1, -2, -3, -7] if info.min else []), dtype=object)
    a, b = (x.ravel().astype(kind) for x in np.meshgrid(values, values))
    element = np.dtype(kind).kind + str(8 * np.dtype(kind).itemsize)
    for name, python in (("floor_divide", lambda p, q: p // q), ("remainder", lambda p, q: p % q)):
        got = run_integers(name, element, a, b)
        for p, q, r in zip(a.tolist(), b.tolist(), got.tolist(), strict=True):
            expected = np.array(python(p, q) if q else 0, object)
            assert r == int(np.uint64(int(expected) & (2**64 - 1)).astype(kind)), (name, p, q)


@pytest.mark.parametrize("kind", INTEGERS)
def test_integer_powers_wrap(kind: Any) -> None:
    rng = np.random.default_rng(3)
    info = np.iinfo(kind)
    a = rng.integers(max(info.min, -9), 10, 300).astype(kind)
    b = rng.integers(0, 70, 300).astype(kind)
    element = np.dtype(kind).kind + str(8 * np.dtype(kind).itemsize)
    got = run_integers("pow", element, a, b)
    expected = [pow(p, q, 2**64) for p, q in zip(a.tolist(), b.tolist(), strict=True)]
    np.testing.assert_array_equal(got, np.array(expected, np.uint64).astype(kind))


def test_negative_integer_powers_truncate() -> None:
    a = np.array([1, -1, -1, 2, 0, -5], np.int64)
    b = np.array([-3, -3, -2, -1, -1, -2], np.int64)
    np.testing.assert_array_equal(run_integers("pow", "i64", a, b), [1, -1, 1, 0, 0, 0])


def run_integers(name: str, element: str, a: Any, b: Any) -> Any:
    accuracy.NARROW.setdefault(element, a.dtype.type)
    return accuracy.compiled(name, element, 2)(a, b)


@pytest.mark.parametrize("element", ELEMENTS)
def test_maximum_minimum_sign_and_isnan_see_nan(element: str) -> None:
    kind = accuracy.NARROW[element]
    a = np.array([1, np.nan, 2, np.nan, -np.inf, -0.0], kind)
    b = np.array([np.nan, 1, -3, np.nan, np.inf, 0.0], kind)
    for name, oracle in (("maximum", np.maximum), ("minimum", np.minimum)):
        np.testing.assert_array_equal(accuracy.compiled(name, element, 2)(a, b), oracle(a, b))
    np.testing.assert_array_equal(accuracy.compiled("sign", element, 1)(a), np.sign(a))
    np.testing.assert_array_equal(vm.isnan(a), np.isnan(a))


@pytest.mark.parametrize("name", ["sin", "cos"])
@pytest.mark.parametrize("element", ELEMENTS)
def test_sin_and_cos_of_all_finite_numbers_are_at_most_1(element: str, name: str) -> None:
    kind = accuracy.NARROW[element]
    rng = np.random.default_rng(12)
    exponents = np.arange(20, np.finfo(kind).maxexp)
    a = np.ldexp(rng.uniform(0.5, 1, (50, exponents.size)), exponents).astype(kind).ravel()
    a = np.concatenate([a, -a, [np.finfo(kind).max]]).astype(kind)
    for function in (accuracy.compiled(name, element, 1), vm.FUNCTIONS[name].public):
        assert np.abs(function(a)).max() <= 1
        assert np.isnan(function(np.array([np.inf, -np.inf, np.nan], kind))).all()


@pytest.mark.parametrize("element", ELEMENTS)
def test_floor_divide_agrees_with_numpy(element: str) -> None:
    kind = accuracy.NARROW[element]
    rng = np.random.default_rng(11)
    a = (rng.standard_normal(20_000) * 100).astype(kind)
    b = rng.standard_normal(20_000).astype(kind)
    edges = np.array([0.0, -0.0, 1, -1, 5, -5, np.inf, -np.inf, np.nan], kind)
    x, y = (g.ravel() for g in np.meshgrid(edges, edges))
    a, b = np.concatenate([a, x]), np.concatenate([b, y])
    with np.errstate(all="ignore"):
        expected = np.floor_divide(a, b)
    np.testing.assert_array_equal(accuracy.compiled("floor_divide", element, 2)(a, b), expected)


KNOWN_ANSWERS = [  # counter, key, result: the tests of the Random123 distribution
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0),
     (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
]  # fmt: skip


def joined(low: int, high: int) -> int:
    return int(np.uint64(low | (high << 32)).astype(np.int64))


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN_ANSWERS)
def test_philox_known_answers(counter: Any, key: Any, result: Any) -> None:
    seed, index, call = joined(*key), joined(*counter[:2]), joined(*counter[2:])
    words = [int(vm.philox(seed, call, index, word)) for word in range(4)]
    assert tuple(words) == result
    assert compiled_philox(seed, call, index) == result


@cache
def philox_kernel() -> int:
    body = "".join(f"    out[{w}] = vm.philox(args[1], args[2], args[3], {w})\n" for w in range(4))
    text = (
        "from graphflow.codegen.prelude import kernel, pointer_u32, vm\n@kernel\n"
        f"def philox(args, tid, nth):\n    out = pointer_u32(args, 0)\n{body}"
    )
    return link(compile_kernels([KernelSource("philox", text)]).objects)["philox"]


def compiled_philox(seed: int, call: int, index: int) -> tuple[int, ...]:
    out = np.zeros(4, np.uint32)
    kernel_calls.call(philox_kernel(), out, seed, call, index)
    return tuple(out.tolist())


def test_kernels_and_the_interpreter_draw_the_same_bits() -> None:
    from graphflow.ir.ops.generators import philox

    rng = np.random.default_rng(17)
    for _ in range(20):
        seed, call = (int(v) for v in rng.integers(-(2**63), 2**63, 2))
        index = int(rng.integers(0, 2**40))
        words = tuple(
            int(philox(seed, call, np.array([index], np.uint64), word)[0]) for word in range(4)
        )
        assert compiled_philox(seed, call, index) == words, (seed, call, index)
