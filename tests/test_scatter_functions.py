"""Reading and writing at computed positions, by name: against plain loops, eager and compiled."""

from __future__ import annotations

import numpy as np
import pytest
from front import agree

import graphflow as gf

RNG = np.random.default_rng(8)
BASE = RNG.standard_normal((4, 5)).astype(np.float32)
PLACES = RNG.integers(0, 4, (6, 3))
SOURCE = RNG.standard_normal((7, 4)).astype(np.float32)
FOLDS = {
    "sum": np.add,
    "prod": np.multiply,
    "amax": np.maximum,
    "amin": np.minimum,
    "mean": np.add,
}


def scattered(fold, include_self=True):
    """What scatter_reduce along dimension 0 gives, element by element."""
    out, count = BASE.astype(np.float64), np.ones(BASE.shape, int)
    for i, j in np.ndindex(PLACES.shape):
        at = PLACES[i, j], j
        fresh = count[at] == 1 and not include_self
        out[at] = SOURCE[i, j] if fresh else FOLDS[fold](out[at], SOURCE[i, j])
        count[at] += 1
    if fold == "mean":
        out /= np.where(count > 1, count - (not include_self), 1)
    return out


@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize("fold", FOLDS)
def test_scatter_reduce(fold, include_self):
    base, places, source = map(gf.tensor, (BASE, PLACES, SOURCE))
    got = gf.scatter_reduce(base, 0, places, source, fold, include_self=include_self)
    np.testing.assert_allclose(got.numpy(), scattered(fold, include_self), rtol=1e-6)
    if not include_self:  # as reads of whole entries: the same fold by vectors
        index = gf.tensor([2, 0, 2])
        rows = gf.tensor(SOURCE[:3, :3]).tile(1, 2)[:, :5]
        if fold != "sum":
            wide = index.unsqueeze(1).expand(3, 5)
            expected = base.scatter_reduce(0, wide, rows, fold, include_self=False)
            reduced = base.index_reduce(0, index, rows, fold, include_self=False)
            np.testing.assert_array_equal(reduced.numpy(), expected.numpy())


def test_all_folds_compiled_with_gradients():
    def program(jit):
        @jit
        def run(base, places, source):
            base = base.detach().requires_grad_()
            source = source.detach().requires_grad_()
            outs = [
                base.scatter_reduce(0, places, source, fold, include_self=own)
                for fold, own in (("sum", False), ("prod", True), ("amax", True), ("mean", False))
            ]
            total = 0.0
            for k, out in enumerate(outs):
                total = total + (out * out * (k + 1)).sum()
            total.backward()
            return outs, base.grad, source.grad

        return run(*map(gf.tensor, (BASE, PLACES, SOURCE)))

    agree(program, rtol=1e-4, atol=1e-5)


def test_scatter_of_tensors_and_numbers():
    base, places, source = map(gf.tensor, (BASE, PLACES[:2, :3], SOURCE))
    expected = BASE.copy()
    for i, j in np.ndindex(2, 3):
        expected[PLACES[i, j], j] = SOURCE[i, j]
    np.testing.assert_array_equal(base.scatter(0, places, source).numpy(), expected)
    np.testing.assert_array_equal(gf.scatter(base, 0, places, src=source).numpy(), expected)
    multiplied = BASE.copy()
    for i, j in np.ndindex(2, 3):
        multiplied[PLACES[i, j], j] *= np.float32(3)
    got = base.scatter(0, places, 3, reduce="multiply")
    np.testing.assert_array_equal(got.numpy(), multiplied)
    assert base.scatter_(0, places, value=0.5) is base
    assert (base.numpy()[PLACES[:2, :3], np.arange(3)] == 0.5).all()


def test_a_factor_of_zero_has_the_gradient_of_the_others():
    source = gf.tensor([0.0, 3.0, 2.0, 5.0], requires_grad=True)
    base = gf.tensor([2.0, 7.0], requires_grad=True)
    out = base.scatter_reduce(0, gf.tensor([0, 0, 1, 0]), source, "prod")
    out.sum().backward()
    assert source.grad.tolist() == [30, 0, 7, 0]
    assert base.grad.tolist() == [0, 2]


