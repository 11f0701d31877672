"""Orthogonal polynomials against sums of fractions, SciPy, closed forms and differences."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import scipy.special as sp

import graphflow as gf
from graphflow.autograd import gradcheck, gradgradcheck
from graphflow.testing import assert_close

SEED = 20261205
S = gf.special


def _recurrence(one: Callable[[Any], Any], step: Callable[..., Any]) -> Callable[[Any, int], Any]:
    def value(x: Any, n: int) -> Any:
        before, now = Fraction(1), one(x)
        for k in range(1, n):
            before, now = now, step(k, x, now, before)
        return now if n > 0 else Fraction(1)

    return value


def _cheb(k: int, x: Any, now: Any, before: Any) -> Any:
    return 2 * x * now - before


EXACT: dict[str, Callable[[Any, int], Any]] = {
    "chebyshev_polynomial_t": _recurrence(lambda x: x, _cheb),
    "chebyshev_polynomial_u": _recurrence(lambda x: 2 * x, _cheb),
    "chebyshev_polynomial_v": _recurrence(lambda x: 2 * x - 1, _cheb),
    "chebyshev_polynomial_w": _recurrence(lambda x: 2 * x + 1, _cheb),
    "hermite_polynomial_h": _recurrence(lambda x: 2 * x, lambda k, x, a, b: 2 * x * a - 2 * k * b),
    "hermite_polynomial_he": _recurrence(lambda x: x, lambda k, x, a, b: x * a - k * b),
    "laguerre_polynomial_l": _recurrence(
        lambda x: 1 - x, lambda k, x, a, b: ((2 * k + 1 - x) * a - k * b) / (k + 1)
    ),
    "legendre_polynomial_p": _recurrence(
        lambda x: x, lambda k, x, a, b: ((2 * k + 1) * x * a - k * b) / (k + 1)
    ),
}
SCIPY = {
    "chebyshev_polynomial_t": sp.eval_chebyt, "chebyshev_polynomial_u": sp.eval_chebyu,
    "shifted_chebyshev_polynomial_t": sp.eval_sh_chebyt,
    "shifted_chebyshev_polynomial_u": sp.eval_sh_chebyu,
    "hermite_polynomial_h": sp.eval_hermite, "hermite_polynomial_he": sp.eval_hermitenorm,
    "laguerre_polynomial_l": sp.eval_laguerre, "legendre_polynomial_p": sp.eval_legendre,
}  # fmt: skip
# Largest error of degrees up to 40 at [-1, 1], in units of 2^-53 of the largest value there.
ERROR = {"hermite_polynomial_h": 40, "hermite_polynomial_he": 40, "laguerre_polynomial_l": 60}


@pytest.mark.parametrize("name", EXACT)
def test_errors_of_the_recurrences_against_fractions(name: str) -> None:
    x = np.concatenate([np.random.default_rng(SEED).uniform(-1, 1, 40), [-1.0, 0.0, 1.0]])
    for n in (0, 1, 2, 7, 20, 40):
        exact = np.array([float(EXACT[name](Fraction(float(v)), n)) for v in x])
        found = getattr(S, name)(gf.tensor(x), n).numpy()
        unit = 2.0**-53 * max(1.0, np.abs(exact).max())
        assert np.abs(found - exact).max() <= unit * ERROR.get(name, 4 * n + 1), n


@pytest.mark.parametrize("name", SCIPY)
def test_degrees_of_their_own_are_scipys_eager_and_compiled(name: str) -> None:
    rng = np.random.default_rng(SEED)
    x, n = rng.uniform(-1.5, 3, (6, 7)), rng.integers(-2, 12, 7)
    function = getattr(S, name)
    wanted = np.where(n < 0, 0.0, SCIPY[name](np.maximum(n, 0), x))
    given, degree = gf.tensor(x), gf.tensor(n)
    for run in (function, gf.compile(function)):
        np.testing.assert_allclose(run(given, degree).numpy(), wanted, 1e-11, 1e-11)
    np.testing.assert_array_equal(
        function(given, abs(degree) + 0.75).numpy(), function(given, abs(degree)).numpy()
    )
    assert function(given, -1).tolist() == (x * 0).tolist()
    assert function(given.float(), degree).dtype is gf.float32
    assert function(given[:0], degree).shape == (0, 7)


@pytest.mark.parametrize("name", [n for n in dir(S) if "polynomial" in n])
def test_gradients(name: str) -> None:
    function = getattr(S, name)
    x = gf.tensor([-0.7, 0.1, 0.9], dtype=gf.float64, requires_grad=True)
    assert gradcheck(lambda x: function(x, 5), [x])
    for degrees in (gf.tensor([0, 4, 7]), gf.tensor([-1, 1, 2])):
        assert gradcheck(lambda x, n=degrees: function(x, n), [x])
        assert gradgradcheck(lambda x, n=degrees: function(x, n), [x])


@pytest.mark.parametrize("name", [n for n in dir(S) if "polynomial" in n])
def test_compiled_gradients_of_degrees_of_their_own(name: str) -> None:
    function = getattr(S, name)
    rng = np.random.default_rng(SEED)
    x = gf.tensor(rng.uniform(-1, 1, (3, 12)), requires_grad=True)

    def slopes(x: Any, n: Any) -> Any:
        (once,) = gf.autograd.grad(function(x, n).sum(), x, create_graph=True)
        return once, gf.autograd.grad((once * once).sum(), x)[0]

    numbers = np.arange(-1, 11)
    # The same of each degree as a number, which no loop is for.
    columns = [slopes(x[:, [i]].detach().requires_grad_(), int(n)) if n > 1 else None
               for i, n in enumerate(numbers)]  # fmt: skip
    for run in (slopes, gf.compile(slopes)):
        found = run(x, gf.tensor(numbers))
        for i, wanted in enumerate(columns):
            for ours, theirs in zip(found, wanted or (), strict=bool(wanted)):
                unit = theirs.abs().max().item()
                assert_close(ours[:, [i]], theirs.detach(), rtol=1e-11, atol=1e-12 * unit)


def test_high_degrees_are_looped_over() -> None:
    x = gf.tensor(np.linspace(-1, 1, 9))
    found = gf.compile(lambda x: S.chebyshev_polynomial_t(x, 300))(x).numpy()
    np.testing.assert_allclose(found, np.cos(300 * np.arccos(x.numpy())), atol=1e-10)
    for kind, value in zip("tuvw", (1.0, 7.0, 1.0, 13.0), strict=True):  # at 1, of degree 6
        assert getattr(S, f"chebyshev_polynomial_{kind}")(gf.tensor(1.0), 6).item() == value
        shifted = getattr(S, f"shifted_chebyshev_polynomial_{kind}")
        assert shifted(gf.tensor(1.0), gf.tensor(6)).item() == value
