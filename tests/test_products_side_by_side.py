"""Products whose results are put together are written where they go, in whatever order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import graphflow as gf
from graphflow.codegen.schedule import Call
from graphflow.compiled import Compiled

SEED = 11


def kernels(compiled: Compiled) -> list[str]:
    """The kernels of the one program, without what follows their kind in the name."""
    calls = [s for s in compiled.programs[0].schedule.steps if isinstance(s, Call)]
    return [call.kernel.name.split("_")[0] for call in calls]


def run(function: Callable[..., Any], arrays: Sequence[np.ndarray]) -> tuple[Any, list[str]]:
    compiled = gf.compile(function)
    found = compiled(*map(gf.tensor, arrays))
    exact = function(*(gf.tensor(a.astype(np.float64)) for a in arrays)).numpy()
    tolerance = 2e-5 if found.dtype is gf.float32 else 1e-12
    np.testing.assert_allclose(found.numpy(), exact, rtol=tolerance, atol=tolerance)
    assert found.is_contiguous()
    return found, kernels(compiled)


def normal(*shapes: tuple[int, ...], dtype: str = "float32") -> list[np.ndarray]:
    generator = np.random.default_rng(SEED)
    return [generator.standard_normal(shape).astype(dtype) for shape in shapes]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(("rows", "depth", "columns"), [(64, 32, 48), (37, 19, 53), (130, 65, 17)])
def test_products_are_written_side_by_side(
    rows: int, depth: int, columns: int, axis: int, dtype: str
) -> None:
    def joined(x: Any, a: Any, b: Any, c: Any) -> Any:
        return gf.cat([x @ a, (x @ b).tanh(), x @ c + a[0]], axis)

    square = (depth, columns)
    _, made = run(joined, normal((rows, depth), square, square, square, dtype=dtype))
    assert made == ["mm", "mm", "mm"]


@pytest.mark.parametrize("heads", [1, 3, 4])
def test_heads_are_written_among_those_of_other_products(heads: int) -> None:
    batch, length, width = 2, 33, 16

    def joined(s: Any, v: Any, x: Any, w: Any) -> Any:
        merged = (s @ v).transpose(1, 2).reshape(batch * length, heads * width)
        return gf.cat([x @ w, merged, (s @ (v * 2)).transpose(1, 2).flatten(2).flatten(0, 1)], 1)

    shapes = [(batch, heads, length, length), (batch, heads, length, width)]
    shapes += [(batch * length, 24), (24, heads * width)]
    _, made = run(joined, normal(*shapes))
    assert "copy" not in made and made.count("mm") == 3


def test_a_product_that_others_read_has_memory_of_its_own() -> None:
    def joined(x: Any, a: Any, b: Any) -> Any:
        y = x @ a
        return gf.cat([y, x @ b, (y @ b).relu()], 1)

    run(joined, normal((40, 24), (24, 24), (24, 24)))


def test_a_part_that_is_a_transposed_product_is_copied_or_turned() -> None:
    def joined(x: Any, a: Any) -> Any:
        return gf.cat([(x @ a).t(), (a.t() @ x.t())], 1)

    run(joined, normal((48, 32), (32, 40)))


@pytest.mark.parametrize("channels", [3, 16, 64])
def test_convolutions_are_written_side_by_side(channels: int) -> None:
    """Of each kind that has kernels of its own, with gradients of images that have phases."""
    images, one, wide, long, turned = map(
        gf.tensor,
        normal(
            (2, channels, 22, 18), (32, channels, 1, 1), (48, channels, 3, 3),
            (16, channels, 5, 5), (96, 24, 2, 2),
        ),
    )  # fmt: skip
    F = gf.nn.functional

    def step(x: Any, one: Any, wide: Any, long: Any, turned: Any) -> Any:
        weights = [w.detach().requires_grad_() for w in (one, wide, long, turned)]
        one, wide, long, turned = weights
        pad = F.conv2d(x, wide, padding=1).relu(), F.conv2d(x, long, padding=2)
        whole = gf.cat([F.conv2d(x, one), *pad], 1)
        again = F.conv_transpose2d(whole[:, :, ::2, ::2], turned, stride=2)
        (gf.cat([whole, again], 1) ** 2).mean().backward()
        return [w.grad for w in weights]

    inputs = images, one, wide, long, turned
    for weight in (wide, long):
        weight.mul_(0.1)
    compiled = gf.compile(step)
    found = compiled(*inputs)
    expected = step(*(v.double() for v in inputs))
    for gradient, exact in zip(found, expected, strict=True):
        scale = exact.abs().max().item()
        np.testing.assert_allclose(gradient.numpy(), exact.numpy(), rtol=1e-4, atol=1e-5 * scale)


def test_convolutions_and_small_products_beside_products() -> None:
    def joined(x: Any, w: Any, a: Any) -> Any:
        y = gf.nn.functional.conv2d(x, w, padding=1)
        z = x.flatten(2).transpose(1, 2) @ a
        return gf.cat([y.flatten(2).transpose(1, 2), z], 2)

    run(joined, normal((2, 8, 9, 11), (16, 8, 3, 3), (8, 16)))

    def small(x: Any, a: Any) -> Any:
        return gf.cat([x @ a, x @ a.exp()], 1)

    run(small, normal((3, 4), (4, 2)))


def test_the_gradient_of_chunks_has_one_kernel() -> None:
    """A gated unit: what flows to both halves is written into one buffer."""
    x, w = map(gf.tensor, normal((32, 24), (24, 60)))

    def step(x: Any, w: Any) -> Any:
        h = x @ w
        a, b = h.chunk(2, 1)
        (a * b.sigmoid()).square().sum().backward()
        return w.grad

    w.requires_grad_()
    compiled = gf.compile(step)
    found = compiled(x, w)
    assert kernels(compiled) == ["mm", "ew", "mm"]
    wide = w.detach().double().requires_grad_()
    expected = step(x.double(), wide)
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=2e-4, atol=2e-4)


def test_an_attention_block_copies_nothing() -> None:
    """Heads are merged, split, recomputed and their gradients joined where they lie."""
    batch, length, heads, width = 4, 48, 4, 16
    size = heads * width
    x, qkv, out = map(gf.tensor, normal((batch, length, size), (size, 3 * size), (size, size)))
    for weight in (qkv, out):
        weight.mul_(0.1).requires_grad_()

    def step(x: Any, qkv: Any, out: Any) -> Any:
        parts = (x @ qkv).split(size, 2)
        q, k, v = (p.reshape(batch, length, heads, width).transpose(1, 2) for p in parts)
        scores = (q @ k.transpose(2, 3) * width**-0.5).softmax(3)
        merged = (scores @ v).transpose(1, 2).reshape(batch, length, size)
        ((merged @ out) ** 2).sum().backward()
        return qkv.grad, out.grad

    compiled = gf.compile(step)
    found = compiled(x, qkv, out)
    assert "copy" not in kernels(compiled)
    wide = [w.detach().double().requires_grad_() for w in (qkv, out)]
    for one, exact in zip(found, step(x.double(), *wide), strict=True):
        np.testing.assert_allclose(one.numpy(), exact.numpy(), rtol=1e-3, atol=2e-4)
