"""Convolution against its definition, written as loops, and its gradients against differences."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

import graphflow as gf
import graphflow.nn.functional as F

Array = np.ndarray[Any, Any]


def direct(x: Array, w: Array, stride: Any, padding: Any, dilation: Any, groups: int) -> Array:
    """Sum of products over channels and kernel positions, one position at a time."""
    dims = x.ndim - 2
    padded = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in padding)])
    spans = [d * (k - 1) + 1 for d, k in zip(dilation, w.shape[2:])]
    places = [(n - s) // t + 1 for n, s, t in zip(padded.shape[2:], spans, stride)]
    out = np.zeros((x.shape[0], w.shape[0], *places))
    per_in, per_out = w.shape[1], w.shape[0] // groups
    for o in range(w.shape[0]):
        first = o // per_out * per_in
        for tap in product(*map(range, w.shape[2:])):
            shown = tuple(
                slice(k * d, k * d + (p - 1) * t + 1, t)
                for k, d, p, t in zip(tap, dilation, places, stride)
            )
            part = padded[(slice(None), slice(first, first + per_in), *shown)]
            out[:, o] += np.tensordot(part, w[(o, slice(None), *tap)], ([1], [0]))
    assert dims == len(places)
    return out


CASES: tuple[tuple[Any, ...], ...] = (
    ((2, 3, 11), (4, 3, 3), (1,), (0,), (1,), 1),
    ((2, 4, 12), (6, 2, 4), (2,), (1,), (2,), 2),
    ((2, 1, 28, 28), (16, 1, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    ((3, 20, 15, 14), (33, 20, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    ((2, 8, 9, 10), (8, 1, 3, 2), (2, 1), (1, 0), (1, 2), 8),
    ((1, 6, 7, 7), (4, 3, 1, 1), (2, 2), (0, 0), (1, 1), 2),
    ((2, 2, 5, 6, 7), (3, 2, 2, 3, 3), (1, 2, 1), (1, 0, 1), (1, 1, 2), 1),
    ((1, 16, 40, 40), (8, 16, 5, 5), (1, 1), (2, 2), (1, 1), 1),
    ((2, 3, 32, 33), (8, 3, 16, 16), (16, 16), (0, 0), (1, 1), 1),
    ((2, 6, 70), (4, 3, 43), (20,), (3,), (1,), 2),
)
NAMES = ("conv1d", "conv2d", "conv3d")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_forward_and_gradients(case: tuple[Any, ...]) -> None:
    """Both modes in float32; the gradients are adjoint to the loops, which are linear."""
    shape, kernel, stride, padding, dilation, groups = case
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal(shape), rng.standard_normal(kernel)
    expected = direct(x, w, stride, padding, dilation, groups)
    ct = rng.standard_normal(expected.shape)
    bias = rng.standard_normal(kernel[0])
    conv = getattr(F, NAMES[len(stride) - 1])

    def step(x: Any, w: Any, bias: Any, ct: Any) -> Any:
        x, w, bias = (t.detach().requires_grad_() for t in (x, w, bias))
        out = conv(x, w, bias, stride, padding, dilation, groups)
        (out * ct).sum().backward()
        return out, x.grad, w.grad, bias.grad

    tensors = [gf.tensor(t.astype(np.float32)) for t in (x, w, bias, ct)]
    expected = expected + bias.reshape(-1, *(1 for _ in stride))
    for run in (step, gf.compile(step)):
        out, dx, dw, db = (t.detach().numpy().astype(np.float64) for t in run(*tensors))
        scale = np.abs(expected).max()
        np.testing.assert_allclose(out / scale, expected / scale, atol=1e-5)
        for found, array, other in ((dx, x, (0, w)), (dw, w, (1, x))):
            direction = rng.standard_normal(array.shape)
            pair = (direction, other[1]) if other[0] == 0 else (other[1], direction)
            change = (direct(*pair, stride, padding, dilation, groups) * ct).sum()
            size = np.abs(found * direction).sum()
            assert abs((found * direction).sum() - change) <= 1e-5 * size
        np.testing.assert_allclose(db, ct.sum(axis=(0, *range(2, ct.ndim))), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "shape", "kernel", "options"),
    [
        ("conv_transpose1d", (2, 4, 5), (4, 3, 3), {"stride": 2, "output_padding": 1}),
        ("conv_transpose2d", (2, 4, 5, 6), (4, 2, 3, 2), {"stride": (2, 3), "groups": 2}),
        ("conv_transpose2d", (1, 3, 4, 4), (3, 5, 3, 3), {"padding": 1, "dilation": 2}),
        ("conv_transpose3d", (1, 2, 3, 3, 2), (2, 3, 2, 2, 2), {"stride": 2, "padding": 1}),
        (
            "conv_transpose1d",
            (2, 3, 7),
            (3, 2, 25),
            {"stride": 20, "padding": 4, "output_padding": 3},
        ),
        ("conv_transpose2d", (2, 5, 3, 4), (5, 3, 16, 16), {"stride": 16}),
        ("conv_transpose2d", (2, 4, 4, 5), (4, 3, 4, 4), {"stride": 2, "padding": 1}),
        (
            "conv_transpose2d",
            (1, 4, 3, 3),
            (4, 2, 6, 9),
            {"stride": (5, 7), "padding": 7, "groups": 2},
        ),
    ],
)
def test_transposed_is_the_adjoint(
    name: str, shape: Any, kernel: Any, options: dict[str, Any]
) -> None:
    """<conv(y), x> = <y, conv_transpose(x)> for every y, in both modes."""
    rng = np.random.default_rng(1)
    x, w = (gf.tensor(rng.standard_normal(s)) for s in (shape, kernel))
    out = getattr(F, name)(x, w, **options)
    np.testing.assert_allclose(
        gf.compile(lambda x, w: getattr(F, name)(x, w, **options))(x, w).numpy(), out.numpy(),
        atol=1e-12,
    )  # fmt: skip
    y = gf.tensor(rng.standard_normal(tuple(out.shape)))
    forward = {k: v for k, v in options.items() if k != "output_padding"}
    back = getattr(F, name.replace("_transpose", ""))(y, w, **forward)
    assert back.shape == x.shape
    assert float((back * x).sum()) == pytest.approx(float((y * out).sum()))


def test_a_result_that_is_read_transposed() -> None:
    """What turns matrix products round must leave products of labelled axes alone."""
    rng = np.random.default_rng(4)
    x, w = (gf.tensor(rng.standard_normal(s)) for s in ((2, 3, 9), (4, 3, 3)))

    def step(x: Any, w: Any) -> Any:
        return F.relu(F.conv1d(x, w).transpose(1, 2))

    expected = np.maximum(direct(x.numpy(), w.numpy(), (1,), (0,), (1,), 1), 0).swapaxes(1, 2)
    np.testing.assert_allclose(gf.compile(step)(x, w).numpy(), expected, atol=1e-12)


def test_padding_by_name() -> None:
    rng = np.random.default_rng(2)
    x, w = (gf.tensor(rng.standard_normal(s)) for s in ((2, 3, 9), (4, 3, 4)))
    padded = gf.tensor(np.pad(x.numpy(), [(0, 0), (0, 0), (1, 2)]))
    same = F.conv1d(x, w, padding="same")
    assert same.shape == (2, 4, 9)
    np.testing.assert_allclose(same.numpy(), F.conv1d(padded, w).numpy(), atol=1e-12)
    valid = F.conv1d(x, w, padding="valid").numpy()
    np.testing.assert_allclose(valid, F.conv1d(x, w).numpy(), atol=1e-12)


def test_without_a_batch_or_elements() -> None:
    rng = np.random.default_rng(3)
    x, w = (gf.tensor(rng.standard_normal(s)) for s in ((3, 6, 6), (4, 3, 3, 3)))
    one = F.conv2d(x.unsqueeze(0), w, padding=1).squeeze(0)
    np.testing.assert_allclose(F.conv2d(x, w, padding=1).numpy(), one.numpy(), atol=1e-12)
    assert F.conv2d(gf.zeros(0, 3, 6, 6), gf.zeros(4, 3, 3, 3)).shape == (0, 4, 4, 4)


@pytest.mark.parametrize(
    ("shape", "kernel", "options", "words"),
    [
        ((2, 3, 5, 5), (4, 2, 3, 3), {}, "channels"),
        ((2, 4, 5, 5), (3, 2, 3, 3), {"groups": 2}, "groups=2"),
        ((2, 3, 2, 2), (4, 3, 3, 3), {}, "does not fit"),
        ((2, 3), (4, 3, 3, 3), {}, "conv2d takes an input of"),
        ((2, 3, 5, 5), (4, 3, 3), {}, "weight of 4 dimensions"),
        ((2, 3, 5, 5), (4, 3, 3, 3), {"padding": "same", "stride": 2}, "stride 1"),
        ((2, 3, 5, 5), (4, 3, 3, 3), {"stride": 0}, "stride"),
        ((2, 3, 5, 5), (4, 3, 3, 3), {"padding": -1}, "padding"),
        ((2, 3, 5, 5), (4, 3, 3, 3), {"bias": gf.zeros(3)}, "bias"),
    ],
)
def test_what_does_not_fit(shape: Any, kernel: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises((gf.GraphFlowError, ValueError, RuntimeError), match=words):
        F.conv2d(gf.zeros(*shape), gf.zeros(*kernel), **options)


def test_an_image_of_one_pixel_meets_each_tap_once() -> None:
    """The first layer of a generator: no zeros around the pixel are multiplied."""
    rng = np.random.default_rng(31)
    x, w = (rng.standard_normal(s).astype(np.float32) for s in ((5, 6, 1, 1), (6, 7, 4, 3)))
    ct = rng.standard_normal((5, 7, 4, 3)).astype(np.float32)

    def step(x: Any, w: Any, ct: Any) -> Any:
        x, w = x.detach().requires_grad_(), w.detach().requires_grad_()
        y = F.conv_transpose2d(x, w)
        return y, *gf.autograd.grad(y, (x, w), ct)

    compiled = gf.compile(step)
    arguments = [gf.tensor(a) for a in (x, w, ct)]
    wanted = (
        np.einsum("nc,cohw->nohw", x[..., 0, 0], w),
        np.einsum("nohw,cohw->nc", ct, w)[..., None, None],
        np.einsum("nc,nohw->cohw", x[..., 0, 0], ct),
    )
    for results in (compiled(*arguments), step(*arguments)):
        for found, array in zip(results, wanted, strict=True):
            np.testing.assert_allclose(found.detach().numpy(), array, rtol=2e-5, atol=2e-5)
    products = [row.flops for row in compiled.programs[-1].profile(*arguments, repeat=1).rows]
    assert sum(products) == 3 * 2 * 5 * 6 * 7 * 4 * 3
