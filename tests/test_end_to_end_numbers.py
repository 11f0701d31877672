"""Numbers at the edges, through compiled kernels: long sums, infinities, NaN, zeros, overflow."""

import platform
from collections.abc import Callable

import numpy as np
import pytest

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import flags
from graphflow.runtime.threads import get_num_threads

EDGES = np.array(
    [np.nan, -np.inf, np.inf, -0.0, 0.0, 1.0, -1.0, 2.5, -3.5, 1e-45, -1e-45, 3.4e38, -3.4e38] * 3,
    np.float32,
)  # three times: whole vectors and a rest


def compiled(function: Callable[..., gf.Tensor], *arrays: np.ndarray) -> np.ndarray:
    """What the compiled function makes of arrays."""
    return np.asarray(gf.compile(function)(*map(gf.tensor, arrays)).numpy())


def same(got: np.ndarray, want: np.ndarray, tolerance: float = 0.0) -> None:
    """Equal type, shape, values, NaNs and signs of zeros."""
    assert (got.dtype, got.shape) == (want.dtype, want.shape)
    if tolerance:
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=0)
    else:
        np.testing.assert_array_equal(got, want)
    if got.dtype.kind == "f":
        number = ~np.isnan(want)
        np.testing.assert_array_equal(np.signbit(got[number]), np.signbit(want[number]))


# ---- long reductions -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "dim"), [((20_000_000,), (0,)), ((4, 5_000_000), (1,)), ((20, 3, 200_000), (0, 2))]
)
def test_long_sums_and_means_keep_their_digits(shape: tuple[int, ...], dim: tuple[int]) -> None:
    random = np.random.default_rng(0).random(shape, dtype=np.float32)
    for array in (random, np.full(shape, 0.1, np.float32)):  # every rounding the same way
        want = array.sum(dim, dtype=np.float64)
        tensor = gf.from_numpy(array)
        total, mean = gf.compile(lambda x: (x.sum(dim), x.mean(dim)))(tensor)
        np.testing.assert_allclose(total.numpy(), want, rtol=1e-6)
        count = array.size / max(1, want.size)
        np.testing.assert_allclose(mean.numpy(), want / count, rtol=1e-6)


def test_long_sums_down_columns_keep_their_digits() -> None:
    array = np.random.default_rng(1).random((400_000, 50), dtype=np.float32)
    got = gf.compile(lambda x: x.sum(0))(gf.from_numpy(array)).numpy()
    np.testing.assert_allclose(got, array.sum(0, dtype=np.float64), rtol=1e-6)


def test_variance_of_numbers_far_from_zero() -> None:
    array = np.random.default_rng(2).normal(1000.0, 0.5, (30, 4000)).astype(np.float32)
    got = gf.compile(lambda x: x.var(1))(gf.from_numpy(array)).numpy()
    np.testing.assert_allclose(got, array.var(1, ddof=1, dtype=np.float64), rtol=1e-4)


def test_sums_have_the_same_bits_on_any_number_of_threads() -> None:
    array = gf.from_numpy(np.random.default_rng(3).random(3_000_017, dtype=np.float32))
    before, found = get_num_threads(), set()
    try:
        for threads in (1, 2):
            gf.set_num_threads(threads)
            results = gf.compile(lambda x: (x.sum(), (x * x).mean(), x.var(), x.max()))(array)
            found.add(b"".join(r.numpy().tobytes() for r in results))
    finally:
        gf.set_num_threads(before)
    assert len(found) == 1


# ---- softmax and its kin -------------------------------------------------------------

ROWS = np.array(
    [
        [1000.0, 1000.0, 999.0], [-1e30, -1e30, -1e30], [np.inf, 0.0, 1.0], [-np.inf, 0.0, 1.0],
        [-np.inf, -np.inf, -np.inf], [np.nan, 1.0, 2.0], [88.8, -103.0, 0.0], [3e38, -3e38, 0.0],
    ],
    np.float32,
)  # fmt: skip


