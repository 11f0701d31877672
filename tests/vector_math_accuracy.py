"""Measures the error of every vector function, compiled, against a wider oracle.

``python tests/vector_math_accuracy.py`` rewrites the table in
``docs/vector_math.md``.  Errors are in units in the last place of the exact
result in the format of the result: 0.5 is a correctly rounded result.
"""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from graphflow.codegen.compile import compile_kernels
from graphflow.codegen.schedule import KernelSource
from graphflow.codegen.target import chosen_target
from graphflow.runtime.linker import link

Array = Any
Oracle = Callable[..., Array]
WIDE = {"f32": np.float64, "f64": np.longdouble}
NARROW: dict[str, Any] = {"f32": np.float32, "f64": np.float64}
BITS: dict[str, Any] = {"f32": np.uint32, "f64": np.uint64}
TABLE = Path(__file__).resolve().parent.parent / "docs" / "vector_math.md"
SEED = 20240607
SINE_F32 = 2.0**28 if chosen_target().has_fma else 2.0**20
KERNEL_ABI = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)


@dataclass(frozen=True)
class Case:
    """A function, its exact value in a wider format, and where to look beside everywhere."""

    name: str
    oracle: Oracle
    intervals: tuple[tuple[float, float], ...]
    arity: int = 1
    limit: dict[str, float] | None = None
    """Largest argument the error is stated for, when not all of them."""
    lowest: float = -np.inf
    """Smallest argument the error is stated for."""


def sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.where(x > 0, 1, e) / (1 + e)


def erf(x: Array) -> Array:
    """By its Taylor series in decimal arithmetic (f64), or ``math.erf`` (good for f32)."""
    import math

    if x.dtype == np.float64:
        return np.array([math.erf(v) for v in x.tolist()])
    return np.array([_decimal_erf(float(v)) for v in x], np.longdouble)


def normal_share(x: Array) -> Array:
    """``(1 + erf(x / sqrt(2))) / 2``; what rounding the quotient to f64 loses is put back."""
    exact = x * np.sqrt(x.dtype.type(0.5))
    near = exact.astype(np.float64)
    with np.errstate(invalid="ignore"):
        lost = np.where(np.isfinite(near), exact - near, 0) * np.exp(-near * near) / np.sqrt(np.pi)
    return (1 + erf(near.astype(x.dtype))) / 2 + lost


def _decimal_erf(x: float) -> Any:
    if not np.isfinite(x):
        return np.longdouble(x if np.isnan(x) else np.sign(x))
    if abs(x) > 6:
        return np.longdouble(np.sign(x))
    with localcontext() as context:
        context.prec = 60
        value = Decimal(x)
        power, total, n, square = value, Decimal(0), 0, value * value
        while abs(power) > Decimal(10) ** -50 * abs(value):
            total += power / (2 * n + 1)
            n += 1
            power *= -square / n
        total *= 2 / Decimal("3.14159265358979323846264338327950288419716939937510582097494").sqrt()
        high = float(total)
        return np.longdouble(high) + np.longdouble(float(total - Decimal(high)))


def remainder(x: Array, y: Array) -> Array:
    """Python's ``%``: fmod is exact, the rest follows from signs."""
    rest = np.fmod(x, y)
    return np.where((rest != 0) & ((rest < 0) != (y < 0)), rest + y, rest)


