"""Special functions in kernels: errors against SciPy in float64, edges, plain Python."""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np
import pytest
import scipy.special as sp
import special_accuracy
import vector_math_accuracy as accuracy
from special_accuracy import Special

import graphflow as gf
from graphflow.autograd import gradcheck
from graphflow.codegen import vector_math as vm

SEED = 20261128
# name: (oracle, interval, relative error in f64, where SciPy's own error counts too)
CASES: dict[str, tuple[Any, tuple[float, float], float]] = {
    "lgamma": (sp.gammaln, (0.01, 60), 1e-13), "digamma": (sp.digamma, (2, 60), 2e-14),
    "erfc": (sp.erfc, (-5, 5), 1e-14), "erfcx": (sp.erfcx, (-5, 50), 2e-14),
    "erfinv": (sp.erfinv, (-1, 1), 4e-15), "ndtri": (sp.ndtri, (0, 1), 4e-15),
    "i0": (sp.i0, (-60, 60), 4e-15), "i0e": (sp.i0e, (-60, 60), 4e-15),
    "i1": (sp.i1, (-60, 60), 8e-15), "i1e": (sp.i1e, (-60, 60), 8e-15),
    "k0": (sp.k0, (0.01, 60), 4e-15), "k0e": (sp.k0e, (0.01, 60), 4e-15),
    "k1": (sp.k1, (0.01, 60), 4e-15), "k1e": (sp.k1e, (0.01, 60), 4e-15),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_kernels_against_scipy(name: str) -> None:
    oracle, interval, bound = CASES[name]
    x = np.random.default_rng(SEED).uniform(*interval, 5000)
    found = accuracy.compiled(name, "f64", 1)(x)
    np.testing.assert_allclose(found, oracle(x), bound, 1e-15)
    narrow = x.astype(np.float32)
    exact = oracle(narrow.astype(np.float64))
    error = accuracy.errors(accuracy.compiled(name, "f32", 1)(narrow), exact, "f32")
    assert error.max() <= 0.51, narrow[error.argmax()]


@pytest.mark.parametrize("case", special_accuracy.SPECIALS, ids=lambda case: case.name)
def test_the_table_in_the_documentation_holds(case: Special) -> None:
    stated = accuracy.written()[case.name]
    assert stated[0] <= 0.51 and stated[1] <= case.bound
    for element, most in zip(("f32", "f64"), stated, strict=True):
        error, where = special_accuracy.measure(case, element)
        assert error <= 1.25 * most, f"{case.name}{where} {element}: {error}, {most} stated"


@pytest.mark.parametrize("name", CASES)
def test_plain_python_is_the_kernel(name: str) -> None:
    x = np.random.default_rng(SEED).uniform(*CASES[name][1], 300)
    x = np.concatenate([x, [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 2.0, -3.0, 1e300]])
    plain = vm.FUNCTIONS[name].public(x)
    np.testing.assert_allclose(accuracy.compiled(name, "f64", 1)(x), plain, 1e-13, 1e-15)


def test_tails_where_the_function_underflows_or_ends() -> None:
    run = {
        name: accuracy.compiled(name, "f64", 1) for name in ("erfc", "ndtri", "erfinv", "lgamma")
    }
    x = np.array([10.0, 20.0, 26.0])
    np.testing.assert_allclose(run["erfc"](x), sp.erfc(x), 1e-13)
    p = np.array([1e-300, 1e-100, 1e-20, 1e-5])
    np.testing.assert_allclose(run["ndtri"](p), sp.ndtri(p), 1e-14)
    tiny = np.array([1e-300, 1e-20])
    np.testing.assert_allclose(run["erfinv"](tiny), tiny * np.sqrt(np.pi) / 2, 1e-15)
    near = np.array([1 - 1e-12, 1 + 1e-12, 2 - 1e-12, 2 + 1e-12])
    slopes = np.array([-sp.digamma(1) * 1e-12, sp.digamma(1) * 1e-12,
                       -sp.digamma(2) * 1e-12, sp.digamma(2) * 1e-12])  # fmt: skip
    np.testing.assert_allclose(run["lgamma"](near), slopes, 1e-3)  # 1e-12 is not exact in near
    large = np.array([1e10, 1e100, 1e300])
    np.testing.assert_allclose(run["lgamma"](large), sp.gammaln(large), 1e-15)


@pytest.mark.parametrize("s", [1.5, 2.0, 3.0, 7.0])
def test_zeta(s: float) -> None:
    x = np.random.default_rng(SEED).uniform(0.05, 80, 2000)
    orders = np.full_like(x, s)
    found = accuracy.compiled("zeta", "f64", 2)(orders, x)
    np.testing.assert_allclose(found, sp.zeta(orders, x), 1e-13)


WAVES = {"j0": (mpmath.besselj, 0), "j1": (mpmath.besselj, 1), "y0": (mpmath.bessely, 0),
         "y1": (mpmath.bessely, 1)}  # fmt: skip


@pytest.mark.parametrize("name", WAVES)
def test_waves_have_small_absolute_errors(name: str) -> None:
    oracle, order = WAVES[name]
    rng = np.random.default_rng(SEED)
    x = np.concatenate([rng.uniform(0.01, 8, 200), rng.uniform(7.9, 8.1, 40),
                        rng.uniform(8, 60, 100), rng.uniform(60, 1e5, 40)])  # fmt: skip
    for element, bound in (("f64", 1.5e-15), ("f32", 6.2e-8)):
        given = x.astype(np.float32) if element == "f32" else x
        found = accuracy.compiled(name, element, 1)(given).astype(np.float64)
        with mpmath.workdps(40):
            exact = np.array([float(oracle(order, mpmath.mpf(float(v)))) for v in given])
        error = np.abs(found - exact) / np.maximum(1, np.abs(exact))
        assert error.max() <= bound, (element, given[error.argmax()], error.max())
    if name.startswith("j"):  # at its first zeros it is exact to rounding
        near = sp.jn_zeros(order, 2)
        with mpmath.workdps(40):
            exact = np.array([float(oracle(order, mpmath.mpf(float(v)))) for v in near])
        np.testing.assert_allclose(accuracy.compiled(name, "f64", 1)(near), exact, 1e-14)


def test_ends_of_bessel_functions() -> None:
    x = np.array([0.0, -1.0, np.inf, np.nan, 1e300])
    nan, inf = np.nan, np.inf
    ends = {
        "j0": (1, sp.j0(1), 0, nan), "j1": (0, -sp.j1(1), 0, nan), "y0": (-inf, nan, 0, nan),
        "y1": (-inf, nan, 0, nan), "k0": (inf, nan, 0, nan), "k1": (inf, nan, 0, nan),
        "k0e": (inf, nan, 0, nan), "k1e": (inf, nan, 0, nan),
    }  # fmt: skip
    for name, wanted in ends.items():
        found = accuracy.compiled(name, "f64", 1)(x)
        np.testing.assert_allclose(found, [*wanted, 0], 1e-15, 1e-140, err_msg=name)


def test_zeta_is_a_function_of_two_tensors() -> None:
    rng = np.random.default_rng(SEED)
    s, x = gf.tensor(rng.uniform(1.1, 9, (4, 1))), gf.tensor(rng.uniform(0.1, 20, 5))
    for run in (gf.special.zeta, gf.compile(gf.special.zeta)):
        np.testing.assert_allclose(run(s, x).numpy(), sp.zeta(s.numpy(), x.numpy()), 1e-12)
    orders, places = gf.tensor([1.0, 2.0, 2.5, 0.5, 2.5]), gf.tensor([3.0, 0.0, -2.0, 1.0, -0.5])
    ends = gf.special.zeta(orders, places)
    np.testing.assert_array_equal(ends.numpy(), [np.inf, np.inf, np.inf, np.nan, np.nan])
    assert gradcheck(gf.special.zeta, [s.requires_grad_(), x.requires_grad_()])


AIRY = {"airy_ai": (0, 0.25), "airy_ai_slope": (1, -0.25)}


@pytest.mark.parametrize("name", AIRY)
def test_airy_functions_are_exact_to_their_waves(name: str) -> None:
    order, power = AIRY[name]
    rng = np.random.default_rng(SEED)
    x = np.concatenate([rng.uniform(-4, 1, 200), rng.uniform(-4.1, -3.9, 40),
                        rng.uniform(1, 9, 100), rng.uniform(0.9, 1.1, 40),
                        rng.uniform(-60, -4, 100)])  # fmt: skip
    for element, bound in (("f64", 2**-53), ("f32", 2**-24)):
        given = x.astype(np.float32) if element == "f32" else x
        found = accuracy.compiled(name, element, 1)(given).astype(np.float64)
        with mpmath.workdps(40):
            exact = np.array([float(mpmath.airyai(float(v), derivative=order)) for v in given])
        # In units of the waves, whose angle is |x|^(3/2), or of the value; near 0 of the largest.
        size = np.where(given > 1, np.abs(exact), np.maximum(1, np.abs(given)) ** -power * 0.6)
        angle = np.maximum(1, np.abs(given.astype(np.float64))) ** 1.5
        error = np.abs(found - exact) / size / (angle if element == "f64" else 1)
        assert error.max() <= bound * (10 if element == "f64" else 1.1), given[error.argmax()]
    ends = accuracy.compiled(name, "f64", 1)(np.array([np.inf, 1e300, np.nan, 0.0, -np.inf]))
    with mpmath.workdps(40):
        middle = float(mpmath.airyai(0, derivative=order))
    last = 0.0 if order == 0 else -np.inf
    np.testing.assert_allclose(ends, [0, 0, np.nan, middle, last], 1e-15)
