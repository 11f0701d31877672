"""The front's operations against NumPy: broadcasting, promotion, 0-d, empty, negative dims."""

import math

import numpy as np
import pytest
import scipy.special

import graphflow as gf
from graphflow.nn import functional as F

SHAPES = [(), (1,), (3,), (2, 3), (0,), (2, 0), (2, 1, 3)]
PAIRS = [
    ((), ()),
    ((3,), ()),
    ((2, 3), (3,)),
    ((2, 1), (1, 3)),
    ((0, 3), (3,)),
    ((2, 1, 3), (4, 1)),
]
DTYPES = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"]


def data(shape, seed=0, low=-2.0, high=2.0, dtype=np.float32):
    """Random numbers that a failing test can make again from its seed."""
    return np.asarray(np.random.default_rng(seed).uniform(low, high, shape)).astype(dtype)


def check(got, expected, rtol=2e-6, atol=1e-6):
    expected = np.asarray(expected)
    assert tuple(got.shape) == expected.shape
    np.testing.assert_allclose(got.numpy(), expected, rtol=rtol, atol=atol)


UNARY = {
    "exp": np.exp, "log": np.log, "log1p": np.log1p, "expm1": np.expm1, "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x), "sin": np.sin, "cos": np.cos, "tanh": np.tanh,
    "sigmoid": scipy.special.expit, "erf": scipy.special.erf, "relu": lambda x: np.maximum(x, 0),
    "abs": np.abs, "neg": np.negative, "sign": np.sign, "floor": np.floor, "ceil": np.ceil,
    "round": np.round, "reciprocal": np.reciprocal, "square": np.square, "isnan": np.isnan,
    "isinf": np.isinf, "isfinite": np.isfinite, "logical_not": np.logical_not,
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", UNARY)
def test_unary(name, shape):
    x = data(shape, low=0.1)
    expected = UNARY[name](x)
    for got in (getattr(gf, name)(gf.tensor(x)), _method(gf.tensor(x), name)):
        check(got, expected)
        assert got.dtype is (gf.bool if expected.dtype == bool else gf.float32)


def _method(tensor, name):
    return getattr(tensor, name)()


@pytest.mark.parametrize("name", ["exp", "log", "sqrt", "tanh", "sigmoid", "sin", "erf"])
def test_integers_become_the_default_dtype_where_results_are_real(name):
    x = np.array([1, 2, 3])
    got = getattr(gf, name)(gf.tensor(x))
    assert got.dtype is gf.float32
    check(got, UNARY[name](x.astype(np.float32)))


@pytest.mark.parametrize("name", ["exp", "log", "sqrt", "tanh", "relu", "sigmoid", "abs", "floor"])
def test_special_values(name):
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0], np.float32)
    with np.errstate(all="ignore"):
        expected = UNARY[name](x)
    np.testing.assert_array_equal(getattr(gf, name)(gf.tensor(x)).numpy(), expected)


BINARY = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.true_divide,
    "maximum": np.maximum, "minimum": np.minimum, "pow": np.power, "remainder": np.mod,
    "floor_divide": np.floor_divide, "atan2": np.arctan2, "eq": np.equal, "ne": np.not_equal,
    "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
    "logical_and": np.logical_and, "logical_or": np.logical_or, "logical_xor": np.logical_xor,
}  # fmt: skip


@pytest.mark.parametrize("shapes", PAIRS)
@pytest.mark.parametrize("name", BINARY)
def test_binary_broadcasts(name, shapes):
    a, b = data(shapes[0], 1, 0.5), data(shapes[1], 2, 0.5)
    check(getattr(gf, name)(gf.tensor(a), gf.tensor(b)), BINARY[name](a, b))
    check(getattr(gf.tensor(b), name)(gf.tensor(a)), BINARY[name](b, a))