CASES = (
    Case("exp", np.exp, ((-104, 90), (-1, 1), (-745, 710))),
    Case("exp2", np.exp2, ((-150, 130), (-1, 1), (-1075, 1025))),
    Case("expm1", np.expm1, ((-20, 90), (-1, 1), (-40, 710))),
    Case("log", np.log, ((0, 10), (0.5, 2))),
    Case("log2", np.log2, ((0, 10), (0.5, 2))),
    Case("log10", np.log10, ((0, 10), (0.5, 2))),
    Case("log1p", np.log1p, ((-1, 1), (-0.5, 10))),
    Case("sigmoid", sigmoid, ((-104, 20), (-2, 2), (-745, 40))),
    Case("tanh", np.tanh, ((-10, 10), (-1, 1))),
    Case("erf", erf, ((-4, 4), (-1.5, 1.5), (-6, 6), (1.48, 1.6))),
    Case("phi", normal_share, ((0, 6), (0, 2), (0, 9)), lowest=0.0),
    Case("sin", np.sin, ((-10, 10), (-1e6, 1e6)), limit={"f32": SINE_F32, "f64": 2.0**20}),
    Case("cos", np.cos, ((-10, 10), (-1e6, 1e6)), limit={"f32": SINE_F32, "f64": 2.0**20}),
    Case("atan2", np.arctan2, ((-2, 2), (-1e3, 1e3)), arity=2),
    Case("asinh", np.arcsinh, ((-2, 2), (-1e3, 1e3))),
    Case("hypot", np.hypot, ((-2, 2), (-1e3, 1e3)), arity=2),
    Case("pow", np.power, ((0, 4), (-30, 30), (0.9, 1.1)), arity=2),
    Case("sqrt", np.sqrt, ((0, 10),)),
    Case("rsqrt", lambda x: 1 / np.sqrt(x), ((0, 10),)),
    Case("reciprocal", lambda x: 1 / x, ((-10, 10),)),
    Case("remainder", remainder, ((-100, 100), (-3, 3)), arity=2,
         limit={"f32": 2.0**100, "f64": 2.0**100}),
    Case("fmod", np.fmod, ((-100, 100), (-3, 3)), arity=2,
         limit={"f32": 2.0**100, "f64": 2.0**100}),
)  # fmt: skip


@cache
def compiled(name: str, element: str, arity: int) -> Callable[..., Array]:
    """The vector function as a compiled kernel over whole arrays."""
    loads = ", ".join(f"p{i}[i]" for i in range(arity))
    lines = [
        f"from graphflow.codegen.prelude import kernel, pointer_{element}, share, vm",
        "@kernel",
        f"def accuracy_{name}_{element}(args, tid, nth):",
        *(f"    p{i} = pointer_{element}(args, {i})" for i in range(arity + 1)),
        f"    begin, end = share(args[{arity + 1}], tid, nth)",
        "    for i in range(begin, end):",
        f"        p{arity}[i] = vm.{name}({loads})",
        "",
    ]
    kernel = KernelSource(f"accuracy_{name}_{element}", "\n".join(lines))
    function = KERNEL_ABI(link(compile_kernels([kernel]).objects)[kernel.name])

    def run(*arguments: Array) -> Array:
        arguments = tuple(np.ascontiguousarray(a, NARROW[element]) for a in arguments)
        out = np.empty_like(arguments[0])
        words = [*(a.ctypes.data for a in arguments), out.ctypes.data, out.size]
        function(np.array(words, np.int64).ctypes.data, 0, 1)
        return out

    return run


def samples(case: Case, element: str, count: int) -> tuple[Array, ...]:
    """Bit patterns over the whole format, and uniform numbers in the intervals."""
    rng = np.random.default_rng(SEED)
    width = 8 * np.dtype(NARROW[element]).itemsize
    columns: list[Array] = []
    for position in range(case.arity):
        patterns = rng.integers(0, 2**width, count, dtype=BITS[element]).view(NARROW[element])
        if case.arity == 2:  # most pairs of random patterns are extreme; keep some near
            scale = rng.uniform(-30, 30, count).astype(NARROW[element])
            patterns = np.where(rng.random(count) < 0.5, patterns, np.exp2(scale))
        parts = [patterns.astype(NARROW[element])]
        for low, high in case.intervals:
            parts.append(rng.uniform(low, high, count).astype(NARROW[element]))
        if case.arity == 2 and position == 1:
            parts[1:] = [rng.permutation(np.concatenate(parts[1:]))]
        columns.append(np.concatenate(parts))
    columns = [c[~(columns[0] < case.lowest)] for c in columns]
    if case.limit:
        keep = np.ones(columns[0].shape, bool)
        with np.errstate(all="ignore"):
            ratio = np.abs(columns[0] / columns[1]) if case.arity == 2 else np.abs(columns[0])
            keep = ~(ratio > case.limit[element])
        columns = [c[keep] for c in columns]
    return tuple(columns)


