"""Functions that move, repeat, join and cut: against NumPy, eagerly and compiled."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.linalg
from front import numbers

import graphflow as gf

X = np.arange(24, dtype=np.float32).reshape(2, 3, 4) - 7
M = np.arange(12, dtype=np.float32).reshape(3, 4) * 0.5 - 2
V = np.array([3.0, -1.0, 2.0], np.float32)
windows = np.lib.stride_tricks.sliding_window_view

CASES = {
    "movedim": (lambda x: x.movedim((0, 2), (2, 1)), np.moveaxis(X, (0, 2), (2, 1))),
    "ravel": (lambda x: x.transpose(0, 1).ravel(), X.swapaxes(0, 1).ravel()),
    "unflatten": (lambda x: x.unflatten(-1, (2, -1)), X.reshape(2, 3, 2, 2)),
    "squeeze": (lambda x: x[:, :1, :1].squeeze((1, 2)), X[:, 0, 0]),
    "unfold": (lambda x: x.unfold(2, 2, 2), windows(X, 2, 2)[:, :, ::2]),
    "unfold overlapping": (lambda x: x.unfold(1, 2, 1), windows(X, 2, 1)),
    "narrow": (lambda x: x.narrow(-1, -3, 2), X[..., 1:3]),
    "flip": (lambda x: x.flip(0, -1), X[::-1, :, ::-1]),
    "fliplr": (gf.fliplr, np.fliplr(X)),
    "flipud": (gf.flipud, np.flipud(X)),
    "roll": (lambda x: x.roll((1, -1), (0, 2)), np.roll(X, (1, -1), (0, 2))),
    "roll flat": (lambda x: x.roll(5), np.roll(X, 5)),
    "rot90": (lambda x: x.rot90(1, (1, 2)), np.rot90(X, 1, (1, 2))),
    "rot90 back": (lambda x: x.rot90(-1, (0, 1)), np.rot90(X, -1, (0, 1))),
    "repeat": (lambda x: x.repeat(2, 1, 2, 1), np.tile(X, (2, 1, 2, 1))),
    "tile": (lambda x: x.tile(2), np.tile(X, 2)),
    "repeat_interleave": (lambda x: x.repeat_interleave(3, 1), np.repeat(X, 3, 1)),
    "repeat_interleave flat": (lambda x: x.repeat_interleave(2), np.repeat(X, 2)),
    "diagonal": (lambda x: x.diagonal(1, 1, 2), X.diagonal(1, 1, 2)),
    "diagonal below": (lambda x: x.diagonal(-1, 0, -1), X.diagonal(-1, 0, 2)),
    "tril": (lambda x: x.tril(1), np.tril(X, 1)),
    "triu": (lambda x: x.triu(-1), np.triu(X, -1)),
    "kron": (lambda x: gf.kron(x[0], x[1]), np.kron(X[0], X[1])),
    "take": (lambda x: x.take(gf.tensor([[0, -1], [5, 5]])), X.ravel()[[[0, -1], [5, 5]]]),
    "hstack": (lambda x: gf.hstack([x, x[:, :1]]), np.hstack([X, X[:, :1]])),
    "vstack": (lambda x: gf.vstack([x[0], x[0, 0]]), np.vstack([X[0], X[0, 0]])),
    "dstack": (lambda x: gf.dstack([x[0], x[1]]), np.dstack([X[0], X[1]])),
    "column_stack": (lambda x: gf.column_stack([x[0], x[0, :, 0]]),
                     np.column_stack([X[0], X[0, :, 0]])),
    "block_diag": (lambda x: gf.block_diag(x[0], x[0, 0], x[1, :2]),
                   scipy.linalg.block_diag(X[0], X[0, 0], X[1, :2])),
    "diag_embed": (lambda x: gf.diag_embed(x[0], 1), np.stack([np.diag(row, 1) for row in X[0]])),
    "diagflat": (lambda x: gf.diagflat(x[0], -1), np.diagflat(X[0], -1)),
    "cat": (lambda x: gf.cat([x, gf.tensor([]), x[:1]], -3), np.concatenate([X, X[:1]])),
    "cartesian_prod": (lambda x: gf.cartesian_prod(x[0, 0], x[1, :, 0]),
                       np.array(list(itertools.product(X[0, 0], X[1, :, 0])))),
    "combinations": (lambda x: gf.combinations(x[0, 0], 3),
                     np.array(list(itertools.combinations(X[0, 0], 3)))),
    "atleast_3d": (lambda x: gf.atleast_3d(x[0, 0]), X[0, 0][None, :, None]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_against_numpy(name):
    function, expected = CASES[name]
    got = function(gf.tensor(X))
    assert got.dtype is gf.float32
    np.testing.assert_array_equal(got.numpy(), expected)


def test_all_of_them_compiled_in_one_program():
    program = gf.compile(lambda x: [function(x) for function, _ in CASES.values()])
    got = program(gf.tensor(X))
    for name, value, (_, expected) in zip(CASES, got, CASES.values(), strict=True):
        np.testing.assert_array_equal(value.numpy(), expected, err_msg=name)
    assert "host operations: none" in str(program.explain())


# The gradient of sum(w * f(x)) for a linear f is its adjoint applied to w, which is
# found by applying f to every unit vector.
LINEAR = [name for name in CASES if name not in ("kron",)]


@pytest.mark.parametrize("name", LINEAR)
def test_gradients_are_the_adjoint(name):
    function = CASES[name][0]
    units = np.eye(X.size, dtype=np.float64).reshape(-1, *X.shape)
    columns = np.stack([function(gf.tensor(u)).numpy().ravel() for u in units], -1)
    x = gf.tensor(X.astype(np.float64), requires_grad=True)
    weight = np.sin(np.arange(columns.shape[0]) + 0.5)
    out = function(x)
    (out.reshape(-1) * gf.tensor(weight)).sum().backward()
    np.testing.assert_allclose(x.grad.numpy().ravel(), weight @ columns, rtol=1e-12, atol=1e-12)


# ---- pieces --------------------------------------------------------------------------

PIECES = {
    "split": (lambda x: x.split(2, 2), np.split(X, 2, 2)),
    "split with the rest": (lambda x: gf.split(x, 3, -1), [X[..., :3], X[..., 3:]]),
    "split sizes": (lambda x: x.split([1, 2], 1), [X[:, :1], X[:, 1:]]),
    "split by its method's name": (lambda x: x.split(split_size=1), [X[:1], X[1:]]),
    "chunk": (lambda x: x.chunk(3, 2), [X[..., :2], X[..., 2:]]),
    "unbind": (lambda x: x.unbind(1), [X[:, k] for k in range(3)]),
    "tensor_split": (lambda x: x.tensor_split(3, 2), np.array_split(X, 3, 2)),
    "tensor_split at": (lambda x: x.tensor_split((1, 3), -1), np.split(X, (1, 3), 2)),
    "tensor_split beyond": (lambda x: x.tensor_split((-1, 9), 1), [X[:, :-1], X[:, -1:], X[:, 9:]]),
    "hsplit": (lambda x: x.hsplit(3), np.hsplit(X, 3)),
    "vsplit": (lambda x: x.vsplit((1,)), np.vsplit(X, (1,))),
    "dsplit": (lambda x: x.dsplit(2), np.dsplit(X, 2)),
    "meshgrid": (lambda x: gf.meshgrid(x[0, 0], x[0, :, 0]),
                 np.meshgrid(X[0, 0], X[0, :, 0], indexing="ij")),
    "meshgrid xy": (lambda x: gf.meshgrid(x[0, 0], x[0, :, 0], indexing="xy"),
                    np.meshgrid(X[0, 0], X[0, :, 0])),
    "broadcast_tensors": (lambda x: gf.broadcast_tensors(x[0], x[0, :, :1]),
                          np.broadcast_arrays(X[0], X[0, :, :1])),
    "unravel_index": (lambda x: gf.unravel_index(x.long() + 7, (2, 3, 4)),
                      np.unravel_index(X.astype(int) + 7, (2, 3, 4))),
}  # fmt: skip


@pytest.mark.parametrize("name", PIECES)
def test_pieces(name):
    function, expected = PIECES[name]
    got = numbers(function(gf.tensor(X)))
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_views_show_what_is_written_to_them():
    def program(x):
        y = x * 1
        y.diagonal(0, 1, 2).zero_()
        y.unfold(2, 2, 2)[:, 0].mul_(10)
        first, second = y.split(1)
        second += first
        y.movedim(2, 0)[1, 0] = 5
        y.unbind(1)[2].fill_(-1)
        return y

    expected = X.copy()
    for page in expected:
        np.fill_diagonal(page, 0)
    expected[:, 0] *= 10
    expected[1] += expected[0]
    expected[0, :, 1] = 5
    expected[:, 2] = -1
    np.testing.assert_array_equal(program(gf.tensor(X)).numpy(), expected)
    np.testing.assert_array_equal(gf.compile(program)(gf.tensor(X)).numpy(), expected)


def test_windows_that_overlap_cannot_be_written_through():
    x = gf.tensor(X, requires_grad=True) * 1
    with pytest.raises(gf.GraphFlowError, match="share one memory location"):
        x.unfold(2, 3, 1).mul_(2)
    with pytest.raises(gf.GraphFlowError, match="share one memory location"):
        gf.compile(lambda y: y.clone().unfold(2, 3, 1).mul_(2))(gf.tensor(X))


@pytest.mark.parametrize("compiled", [False, True])
def test_forms_that_change_the_shape_in_place(compiled):
    def program(x):
        y = x * 2
        z = y.transpose_(0, 2)
        assert z is y
        y[0] = 1
        y.unsqueeze_(1).squeeze_(1).swapaxes_(0, 1)
        m = x[0] * 1
        return y, (y * y).sum(), m.t_()

    expected = (X * 2).swapaxes(0, 2)
    expected[0] = 1
    expected = expected.swapaxes(0, 1)
    run = gf.compile(program) if compiled else program
    y, total, m = run(gf.tensor(X))
    np.testing.assert_array_equal(y.numpy(), expected)
    np.testing.assert_array_equal(m.numpy(), X[0].T)
    assert total.item() == (expected**2).sum()


def test_gradients_through_a_shape_changed_in_place():
    x = gf.tensor(X, requires_grad=True)
    y = x * 2
    y.transpose_(0, 1)
    (y[0] * gf.tensor(X[:, 0])).sum().backward()
    expected = np.zeros_like(X)
    expected[:, 0] = 2 * X[:, 0]
    np.testing.assert_array_equal(x.grad.numpy(), expected)
    with pytest.raises(gf.GraphFlowError, match="leaf"):
        x.t_() if x.ndim == 2 else x.squeeze_()


def test_indices_of_triangles():
    for row, column, offset in [(3, 4, 0), (4, 3, 1), (2, 2, -1), (0, 3, 0)]:
        for ours, numpys in [
            (gf.tril_indices, np.tril_indices),
            (gf.triu_indices, np.triu_indices),
        ]:
            got = ours(row, column, offset)
            assert got.dtype is gf.int64
            np.testing.assert_array_equal(got.numpy(), np.stack(numpys(row, offset, column)))


def test_fill_diagonal_wraps_in_tall_matrices():
    for wrap in (False, True):
        tall, expected = gf.zeros(7, 3), np.zeros((7, 3), np.float32)
        tall.fill_diagonal_(2, wrap=wrap)
        np.fill_diagonal(expected, 2, wrap)
        np.testing.assert_array_equal(tall.numpy(), expected)


def test_repeats_by_a_tensor():
    repeats = gf.tensor([2, 0, 3])
    expected = np.repeat(X, [2, 0, 3], 1)
    np.testing.assert_array_equal(gf.tensor(X).repeat_interleave(repeats, 1).numpy(), expected)
    np.testing.assert_array_equal(gf.repeat_interleave(repeats).numpy(), [0, 0, 2, 2, 2])
    known = gf.compile(lambda x, r: x.repeat_interleave(r, 1, output_size=5))
    np.testing.assert_array_equal(known(gf.tensor(X), repeats).numpy(), expected)
    with pytest.raises(gf.TraceError, match="output_size"):
        gf.compile(lambda x, r: x.repeat_interleave(r, 1))(gf.tensor(X), repeats)


def test_a_computed_start_in_compiled_code():
    program = gf.compile(lambda x, start: x.narrow(2, start, 2))
    for start in (0, 2, -3):
        got = program(gf.tensor(X), gf.tensor(start))
        np.testing.assert_array_equal(got.numpy(), X[..., start % 4 : start % 4 + 2])


def test_scalars_and_no_elements():
    s = gf.tensor(3.0)
    assert [tuple(t.shape) for t in gf.atleast_3d(s, gf.ones(2))] == [(1, 1, 1), (1, 2, 1)]
    assert s.repeat(2, 3).shape == (2, 3)
    assert s.expand(4).shape == (4,)
    assert s.flip(0).shape == () == s.roll(1).shape
    assert gf.zeros(0, 3).roll(1, 0).shape == (0, 3)
    assert [tuple(t.shape) for t in gf.zeros(0).chunk(3)] == [(0,)] * 3
    assert gf.cat([gf.zeros(0), gf.zeros(0)]).shape == (0,)
    assert gf.block_diag().shape == (1, 0)
    assert gf.stack([s, s], axis=0).shape == gf.cat([gf.ones(1), gf.ones(1)], axis=0).shape
    assert gf.broadcast_shapes((2, 1), (3,), 1, ()) == (2, 3)
    assert gf.cat([gf.ones(2, dtype=gf.int32), gf.ones(1)]).dtype is gf.float32


ERRORS = {
    "movedim": (lambda x: x.movedim((0, 1), 0), "cannot move"),
    "squeeze": (lambda x: x.squeeze((0, -3)), "twice"),
    "flip": (lambda x: x.flip(0, 0), "twice"),
    "permute": (lambda x: x.permute(0, 1), "every dimension"),
    "expand": (lambda x: x.expand(-1, 2, 3, 4), "none to keep"),
    "cat": (lambda x: gf.cat([x, x[0]]), "axis"),
    "cat of scalars": (lambda x: gf.cat([x[0, 0, 0]]), "no dimension"),
    "stack": (lambda x: gf.stack([x, x[0]]), "equal shapes"),
    "split": (lambda x: x.split([1, 1], 1), "add up to 3"),
    "split by nothing": (lambda x: x.split(0), "positive"),
    "hsplit": (lambda x: x.hsplit(2), "equal sections"),
    "repeat": (lambda x: x.repeat(2), "fewer"),
    "unfold": (lambda x: x.unfold(0, 3, 1), "does not fit"),
    "diagonal": (lambda x: x.diagonal(0, 1, 1), "different"),
    "tril": (lambda x: gf.ones(3).tril(), "at least 2"),
    "roll": (lambda x: x.roll((1, 2), 0), "2 shifts"),
    "meshgrid": (lambda x: gf.meshgrid(x), "vectors"),
    "broadcast": (lambda x: gf.broadcast_tensors(x, gf.ones(3)), "broadcast"),
    "narrow": (lambda x: x.narrow(0, 1, 2), "does not fit"),
    "chunk": (lambda x: x.chunk(0), "positive"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_say_what_does_not_fit(name):
    function, message = ERRORS[name]
    with pytest.raises(RuntimeError, match=message):
        function(gf.tensor(X))


def test_contiguous_copies_into_row_major_order() -> None:
    turned = gf.arange(6.0).reshape(2, 3).t()
    copied = turned.contiguous()
    assert copied.stride() == (2, 1) and copied.view(6).tolist() == [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]
    assert turned.clone().stride() == (1, 3)