def test_by_a_vector_of_positions():
    base, index = gf.tensor(BASE), gf.tensor([3, 0, 3])
    rows = SOURCE[:3].repeat(2, 1)[:, :5]
    added = BASE.copy()
    np.add.at(added, [3, 0, 3], -2 * rows)
    got = base.index_add(0, index, gf.tensor(rows), alpha=-2)
    np.testing.assert_allclose(got.numpy(), added, rtol=1e-6)
    copied = BASE.copy()
    copied[3], copied[0] = rows[2], rows[1]
    got = base.index_copy(0, index, gf.tensor(rows))
    np.testing.assert_array_equal(got.numpy(), copied)
    filled = BASE.copy()
    filled[:, [1, -1]] = 2.5
    got = base.index_fill(1, gf.tensor([1, -1]), 2.5)
    np.testing.assert_array_equal(got.numpy(), filled)
    assert gf.tensor(3.0).index_add(0, gf.tensor([0]), gf.tensor([2.0])).item() == 5


def test_as_one_dimension():
    base, places = gf.tensor(BASE), gf.tensor([[0, -1], [7, 0]])
    put = BASE.copy()
    put.ravel()[[0, -1, 7]] = [4, 2, 3]
    source = gf.tensor([[1.0, 2.0], [3.0, 4.0]])
    np.testing.assert_array_equal(gf.put(base, places, source).numpy(), put)
    assert base.put_(places, source, accumulate=True) is base
    assert base.numpy()[0, 0] == BASE[0, 0] + 5
    x = gf.tensor(BASE)
    order = x.argsort(1)
    np.testing.assert_array_equal(x.take_along_dim(order, 1).numpy(), np.sort(BASE, 1))
    np.testing.assert_array_equal(
        gf.take_along_dim(x, gf.tensor([[0, -1]]), 1).numpy(), BASE[:, [0, -1]]
    )


def test_masks():
    x, mask = gf.tensor(BASE), gf.tensor(BASE > 0)
    np.testing.assert_array_equal(x.masked_select(mask).numpy(), BASE[BASE > 0])
    np.testing.assert_array_equal(gf.argwhere(mask).numpy(), np.argwhere(BASE > 0))
    for got, expected in zip(gf.nonzero(x, as_tuple=True), np.nonzero(BASE), strict=True):
        np.testing.assert_array_equal(got.numpy(), expected)
    expected = BASE.copy()
    expected[BASE > 0] = np.arange((BASE > 0).sum())
    source = gf.arange(20).float()
    np.testing.assert_array_equal(x.masked_scatter(mask, source).numpy(), expected)
    compiled = gf.compile(lambda x, mask, source: x.masked_scatter(mask, source))
    np.testing.assert_array_equal(compiled(x, mask, source).numpy(), expected)
    with pytest.raises(gf.ShapeError, match="places"):
        x.masked_scatter(mask, source[:2])
    with pytest.raises(gf.DTypeError, match="bool"):
        x.masked_fill(x, 0)


def test_parts():
    x = gf.tensor(BASE)
    expected = BASE.copy()
    expected[1:4:2] = 7
    got = gf.slice_scatter(x, gf.full((2, 5), 7.0), 0, 1, None, 2)
    np.testing.assert_array_equal(got.numpy(), expected)
    expected = BASE.copy()
    expected[:, -2] = 0
    np.testing.assert_array_equal(x.select_scatter(gf.zeros(4), 1, -2).numpy(), expected)
    expected = BASE.copy()
    expected[np.arange(4), np.arange(4) + 1] = 3
    np.testing.assert_array_equal(x.diagonal_scatter(gf.full((4,), 3.0), 1).numpy(), expected)
    assert gf.fill(x, True).tolist() == [[1.0] * 5] * 4