def special(arity: int, element: str) -> tuple[Array, ...]:
    """Zeros, infinities, NaN, ends of the format, small integers and halves, in all pairs."""
    info = np.finfo(NARROW[element])
    positive = [
        0.0, np.inf, 1.0, 2.0, 3.0, 0.5, 1.5, info.max, info.tiny, info.smallest_subnormal,
        info.eps, 1 + info.eps, 1 - info.eps / 2, 88.0, 710.0, 1e6,
    ]  # fmt: skip
    values = np.array([*positive, *(-v for v in positive), np.nan], NARROW[element])
    if arity == 1:
        return (values,)
    return tuple(a.ravel() for a in np.meshgrid(values, values))


def errors(got: Array, exact: Array, element: str) -> Array:
    """Errors in units in the last place; infinite where one is NaN or infinite and not both."""
    kind = NARROW[element]
    with np.errstate(all="ignore"):
        rounded = exact.astype(kind)
        unit = np.spacing(np.abs(np.where(np.isfinite(rounded), rounded, 1)).astype(kind))
        size = np.abs(got.astype(exact.dtype) - exact) / unit.astype(exact.dtype)
    unusual = ~np.isfinite(rounded) | ~np.isfinite(got)
    same = (np.isnan(rounded) & np.isnan(got)) | (rounded == got)
    # A result next to overflow may round either way.
    edge = np.isinf(got) & (np.abs(rounded) == np.finfo(kind).max)
    edge |= np.isinf(rounded) & (np.abs(got) == np.finfo(kind).max)
    return np.where(unusual, np.where(same, 0.0, np.where(edge, 1.0, np.inf)), size)


def is_slow(case: Case, element: str) -> bool:
    """True where the oracle is decimal arithmetic."""
    return case.name in ("erf", "phi") and element == "f64"


def measure(case: Case, element: str, count: int) -> tuple[float, tuple[float, ...]]:
    """The largest error over ``samples``, and where it is."""
    arguments = samples(case, element, count)
    got = compiled(case.name, element, case.arity)(*arguments)
    with np.errstate(all="ignore"):
        exact = case.oracle(*(a.astype(WIDE[element]) for a in arguments))
    size = errors(got, exact, element)
    worst = int(np.nanargmax(size))
    return float(size[worst]), tuple(float(a[worst]) for a in arguments)


def table(count: int = 200_000) -> str:
    """The table of ``docs/vector_math.md``."""
    lines = ["| function | f32 | f64 | stated for |", "|---|---|---|---|"]
    for case in CASES:
        cells = []
        for element in ("f32", "f64"):
            slow = is_slow(case, element)
            cells.append(f"{measure(case, element, 2000 if slow else count)[0]:.2f}")
        lines.append(f"| `{case.name}` | {cells[0]} | {cells[1]} | {_domain(case)} |")
    from special_accuracy import rows  # it imports this module

    return "\n".join([*lines, *rows()])


def written() -> dict[str, tuple[float, float]]:
    """The errors that the table in the documentation states, by function: f32, f64."""
    found = re.findall(r"\| `(\w+)` \| ([\d.]+) \| ([\d.]+) \|", TABLE.read_text())
    return {name: (float(f32), float(f64)) for name, f32, f64 in found}


def _domain(case: Case) -> str:
    if case.limit is None:
        return "all arguments" if np.isinf(case.lowest) else f"from {case.lowest:g}"
    what = "quotients" if case.arity == 2 else "arguments"
    exponents = {element: int(np.log2(limit)) for element, limit in case.limit.items()}
    if exponents["f32"] == exponents["f64"]:
        return f"{what} up to 2^{exponents['f32']}"
    return f"{what} up to 2^{exponents['f32']} (f32), 2^{exponents['f64']} (f64)"


def main(arguments: Sequence[str]) -> None:
    if arguments:
        for case in CASES:
            if case.name in arguments or arguments == ["all"]:
                for element in ("f32", "f64"):
                    n = 2000 if is_slow(case, element) else 200_000
                    print(case.name, element, *measure(case, element, n))
        return
    head, _, rest = TABLE.read_text().partition("<!-- table -->")
    _, _, tail = rest.partition("<!-- end of table -->")
    marks = ("<!-- table -->", "<!-- end of table -->")
    TABLE.write_text(f"{head}{marks[0]}\n{table()}\n{marks[1]}{tail}")


if __name__ == "__main__":
    sys.modules["vector_math_accuracy"] = sys.modules["__main__"]
    main(sys.argv[1:])