def softmax(x: np.ndarray) -> np.ndarray:
    """In double precision; NaN where PyTorch's is."""
    with np.errstate(all="ignore"):
        raised = np.exp(x - x.max(-1, keepdims=True))
        return np.asarray(raised / raised.sum(-1, keepdims=True))


def test_softmax_of_extremes() -> None:
    got = compiled(lambda x: F.softmax(x, dim=-1), ROWS)
    np.testing.assert_allclose(got, softmax(ROWS.astype(np.float64)), rtol=1e-6, atol=1e-37)


def test_log_softmax_of_extremes() -> None:
    wide = ROWS.astype(np.float64)
    with np.errstate(all="ignore"):
        shifted = wide - wide.max(-1, keepdims=True)
        want = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
        want = want.astype(np.float32)
    np.testing.assert_allclose(compiled(lambda x: F.log_softmax(x, dim=-1), ROWS), want, rtol=1e-6)


def test_logsumexp_of_extremes() -> None:
    want = [1000.862, -1e30, np.inf, 1.3132617, -np.inf, np.nan, 88.8, 3e38]
    got = compiled(lambda x: gf.logsumexp(x, dim=-1), ROWS)
    np.testing.assert_allclose(got, np.array(want, np.float32), rtol=1e-6)


def test_losses_of_extremes_are_finite() -> None:
    labels = np.array([0, 1])
    rows = np.array([[1000.0, -1000.0], [-200.0, 200.0]], np.float32)
    got = gf.compile(lambda x, y: F.cross_entropy(x, y))(gf.tensor(rows), gf.tensor(labels))
    assert got.item() == 0.0
    logits, targets = np.array([500.0, -500.0], np.float32), np.array([0.0, 1.0], np.float32)
    loss = compiled(F.binary_cross_entropy_with_logits, logits, targets)
    assert loss == 500.0


# ---- NaN, infinities, zeros ----------------------------------------------------------


def test_nan_goes_through_maxima_and_clamps() -> None:
    with np.errstate(all="ignore"):
        same(compiled(lambda x: x.clamp(-1, 1), EDGES), np.clip(EDGES, -1, 1))
        other = EDGES[::-1].copy()
        for ours, theirs in ((gf.maximum, np.maximum), (gf.minimum, np.minimum)):
            got, want = compiled(ours, EDGES, other), theirs(EDGES, other)
            np.testing.assert_array_equal(got, want)  # of -0.0 and 0.0 either will do
    relu = compiled(lambda x: x.relu(), EDGES)
    np.testing.assert_array_equal(relu, np.where(EDGES < 0, np.float32(0), EDGES))


@pytest.mark.parametrize("place", [0, 7, 16, 38])
def test_nan_anywhere_is_the_largest_and_the_smallest(place: int) -> None:
    array = np.linspace(-2, 2, 39, dtype=np.float32)
    array[place] = np.nan
    for name in ("max", "min", "sum", "mean"):
        assert np.isnan(compiled(lambda x, n=name: getattr(x, n)(), array)), name
    for name in ("argmax", "argmin"):
        assert compiled(lambda x, n=name: getattr(x, n)(), array) == place


def test_what_is_not_chosen_does_not_matter() -> None:
    with np.errstate(all="ignore"):
        want = np.where(EDGES > 0, np.log(EDGES), np.float32(-1))
    got = compiled(lambda x: gf.where(x > 0, x.log(), -1.0), EDGES)
    np.testing.assert_allclose(got, want, rtol=1e-6)


EXACT: dict[str, Callable[..., object]] = {
    "negation": lambda x: -x,
    "absolute": lambda x: abs(x),
    "times zero": lambda x: x * 0.0,
    "plus zero": lambda x: x + 0.0,
    "plus negative zero": lambda x: x + -0.0,
    "minus zero": lambda x: x - 0.0,
    "minus itself": lambda x: x - x,
    "over itself": lambda x: x / x,
    "one over": lambda x: 1.0 / x,
    "square": lambda x: x * x,
    "equal": lambda x: x == x,
    "unequal": lambda x: x != x,
    "less": lambda x: x < 1.0,
    "not less": lambda x: ~(x < 1.0),
}