def test_views_by_strides():
    def program(x):
        y = x * 1
        first = y[1:]
        part = first.as_strided((2, 2), (5, 2))
        part.add_(10)
        blocks = y.as_strided((3, 2, 5), (5, 5, 1), 0)  # overlapping: read only
        return y, part.clone(), blocks.sum(), y.as_strided((3,), (6,))

    expected = BASE.copy()
    expected[1:3, [0, 2]] += 10
    for run in (program, gf.compile(program)):
        y, part, total, line = run(gf.tensor(BASE))
        np.testing.assert_array_equal(y.numpy(), expected)
        np.testing.assert_array_equal(part.numpy(), expected[1:3, [0, 2]])
        twice = expected[:3].sum() + expected[1:].sum()
        np.testing.assert_allclose(total.item(), twice, rtol=1e-5)
        np.testing.assert_array_equal(line.numpy(), expected.ravel()[[0, 6, 12]])
    x = gf.tensor(BASE, requires_grad=True)
    (x * 1).as_strided((3, 2, 5), (5, 5, 1)).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), np.repeat([[1], [2], [2], [1]], 5, 1))
    assert gf.tensor(BASE)[2:, 1:].storage_offset() == 11
    with pytest.raises(gf.GraphFlowError, match="do not lie within"):
        gf.tensor(BASE).as_strided((5, 5), (5, 1))


def test_the_same_bytes_as_another_dtype():
    x = gf.tensor(BASE)
    bits = x.view(gf.int32)
    np.testing.assert_array_equal(bits.numpy(), BASE.view(np.int32))
    bits[0, 0] = 0
    assert x[0, 0].item() == 0
    assert x.view(dtype=gf.int16).shape == (4, 10)
    compiled = gf.compile(lambda x: x.view(gf.int32) & 0x7FFFFFFF)
    np.testing.assert_array_equal(compiled(x).view(gf.float32).numpy(), np.abs(x.numpy()))


def test_distinct_elements():
    x = np.array([3, 1, 1, 3, 2, 2, 2])
    for ours, numpys in [(gf.unique(gf.tensor(x), return_inverse=True, return_counts=True),
                          np.unique(x, return_inverse=True, return_counts=True))]:  # fmt: skip
        for got, expected in zip(ours, numpys, strict=True):
            np.testing.assert_array_equal(got.numpy(), expected)
    runs = gf.unique_consecutive(gf.tensor(x), return_inverse=True, return_counts=True)
    assert [t.tolist() for t in runs] == [[3, 1, 3, 2], [0, 1, 1, 2, 3, 3, 3], [1, 2, 1, 3]]
    m = np.array([[1, 2, 1], [0, 5, 0]])
    np.testing.assert_array_equal(gf.tensor(m).unique(dim=1).numpy(), np.unique(m, axis=1))
    nans = gf.unique(gf.tensor([np.nan, 1.0, np.nan]))
    assert nans.shape == (3,)


ERRORS = {
    "out of range": (lambda x: x.scatter(0, gf.tensor([[4]]), 1.0), IndexError, "index 4"),
    "rank": (lambda x: x.gather(0, gf.tensor([1])), RuntimeError, "1 dimensions, the input 2"),
    "larger": (lambda x: x.gather(0, gf.zeros(1, 6).long()), RuntimeError, "larger"),
    "source": (lambda x: x.scatter(0, gf.zeros(2, 2).long(), gf.ones(1, 2)),
               RuntimeError, "larger"),
    "dtype": (lambda x: x.scatter(0, gf.zeros(1, 1).long(), gf.ones(1, 1).double()),
              RuntimeError, "one dtype"),
    "fold": (lambda x: x.scatter_reduce(0, gf.zeros(1, 1).long(), x, "median"),
             ValueError, "median"),
    "index": (lambda x: x.index_add(0, gf.zeros(2, 2).long(), x), RuntimeError, "1 dimension"),
    "entries": (lambda x: x.index_copy(0, gf.tensor([0]), x), RuntimeError, "must have shape"),
    "kind": (lambda x: x.index_select(0, gf.tensor([0.5])), RuntimeError, "integer"),
    "part": (lambda x: x.select_scatter(gf.ones(3), 0, 0), RuntimeError, "must have shape"),
    "value": (lambda x: x.masked_fill(x > 0, gf.ones(1)), RuntimeError, "no dimensions"),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    function, error, message = ERRORS[name]
    with pytest.raises(error, match=message):
        function(gf.tensor(BASE))