def test_operators_in_both_directions():
    x = data((2, 3), 3, 0.5)
    t = gf.tensor(x)
    for got, expected in [
        (t + 1, x + 1), (1 + t, 1 + x), (t - 1, x - 1), (2 - t, 2 - x), (t * 3, x * 3),
        (3 * t, 3 * x), (t / 2, x / 2), (2 / t, 2 / x), (t**2, x**2), (2**t, 2**x),
        (t // 0.3, x // np.float32(0.3)), (t % 0.7, x % np.float32(0.7)), (-t, -x),
        (abs(-t), x), (t @ t.T, x @ x.T), (t > 1, x > 1), (1 > t, x < 1), (t == t, x == x),
        (t != 1, x != 1), (t**3, x**3), (t**-1, 1 / x), (t**0.5, x**0.5), (t**1.7, x**1.7),
    ]:  # fmt: skip
        check(got, expected, rtol=1e-5)


@pytest.mark.parametrize("a", DTYPES)
@pytest.mark.parametrize("b", DTYPES)
def test_promotion_of_dtypes(a, b):
    """PyTorch's lattice: like NumPy's, but integers never widen a float."""
    x, y = gf.ones(2, dtype=getattr(gf, a)), gf.ones(2, dtype=getattr(gf, b))
    kinds = [np.dtype(d).kind for d in (a, b)]
    expected = np.promote_types(a, b)
    if "f" in kinds and set(kinds) != {"f"}:
        expected = np.dtype(a if kinds[0] == "f" else b)
    out = x * y
    assert out.dtype.name == expected.name
    np.testing.assert_array_equal(out.numpy(), np.ones(2, expected))


def test_numbers_and_0d_tensors_do_not_widen():
    half, whole = gf.ones(2, dtype=gf.float16), gf.arange(3, dtype=gf.int8)
    assert (half * 2.5).dtype is gf.float16
    assert (half * gf.tensor(2.5, dtype=gf.float64)).dtype is gf.float16
    assert (whole + 1).dtype is gf.int8
    assert (whole + gf.tensor(1)).dtype is gf.int8
    assert (whole * 0.5).dtype is gf.float32
    assert (gf.tensor(1) + gf.tensor(1.5, dtype=gf.float64)).dtype is gf.float64
    assert (gf.tensor([True]) + 1).dtype is gf.int64
    assert (whole / whole).dtype is gf.float32
    assert gf.result_type(whole, 1.0) is gf.float32


def test_integer_division_and_remainder_round_down():
    a, b = np.array([7, -7, 7, -7]), np.array([2, 2, -2, -2])
    x, y = gf.tensor(a), gf.tensor(b)
    np.testing.assert_array_equal((x // y).numpy(), a // b)
    np.testing.assert_array_equal((x % y).numpy(), a % b)
    np.testing.assert_array_equal(gf.div(x, y, rounding_mode="trunc").numpy(), [3, -3, -3, 3])
    np.testing.assert_array_equal(gf.div(x, y, rounding_mode="floor").numpy(), a // b)


def test_integers_wrap_around():
    assert (gf.tensor([127], dtype=gf.int8) + 1).tolist() == [-128]
    assert (gf.tensor([2**63 - 1]) + 1).tolist() == [-(2**63)]
    assert (gf.tensor([200], dtype=gf.uint8) * 2).tolist() == [144]


def test_bitwise_operations_and_shifts():
    a, b = np.array([12, 7, -1]), np.array([10, 2, 1])
    x, y = gf.tensor(a), gf.tensor(b)
    for got, expected in [
        (x & y, a & b),
        (x | y, a | b),
        (x ^ y, a ^ b),
        (~x, ~a),
        (x << 1, a << 1),
    ]:
        np.testing.assert_array_equal(got.numpy(), expected)
    np.testing.assert_array_equal((x >> 1).numpy(), a >> 1)
    flags = gf.tensor([True, False])
    assert (flags & ~flags).tolist() == [False, False] and (flags ^ True).tolist() == [False, True]


@pytest.mark.parametrize("limits", [(-0.5, 0.5), (None, 0.2), (0.1, None), (0.5, -0.5)])
def test_clamp(limits):
    x = data((3, 4), 5)
    expected = np.array(x)
    if limits[0] is not None:
        expected = np.maximum(expected, np.float32(limits[0]))
    if limits[1] is not None:
        expected = np.minimum(expected, np.float32(limits[1]))
    check(gf.clamp(gf.tensor(x), *limits), expected)
    assert math.isnan(gf.clamp(gf.tensor(math.nan), 0.0, 1.0).item())


def test_where_lerp_and_fused_forms():
    x, y, z = data((2, 3), 1), data((3,), 2), data((2, 1), 3, 0.5)
    a, b, c = gf.tensor(x), gf.tensor(y), gf.tensor(z)
    check(gf.where(a > 0, a, b), np.where(x > 0, x, y))
    check(gf.where(a > 0, 1.0, c), np.where(x > 0, np.float32(1), z))
    check(gf.lerp(a, b, 0.3), x + np.float32(0.3) * (y - x))
    check(gf.addcmul(a, b, c, value=2), x + 2 * y * z)
    check(gf.addcdiv(a, b, c, value=2), x + 2 * y / z)
    check(a.masked_fill(a > 0, 7.0), np.where(x > 0, np.float32(7), x))


REDUCTIONS = {
    "sum": np.sum, "mean": np.mean, "prod": np.prod, "amax": np.max, "amin": np.min,
    "var": lambda x, axis, keepdims: np.var(x, axis=axis, keepdims=keepdims, ddof=1),
    "std": lambda x, axis, keepdims: np.std(x, axis=axis, keepdims=keepdims, ddof=1),
    "logsumexp": scipy.special.logsumexp, "all": np.all, "any": np.any,
}  # fmt: skip


@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("dim", [0, 1, -1, (0, 2), (-1, -3), (0, 1, 2)])
@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions(name, dim, keepdim):
    x = data((2, 3, 4), 7)
    got = getattr(gf, name)(gf.tensor(x), dim, keepdim=keepdim)
    check(got, REDUCTIONS[name](x, axis=dim, keepdims=keepdim), rtol=1e-5)


@pytest.mark.parametrize("name", ["sum", "mean", "prod", "amax", "var", "max", "min", "all"])
def test_whole_reductions(name):
    x = data((2, 3), 8)
    numpy = REDUCTIONS.get(name, {"max": np.max, "min": np.min}.get(name))
    got = getattr(gf.tensor(x), name)()
    expected = np.var(x, ddof=1) if name == "var" else numpy(x)
    assert got.shape == ()
    check(got, expected, rtol=1e-5)


def test_reductions_of_nothing_and_of_integers():
    assert gf.zeros(0).sum().item() == 0 and gf.zeros(0).prod().item() == 1
    assert math.isnan(gf.zeros(0).mean().item())
    assert gf.zeros(2, 0).sum(1).tolist() == [0, 0]
    assert gf.zeros(0, 3).amax(1).shape == (0,)
    for dtype in (gf.bool, gf.uint8, gf.int32):
        assert gf.ones(3, dtype=dtype).sum().dtype is gf.int64
    assert gf.ones(3, dtype=gf.float16).sum().dtype is gf.float16
    assert gf.tensor(5.0).sum(0).item() == 5.0


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_extremes_with_positions(dim):
    x = np.array([[1.0, 5.0, 5.0], [np.nan, 2.0, 7.0]], np.float32)
    for name, arg in (("max", np.argmax), ("min", np.argmin)):
        values, places = getattr(gf.tensor(x), name)(dim)
        np.testing.assert_array_equal(places.numpy(), arg(x, dim))
        np.testing.assert_array_equal(values.numpy(), getattr(np, name)(x, dim))
        got = getattr(gf, f"arg{name}")(gf.tensor(x), dim, keepdim=True)
        np.testing.assert_array_equal(got.numpy(), np.expand_dims(arg(x, dim), dim))
    assert gf.argmax(gf.tensor([[1, 9], [9, 2]])).item() == 1


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_softmax_family(dim):
    x = data((3, 4), 9, -50, 50)
    check(gf.softmax(gf.tensor(x), dim), scipy.special.softmax(x, dim), rtol=1e-5)
    check(gf.log_softmax(gf.tensor(x), dim), scipy.special.log_softmax(x, dim), rtol=1e-5)
    check(gf.logsumexp(gf.tensor(x), dim), scipy.special.logsumexp(x, dim), rtol=1e-5)
    inf = gf.tensor([-math.inf, -math.inf])
    assert gf.logsumexp(inf, 0).item() == -math.inf
    assert gf.logsumexp(gf.tensor([math.inf, 1.0]), 0).item() == math.inf


@pytest.mark.parametrize(
    "shapes",
    [
        ((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 4)), ((2, 3), (3, 4)), ((5, 2, 3), (3, 4)),
        ((5, 2, 3), (5, 3, 4)), ((1, 2, 3), (5, 3, 1)), ((2, 1, 2, 3), (4, 3, 2)), ((0, 3), (3, 2)),
        ((2, 0), (0, 3)), ((3,), (5, 3, 2)),
    ],
)  # fmt: skip
def test_matmul(shapes):
    a, b = data(shapes[0], 1), data(shapes[1], 2)
    check(gf.tensor(a) @ gf.tensor(b), a @ b, rtol=1e-5)


def test_joins_and_splits():
    x, y = data((2, 3), 1), data((2, 2), 2)
    a, b = gf.tensor(x), gf.tensor(y)
    check(gf.cat([a, b], -1), np.concatenate([x, y], -1))
    check(gf.cat([a, gf.zeros(0), a]), np.concatenate([x, x]))
    assert gf.cat([gf.arange(2), gf.ones(1)]).dtype is gf.float32
    for dim in (0, 1, 2, -1, -3):
        check(gf.stack([a, a * 2], dim), np.stack([x, x * 2], dim))
    for got, expected in zip(gf.split(a, 2, 1), np.split(x, [2], 1), strict=True):
        check(got, expected)
    for got, expected in zip(gf.split(a, [1, 0, 2], -1), np.split(x, [1, 1], 1), strict=True):
        check(got, expected)
    assert [tuple(c.shape) for c in gf.chunk(gf.arange(7), 3)] == [(3,), (3,), (1,)]
    assert [r.tolist() for r in gf.unbind(gf.tensor([[1, 2], [3, 4]]), 1)] == [[1, 3], [2, 4]]
    assert [t.item() for t in gf.arange(3)] == [0, 1, 2]


def test_views_reorder_without_copying():
    x = data((2, 3, 4), 3)
    t = gf.tensor(x)
    for got, expected in [
        (t.reshape(4, -1), x.reshape(4, -1)), (t.view(24), x.reshape(24)),
        (t.permute(2, 0, 1), x.transpose(2, 0, 1)), (t.permute(-1, 0, 1), x.transpose(2, 0, 1)),
        (t.transpose(0, -1), x.swapaxes(0, -1)), (t.mT, x.swapaxes(-1, -2)), (t.T, x.T),
        (t.unsqueeze(-1), x[..., None]), (t[:, :1].squeeze(1), x[:, 0]),
        (t.flatten(1), x.reshape(2, 12)),
        (t.flatten(), x.ravel()), (t.unflatten(2, (2, -1)), x.reshape(2, 3, 2, 2)),
        (t.movedim(0, -1), np.moveaxis(x, 0, -1)), (t.narrow(1, -2, 2), x[:, 1:]),
        (t.select(-1, -1), x[..., -1]), (t[0, 0].expand(5, -1), np.broadcast_to(x[0, 0], (5, 4))),
        (t[0, 0].broadcast_to((2, 4)), np.broadcast_to(x[0, 0], (2, 4))),
    ]:  # fmt: skip
        check(got, expected)
        assert got._cell is t._cell
    check(t.flip(0, -1), np.flip(x, (0, -1)))
    assert t.transpose(0, 1).reshape(-1)._cell is not t._cell
    assert t[..., 0].stride() == (12, 4) and t.is_contiguous() and not t.mT.is_contiguous()


INDICES = [
    0, -1, slice(1, None), slice(None, None, 2), slice(-2, None), slice(5, 9), (0, 1),
    (slice(None), 1),
    (..., 0), (None, 1), (slice(None), None, slice(1, 3)), (1, ..., slice(None, None, 3)),
    (0, 1, 2),
    [2, 0, 2], (slice(None), [1, 1]), ([0, 2], [1, 0]), ([[0, 1], [2, 2]],), (1, [0, 2]),
    ([0, 1], slice(None), [3, 0]), np.array([1, -1]), (..., np.array([[0], [3]])),
]  # fmt: skip


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_indexing(index):
    x = data((3, 3, 4), 4)
    check(gf.tensor(x)[index], x[index])


@pytest.mark.parametrize("index", INDICES[:15], ids=str)
def test_assignment(index):
    x = data((3, 3, 4), 4)
    t = gf.tensor(x)
    if isinstance(index, tuple) and any(isinstance(i, list) for i in index) and len(index) > 1:
        index = (slice(None), [2, 0])
    t[index] = 5.0
    x[index] = 5.0
    check(t, x)


def test_arrays_and_numbers_of_numpy_as_operands():
    x = data((3,), 1)
    t, f = gf.tensor(x), gf.compile(lambda t: (x * t, t * x, np.float32(2) * t))
    for got in ((x * t, t * x, np.float32(2) * t), f(t)):
        for value, expected in zip(got, (x * x, x * x, 2 * x), strict=True):
            check(value, expected)


def test_masks():
    x = data((3, 4), 6)
    t = gf.tensor(x)
    check(t[t > 0], x[x > 0])
    t[t > 0] = 0.0
    check(t, np.where(x > 0, np.float32(0), x))


def test_gather_scatter_one_hot():
    x = data((3, 4), 2)
    places = np.random.default_rng(1).integers(0, 3, (2, 4))
    check(gf.gather(gf.tensor(x), 0, gf.tensor(places)), np.take_along_axis(x, places, 0))
    check(gf.tensor(x).gather(-1, gf.tensor([[3], [0], [1]])), x[[0, 1, 2], [3, 0, 1]][:, None])
    check(gf.index_select(gf.tensor(x), 1, gf.tensor([2, 2])), x[:, [2, 2]])
    added = np.array(x)
    np.add.at(added, (places, np.arange(4)[None]), 1.0)
    check(gf.scatter_add(gf.tensor(x), 0, gf.tensor(places), gf.ones(2, 4)), added, rtol=1e-5)
    assert F.one_hot(gf.tensor([[1], [0]]), 3).tolist() == [[[0, 1, 0]], [[1, 0, 0]]]
    assert F.one_hot(gf.tensor([2, 0])).shape == (2, 3)


def test_creation():
    assert gf.arange(5).tolist() == [0, 1, 2, 3, 4] and gf.arange(5).dtype is gf.int64
    check(gf.arange(1.0, 2.0, 0.25), np.arange(1.0, 2.0, 0.25))
    assert gf.arange(5, 0, -2).tolist() == [5, 3, 1] and gf.arange(3, 3).shape == (0,)
    check(gf.linspace(-1, 1, 5), np.linspace(-1, 1, 5))
    check(gf.eye(2, 3), np.eye(2, 3))
    assert gf.full((2,), 3).dtype is gf.int64 and gf.full((2,), True).dtype is gf.bool
    assert gf.tensor([]).dtype is gf.float32 and gf.tensor([1, 2.5]).dtype is gf.float32
    assert gf.zeros((2, 3)).shape == gf.zeros(2, 3).shape == (2, 3)
    assert gf.zeros_like(gf.arange(3)).dtype is gf.int64
    assert gf.tensor([gf.tensor(1.0), gf.tensor(2.0)]).tolist() == [1.0, 2.0]
    array = np.arange(3.0)
    shared, own = gf.from_numpy(array), gf.tensor(array)
    array[0] = 9
    assert shared[0].item() == 9 and own[0].item() == 0 and shared.dtype is gf.float64


def test_conversions_and_sizes():
    x = gf.tensor([1.7, -1.7, 0.0])
    assert x.int().tolist() == [1, -1, 0] and x.bool().tolist() == [True, True, False]
    assert x.to(gf.float64).dtype is gf.float64 and x.to(x) is x and x.float() is x
    assert x.type_as(gf.arange(2)).dtype is gf.int64 and x.half().element_size() == 2
    assert (x.dim(), x.numel(), x.nelement(), len(x), x.size(0)) == (1, 3, 3, 3, 3)
    assert gf.equal(x, x.clone()) and not gf.equal(x, x[:2]) and gf.allclose(x, x + 1e-9)
    assert 0.0 in x and 5.0 not in x and float(gf.tensor(2)) == 2.0 and int(gf.tensor(2.9)) == 2
    assert [10, 20, 30][gf.tensor(1)] == 20
    np.testing.assert_array_equal(np.asarray(x), x.numpy())


@pytest.mark.parametrize(
    ("name", "args"),
    [("add_", (1,)), ("mul_", (2.5,)), ("sub_", (0.5,)), ("div_", (2,)), ("clamp_", (-0.5, 0.5)),
     ("exp_", ()), ("relu_", ()), ("tanh_", ()), ("neg_", ()), ("pow_", (2,)), ("zero_", ()),
     ("fill_", (3.0,)), ("masked_fill_", (None, 1.0)), ("lerp_", (1.0, 0.5))],
)  # fmt: skip
def test_in_place_forms_write_where_the_tensor_lies(name, args):
    base = gf.tensor(data((4, 3), 1))
    view = base[1:3].t()
    args = tuple(view > 0 if a is None else a for a in args)
    pure = {"zero_": lambda: view * 0, "fill_": lambda: view * 0 + 3}.get(
        name, lambda: getattr(view, name[:-1])(*args)
    )
    expected = pure().numpy().copy()
    untouched = base[0].numpy().copy()
    assert getattr(view, name)(*args) is view
    np.testing.assert_array_equal(base[1:3].t().numpy(), expected)
    np.testing.assert_array_equal(base[0].numpy(), untouched)


@pytest.mark.parametrize("name", ["sum", "mean", "amax", "var", "prod"])
def test_sums_of_turned_tensors_are_row_major(name):
    """A script that calls view() on one need not know how its operand lies."""
    x = np.arange(24.0).reshape(2, 4, 3) / 7
    made = getattr(gf.tensor(x).mT, name)(0)
    assert made.is_contiguous()
    expected = getattr(np, name)(x, 0, **({"ddof": 1} if name == "var" else {}))
    np.testing.assert_allclose(made.view(-1).numpy(), expected.T.reshape(-1))
