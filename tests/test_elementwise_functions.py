"""Elementwise functions against SciPy and NumPy, eager and compiled, and at their edges.

Values at edges are what PyTorch 2.13 gives.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import scipy.special as sp

import graphflow as gf
from graphflow.autograd import gradcheck, gradgradcheck
from graphflow.errors import DTypeError, GraphFlowError
from graphflow.functions import arithmetic, elementwise, special, trigonometry

SEED = 20261127
INF, NAN = np.inf, np.nan

# name: (oracle, operand intervals)
ONE: dict[str, tuple[Any, tuple[float, float]]] = {
    "acos": (np.arccos, (-0.95, 0.95)), "acosh": (np.arccosh, (1.05, 9)),
    "asin": (np.arcsin, (-0.95, 0.95)), "asinh": (np.arcsinh, (-9, 9)),
    "atan": (np.arctan, (-9, 9)), "atanh": (np.arctanh, (-0.95, 0.95)),
    "cosh": (np.cosh, (-5, 5)), "sinh": (np.sinh, (-5, 5)), "tan": (np.tan, (-1.4, 1.4)),
    "deg2rad": (np.deg2rad, (-360, 360)), "rad2deg": (np.rad2deg, (-6, 6)),
    "sinc": (np.sinc, (0.1, 3)), "exp2": (np.exp2, (-5, 5)), "log2": (np.log2, (0.1, 9)),
    "log10": (np.log10, (0.1, 9)), "frac": (lambda x: x - np.trunc(x), (0.1, 0.9)),
    "trunc": (np.trunc, (1.1, 1.9)), "lgamma": (sp.gammaln, (0.2, 9)),
    "digamma": (sp.digamma, (1.8, 9)), "erfc": (sp.erfc, (-2, 3)),
    "erfinv": (sp.erfinv, (-0.9, 0.9)),
    "i0": (sp.i0, (-9, 9)), "logit": (sp.logit, (0.05, 0.95)),
    "special.erfcx": (sp.erfcx, (-1, 9)), "special.i0e": (sp.i0e, (0.3, 12)),
    "special.i1": (sp.i1, (-9, 9)), "special.i1e": (sp.i1e, (0.3, 12)),
    "special.airy_ai": (lambda x: sp.airy(x)[0], (-9, 5)),
    "special.bessel_j0": (sp.j0, (-20, 20)), "special.bessel_j1": (sp.j1, (-20, 20)),
    "special.bessel_y0": (sp.y0, (0.1, 20)), "special.bessel_y1": (sp.y1, (0.1, 20)),
    "special.modified_bessel_k0": (sp.k0, (0.1, 9)),
    "special.modified_bessel_k1": (sp.k1, (0.1, 9)),
    "special.scaled_modified_bessel_k0": (sp.k0e, (0.1, 9)),
    "special.scaled_modified_bessel_k1": (sp.k1e, (0.1, 9)),
    "special.spherical_bessel_j0": (lambda x: sp.spherical_jn(0, x), (-3, 3)),
    "special.entr": (sp.entr, (0.1, 3)), "special.ndtr": (sp.ndtr, (-4, 4)),
    "special.ndtri": (sp.ndtri, (0.05, 0.95)), "special.log_ndtr": (sp.log_ndtr, (-9, 3)),
}  # fmt: skip
TWO: dict[str, tuple[Any, tuple[float, float], tuple[float, float]]] = {
    "hypot": (np.hypot, (-3, 3), (0.2, 3)), "copysign": (np.copysign, (0.2, 3), (-3, 3)),
    "fmod": (np.fmod, (-9, 9), (1, 3)), "fmax": (np.fmax, (-3, 3), (-3, 3)),
    "fmin": (np.fmin, (-3, 3), (-3, 3)), "logaddexp": (np.logaddexp, (-9, 9), (-9, 9)),
    "logaddexp2": (np.logaddexp2, (-9, 9), (-9, 9)), "xlogy": (sp.xlogy, (0.1, 3), (0.1, 3)),
    "special.xlog1py": (sp.xlog1py, (0.1, 3), (-0.9, 3)),
    "igamma": (sp.gammainc, (0.2, 60), (0.2, 60)),
    "igammac": (sp.gammaincc, (0.2, 60), (0.2, 60)),
    "special.gammainc": (sp.gammainc, (0.2, 9), (0.2, 9)),
    "special.gammaincc": (sp.gammaincc, (0.2, 9), (0.2, 9)),
    "ldexp": (lambda x, y: x * 2.0**y, (-3, 3), (-3, 3)),
}  # fmt: skip


def function(name: str) -> Any:
    space, _, last = name.rpartition(".")
    return getattr(gf.special if space else gf, last)


def drawn(*intervals: tuple[float, float], size: int = 33) -> list[np.ndarray]:
    rng = np.random.default_rng(SEED)
    return [rng.uniform(low, high, size) for low, high in intervals]


@pytest.mark.parametrize("name", [*ONE, *TWO])
def test_values(name: str) -> None:
    oracle, *intervals = ONE.get(name) or TWO[name]
    operands = drawn(*intervals)
    for dtype, tolerance in ((np.float64, 2e-13), (np.float32, 2e-6)):
        narrow = [x.astype(dtype) for x in operands]
        found = function(name)(*map(gf.from_numpy, narrow)).numpy()
        assert found.dtype == dtype
        wide = oracle(*[x.astype(np.float64) for x in narrow])
        np.testing.assert_allclose(found, wide, tolerance, tolerance)


@pytest.mark.parametrize("name", [*ONE, *TWO])
def test_gradients_to_second_order(name: str) -> None:
    _, *intervals = ONE.get(name) or TWO[name]
    inputs = tuple(gf.from_numpy(x).requires_grad_() for x in drawn(*intervals, size=4))
    assert gradcheck(function(name), inputs)
    if name not in ("frac", "trunc", "copysign", "fmod", "fmax", "fmin", "deg2rad", "rad2deg"):
        assert gradgradcheck(function(name), inputs)


def test_compiled_functions_say_the_same() -> None:
    names = [*ONE, *TWO]
    intervals = [i for name in names for i in (ONE.get(name) or TWO[name])[1:]]
    operands = [gf.from_numpy(x.astype(np.float32)) for x in drawn(*intervals)]

    def every(*values: gf.Tensor) -> list[gf.Tensor]:
        left = list(values)
        found = []
        for name in names:
            arity = 1 if name in ONE else 2
            found.append(function(name)(*left[:arity]))
            del left[:arity]
        return found

    compiled = gf.compile(every)
    for name, fast, slow in zip(names, compiled(*operands), every(*operands), strict=True):
        np.testing.assert_allclose(fast.numpy(), slow.numpy(), 3e-6, 1e-6, err_msg=name)


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_polygamma_on_both_sides_of_zero(n: int) -> None:
    x = np.array([0.3, 1.0, 7.5])
    np.testing.assert_allclose(gf.polygamma(n, gf.tensor(x)).numpy(), sp.polygamma(n, x), 1e-12)
    # psi_n(x) - psi_n(x + 1) = (-1)^(n+1) n! / x^(n+1) carries it to negative numbers
    y = np.array([-0.4, -1.7])
    steps = (-1.0) ** (n + 1) * sp.factorial(n) / y ** (n + 1)
    found = gf.polygamma(n, gf.tensor(np.concatenate([y, y + 1]))).numpy()
    np.testing.assert_allclose(found[:2] - found[2:], steps, 1e-10)
    np.testing.assert_allclose(gf.tensor(x).polygamma(n).numpy(), sp.polygamma(n, x), 1e-12)


EDGES: list[tuple[Any, list[Any], list[Any]]] = [
    (lambda x: x.clamp(min=NAN), [1.0], [NAN]),
    (lambda x: x.clamp(2.0, 1.0), [1.5], [1.0]),
    (lambda x: x.clamp(gf.tensor([NAN, 0.0]), gf.tensor(1.0)), [5.0, NAN], [NAN, NAN]),
    (lambda x: gf.xlogy(x, gf.tensor([0.0, INF, NAN, -1.0])), [0.0] * 4, [0, 0, NAN, 0]),
    (lambda x: gf.logaddexp(x, x), [INF, -INF, 0.0], [INF, -INF, np.log(2)]),
    (lambda x: gf.special.entr(x), [0.0, -1.0, NAN], [0.0, -INF, NAN]),
    (lambda x: gf.nan_to_num(x), [NAN, INF, -INF], [0, 3.4028235e38, -3.4028235e38]),
    (lambda x: gf.nan_to_num(x, 1.0, 2.0, 3.0), [NAN, INF, -INF], [1, 2, 3]),
    (lambda x: gf.heaviside(x, gf.tensor(0.5)), [-1.0, 0.0, 2.0, NAN], [0, 0.5, 1, 0]),
    (lambda x: gf.sign(x), [NAN, -0.0, -3.0], [0, 0, -1]),
    (lambda x: gf.fmax(x, gf.tensor([1.0, NAN])), [NAN, NAN], [1.0, NAN]),
    (lambda x: gf.maximum(x, gf.tensor([1.0, NAN])), [NAN, 1.0], [NAN, NAN]),
    (lambda x: gf.round(x, decimals=1), [1.25, -0.35, 2.449], [1.2, -0.4, 2.4]),
    (lambda x: gf.round(x, decimals=-1), [15.0, 25.0, 24.0], [20, 20, 20]),
    (lambda x: gf.lerp(x, gf.tensor(5.0), 0.9), [1.0], [4.6]),
    (lambda x: gf.lerp(x, gf.tensor(5.0), gf.tensor(0.25)), [1.0], [2.0]),
    (lambda x: gf.div(x, 2, rounding_mode="trunc"), [-7.0, 7.0], [-3, 3]),
    (lambda x: gf.div(x, 2, rounding_mode="floor"), [-7.0, 7.0], [-4, 3]),
    (lambda x: gf.digamma(x), [0.0, -0.0, -2.0], [-INF, INF, NAN]),
    (lambda x: gf.lgamma(x), [0.0, -2.0, INF, -INF], [INF, INF, INF, INF]),
    (lambda x: gf.sinc(x), [0.0], [1.0]),
    (lambda x: gf.logit(x, 0.25), [0.0, 1.0], [-1.0986123, 1.0986123]),
    (lambda x: gf.sinh(x), [89.0, -0.0, 1e-20], [2.2448062e38, -0.0, 1e-20]),
    (lambda x: gf.cosh(x), [89.0, 0.0], [2.2448062e38, 1.0]),
    (lambda x: gf.erfinv(x), [1.0, -1.0, 1.5], [INF, -INF, NAN]),
    (lambda x: gf.hypot(x, gf.tensor(3e30)), [4e30, INF, NAN], [5e30, INF, NAN]),
    (lambda x: gf.frac(x), [-1.5, 2.25], [-0.5, 0.25]),
]  # fmt: skip


def test_edges_eager_and_compiled() -> None:
    inputs = [gf.tensor(x) for _, x, _ in EDGES]

    def every(*values: gf.Tensor) -> list[gf.Tensor]:
        return [f(x) for (f, _, _), x in zip(EDGES, values, strict=True)]

    for results in (every(*inputs), gf.compile(every)(*inputs)):
        for number, (found, (_, x, expected)) in enumerate(zip(results, EDGES, strict=True)):
            want = np.array(expected, np.float32)
            np.testing.assert_allclose(found.numpy(), want, 2e-6, err_msg=f"{number}: {x}")


def test_relu_keeps_the_sign_of_zero_in_both_modes() -> None:
    x = gf.tensor([-0.0] * 17 + [NAN])
    for f in (gf.relu, gf.compile(gf.relu)):
        found = f(x).numpy()
        assert np.signbit(found[:17]).all() and np.isnan(found[17])


def test_slopes_at_edges() -> None:
    def slope(f: Any, at: list[float], *others: Any) -> list[float]:
        x = gf.tensor(at, requires_grad=True)
        f(x, *others).sum().backward()
        return x.grad.tolist()

    assert slope(gf.xlogy, [0.0, 0.0], gf.tensor([1.0, 0.0])) == [0.0, 0.0]
    assert slope(gf.copysign, [0.0, 2.0, -2.0], gf.tensor(-1.0)) == [0.0, -1.0, 1.0]
    assert slope(gf.clamp, [0.0, 1.0, 2.0], 0.0, 1.0) == [1.0, 1.0, 0.0]
    assert slope(gf.fmax, [1.0, 0.0], gf.tensor([1.0, NAN])) == [1.0, 1.0]
    assert slope(gf.maximum, [1.0, 2.0], gf.tensor([1.0, 1.0])) == [0.5, 1.0]
    assert slope(gf.special.i1, [0.0]) == [0.5]
    assert slope(gf.sinc, [0.0]) == [0.0]
    assert slope(lambda x: gf.div(x, 2, rounding_mode="floor"), [3.0]) == [0.0]
    assert slope(gf.fill, [3.0], 2.0) == [0.0]


WHOLE = np.array([-7, -1, 0, 1, 7, 2**62], np.int64)
BY = np.array([2, -3, 5, -1, -2, 3], np.int64)


def test_whole_numbers() -> None:
    def every(a: gf.Tensor, b: gf.Tensor) -> list[gf.Tensor]:
        return [
            gf.div(a, b, rounding_mode="trunc"), gf.div(a, b, rounding_mode="floor"),
            gf.fmod(a, b), gf.remainder(a, b), gf.gcd(a, b), gf.lcm(a % 1000, b), a // b,
            gf.bitwise_not(a), a << 2, a >> 1, 1 << (b & 3), gf.trunc(a), gf.true_divide(a, 4),
        ]  # fmt: skip

    quotient = np.array([abs(int(p)) // abs(int(q)) * (1 if (p < 0) == (q < 0) else -1)
                         for p, q in zip(WHOLE, BY, strict=True)])  # fmt: skip
    expected = [
        quotient, WHOLE // BY, np.fmod(WHOLE, BY), WHOLE % BY, np.gcd(WHOLE, BY),
        np.lcm(WHOLE % 1000, BY), WHOLE // BY, ~WHOLE, WHOLE << 2, WHOLE >> 1, 1 << (BY & 3), WHOLE,
        (WHOLE / 4).astype(np.float32),
    ]  # fmt: skip
    a, b = gf.from_numpy(WHOLE), gf.from_numpy(BY)
    for results in (every(a, b), gf.compile(every)(a, b)):
        for number, (found, want) in enumerate(zip(results, expected, strict=True)):
            np.testing.assert_array_equal(found.numpy(), want, err_msg=str(number))


def test_division_of_whole_numbers_by_zero_raises() -> None:
    x, zero = gf.tensor([1, 2]), gf.tensor([1, 0])
    for divide in (gf.floor_divide, gf.remainder, gf.fmod):
        for divisor in (zero, 0):
            with pytest.raises(GraphFlowError, match="division by zero"):
                divide(x, divisor)
    with pytest.raises(GraphFlowError, match="division by zero"):
        gf.div(x, zero, rounding_mode="trunc")
    with pytest.raises(GraphFlowError, match="division by zero"):
        gf.compile(lambda x: x // 0)(x)
    np.testing.assert_array_equal((x.float() // 0).numpy(), [INF, INF])


BAD: list[tuple[Any, type[Exception], str]] = [
    (lambda: gf.neg(gf.tensor([True])), DTypeError, "neg does not take bool"),
    (lambda: gf.tensor([True]) - gf.tensor([1]), DTypeError, "sub of bool"),
    (lambda: gf.pow(gf.tensor([2]), -1), GraphFlowError, "negative integer powers"),
    (lambda: gf.add(gf.tensor([1]), 1, alpha=0.5), DTypeError, "alpha must be a whole number"),
    (lambda: gf.maximum(gf.tensor([1.0]), 2.0), TypeError, "must be a tensor"),
    (lambda: gf.eq(1, gf.tensor([1])), TypeError, "must be a tensor"),
    (lambda: gf.bitwise_and(2, 3), TypeError, "must be a tensor"),
    (lambda: gf.pow(2, 3), TypeError, "must be a tensor"),
    (lambda: gf.clamp(gf.tensor([1.0])), GraphFlowError, "min, max or both"),
    (lambda: gf.div(gf.ones(1), 2, rounding_mode="up"), GraphFlowError, "rounding_mode"),
    (lambda: gf.lerp(gf.ones(1), gf.ones(1).double(), 0.5), DTypeError, "different dtypes"),
    (lambda: gf.lerp(gf.tensor([1]), gf.tensor([2]), 0.5), DTypeError, "floating"),
    (lambda: gf.addcdiv(gf.tensor([1]), gf.tensor([1]), gf.tensor([2])), DTypeError, "addcdiv"),
    (lambda: gf.heaviside(gf.ones(1), gf.tensor([1])), DTypeError, "different dtypes"),
    (lambda: gf.isclose(gf.ones(1), gf.ones(1), rtol=-1), GraphFlowError, "rtol, atol >= 0"),
    (lambda: gf.frac(gf.tensor([1])), DTypeError, "floating"),
    (lambda: gf.gcd(gf.ones(1), gf.ones(1)), DTypeError, "integer"),
    (lambda: gf.where(gf.ones(1), 1, 2), DTypeError, "bool"),
    (lambda: gf.tensor([1]).add_(1.5), DTypeError, "can't be cast"),
    (lambda: gf.tensor([1]).sin_(), DTypeError, "can't be cast"),
    (lambda: gf.tensor([True]).add_(1), DTypeError, "can't be cast"),
    (lambda: gf.polygamma(-1, gf.ones(1)), GraphFlowError, "n >= 0"),
    (lambda: gf.tensor([1.5]) << 1, DTypeError, "integer"),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(BAD)))
def test_one_clear_error(number: int) -> None:
    call, error, message = BAD[number]
    with pytest.raises(error, match=message):
        call()


def test_narrow_formats_are_rounded_once() -> None:
    rng = np.random.default_rng(SEED)
    x = rng.uniform(-0.9, 0.9, 200).astype(np.float16)
    for name in ("sinh", "atanh", "tan", "asin", "special.ndtr"):
        found = function(name)(gf.from_numpy(x))
        oracle = ONE[name][0](x.astype(np.float64))
        assert found.dtype is gf.float16
        unit = np.spacing(np.abs(oracle).astype(np.float16)).astype(np.float64)
        assert (np.abs(found.numpy() - oracle) <= 0.51 * unit).all(), name


def test_unsigned_numbers_wrap() -> None:
    x = gf.tensor([0, 1, 200], dtype=gf.uint8)
    assert (x * -1).tolist() == [0, 255, 56]
    assert (~x).tolist() == [255, 254, 55]
    assert gf.neg(x).tolist() == [0, 255, 56]


EXTRA: dict[str, tuple[Any, ...]] = {
    "addcdiv": (gf.ones(3).double(), 2.0 * gf.ones(3).double()), "clamp": (0.2, 0.6),
    "addcmul": (gf.ones(3).double(), gf.ones(3).double()), "clip": (0.2, 0.6),
    "lerp": (gf.ones(3).double(), 0.5), "logit": (0.1,), "mvlgamma": (1,), "polygamma": (1,),
}  # fmt: skip
MODULES = (elementwise, arithmetic, special, trigonometry)
IN_PLACE = sorted({name for module in MODULES for name in module.IN_PLACE})


@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place_forms_write_what_the_function_gives(name: str) -> None:
    whole = name.startswith("bitwise") or name in ("gcd", "lcm")
    x = gf.tensor([4, 6, 9]) if whole else gf.tensor([0.25, 0.5, 0.75], dtype=gf.float64)
    required = inspect.signature(getattr(gf, name)).parameters.values()
    takes_two = sum(p.default is p.empty for p in required) == 2
    others = EXTRA.get(name, (gf.tensor([2, 3, 1]).to(x.dtype),) if takes_two else ())
    expected = getattr(x, name)(*others).to(x.dtype).numpy().copy()
    view = x[:]
    assert getattr(x, f"{name}_")(*others) is x
    np.testing.assert_array_equal(x.numpy(), expected)
    np.testing.assert_array_equal(view.numpy(), expected)


def test_aliases() -> None:
    pairs = {
        "absolute": "abs", "arccos": "acos", "arccosh": "acosh", "arcsin": "asin",
        "arcsinh": "asinh", "arctan": "atan", "arctan2": "atan2", "arctanh": "atanh",
        "clip": "clamp", "divide": "div", "fix": "trunc", "greater": "gt", "greater_equal": "ge",
        "less": "lt", "less_equal": "le", "multiply": "mul", "negative": "neg", "not_equal": "ne",
        "subtract": "sub", "true_divide": "div",
    }  # fmt: skip
    for alias, name in pairs.items():
        assert getattr(gf, alias) is getattr(gf, name), alias
        assert hasattr(gf.ones(1), alias)
    for alias, name in {"expit": "sigmoid", "gammaln": "lgamma", "psi": "digamma"}.items():
        assert getattr(gf.special, alias) is getattr(gf, name)


def test_closeness() -> None:
    a, b = gf.tensor([1.0, NAN, INF, 1.0]), gf.tensor([1.0 + 1e-6, NAN, INF, 1.1])
    assert gf.isclose(a, b).tolist() == [True, False, True, False]
    assert gf.isclose(a, b, equal_nan=True).tolist() == [True, True, True, False]
    assert gf.isclose(gf.tensor([10, 11]), gf.tensor([10, 10])).tolist() == [True, False]
    assert gf.allclose(a[2:3], b[2:3]) and not gf.allclose(a, b)
    assert gf.equal(gf.tensor([1, 2]), gf.tensor([1, 2])) and not gf.equal(a, a)
    assert not gf.equal(gf.ones(2), gf.ones(1, 2))


def test_where_with_numbers_and_alone() -> None:
    condition = gf.tensor([[True, False], [False, True]])
    assert gf.where(condition, 1, 2).tolist() == [[1, 2], [2, 1]]
    assert gf.where(condition, gf.tensor([1.0, 2.0]), 0).dtype is gf.float32
    assert [x.tolist() for x in gf.where(condition)] == [[0, 1], [0, 1]]
    assert gf.tensor([1.0, 2.0]).where(gf.tensor([True, False]), 0.0).tolist() == [1.0, 0.0]


def test_comparisons_of_whole_tensors_are_numbers_in_both_modes() -> None:
    both = gf.compile(lambda a, b: (gf.equal(a, b), gf.allclose(a, b), gf.equal(a, a[:1])))
    x, y = gf.tensor([1.0, 2.0]), gf.tensor([1.0, 2.0 + 1e-6])
    assert both(x, x) == (True, True, False)
    assert both(x, y) == (False, True, False)
    assert [type(v) for v in both(x, y)] == [bool] * 3