@pytest.mark.parametrize("name", EXACT)
def test_no_law_breaks_ieee_arithmetic(name: str) -> None:
    function = EXACT[name]
    with np.errstate(all="ignore"):
        want = np.asarray(function(EDGES))
    same(compiled(function, EDGES), want)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["floor", "ceil", "round", "sqrt", "sign"])
def test_rounding_keeps_signs_of_zeros(name: str) -> None:
    with np.errstate(all="ignore"):
        want = getattr(np, name)(EDGES)
    got = compiled(lambda x: getattr(x, name)(), EDGES)
    if name == "sign":  # PyTorch's sign of NaN is a matter of taste, of a zero a zero
        keep = ~np.isnan(EDGES)
        np.testing.assert_array_equal(got[keep], want[keep])
        return
    same(got, want)


# ---- integers --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
def test_integers_wrap_and_divide_downwards(dtype: type) -> None:
    facts = np.iinfo(dtype)
    a = np.array([facts.max, facts.min, facts.max, 7, 100, 0, 13] * 3, dtype)
    b = np.array([1, 1, facts.max, 2, 7, 3, 5] * 3, dtype)
    if facts.min < 0:
        a[3::7], a[4::7], b[4::7] = -7, -100, -7
    operations: dict[str, Callable[..., object]] = {
        "add": lambda x, y: x + y, "sub": lambda x, y: x - y, "mul": lambda x, y: x * y,
        "neg": lambda x, y: -x, "floor": lambda x, y: x // y, "rest": lambda x, y: x % y,
        "left": lambda x, y: x << 3, "right": lambda x, y: x >> 2, "xor": lambda x, y: x ^ y,
        "less": lambda x, y: x < y,
    }  # fmt: skip
    for name, operation in operations.items():
        with np.errstate(all="ignore"):
            want = np.asarray(operation(a, b))
        got = compiled(operation, a, b)  # type: ignore[arg-type]
        np.testing.assert_array_equal(got, want, err_msg=name)
        assert got.dtype == want.dtype
    quotient = compiled(lambda x, y: x / y, a, b)
    np.testing.assert_allclose(quotient, a.astype(np.float32) / b.astype(np.float32), rtol=1e-6)


def test_dividing_by_zero_and_the_one_quotient_that_overflows_do_not_trap() -> None:
    least = np.iinfo(np.int64).min
    a, b = np.array([5, -5, 0, least, least]), np.array([0, 0, 0, -1, 1])
    got = compiled(lambda x, y: (x // y) + 0 * (x % y), a, b)
    assert got.shape == a.shape and got[4] == least


def test_integer_sums_and_products_wrap() -> None:
    array = np.array([2**62, 2**62, 2**62, 3, 7, -(2**61)])
    with np.errstate(all="ignore"):
        same(compiled(lambda x: x.sum(), array), np.asarray(array.sum()))
        same(compiled(lambda x: x.prod(), array), np.asarray(array.prod()))
    small = np.array([200, 100, 55], np.uint8)  # sums of small integers are int64
    same(compiled(lambda x: x.sum(), small), np.asarray(np.int64(355)))


# ---- products ----------------------------------------------------------------------------


@pytest.mark.parametrize("features", [None, "sse4.2,avx,avx2,fma", "sse2"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_narrow_products_of_any_depth(features: str | None, dtype: type) -> None:
    if features is not None and platform.machine() != "x86_64":
        pytest.skip("these are features of x86-64")
    numbers = np.random.default_rng(7)
    with flags.override(cpu_features=features):
        product = gf.compile(gf.matmul)
        for depth in (1, 8, 9, 16, 17, 21, 33):
            for columns in (1, 2, 3, 4, 5, 8, 9):
                a = numbers.normal(size=(3, 1, depth)).astype(dtype)
                b = numbers.normal(size=(depth, columns)).astype(dtype)
                got = product(gf.tensor(a), gf.tensor(b)).numpy()
                want = a.astype(np.float64) @ b
                message = f"{depth} deep, {columns} columns"
                np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4, err_msg=message)
