"""Layouts of views, held against NumPy's own strided views."""

from __future__ import annotations

import random

import numpy as np
import pytest

from graphflow.codegen.layout import Layout, contiguous, reshaped, row_major, view_of
from graphflow.ir.build import NODES as b
from graphflow.ir.build import input_node
from graphflow.ir.node import Node
from graphflow.ir.types import TensorType, float32


def f32(*shape: int) -> TensorType:
    return TensorType(float32, shape)


def shown(data: np.ndarray, layout: Layout) -> np.ndarray:
    """What ``layout`` shows of the flat array ``data``."""
    strides = [s * data.itemsize for s in layout.strides]
    start = data[layout.offset :] if layout.offset < data.size else data[:0]
    return np.lib.stride_tricks.as_strided(start, layout.shape, strides)


def random_view(rng: random.Random, node: Node) -> Node:
    shape, rank = node.shape, len(node.shape)
    choice = rng.randrange(6)
    if choice == 0:
        axes = list(range(rank))
        rng.shuffle(axes)
        return b.permute(node, axes=tuple(axes))
    if choice == 1:
        return b.flip(node, axes=tuple(a for a in range(rank) if rng.random() < 0.5))
    if choice == 2:
        starts = tuple(rng.randrange(0, max(1, d)) for d in shape)
        limits = tuple(rng.randint(s, d) for s, d in zip(starts, shape))
        steps = tuple(rng.choice([1, 2, 3]) for _ in shape)
        return b.slice(node, starts=starts, limits=limits, steps=steps)
    if choice == 3 and rank < 5:
        wider = tuple(rng.choice([1, 3]) if d == 1 else d for d in shape)
        return b.expand(node, shape=(rng.choice([1, 2]), *wider))
    if choice == 4:
        place = rng.randrange(rank + 1)
        return b.reshape(node, shape=(*shape[:place], 1, *shape[place:]))
    return b.reshape(node, shape=other_shape(rng, int(np.prod(shape))))


def other_shape(rng: random.Random, size: int) -> tuple[int, ...]:
    if not size:
        return rng.choice([(0,), (3, 0), (0, 2)])
    shape: list[int] = []
    while size > 1:
        factor = rng.choice([d for d in range(2, size + 1) if size % d == 0])
        shape.append(factor)
        size //= factor
    if rng.random() < 0.3:
        shape.insert(rng.randrange(len(shape) + 1), 1)
    return tuple(shape)


@pytest.mark.parametrize("seed", range(150))
def test_views_show_what_numpy_shows_and_copy_only_where_numpy_would(seed):
    rng = random.Random(seed)
    shape = tuple(rng.choice([1, 2, 3, 4]) for _ in range(rng.randrange(1, 4)))
    data = np.arange(np.prod(shape), dtype=np.float32)
    node = input_node("x", f32(*shape))
    layout, array = contiguous(0, node.tensor_type), data.reshape(shape)
    for _ in range(6):
        view = random_view(rng, node)
        found = view_of(view, layout)
        array = view.op.reference(array, **view.attrs)
        if found is None:
            assert view.op.name == "reshape", f"seed {seed}"
            assert not np.shares_memory(array, data), f"seed {seed}: NumPy needs no copy"
            return
        node, layout = view, found
        assert layout.shape == array.shape
        np.testing.assert_array_equal(shown(data, layout), array, err_msg=f"seed {seed}")


def test_what_fills_or_joins_is_no_view():
    x = input_node("x", f32(2, 3))
    layout = contiguous(0, x.tensor_type)
    assert view_of(b.pad(x, low=(1, 0), high=(0, 0), value=0.0), layout) is None
    assert view_of(b.concatenate(x, x, axis=0), layout) is None
    assert view_of(b.exp(x), layout) is None


def test_contiguity_ignores_axes_of_one_element():
    assert row_major((2, 3, 4)) == (12, 4, 1)
    assert Layout(0, f32(2, 1, 3), 0, (3, 99, 1)).is_contiguous
    assert not Layout(0, f32(2, 3), 0, (1, 2)).is_contiguous
    assert Layout(0, f32(0, 3), 0, (7, 7)).is_contiguous


def test_layouts_in_the_same_place():
    one = Layout(3, f32(2, 1), 4, (1, 5))
    assert one.same_place(Layout(3, f32(2, 1), 4, (1, 1)))
    assert not one.same_place(Layout(3, f32(2, 1), 4, (2, 1)))
    assert not one.same_place(Layout(2, f32(2, 1), 4, (1, 5)))


def test_a_broadcast_axis_can_be_split():
    repeated = Layout(0, f32(6, 2), 0, (0, 1))
    split = reshaped(repeated, f32(2, 3, 2))
    assert split is not None and split.strides == (0, 0, 1)
    assert reshaped(repeated, f32(12)) is None
