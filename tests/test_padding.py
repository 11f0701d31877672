"""Padding in all modes against ``np.pad``; pixels and channels against plain loops."""

from __future__ import annotations

import numpy as np
import pytest

import graphflow as gf
import graphflow.nn.functional as F

MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
SHAPES = {1: (2, 5), 2: (2, 4, 5), 3: (1, 2, 3, 4, 3)}


def data(shape, seed=0):
    """Random numbers that a failing test can make again from its seed."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def amounts(dims, seed):
    """Amounts of padding below the extents, in PyTorch's order and in NumPy's."""
    pad = np.random.default_rng(seed).integers(0, 3, 2 * dims).tolist()
    pairs = [tuple(pad[k : k + 2]) for k in range(0, len(pad), 2)]
    return pad, pairs[::-1]


@pytest.mark.parametrize("dims", SHAPES)
@pytest.mark.parametrize("mode", MODES)
def test_against_numpy(mode, dims):
    x = data(SHAPES[dims])
    for seed in range(5):
        pad, pairs = amounts(dims, seed)
        wide = [(0, 0)] * (x.ndim - dims) + pairs
        np.testing.assert_array_equal(
            F.pad(gf.tensor(x), pad, mode).numpy(),
            np.pad(x, wide, MODES[mode]),
            err_msg=f"seed {seed}, pad {pad}",
        )


@pytest.mark.parametrize("mode", MODES)
def test_compiled_with_gradient(mode):
    """The gradient of sum(w * pad(x)) has at each element the weights of its copies."""
    x, pad = data((2, 3, 4)), [2, 1, 1, 2]
    wide = [(0, 0), (1, 2), (2, 1)]
    weight = data((2, 6, 7), seed=1)

    @gf.compile
    def step(x):
        x = x.detach().requires_grad_()
        out = F.pad(x, pad, mode)
        (out * gf.tensor(weight)).sum().backward()
        return out, x.grad

    out, grad = step(gf.tensor(x))
    np.testing.assert_array_equal(out.numpy(), np.pad(x, wide, MODES[mode]))
    numbers = np.arange(1, x.size + 1).reshape(x.shape)
    source = np.pad(numbers, wide, MODES[mode])
    expected = np.bincount(source.ravel(), weight.ravel(), x.size + 1)[1:].reshape(x.shape)
    np.testing.assert_allclose(grad.numpy(), expected, rtol=1e-6, atol=1e-6)
    assert "host operations: none" in str(step.explain())


def test_negative_amounts_cut():
    x = data((2, 5, 6))
    t = gf.tensor(x)
    np.testing.assert_array_equal(
        F.pad(t, (-1, 2, 1, -2), value=7.5).numpy(),
        np.pad(x[:, :3, 1:], [(0, 0), (1, 0), (0, 2)], constant_values=7.5),
    )
    # The part that is cut away still counts as neighbour of what is reflected or repeated.
    np.testing.assert_array_equal(
        F.pad(t, (-2, 2), "reflect").numpy(),
        np.pad(x, [(0, 0), (0, 0), (0, 2)], "reflect")[..., 2:],
    )
    np.testing.assert_array_equal(
        F.pad(t, (3, -1), "circular").numpy(), np.pad(x[..., :-1], [(0, 0), (0, 0), (3, 0)], "wrap")
    )


def test_the_value_may_be_a_run_time_scalar():
    program = gf.compile(lambda x, value: F.pad(x, (1, 0), value=value))
    for value in (0.5, -2.0):
        got = program(gf.ones(2), value).numpy()
        np.testing.assert_array_equal(got, np.array([value, 1, 1], np.float32))


@pytest.mark.parametrize("dtype", [gf.bool, gf.int32, gf.float16, gf.bfloat16])
def test_other_dtypes_keep_theirs(dtype):
    got = F.pad(gf.ones(2, dtype=dtype), (1, 1), value=1)
    assert got.dtype is dtype
    assert got.float().sum().item() == 4
    assert gf.constant_pad_nd(gf.ones(2, dtype=dtype), (1, 1)).float().sum().item() == 2


def test_pixels_and_channels():
    r, x = 2, data((3, 8, 2, 3))
    expected = np.empty((3, 2, 4, 6), np.float32)
    for c, i, j in np.ndindex(2, 4, 6):
        expected[:, c, i, j] = x[:, c * r * r + (i % r) * r + j % r, i // r, j // r]
    t = gf.tensor(x)
    np.testing.assert_array_equal(F.pixel_shuffle(t, r).numpy(), expected)
    np.testing.assert_array_equal(F.pixel_unshuffle(gf.tensor(expected), r).numpy(), x)
    shuffled = np.stack([x[:, (k % 4) * 2 + k // 4] for k in range(8)], 1)
    np.testing.assert_array_equal(F.channel_shuffle(t, 4).numpy(), shuffled)


@pytest.mark.parametrize(
    ("shape", "pad", "mode", "error", "message"),
    [
        ((2, 3), (1,), "constant", gf.GraphFlowError, "pairs"),
        ((3,), (1, 1, 1, 1), "constant", gf.GraphFlowError, "the input has 1"),
        ((2, 3), (-2, -2), "constant", gf.GraphFlowError, "-1 elements"),
        ((2, 3), (3, 0), "reflect", gf.GraphFlowError, "longer dimension"),
        ((2, 3), (4, 0), "circular", gf.GraphFlowError, "more than once"),
        ((2, 3), (1, 1, 1, 1), "reflect", NotImplementedError, "not 2 of 2"),
        ((2, 0), (1, 1), "replicate", gf.GraphFlowError, "needs elements"),
        ((2, 3), (1, 1), "mirror", NotImplementedError, "mirror"),
    ],
)
def test_errors(shape, pad, mode, error, message):
    with pytest.raises(error, match=message):
        F.pad(gf.ones(*shape), pad, mode)
    for function in (F.pixel_shuffle, F.pixel_unshuffle, F.channel_shuffle):
        with pytest.raises(gf.GraphFlowError, match="do not divide"):
            function(gf.ones(1, 3, 3, 3), 2)
