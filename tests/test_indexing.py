"""``x[...]`` and ``x[...] = v`` against NumPy: every kind of index, mixed; eager and compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from front import agree

import graphflow as gf

X = np.arange(24, dtype=np.float32).reshape(2, 3, 4) - 7
ROWS, COLUMNS = np.array([1, 0, 1]), np.array([[0], [-1]])
MASK = X[0] > -5

# Each index as NumPy takes it; arrays stand for tensors.
INDICES = {
    "neighbours": (slice(None), ROWS, COLUMNS),
    "neighbours in front": (ROWS, ROWS),
    "apart": (ROWS, slice(None), COLUMNS),
    "apart by None": (ROWS, None, COLUMNS),
    "with a step": (slice(None, None, 2), ROWS, slice(1, None, 2)),
    "after a number": (0, ROWS, slice(1, None)),
    "a mask": (X > 3,),
    "a mask of two axes": (slice(None), MASK),
    "a mask of one axis": (..., np.array([True, False, True, True])),
    "a mask and positions": (np.array([True, True]), slice(None), np.array([0, 3])),
    "an empty vector": (slice(None), np.zeros(0, np.int64)),
    "True": (True, slice(None), ROWS),
    "False": (False,),
    "a list": ([1, 0, 0],),
    "a list among slices": (slice(None), [2, -1], None, slice(None, 2)),
    "all of it": (...,),
}


def ours(index):
    """The index with tensors for arrays."""
    return tuple(gf.tensor(i) if isinstance(i, np.ndarray) else i for i in index)


@pytest.mark.parametrize("name", INDICES)
def test_reading(name):
    np.testing.assert_array_equal(gf.tensor(X)[ours(INDICES[name])].numpy(), X[INDICES[name]])


@pytest.mark.parametrize("name", INDICES)
def test_writing_with_and_without_history(name):
    index = INDICES[name]
    value = np.cos(np.arange(X[index].size, dtype=np.float32)).reshape(X[index].shape)
    expected = X.copy()
    expected[index] = value
    plain = gf.tensor(X)
    plain[ours(index)] = gf.tensor(value)
    recorded = gf.tensor(X, requires_grad=True) * 1
    recorded[ours(index)] = gf.tensor(value)
    np.testing.assert_array_equal(plain.numpy(), expected)
    np.testing.assert_array_equal(recorded.detach().numpy(), expected)
    plain[ours(index)] = -1.5
    expected[index] = -1.5
    np.testing.assert_array_equal(plain.numpy(), expected)


SIZED = ("neighbours", "apart", "with a step", "True", "a list among slices")


def test_several_compiled_with_gradients():
    """One program reads through each index, writes through it, and differentiates."""

    def program(jit):
        @jit
        def run(x, value):
            x = x.detach().requires_grad_()
            total = 0.0
            for k, name in enumerate(SIZED):
                part = x[ours(INDICES[name])]
                y = x * (k + 1)
                y[ours(INDICES[name])] = value[k] * x.mean()
                total = total + (part * part).sum() + (y * y * value[0]).sum()
            total.backward()
            return total, x.grad

        return run(gf.tensor(X), gf.arange(len(SIZED)).float() * 0.1 + 1)

    agree(program, rtol=1e-5)


def test_positions_and_masks_computed_in_compiled_code():
    def program(jit):
        @jit
        def run(x, i, j, k):
            y = x.clone()
            y[i, :, j] = 5.0  # apart
            y[k] += 1  # an entry that is not known before the program runs
            y[k, :, j] = x[0, 0, 0]  # beside a vector
            y[y > 9] = 0.0
            y[:, x[0] < -6] = gf.tensor([[2.0], [3.0]])
            return y, x[k], x[:, i, k], x[i, j]

        return run(gf.tensor(X), gf.tensor([1, 0]), gf.tensor([-1, 2]), gf.tensor(-1))

    got = agree(program)
    expected = X.copy()
    expected[[1, 0], :, [-1, 2]] = 5
    expected[-1] += 1
    expected[-1][:, [-1, 2]] = X[0, 0, 0]
    expected[expected > 9] = 0
    expected[:, X[0] < -6] = [[2], [3]]
    np.testing.assert_array_equal(got[0], expected)
    np.testing.assert_array_equal(got[2], X[:, [1, 0], -1])


@pytest.mark.parametrize("threads", [1, 2])
def test_the_last_of_several_elements_for_one_place_stays(threads):
    held = gf.get_num_threads()
    gf.set_num_threads(threads)
    try:
        rng = np.random.default_rng(3)
        places, values = rng.integers(0, 50, 4000), rng.standard_normal((4000, 8)).astype("f4")
        expected = np.zeros((50, 8), np.float32)
        for place, value in zip(places, values, strict=True):
            expected[place] = value

        @gf.compile
        def run(base, places, values):
            out = base.clone()
            out[places] = values
            return out

        got = run(gf.zeros(50, 8), gf.tensor(places), gf.tensor(values))
        np.testing.assert_array_equal(got.numpy(), expected)
        flipped = gf.tensor(values).flip(0)  # backwards in memory, in order as a tensor
        recorded = gf.zeros(50, 8, requires_grad=True) * 1
        recorded[gf.tensor(places[::-1].copy()).flip(0)] = flipped.flip(0)
        np.testing.assert_array_equal(recorded.detach().numpy(), expected)
    finally:
        gf.set_num_threads(held)


def test_only_the_last_writer_gets_the_gradient():
    value = gf.tensor([1.0, 2.0, 3.0, 4.0], requires_grad=True)
    base = gf.tensor([1.0, 1.0, 1.0], requires_grad=True)
    out = base * 1
    out[gf.tensor([0, 2, 0, 2])] = value
    (out * gf.tensor([10.0, 20.0, 30.0])).sum().backward()
    assert value.grad.tolist() == [0, 0, 10, 30]
    assert base.grad.tolist() == [0, 20, 0]


def test_gradients_through_parts_assigned_in_compiled_code():
    """A view that is written to takes over its part of the history, step by step."""

    def program(jit):
        @jit
        def run(x, v):
            x, v = x.detach().requires_grad_(), v.detach().requires_grad_()
            y = x * 2
            y[0] = v
            y[1, ::2, 1:] += v[::2, 1:]
            y[:, 1].unfold(1, 2, 2)[:, 0] = v[0, :2]
            (y * y).sum().backward()
            return y.detach(), x.grad, v.grad

        return run(gf.tensor(X), gf.tensor(X[1]))

    agree(program)


def test_index_put():
    x, i, j = gf.tensor(X), gf.tensor([1, 0, 1]), gf.tensor([0, 2, 0])
    expected = X.copy()
    np.add.at(expected, ([1, 0, 1], [0, 2, 0]), np.float32(2))
    got = x.index_put((i, j), gf.tensor(2.0), accumulate=True)
    np.testing.assert_array_equal(got.numpy(), expected)
    assert x.index_put_([i, j], gf.tensor(2.0), True) is x
    np.testing.assert_array_equal(x.numpy(), expected)
    whole = gf.index_put(x, (None, j), gf.zeros(4))
    expected[:, [0, 2]] = 0
    np.testing.assert_array_equal(whole.numpy(), expected)


def test_a_write_through_an_index_counts_as_one_to_the_memory():
    x = gf.tensor(X)
    row = x[1]
    before = row._version
    x[gf.tensor([1])] = 0.0
    assert row._version == before + 1
    assert row.sum().item() == 0


ERRORS = {
    "out of range": (lambda x: x[gf.tensor([0, 5])], IndexError, "index 5 is out of bounds"),
    "below range": (lambda x: x[:, gf.tensor(-4)], IndexError, "index -4 is out of bounds"),
    "too many": (lambda x: x[0, 0, 0, 0], IndexError, "too many indices"),
    "a backward step": (lambda x: x[::-1], ValueError, "greater than zero"),
    "a real index": (lambda x: x[gf.tensor([0.5])], IndexError, "must be long, int, byte or bool"),
    "a string": (lambda x: x["a"], IndexError, "got str"),
    "a short mask": (lambda x: x[gf.tensor([True])], IndexError, "shape of the mask"),
    "other lengths": (
        lambda x: x[gf.arange(2), gf.arange(3)],
        IndexError,
        "could not be broadcast",
    ),
    "a value too long": (lambda x: _set(x, 0, gf.ones(5)), RuntimeError, "cannot be broadcast"),
    "too few values": (lambda x: _set(x, x > 0, gf.ones(2)), RuntimeError, "assign"),
    "another dtype": (lambda x: _set(x, gf.tensor([0]), gf.tensor([1])), RuntimeError, "dtype"),
}


def _set(x, index, value):
    x[index] = value


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    function, error, message = ERRORS[name]
    with pytest.raises(error, match=message):
        function(gf.tensor(X))


def test_sizes_that_depend_on_values_are_refused_in_compiled_code():
    for function in (
        lambda x: x[x > 0],
        lambda x: gf.masked_select(x, x > 0),
        lambda x: gf.nonzero(x),
        lambda x: _set(x.clone(), x > 0, gf.ones(16)),
    ):
        with pytest.raises(gf.TraceError, match=r"gf.where keeps the size"):
            gf.compile(function)(gf.tensor(X))


def test_one_bad_position_of_several_is_found_in_compiled_code():
    """Merged with its neighbour it would name an element that exists."""
    program = gf.compile(lambda x, i, j: x[i, j])
    assert program(gf.tensor(X), gf.tensor([0]), gf.tensor([-1])).shape == (1, 4)
    with pytest.raises(IndexError, match="out of range"):
        program(gf.tensor(X), gf.tensor([0]), gf.tensor([3]))


def test_masks_made_of_constants_are_known():
    """Positives and negatives of a contrastive loss are told apart so."""

    def apart(x: gf.Tensor) -> tuple[gf.Tensor, ...]:
        n = x.shape[0]
        labels = gf.cat([gf.arange(n // 2)] * 2)
        same, likeness = labels[:, None] == labels[None], x @ x.T
        others = ~gf.eye(n, dtype=gf.bool)
        same, likeness = same[others].view(n, -1), likeness[others].view(n, -1)
        rows, columns = gf.where(gf.triu(gf.ones(n, n), 1) > 0)
        rows += 0 * columns  # what is found is the call's own
        return likeness[same], likeness[~same], x[rows] * x[columns]

    def wanted(x: Any) -> tuple[Any, ...]:
        n = len(x)
        labels = np.concatenate([np.arange(n // 2)] * 2)
        others = ~np.eye(n, dtype=bool)
        same = (labels[:, None] == labels)[others].reshape(n, -1)
        likeness = (x @ x.T)[others].reshape(n, -1)
        rows, columns = np.triu_indices(n, 1)
        return likeness[same], likeness[~same], x[rows] * x[columns]

    compiled = gf.compile(apart)
    for n in (4, 6, 4, 8):
        x = np.random.default_rng(n).standard_normal((n, 3)).astype(np.float32)
        for found, true in zip(compiled(gf.tensor(x)), wanted(x), strict=True):
            np.testing.assert_allclose(found.numpy(), true, rtol=1e-5, atol=1e-6)
